/* The platform of the tests: bytes in and out of memory, a clock that counts its readings. */
#ifndef PLATFORM_DOUBLE_H
#define PLATFORM_DOUBLE_H

#include <stddef.h>
#include <stdint.h>

#define SENT_BYTES (1u << 20)

extern uint8_t sent[SENT_BYTES];
extern size_t sent_count;
extern char marked[1024];
extern size_t marked_count;
/* Bytes that arrive while a window runs. */
extern const uint8_t *arriving;
extern size_t arriving_count;

#endif
