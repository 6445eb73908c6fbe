#include "platform_double.h"

#include <stdlib.h>
#include <string.h>

#include "platform.h"

uint8_t sent[SENT_BYTES];
size_t sent_count;
char marked[1024];
size_t marked_count;
const uint8_t *arriving;
size_t arriving_count;

static uint64_t clock_ticks;

uint64_t platform_ticks(void)
{
    return clock_ticks += 7u;
}

uint64_t platform_since(uint64_t start)
{
    return platform_ticks() - start;
}

uint32_t platform_ticks_per_s(void)
{
    return 1000u;
}

int platform_read(void)
{
    if (arriving_count == 0) {
        return -1;
    }
    arriving_count--;
    return *arriving++;
}

void platform_write(const uint8_t *bytes, size_t count)
{
    if (count > SENT_BYTES - sent_count) {
        abort();
    }
    memcpy(sent + sent_count, bytes, count);
    sent_count += count;
}

void platform_flush(void) {}

bool platform_wait(uint64_t until)
{
    clock_ticks = until == PLATFORM_FOREVER ? clock_ticks : until;
    return arriving_count != 0;
}

void platform_settle(void) {}

void platform_marker(const char *text, size_t count)
{
    if (count > sizeof marked - marked_count) {
        abort();
    }
    memcpy(marked + marked_count, text, count);
    marked_count += count;
}

void platform_marker_pin(bool high)
{
    (void)high;
}

void platform_watchdog_arm(void) {}
void platform_watchdog_feed(void) {}
void platform_watchdog_disarm(void) {}

uint32_t platform_xadc(uint32_t reg)
{
    return reg + 1u;
}

uint32_t platform_cpu_id(void)
{
    return 0x410FC090u;
}

uint32_t platform_device_id(void)
{
    return 0x23727093u;
}

uint32_t platform_reset_reason(void)
{
    return 0x00400000u;
}
