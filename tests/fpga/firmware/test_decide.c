/* Decisions, exits, skipped nodes, forced decisions and faults; and that no mutated table leaves its
 * memory (the sanitizers watch). */
#include <math.h>

#include "bench.h"
#include "ops.h"

static struct network net;

static uint32_t scores_slot(struct table *t, const float *scores, uint32_t count)
{
    return table_input(t, OT_F32, scores, count * 4u);
}

static void test_argmax(void)
{
    const struct {
        float scores[3];
        uint32_t action;
        bool fault;
    } cases[] = {{{1, 3, 2}, 1, false}, {{5, 5, 5}, 0, false}, {{0, NAN, 1}, 0, true}};
    for (uint32_t i = 0; i < 3u; i++) {
        struct table *t = table_new();
        uint32_t *op = table_op(t, OT_ARGMAX);
        op[3] = scores_slot(t, cases[i].scores, 3);
        op[8] = 3;
        op[9] = 2;
        (void)table_op(t, OT_STOP);
        CHECK(table_run(t, &net) == (cases[i].fault ? 0u : 1u), "argmax %u", i);
        CHECK(cases[i].fault || net.decisions[2] == 1u << cases[i].action, "argmax %u", i);
        net.force[2] = 4u;
        CHECK(network_sample(&net) == 1 && net.decisions[2] == 4u, "a forced argmax");
        table_free(t);
    }
}

static void test_threshold(void)
{
    const float scores[4] = {0.5f, 0.25f, -1.0f, 7.0f};
    struct table *t = table_new();
    uint32_t *op = table_op(t, OT_THRESHOLD);
    op[3] = scores_slot(t, scores, 4);
    op[8] = 4;
    op[9] = 1;
    const double bounds[4] = {0.5, 0.25000001, -2.0, INFINITY};
    memcpy(t->thresholds, bounds, sizeof bounds);
    t->n_thresholds = 4;
    (void)table_op(t, OT_STOP);
    CHECK(table_run(t, &net) == 1 && net.decisions[1] == 5u, "actions %x", net.decisions[1]);
    net.thresholds[3] = 7.0;
    CHECK(network_sample(&net) == 1 && net.decisions[1] == 13u, "a changed threshold");
    table_free(t);
}

static double score_of(uint32_t kind, const float *v, uint32_t n)
{
    double top = -INFINITY, sum = 0, first = 0, second = 0, h = 0;
    for (uint32_t i = 0; i < n; i++) {
        top = fmax(top, (double)v[i]);
    }
    for (uint32_t i = 0; i < n; i++) {
        sum += exp((double)v[i] - top);
    }
    for (uint32_t i = 0; i < n; i++) {
        const double p = exp((double)v[i] - top) / sum;
        second = p > first ? first : fmax(second, p);
        first = fmax(first, p);
        h += p > 0 ? p * log(p) : 0;
    }
    switch (kind) {
    case OT_HINGE:
        return top;
    case OT_MAX_SOFTMAX:
        return first;
    case OT_MARGIN:
        return first - second;
    default:
        return 1.0 + h / log((double)n);
    }
}

/* An exit accepts just below its score and refuses just above it. */
static void test_accept(void)
{
    for (uint32_t round = 0; round < 400u; round++) {
        const uint32_t kind = bench_range(OT_HINGE, OT_ENTROPY);
        const uint32_t n = bench_range(2, 12);
        float scores[12];
        for (uint32_t i = 0; i < n; i++) {
            scores[i] = bench_float() * 6.0f;
        }
        struct table *t = table_new();
        uint32_t *op = table_op(t, OT_ACCEPT);
        op[3] = op[4] = scores_slot(t, scores, n);
        op[8] = kind;
        op[9] = 3;
        op[11] = n;
        t->n_thresholds = 1;
        (void)table_op(t, OT_STOP);
        const double score = score_of(kind, scores, n);
        t->thresholds[0] = score - 1e-12;
        CHECK(table_run(t, &net) == OT_NONE && net.exit == 3 && net.decisions[3] == 1 &&
                  net.answer_size == n * 4u,
              "kind %u refused %.17g", kind, score);
        net.thresholds[0] = score + 1e-12;
        CHECK(network_sample(&net) == 1 && net.decisions[3] == 0, "kind %u accepted %.17g", kind,
              score);
        net.force[3] = 1;
        CHECK(network_sample(&net) == OT_NONE && net.exit == 3, "a forced exit");
        table_free(t);
    }
}

