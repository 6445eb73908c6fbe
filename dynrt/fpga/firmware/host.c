/* The platform of a PC: the agent's link is standard input and output, its clock the monotonic one.
 * `host_agent [--marker FILE]` writes the marker lines to FILE.
 */
#define _POSIX_C_SOURCE 200809L

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "agent.h"
#include "platform.h"

static FILE *marker_file;
static uint8_t received[4096];
static size_t received_count;
static size_t received_at;
static bool ended;

uint64_t platform_ticks(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

uint64_t platform_since(uint64_t start)
{
    return platform_ticks() - start;
}

uint32_t platform_ticks_per_s(void)
{
    return 1000000000u;
}

/* Read what is there; wait for it at most `until`. */
static void receive(uint64_t until)
{
    struct pollfd link = {.fd = STDIN_FILENO, .events = POLLIN};
    int timeout_ms = -1;
    if (until != PLATFORM_FOREVER) {
        const uint64_t now = platform_ticks();
        const uint64_t left_ms = until > now ? (until - now + 999999u) / 1000000u : 0;
        timeout_ms = left_ms > 1000u ? 1000 : (int)left_ms;
    }
    if (poll(&link, 1, timeout_ms) <= 0) {
        return;
    }
    const ssize_t count = read(STDIN_FILENO, received, sizeof received);
    if (count > 0) {
        received_at = 0;
        received_count = (size_t)count;
    } else if (count == 0 || errno != EINTR) {
        ended = true;
    }
}

int platform_read(void)
{
    if (received_at == received_count && !ended) {
        receive(0);
    }
    return received_at < received_count ? received[received_at++] : -1;
}

bool platform_wait(uint64_t until)
{
    if (received_at == received_count && !ended) {
        receive(until);
    } else if (ended && until != PLATFORM_FOREVER) {
        const struct timespec moment = {.tv_nsec = 1000000};
        nanosleep(&moment, NULL);
    }
    return received_at < received_count || !ended;
}

void platform_write(const uint8_t *bytes, size_t count)
{
    while (count != 0) {
        const ssize_t written = write(STDOUT_FILENO, bytes, count);
        if (written < 0) {
            if (errno == EINTR) {
                continue;
            }
            exit(EXIT_FAILURE);
        }
        bytes += written;
        count -= (size_t)written;
    }
}

void platform_flush(void) {}

void platform_settle(void) {}

void platform_marker(const char *text, size_t count)
{
    if (marker_file != NULL) {
        fwrite(text, 1, count, marker_file);
        fflush(marker_file);
    }
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
    (void)reg;
    return 0;
}

uint32_t platform_cpu_id(void)
{
    return 0;
}

uint32_t platform_device_id(void)
{
    return 0;
}

uint32_t platform_reset_reason(void)
{
    return 0;
}

int main(int count, char **arguments)
{
    if (count == 3 && strcmp(arguments[1], "--marker") == 0) {
        marker_file = fopen(arguments[2], "a");
        if (marker_file == NULL) {
            perror(arguments[2]);
            return EXIT_FAILURE;
        }
    } else if (count != 1) {
        fprintf(stderr, "usage: %s [--marker FILE]\n", arguments[0]);
        return EXIT_FAILURE;
    }
    agent_serve();
    return EXIT_SUCCESS;
}
