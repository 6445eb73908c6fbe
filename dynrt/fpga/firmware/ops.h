/* The operators. Each runs one op of a checked table; false is a fault of the data it was given. */
#ifndef DYNRT_OPS_H
#define DYNRT_OPS_H

#include "network.h"

/* How an op uses its slot words: 2 (dst), 3 (a), 4 (b), 5 (c) and 7. */
enum use {
    USE_NOT = 0,  /* the word is OT_NONE */
    USE_READ,     /* a slot that must be live */
    USE_MAYBE,    /* a slot that must be live, or OT_NONE */
    USE_NULLABLE, /* a slot, live or not */
    USE_WRITE,    /* a slot that the op makes */
    USE_CHOICE,   /* a slot without a home that the op sets */
    USE_WORD      /* not a slot */
};

#define SLOT_USES 5u
#define OP_KINDS 37u

typedef bool op_function(struct network *net, const uint32_t *op);

struct op_kind {
    uint8_t uses[SLOT_USES];
    bool act;         /* whether word 6 is an activation; else it is 0 */
    uint8_t words;    /* words from here on are 0; 0: no such kind */
    op_function *run; /* NULL: network_sample does it itself */
};

extern const struct op_kind op_kinds[OP_KINDS];

/* Words 2, 3, 4, 5 and 7. */
static inline uint32_t slot_word(uint32_t use_index)
{
    return use_index < 4u ? use_index + 2u : 7u;
}

bool run_argmax(struct network *net, const uint32_t *op);
bool run_threshold(struct network *net, const uint32_t *op);
bool run_accept(struct network *net, const uint32_t *op);
bool run_combine(struct network *net, const uint32_t *op);

bool run_conv(struct network *net, const uint32_t *op);
bool run_gemm(struct network *net, const uint32_t *op);
bool run_lstm(struct network *net, const uint32_t *op);
bool run_binary(struct network *net, const uint32_t *op);
bool run_unary(struct network *net, const uint32_t *op);
bool run_affine(struct network *net, const uint32_t *op);
bool run_pool(struct network *net, const uint32_t *op);
bool run_mean(struct network *net, const uint32_t *op);
bool run_softmax(struct network *net, const uint32_t *op);
bool run_concat(struct network *net, const uint32_t *op);
bool run_copy(struct network *net, const uint32_t *op);
bool run_fill(struct network *net, const uint32_t *op);

bool run_quantize(struct network *net, const uint32_t *op);
bool run_dequantize(struct network *net, const uint32_t *op);
bool run_qconv(struct network *net, const uint32_t *op);
bool run_qgemm(struct network *net, const uint32_t *op);
bool run_qadd(struct network *net, const uint32_t *op);

#endif
