#include "cobs.h"

size_t cobs_encode(const uint8_t *in, size_t count, uint8_t *out)
{
    size_t used = 1;
    size_t code_at = 0;
    uint8_t code = 1;
    for (size_t i = 0; i < count; i++) {
        if (in[i] != 0) {
            out[used++] = in[i];
            code++;
        }
        if (in[i] == 0 || (code == 255u && i + 1u < count)) {
            out[code_at] = code;
            code_at = used++;
            code = 1;
        }
    }
    out[code_at] = code;
    return used;
}

size_t cobs_decode(uint8_t *bytes, size_t count)
{
    size_t from = 0;
    size_t to = 0;
    while (from < count) {
        const size_t code = bytes[from++];
        if (code == 0 || code - 1u > count - from) {
            return COBS_BAD;
        }
        for (size_t k = 1; k < code; k++) {
            const uint8_t byte = bytes[from++];
            if (byte == 0) {
                return COBS_BAD;
            }
            bytes[to++] = byte;
        }
        if (code != 255u && from < count) {
            bytes[to++] = 0;
        }
    }
    return to;
}
