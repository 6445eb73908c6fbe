#include "bench.h"

static uint64_t state = 1;

void bench_seed(uint64_t seed)
{
    state = seed * 2u + 1u;
    for (int i = 0; i < 4; i++) {
        (void)bench_word();
    }
}

uint32_t bench_word(void)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    const uint64_t x = state ^ state >> 33;
    return (uint32_t)((x * 0xFF51AFD7ED558CCDu) >> 32);
}

uint32_t bench_range(uint32_t low, uint32_t high)
{
    return low + bench_word() % (high - low + 1u);
}

float bench_float(void)
{
    return (float)((double)bench_word() / 2147483648.0 - 1.0);
}

struct table *table_new(void)
{
    struct table *t = calloc(1, sizeof *t);
    CHECK(t != NULL, "no memory");
    t->answer_bytes = 64;
    t->n_decisions = 4;
    return t;
}

void table_free(struct table *t)
{
    free(t->weights);
    free(t->input);
    free(t->arena);
    free(t->words);
    free(t);
}

static uint32_t append(uint8_t **memory, uint32_t *used, uint32_t align, const void *from,
                       uint32_t bytes)
{
    const uint32_t at = (*used + align - 1u) / align * align;
    uint8_t *larger = realloc(*memory, at + bytes);
    CHECK(larger != NULL, "no memory");
    memset(larger + *used, 0, at - *used);
    memcpy(larger + at, from, bytes);
    *memory = larger;
    *used = at + bytes;
    return at;
}

static uint32_t slot(struct table *t, uint32_t home, uint32_t bytes, uint32_t dtype, uint32_t flags)
{
    CHECK(t->n_slots < MOST_SLOTS, "too many slots");
    const uint32_t words[] = {home, bytes, dtype, flags};
    memcpy(t->slots[t->n_slots], words, sizeof words);
    return t->n_slots++;
}

uint32_t table_weights(struct table *t, const void *from, uint32_t bytes)
{
    return (uint32_t)OT_WEIGHTS << 30 | append(&t->weights, &t->weights_bytes, 64u, from, bytes);
}

uint32_t table_constant(struct table *t, uint32_t dtype, const void *from, uint32_t bytes)
{
    return slot(t, table_weights(t, from, bytes), bytes, dtype, OT_ALWAYS);
}

uint32_t table_input(struct table *t, uint32_t dtype, const void *from, uint32_t bytes)
{
    const uint32_t at = append(&t->input, &t->input_bytes, 8u, from, bytes);
    return slot(t, (uint32_t)OT_INPUT << 30 | at, bytes, dtype, OT_IS_INPUT);
}

uint32_t table_made(struct table *t, uint32_t dtype, uint32_t bytes)
{
    const uint32_t at = (t->arena_bytes + 63u) / 64u * 64u;
    t->arena_bytes = at + bytes;
    return slot(t, (uint32_t)OT_ARENA << 30 | at, bytes, dtype, 0);
}

uint32_t table_choice(struct table *t, uint32_t dtype, uint32_t bytes)
{
    return slot(t, 0, bytes, dtype, 0);
}

uint32_t *table_op(struct table *t, uint32_t kind)
{
    CHECK(t->n_ops < MOST_OPS, "too many ops");
    uint32_t *op = t->ops[t->n_ops++];
    op[0] = kind;
    op[2] = op[3] = op[4] = op[7] = OT_NONE;
    op[5] = kind == OT_CONV ? 0 : OT_NONE; /* the number of its mask's groups */
    return op;
}

void table_encode(struct table *t)
{
    const uint32_t node[OT_NODE_WORDS] = {OT_NODE_EXIT, 0, t->n_ops, OT_NONE};
    while (t->input_bytes % 8u != 0) {
        (void)append(&t->input, &t->input_bytes, 1u, "", 1u);
    }
    t->n_words = OT_HEADER_WORDS + OT_NODE_WORDS + t->n_slots * OT_SLOT_WORDS + t->n_list +
                 t->n_thresholds * 2u + t->n_ops * OT_OP_WORDS;
    free(t->words);
    t->words = calloc(t->n_words, sizeof *t->words);
    CHECK(t->words != NULL, "no memory");
    const uint32_t head[] = {OT_MAGIC, OT_VERSION, t->n_words, 1, t->n_slots, t->n_ops, t->n_list,
                             t->n_thresholds, t->weights_bytes, t->arena_bytes, t->input_bytes,
                             t->answer_bytes, t->n_decisions, OT_OP_WORDS};
    uint32_t *at = t->words;
    memcpy(at, head, sizeof head);
    at += OT_HEADER_WORDS;
    memcpy(at, node, sizeof node);
    at += OT_NODE_WORDS;
    memcpy(at, t->slots, t->n_slots * sizeof *t->slots);
    at += t->n_slots * OT_SLOT_WORDS;
    memcpy(at, t->lists, t->n_list * sizeof *t->lists);
    at += t->n_list;
    memcpy(at, t->thresholds, t->n_thresholds * sizeof *t->thresholds);
    at += t->n_thresholds * 2u;
    memcpy(at, t->ops, t->n_ops * sizeof *t->ops);
}

struct verdict table_open(struct table *t, struct network *net)
{
    table_encode(t);
    struct verdict verdict = network_open(net, t->words, t->n_words * 4u);
    if (verdict.valid) {
        verdict = network_validate(net);
    }
    return verdict;
}

uint32_t table_run(struct table *t, struct network *net)
{
    const struct verdict verdict = table_open(t, net);
    CHECK(verdict.valid, "refused at %x", verdict.detail);
    free(t->arena);
    t->arena = malloc(t->arena_bytes + 1u);
    CHECK(t->arena != NULL, "no memory");
    memset(t->arena, 0xFF, t->arena_bytes); /* NaN */
    net->weights = t->weights;
    net->input = t->input;
    net->arena = t->arena;
    for (uint32_t i = 0; i < t->n_decisions; i++) {
        net->force[i] = OT_NONE;
    }
    return network_sample(net);
}
