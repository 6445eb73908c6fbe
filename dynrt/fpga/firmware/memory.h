/* The four functions that the compiler itself calls; memory.c gives them where there is no libc. */
#ifndef DYNRT_MEMORY_H
#define DYNRT_MEMORY_H

#include <stddef.h>

void *memcpy(void *restrict to, const void *restrict from, size_t count);
void *memmove(void *to, const void *from, size_t count);
void *memset(void *at, int value, size_t count);
int memcmp(const void *a, const void *b, size_t count);

#endif
