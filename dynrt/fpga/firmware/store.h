/* The agent's memory for one network, its samples, and what they gave. */
#ifndef DYNRT_STORE_H
#define DYNRT_STORE_H

#include <stdbool.h>
#include <stdint.h>

#include "network.h"
#include "wire.h"

#define LOG_CAP 1024u
#define MAX_RECORD_WORDS (RECORD_HEAD_WORDS + MAX_DECISIONS)
#define TABLE_CAP (1u << 20)
#ifndef WEIGHTS_CAP
#define WEIGHTS_CAP (32u << 20)
#define ARENA_CAP (24u << 20)
#define INPUTS_CAP (16u << 20)
#endif

/* What BEGIN declared, and how far the download is. */
struct session {
    uint32_t id; /* 0: none */
    uint32_t table_bytes;
    uint32_t weights_bytes;
    uint32_t n_inputs;
    uint32_t input_bytes;
    bool committed;
};

extern struct session session;
extern struct network network;

/* Start a session with an empty network. False if it is larger than the memory. */
bool store_begin(const struct session *wanted);

/* Check the table and make the network ready. */
bool store_commit(uint32_t *detail);

struct span {
    uint8_t *at;
    uint32_t bytes;
};

/* The bytes of a region now; none if it has none. Regions behind INPUTS need a committed network. */
struct span store_region(uint32_t region);

/* Whether the host may write it now: not the results, and not a committed table. */
bool store_writable(uint32_t region);

/* Point the network at sample `index`. */
void store_select(uint32_t index);

/* Keep the record and answer of sample `position` of a run, and continue the run's CRC over them. */
uint32_t store_record(uint32_t position, uint32_t input, uint64_t ticks, uint32_t crc);

#endif
