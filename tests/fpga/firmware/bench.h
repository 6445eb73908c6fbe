/* What the firmware's tests share: checks, random numbers, and tables put together by hand. */
#ifndef BENCH_H
#define BENCH_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "network.h"
#include "sample.h"
#include "validate.h"

#define CHECK(condition, ...)                                                                      \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: %s: ", __FILE__, __LINE__, #condition);                        \
            fprintf(stderr, __VA_ARGS__);                                                          \
            fputc('\n', stderr);                                                                   \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

void bench_seed(uint64_t seed);
uint32_t bench_word(void);
/* Of low..high. */
uint32_t bench_range(uint32_t low, uint32_t high);
/* Of -1..1. */
float bench_float(void);

#define MOST_SLOTS 16u
#define MOST_OPS 8u
#define MOST_LIST 32u

/* A table that is being made. Its memory is exactly as large as it says, so that the sanitizers see
 * each byte that is read or written outside of it. */
struct table {
    uint32_t slots[MOST_SLOTS][OT_SLOT_WORDS];
    uint32_t n_slots;
    uint32_t ops[MOST_OPS][OT_OP_WORDS];
    uint32_t n_ops;
    uint32_t lists[MOST_LIST];
    uint32_t n_list;
    double thresholds[8];
    uint32_t n_thresholds;
    uint32_t n_decisions;
    uint32_t answer_bytes;
    uint32_t input_bytes;
    uint32_t arena_bytes;
    uint32_t weights_bytes;
    uint8_t *weights;
    uint8_t *input;
    uint8_t *arena;
    uint32_t *words;
    uint32_t n_words;
};

struct table *table_new(void);
void table_free(struct table *t);
/* Slots: constants and inputs take their bytes from `from`. */
uint32_t table_constant(struct table *t, uint32_t dtype, const void *from, uint32_t bytes);
uint32_t table_input(struct table *t, uint32_t dtype, const void *from, uint32_t bytes);
uint32_t table_made(struct table *t, uint32_t dtype, uint32_t bytes);
uint32_t table_choice(struct table *t, uint32_t dtype, uint32_t bytes);
/* A pointer to a constant that no slot names. */
uint32_t table_weights(struct table *t, const void *from, uint32_t bytes);
/* A new op with its slots open; its words. */
uint32_t *table_op(struct table *t, uint32_t kind);
/* Encode into `words`. */
void table_encode(struct table *t);
/* Encode, open and check. */
struct verdict table_open(struct table *t, struct network *net);
/* As table_open, and all must be well; then run one sample. The op that failed or OT_NONE. */
uint32_t table_run(struct table *t, struct network *net);

#endif
