/* CRC-32 (zlib's) over frames and memory, CRC-16/CCITT-FALSE over marker lines. */
#ifndef DYNRT_CHECKSUM_H
#define DYNRT_CHECKSUM_H

#include <stddef.h>
#include <stdint.h>

/* Continue `crc` (0 at the start) over `count` bytes. */
uint32_t crc32_add(uint32_t crc, const void *bytes, size_t count);

/* Continue `crc` (0xFFFF at the start) over `count` bytes. */
uint16_t crc16_add(uint16_t crc, const void *bytes, size_t count);

#endif
