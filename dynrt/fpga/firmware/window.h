/* A measured window: samples that run, or sleep, between two ticks and two marker lines. */
#ifndef DYNRT_WINDOW_H
#define DYNRT_WINDOW_H

#include <stdbool.h>
#include <stdint.h>

struct window_request {
    uint32_t run_id;
    bool idle;
    uint8_t sequence; /* of the request's frame: DONE repeats it */
    uint32_t first;
    uint32_t count;
    uint32_t passes;
    uint32_t flags;
    uint64_t ticks; /* to sleep */
};

struct window_result {
    uint32_t run_id;
    uint32_t state;
    uint64_t start;
    uint64_t end;
    uint64_t mac_ticks;
    uint32_t samples;
    uint32_t crc;
    uint32_t fault; /* the op that failed, or OT_NONE */
};

/* Whether two requests ask for the same, whatever their sequence. */
bool window_same(const struct window_request *a, const struct window_request *b);

/* Run it; `poll` is called between samples and whenever a byte wakes the sleeper. */
struct window_result window_run(const struct window_request *request, void (*poll)(void));

#endif
