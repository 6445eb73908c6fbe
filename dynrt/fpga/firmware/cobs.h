/* Consistent overhead byte stuffing (Cheshire and Baker, 1999): bytes without a zero. */
#ifndef DYNRT_COBS_H
#define DYNRT_COBS_H

#include <stddef.h>
#include <stdint.h>

#define COBS_BAD ((size_t)-1)

/* The most that `count` bytes become. */
#define COBS_ENCODED(count) ((count) + (count) / 254u + 1u)

/* Encode; `out` holds COBS_ENCODED(count) bytes. Gives the encoded length. */
size_t cobs_encode(const uint8_t *in, size_t count, uint8_t *out);

/* Decode in place. Gives the decoded length, or COBS_BAD. */
size_t cobs_decode(uint8_t *bytes, size_t count);

#endif
