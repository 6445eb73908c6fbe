#include "window.h"

#include "checksum.h"
#include "platform.h"
#include "sample.h"
#include "store.h"

/* How long the sleeper sleeps at a time: within the watchdog's patience. */
#define FEED_SECONDS 8u

bool window_same(const struct window_request *a, const struct window_request *b)
{
    return a->run_id == b->run_id && a->idle == b->idle && a->first == b->first &&
           a->count == b->count && a->passes == b->passes && a->flags == b->flags &&
           a->ticks == b->ticks;
}

struct line {
    char text[96];
    uint32_t used;
};

static void add_text(struct line *line, const char *text)
{
    while (*text != 0 && line->used < sizeof line->text) {
        line->text[line->used++] = *text++;
    }
}

static void add_number(struct line *line, uint64_t value)
{
    char digits[21];
    char *at = digits + sizeof digits - 1;
    *at = 0;
    do {
        *--at = (char)('0' + (char)(value % 10u));
        value /= 10u;
    } while (value != 0);
    add_text(line, at);
}

/* `M1,<run id>,<kind>,<ticks>*<CRC>` before a window starts, with the clock; `M0,...,<ticks>,
 * <mac ticks>*<CRC>` where it ends, with its length. */
static void mark(const struct window_request *request, bool start, uint64_t ticks, uint64_t macs)
{
    struct line line = {.used = 0};
    add_text(&line, start ? "M1," : "M0,");
    add_number(&line, request->run_id);
    add_text(&line, request->idle ? ",idle," : ",run,");
    add_number(&line, ticks);
    if (!start) {
        add_text(&line, ",");
        add_number(&line, macs);
    }
    const uint32_t crc = crc16_add(0xFFFFu, line.text, line.used);
    char digits[5] = {0};
    for (uint32_t i = 0; i < 4u; i++) {
        digits[i] = "0123456789ABCDEF"[crc >> (12u - 4u * i) & 15u];
    }
    add_text(&line, "*");
    add_text(&line, digits);
    add_text(&line, "\r\n");
    platform_marker(line.text, line.used);
}

static void run_samples(const struct window_request *request, struct window_result *result,
                        void (*poll)(void))
{
    for (uint32_t pass = 0; pass < request->passes; pass++) {
        for (uint32_t i = 0; i < request->count; i++) {
            const uint32_t input = request->first + i;
            store_select(input);
            const uint64_t start = platform_ticks();
            result->fault = network_sample(&network);
            const uint64_t ticks = platform_since(start);
            if (result->fault != OT_NONE) {
                result->state = STATE_FAULT;
                return;
            }
            result->crc = store_record(result->samples++, input, ticks, result->crc);
            poll();
        }
    }
}

static void sleep_until(uint64_t end, void (*poll)(void))
{
    const uint64_t step = (uint64_t)platform_ticks_per_s() * FEED_SECONDS;
    for (;;) {
        const uint64_t now = platform_ticks();
        if (now >= end) {
            return;
        }
        (void)platform_wait(end - now > step ? now + step : end);
        platform_watchdog_feed();
        poll();
    }
}

struct window_result window_run(const struct window_request *request, void (*poll)(void))
{
    struct window_result result = {
        .run_id = request->run_id,
        .state = STATE_DONE,
        .fault = OT_NONE,
    };
    const bool marked = (request->flags & RUN_MARKER) != 0;
    network.time_ops = (request->flags & RUN_OP_TICKS) != 0;
    network.mac_ticks = 0;
    for (uint32_t i = 0; !request->idle && i < network.n_ops; i++) {
        network.op_ticks[i] = 0;
    }
    platform_flush();
    if (marked) {
        mark(request, true, platform_ticks(), 0);
    }
    (void)platform_since(0); /* the first call may take longer */
    platform_settle();
    if (marked) {
        platform_marker_pin(true);
    }
    result.start = platform_ticks();
    if (request->idle) {
        sleep_until(result.start + request->ticks, poll);
    } else {
        run_samples(request, &result, poll);
    }
    result.end = result.start + platform_since(result.start);
    result.mac_ticks = request->idle ? 0 : network.mac_ticks;
    if (marked) {
        platform_marker_pin(false);
        mark(request, false, result.end - result.start, result.mac_ticks);
    }
    return result;
}