/* argmax -> one of two nodes -> select -> exit; a third node needs what was skipped. */
static void test_flow(void)
{
    for (uint32_t chosen = 0; chosen < 2u; chosen++) {
        const float scores[2] = {chosen == 0 ? 1.0f : 0.0f, 0.5f};
        struct table *t = table_new();
        uint32_t *op = table_op(t, OT_ARGMAX);
        op[3] = scores_slot(t, scores, 2);
        op[8] = 2;
        op[9] = 0;
        uint32_t made[2];
        const uint32_t edges[] = {0u << 8 | 0u, 0u << 8 | 1u};
        memcpy(t->lists, edges, sizeof edges);
        for (uint32_t i = 0; i < 2u; i++) {
            made[i] = table_made(t, OT_F32, 4);
            uint32_t *node = table_op(t, OT_NODE);
            node[8] = i;
            node[9] = 1;
            node[12] = t->n_ops + 1u;
            uint32_t *fill = table_op(t, OT_FILL);
            fill[2] = made[i];
            fill[8] = 1;
            fill[9] = i == 0 ? 0x3F800000u : 0x40000000u;
            fill[10] = 4;
        }
        t->lists[2] = made[0];
        t->n_list = 3;
        uint32_t *needs = table_op(t, OT_NODE);
        needs[10] = 2;
        needs[11] = 1;
        needs[12] = 7;
        uint32_t *select = table_op(t, OT_SELECT);
        select[2] = table_choice(t, OT_F32, 4);
        select[3] = made[0];
        select[4] = made[1];
        uint32_t *exit_op = table_op(t, OT_ACCEPT);
        exit_op[4] = select[2];
        exit_op[9] = 1;
        const uint32_t at = table_run(t, &net);
        if (chosen == 0) {
            CHECK(at == OT_NONE && *(const float *)(const void *)net.answer == 1.0f, "first");
            CHECK(net.live[made[1]] == NULL, "the node that was not chosen ran");
        } else { /* the needing node is jumped over, and the exit finds nothing */
            CHECK(at == 7 && net.live[made[0]] == NULL, "op %u", at);
        }
        table_free(t);
    }
}

static void test_combine(void)
{
    const float answers[2][2] = {{1, 5}, {3, 2}};
    const float want[5][4] = {{0}, {3, 2}, {4, 7}, {3, 5}, {1, 5, 3, 2}};
    for (uint32_t rule = OT_LAST; rule <= OT_JOIN; rule++) {
        struct table *t = table_new();
        const uint32_t absent = table_made(t, OT_F32, 8);
        const uint32_t parts[] = {scores_slot(t, answers[0], 2), 2, absent, 2,
                                  scores_slot(t, answers[1], 2), 2};
        memcpy(t->lists, parts, sizeof parts);
        t->n_list = 6;
        uint32_t *op = table_op(t, OT_COMBINE);
        op[8] = rule;
        op[10] = 3;
        op[11] = 0xFF7FFFFFu;
        op[12] = 1;
        op[13] = 1;
        CHECK(table_run(t, &net) == OT_NONE && net.exit == 3, "combine %u", rule);
        CHECK(net.decisions[1] == 1 && net.decisions[2] == OT_NONE, "combine %u", rule);
        const float *got = (const float *)(const void *)net.answer;
        if (rule == OT_JOIN) {
            CHECK(net.answer_size == 24 && got[2] == -3.40282347e38f && got[4] == 3.0f, "join");
        } else {
            CHECK(net.answer_size == 8 && memcmp(got, want[rule], 8) == 0, "combine %u", rule);
        }
        table_free(t);
    }
}

