/* CONCAT, COPY and FILL: tensors moved, of any element size. */
#include "memory.h"
#include "ops.h"

bool run_concat(struct network *net, const uint32_t *op)
{
    const uint32_t *parts = net->lists + op[8];
    for (uint32_t i = 0; i < op[9]; i++) {
        if (net->live[parts[2u * i]] == NULL) {
            return false;
        }
    }
    uint8_t *to = tensor_made(net, op[2]);
    for (uint32_t row = 0; row < op[10]; row++) {
        for (uint32_t i = 0; i < op[9]; i++) {
            const size_t bytes = (size_t)parts[2u * i + 1u] * op[11];
            memmove(to, net->live[parts[2u * i]] + row * bytes, bytes);
            to += bytes;
        }
    }
    return true;
}

static void copy_element(uint8_t *to, const uint8_t *from, uint32_t bytes)
{
    if (bytes == 4u) {
        *(uint32_t *)(void *)to = *(const uint32_t *)(const void *)from;
    } else {
        *to = *from;
    }
}

bool run_copy(struct network *net, const uint32_t *op)
{
    const uint32_t bytes = op[22];
    const uint32_t *sizes = op + 8;
    int32_t to_steps[4];
    int32_t from_steps[4];
    for (uint32_t axis = 0; axis < 4u; axis++) {
        to_steps[axis] = (int32_t)(op[12u + axis] * bytes);
        from_steps[axis] = (int32_t)op[16u + axis] * (int32_t)bytes;
    }
    const uint8_t *from = (const uint8_t *)tensor_of(net, op[3]) + (size_t)op[21] * bytes;
    uint8_t *to = (uint8_t *)tensor_made(net, op[2]) + (size_t)op[20] * bytes;
    const bool rows = to_steps[3] == (int32_t)bytes && from_steps[3] == (int32_t)bytes;
    for (uint32_t i0 = 0; i0 < sizes[0]; i0++) {
        for (uint32_t i1 = 0; i1 < sizes[1]; i1++) {
            for (uint32_t i2 = 0; i2 < sizes[2]; i2++) {
                const uint32_t at[3] = {i0, i1, i2};
                int32_t to_at = 0;
                int32_t from_at = 0;
                for (uint32_t axis = 0; axis < 3u; axis++) {
                    to_at += (int32_t)at[axis] * to_steps[axis];
                    from_at += (int32_t)at[axis] * from_steps[axis];
                }
                if (rows) {
                    memmove(to + to_at, from + from_at, (size_t)sizes[3] * bytes);
                    continue;
                }
                for (uint32_t i3 = 0; i3 < sizes[3]; i3++) {
                    const int32_t i = (int32_t)i3;
                    copy_element(to + (to_at + i * to_steps[3]),
                                 from + (from_at + i * from_steps[3]), bytes);
                }
            }
        }
    }
    return true;
}

bool run_fill(struct network *net, const uint32_t *op)
{
    uint8_t *to = tensor_made(net, op[2]);
    if (op[10] == 1u) {
        memset(to, (int)(op[9] & 255u), op[8]);
        return true;
    }
    uint32_t *words = (uint32_t *)(void *)to;
    for (uint32_t i = 0; i < op[8]; i++) {
        words[i] = op[9];
    }
    return true;
}
