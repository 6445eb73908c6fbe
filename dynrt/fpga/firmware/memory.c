/* memcpy and its kin for a machine without libc. Built with -fno-tree-loop-distribute-patterns,
 * lest the compiler turn these loops into calls of themselves.
 */
#include "memory.h"

#include <stdint.h>

void *memcpy(void *restrict to, const void *restrict from, size_t count)
{
    uint8_t *d = to;
    const uint8_t *s = from;
    if ((((uintptr_t)d | (uintptr_t)s) & 3u) == 0) {
        uint32_t *dw = to;
        const uint32_t *sw = from;
        for (; count >= 16; count -= 16, dw += 4, sw += 4) {
            dw[0] = sw[0];
            dw[1] = sw[1];
            dw[2] = sw[2];
            dw[3] = sw[3];
        }
        for (; count >= 4; count -= 4) {
            *dw++ = *sw++;
        }
        d = (uint8_t *)dw;
        s = (const uint8_t *)sw;
    }
    while (count-- != 0) {
        *d++ = *s++;
    }
    return to;
}

void *memmove(void *to, const void *from, size_t count)
{
    uint8_t *d = to;
    const uint8_t *s = from;
    if ((uintptr_t)d - (uintptr_t)s >= count) {
        return memcpy(to, from, count);
    }
    while (count-- != 0) {
        d[count] = s[count];
    }
    return to;
}

void *memset(void *at, int value, size_t count)
{
    uint8_t *d = at;
    const uint32_t word = (uint32_t)(uint8_t)value * 0x01010101u;
    for (; count != 0 && ((uintptr_t)d & 3u) != 0; count--) {
        *d++ = (uint8_t)value;
    }
    for (; count >= 4; count -= 4, d += 4) {
        *(uint32_t *)(void *)d = word;
    }
    while (count-- != 0) {
        *d++ = (uint8_t)value;
    }
    return at;
}

int memcmp(const void *a, const void *b, size_t count)
{
    const uint8_t *x = a;
    const uint8_t *y = b;
    for (; count != 0; count--, x++, y++) {
        if (*x != *y) {
            return *x < *y ? -1 : 1;
        }
    }
    return 0;
}

/* libgcc's division by zero calls this; it cannot happen in checked tables, and traps if it does. */
int raise(int signal_number);
int raise(int signal_number)
{
    (void)signal_number;
    __builtin_trap();
}
