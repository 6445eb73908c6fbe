#include "checksum.h"

/* Remainders of the sixteen values of half a byte, polynomial 0xEDB88320 reflected. */
static const uint32_t crc32_nibble[16] = {
    0x00000000u, 0x1DB71064u, 0x3B6E20C8u, 0x26D930ACu, 0x76DC4190u, 0x6B6B51F4u,
    0x4DB26158u, 0x5005713Cu, 0xEDB88320u, 0xF00F9344u, 0xD6D6A3E8u, 0xCB61B38Cu,
    0x9B64C2B0u, 0x86D3D2D4u, 0xA00AE278u, 0xBDBDF21Cu,
};

/* Remainders of whole bytes, filled on first use. */
static uint32_t crc32_byte[256];

static void fill_table(void)
{
    for (uint32_t i = 0; i < 256u; i++) {
        uint32_t c = crc32_nibble[i & 15u];
        c = crc32_nibble[((i >> 4) ^ c) & 15u] ^ (c >> 4);
        crc32_byte[i] = c;
    }
}

uint32_t crc32_add(uint32_t crc, const void *bytes, size_t count)
{
    const uint8_t *at = bytes;
    if (crc32_byte[1] == 0) {
        fill_table();
    }
    crc = ~crc;
    while (count-- != 0) {
        crc = crc32_byte[(crc ^ *at++) & 255u] ^ (crc >> 8);
    }
    return ~crc;
}

uint16_t crc16_add(uint16_t crc, const void *bytes, size_t count)
{
    const uint8_t *at = bytes;
    while (count-- != 0) {
        uint32_t c = crc ^ ((uint32_t)*at++ << 8);
        for (int bit = 0; bit < 8; bit++) {
            c = (c & 0x8000u) != 0 ? (c << 1) ^ 0x1021u : c << 1;
        }
        crc = (uint16_t)(c & 0xFFFFu);
    }
    return crc;
}
