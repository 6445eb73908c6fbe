/* Frames of the agent's link: 0x00, COBS(type, sequence, payload, CRC-32), 0x00. */
#ifndef DYNRT_FRAME_H
#define DYNRT_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cobs.h"

#define MAX_PAYLOAD 4096u
#define FRAME_HEAD 2u
#define FRAME_TAIL 4u
#define MAX_BODY (FRAME_HEAD + MAX_PAYLOAD + FRAME_TAIL)
#define MAX_ENCODED COBS_ENCODED(MAX_BODY)

enum frame_state { FRAME_NONE, FRAME_GOOD, FRAME_BAD_COBS, FRAME_BAD_CRC };

struct receiver {
    uint8_t bytes[MAX_ENCODED];
    size_t used;
    bool overflow;
};

/* What the last byte completed; `payload` points into the receiver until its next byte. */
struct frame {
    enum frame_state state;
    uint8_t type;
    uint8_t sequence;
    const uint8_t *payload;
    size_t count;
};

struct frame receiver_take(struct receiver *receiver, uint8_t byte);

/* Send a frame; `count` is at most MAX_PAYLOAD. */
void frame_send(uint8_t type, uint8_t sequence, const uint8_t *payload, size_t count);

#endif
