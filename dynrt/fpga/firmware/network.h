/* A downloaded network and what running it needs. */
#ifndef DYNRT_NETWORK_H
#define DYNRT_NETWORK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "op_table.h"

/* What a table may ask for at most, besides its memory; the lowering knows the same figures. */
#define MAX_NODES 8192u
#define MAX_SLOTS 8192u
#define MAX_OPS 8192u
#define MAX_DECISIONS 256u
#define MAX_THRESHOLDS 4096u
#define MAX_ANSWER_BYTES 16384u
#define MAX_ACTIONS 32u
#define MAX_DIMENSION 65535u
/* Floats of patch memory: the padded rows under one output row of one channel, an LSTM's gates. */
#define PATCH_FLOATS 524288u
/* Weights of one output channel that one pass takes; a kernel's taps of one channel must fit. */
#define MAX_TAPS 16384u
/* Products of an int8 sum: 255 * 128 * MAX_INT8_TERMS < 2^31. */
#define MAX_INT8_TERMS 65536u

/* Words of a record before its decisions: input, exit, answer bytes, ticks (2). */
#define RECORD_HEAD_WORDS 5u

struct network {
    const uint32_t *words; /* the table, and its sections */
    const uint32_t *nodes;
    const uint32_t *slots;
    const uint32_t *lists;
    const uint32_t *ops;
    uint32_t n_nodes;
    uint32_t n_slots;
    uint32_t n_ops;
    uint32_t n_list_words;
    uint32_t n_thresholds;
    uint32_t n_decisions;
    uint32_t weights_bytes;
    uint32_t arena_bytes;
    uint32_t input_bytes;
    uint32_t answer_bytes;

    uint8_t *weights;
    uint8_t *arena;
    const uint8_t *input; /* the current sample */

    double thresholds[MAX_THRESHOLDS];
    uint32_t force[MAX_DECISIONS]; /* OT_NONE: decide */

    uint32_t decisions[MAX_DECISIONS]; /* of the current sample */
    const uint8_t *live[MAX_SLOTS];    /* where a slot's tensor is; NULL: it was not made */
    uint32_t exit;                     /* the decision index of the exit that answered */
    const uint8_t *answer;
    uint32_t answer_size;

    bool time_ops;
    uint64_t mac_ticks;
    uint64_t op_ticks[MAX_OPS];
};

/* The words of an op and of a slot. */
static inline const uint32_t *op_at(const struct network *net, uint32_t index)
{
    return net->ops + (size_t)index * OT_OP_WORDS;
}

static inline const uint32_t *slot_at(const struct network *net, uint32_t index)
{
    return net->slots + (size_t)index * OT_SLOT_WORDS;
}

/* What a checked pointer points to; NULL for the null pointer. */
static inline const uint8_t *memory_at(const struct network *net, uint32_t pointer)
{
    const uint32_t offset = pointer & 0x3FFFFFFFu;
    switch (pointer >> 30) {
    case OT_ARENA:
        return net->arena + offset;
    case OT_WEIGHTS:
        return net->weights + offset;
    case OT_INPUT:
        return net->input + offset;
    default:
        return NULL;
    }
}

static inline const float *floats_at(const struct network *net, uint32_t pointer)
{
    return (const float *)(const void *)memory_at(net, pointer);
}

/* A slot's live tensor, and its home in the arena made live for writing. */
static inline const void *tensor_of(const struct network *net, uint32_t slot)
{
    return net->live[slot];
}

static inline void *tensor_made(struct network *net, uint32_t slot)
{
    uint8_t *home = net->arena + (slot_at(net, slot)[0] & 0x3FFFFFFFu);
    net->live[slot] = home;
    return home;
}

static inline uint32_t high_half(uint32_t word)
{
    return word >> 16;
}

static inline uint32_t low_half(uint32_t word)
{
    return word & 0xFFFFu;
}

#endif
