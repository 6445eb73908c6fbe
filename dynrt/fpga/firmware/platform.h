/* What the agent needs of the machine it runs on: zynq.c gives it on the board, host.c on a PC. */
#ifndef DYNRT_PLATFORM_H
#define DYNRT_PLATFORM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PLATFORM_FOREVER UINT64_MAX

/* Ticks of the clock that all measured times are counted in, and their rate. */
uint64_t platform_ticks(void);
/* Ticks of work since `start`. */
uint64_t platform_since(uint64_t start);
uint32_t platform_ticks_per_s(void);

/* The agent's link. Reading takes one byte without waiting, or gives -1. */
int platform_read(void);
void platform_write(const uint8_t *bytes, size_t count);
void platform_flush(void);

/* Sleep until a byte is there or `until` is reached; false if no byte can come any more. */
bool platform_wait(uint64_t until);

/* Sleep on the timer alone for a moment, so that a window starts in step with the clock. */
void platform_settle(void);

/* The line to the meter: text, and a pin that is high within a window. */
void platform_marker(const char *text, size_t count);
void platform_marker_pin(bool high);

/* The watchdog resets the board if it is armed and not fed for half a minute. */
void platform_watchdog_arm(void);
void platform_watchdog_feed(void);
void platform_watchdog_disarm(void);

uint32_t platform_xadc(uint32_t reg);
uint32_t platform_cpu_id(void);
uint32_t platform_device_id(void);
uint32_t platform_reset_reason(void);

#endif