/* Words that often suit the op's kind. */
static void random_fields(uint32_t *op, uint32_t a, uint32_t b, uint32_t y)
{
    static const uint32_t plain[] = {2, 4, 4, 2, 2, 2, 0x10001, 0, 0, 3, 3, 1, 0x10001};
    const struct op_kind *kind = &op_kinds[op[0]];
    const uint32_t slots[SLOT_USES] = {y, a, b, b, kind->uses[4] == USE_WRITE ? y : b};
    for (uint32_t word = 8; word < kind->words; word++) {
        const uint32_t pointer = (uint32_t)OT_WEIGHTS << 30 | bench_range(0, 32) * 4u;
        op[word] = bench_range(0, 1) != 0 ? bench_range(0, 4) : pointer;
        const bool wide = kind->words > 20u && word < 21u && op[0] != OT_COPY;
        op[word] = wide && bench_range(0, 15) != 0 ? plain[word - 8u] : op[word];
        op[word] = word < 10u && !wide ? bench_range(1, 8) : op[word];
        op[word] = op[0] < OT_CONV && word >= 9u ? bench_range(0, 2) : op[word];
    }
    op[6] = kind->act ? bench_range(0, 1) : 0;
    for (uint32_t i = 0; i < SLOT_USES; i++) {
        const bool open = kind->uses[i] == USE_NOT || (kind->uses[i] == USE_MAYBE && bench_range(0, 1));
        op[slot_word(i)] = open ? OT_NONE : slots[i];
    }
    if (kind->uses[0] == USE_CHOICE) {
        op[2] = 4;
    }
    if (op[0] >= OT_QUANTIZE && bench_range(0, 1) != 0) {
        op[2] = op[3] = 3; /* of bytes */
        op[4] = kind->uses[2] == USE_READ ? 3 : op[4];
    }
    if (op[0] == OT_QUANTIZE || op[0] == OT_DEQUANTIZE) {
        op[2] = op[0] == OT_QUANTIZE ? 3 : y;
        op[3] = op[0] == OT_QUANTIZE ? a : 3;
        op[10] = bench_range(0, 2);
        op[11] = 0;
    }
    if (op[0] == OT_CONCAT) {
        const uint32_t words[] = {bench_range(0, 2) * 2u, bench_range(1, 3), bench_range(1, 3), 4};
        memcpy(op + 8, words, sizeof words);
    }
    if (op[0] == OT_QADD) {
        op[9] = (uint32_t)OT_WEIGHTS << 30 | bench_range(0, 60) * 4u;
    }
    if (op[0] == OT_COPY) {
        for (uint32_t word = 8; word < 22u; word++) {
            op[word] = bench_range(word < 12u ? 1u : 0u, 3);
        }
        op[22] = 4;
    }
    if (op[0] == OT_CONV) {
        op[5] = bench_range(0, 2);
        op[23] = bench_range(0, 2);
    }
}

/* Flip words of a table of every kind of op: it is refused, or runs within its memory. */
static uint32_t test_mutations(uint32_t rounds)
{
    static const uint32_t values[] = {0,          1,          2,          3,         7,
                                      64,         0xFFFF,     0x10000,    0x10001,   0x3FFFFFFF,
                                      0x40000000, 0x7FFFFFFF, 0x80000000, 0xC0000000, 0xFFFFFFFF};
    uint32_t ran = 0;
    const float x[64] = {1, 2, 3};
    bool reached[OP_KINDS] = {false};
    for (uint32_t i = 0; i < rounds; i++) {
        struct table *t = table_new();
        const uint32_t a = table_input(t, OT_F32, x, sizeof x);
        const uint32_t b = table_constant(t, OT_F32, x, sizeof x);
        const uint32_t y = table_made(t, OT_F32, sizeof x);
        (void)table_made(t, OT_U8, 64);
        (void)table_choice(t, OT_F32, sizeof x);
        t->answer_bytes = sizeof x;
        for (t->n_list = 0; t->n_list < 8u; t->n_list++) { /* pairs: slot 0, four elements */
            t->lists[t->n_list] = t->n_list % 2u * 4u;
        }
        t->n_thresholds = 4;
        const uint32_t kind = bench_range(OT_NODE, OT_QADD);
        uint32_t *op = table_op(t, kind);
        random_fields(op, a, b, y);
        for (uint32_t flips = bench_range(0, 2); flips != 0; flips--) {
            op[bench_range(0, OT_OP_WORDS - 1u)] = values[bench_range(0, 14)];
        }
        if (bench_range(0, 9) == 0) {
            t->slots[bench_range(0, 4)][bench_range(0, 3)] = values[bench_range(0, 14)];
        }
        if (bench_range(0, 9) == 0) {
            t->lists[bench_range(0, 7)] = values[bench_range(0, 14)];
        }
        (void)table_op(t, OT_STOP);
        if (table_open(t, &net).valid) {
            (void)table_run(t, &net);
            ran++;
            reached[op[0]] = true;
        }
        table_encode(t);
        t->words[bench_range(0, t->n_words - 1u)] = values[bench_range(0, 14)];
        struct verdict v = network_open(&net, t->words, t->n_words * 4u);
        if (v.valid) {
            (void)network_validate(&net);
        }
        table_free(t);
    }
    for (uint32_t kind = 0; kind < OP_KINDS; kind++) {
        CHECK(op_kinds[kind].words == 0 || reached[kind], "no mutation of kind %u was sound", kind);
    }
    return ran;
}

int main(int count, char **arguments)
{
    const uint32_t rounds = count > 1 ? (uint32_t)atoi(arguments[1]) : 20000u;
    bench_seed(1);
    test_argmax();
    test_threshold();
    test_accept();
    test_flow();
    test_combine();
    const uint32_t ran = test_mutations(rounds);
    printf("%u mutated tables, %u of them sound and run\n", rounds, ran);
    return 0;
}
