/* The int8 operators against int64 arithmetic and rint; movers and element-wise ones by example. */
#include <math.h>

#include "bench.h"

static struct network net;

static void fill(uint8_t *bytes, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        bytes[i] = (uint8_t)bench_word();
    }
}

struct aux {
    int32_t fields[4]; /* x_zero, y_zero, low, high */
    float multipliers[16];
};

static uint8_t scaled(const struct aux *aux, int64_t sum, uint32_t m)
{
    const float value = rintf((float)sum * aux->multipliers[m]) + (float)aux->fields[1];
    return (uint8_t)fminf(fmaxf(value, (float)aux->fields[2]), (float)aux->fields[3]);
}

static struct aux random_aux(void)
{
    struct aux aux = {.fields = {(int32_t)bench_range(0, 255), (int32_t)bench_range(0, 255),
                                 (int32_t)bench_range(0, 100), (int32_t)bench_range(150, 255)}};
    for (uint32_t m = 0; m < 16u; m++) {
        aux.multipliers[m] = (bench_float() + 1.5f) / 2000.0f;
    }
    return aux;
}

static void test_qconv(void)
{
    const uint32_t groups = bench_range(1, 2);
    const uint32_t c = groups * bench_range(1, 4), m = groups * bench_range(1, 7);
    const uint32_t h = bench_range(3, 9), w = bench_range(3, 13), k = bench_range(1, 3);
    const uint32_t stride = bench_range(1, 2), pad = bench_range(0, 1);
    const uint32_t oh = (h + 2 * pad - k) / stride + 1, ow = (w + 2 * pad - k) / stride + 1;
    const uint32_t cg = c / groups;
    const struct aux aux = random_aux();
    uint8_t x[8 * 9 * 13];
    int8_t weights[14 * 4 * 9];
    int32_t bias[14];
    fill(x, sizeof x);
    fill((uint8_t *)weights, sizeof weights);
    for (uint32_t i = 0; i < 14u; i++) {
        bias[i] = (int32_t)bench_range(0, 4000) - 2000;
    }
    struct table *t = table_new();
    uint32_t *op = table_op(t, OT_QCONV);
    op[3] = table_input(t, OT_U8, x, c * h * w);
    op[2] = table_made(t, OT_U8, m * oh * ow);
    const uint32_t words[] = {c, h, w, m, k, k, stride << 16 | stride, pad << 16 | pad,
                              pad << 16 | pad, oh, ow, groups, 1u << 16 | 1u,
                              table_weights(t, weights, m * cg * k * k),
                              table_weights(t, bias, m * 4u), table_weights(t, &aux, sizeof aux)};
    memcpy(op + 8, words, sizeof words);
    (void)table_op(t, OT_STOP);
    CHECK(table_run(t, &net) == 1, "an int8 convolution failed");
    for (uint32_t i = 0; i < m * oh * ow; i++) {
        const uint32_t to = i / (oh * ow), oy = i / ow % oh, ox = i % ow;
        int64_t sum = bias[to];
        for (uint32_t j = 0; j < cg * k * k; j++) {
            const uint32_t from = to / (m / groups) * cg + j / (k * k);
            const int y = (int)(oy * stride + j / k % k) - (int)pad;
            const int at = (int)(ox * stride + j % k) - (int)pad;
            if (y >= 0 && y < (int)h && at >= 0 && at < (int)w) {
                const int code = x[(from * h + (uint32_t)y) * w + (uint32_t)at];
                sum += (code - aux.fields[0]) * weights[to * cg * k * k + j];
            }
        }
        CHECK(net.live[op[2]][i] == scaled(&aux, sum, to), "qconv %u: %u, not %u", i,
              net.live[op[2]][i], scaled(&aux, sum, to));
    }
    table_free(t);
}

static void test_qgemm(void)
{
    const uint32_t k = bench_range(1, 60), m = bench_range(1, 16);
    const struct aux aux = random_aux();
    uint8_t x[60];
    int8_t weights[60 * 16];
    fill(x, sizeof x);
    fill((uint8_t *)weights, sizeof weights);
    struct table *t = table_new();
    uint32_t *op = table_op(t, OT_QGEMM);
    op[3] = table_input(t, OT_U8, x, k);
    op[2] = table_made(t, OT_U8, m);
    op[8] = k;
    op[9] = m;
    op[10] = table_weights(t, weights, k * m);
    op[12] = table_weights(t, &aux, sizeof aux);
    (void)table_op(t, OT_STOP);
    CHECK(table_run(t, &net) == 1, "an int8 product failed");
    for (uint32_t i = 0; i < m; i++) {
        int64_t sum = 0;
        for (uint32_t j = 0; j < k; j++) {
            sum += (x[j] - aux.fields[0]) * weights[i * k + j];
        }
        CHECK(net.live[op[2]][i] == scaled(&aux, sum, i), "qgemm %u", i);
    }
    table_free(t);
}

static void test_zero_point_out_of_range(void)
{
    struct aux aux = random_aux();
    aux.fields[0] = 256;
    const uint8_t x[4] = {0};
    struct table *t = table_new();
    uint32_t *op = table_op(t, OT_QGEMM);
    op[3] = table_input(t, OT_U8, x, 4);
    op[2] = table_made(t, OT_U8, 1);
    op[8] = 4;
    op[9] = 1;
    op[10] = table_weights(t, x, 4);
    op[12] = table_weights(t, &aux, sizeof aux);
    CHECK(table_run(t, &net) == 0, "a zero point of 256 was taken");
    table_free(t);
}

static void test_codes(void)
{
    const bool is_signed = bench_range(0, 1) != 0;
    const float scale = 0.03f;
    const int32_t zero = is_signed ? -3 : 100;
    float x[33];
    for (uint32_t i = 0; i < 33u; i++) {
        x[i] = bench_float() * 6.0f;
    }
    x[0] = 1e30f;
    x[1] = -1e30f;
    x[2] = scale * 0.5f;
    uint32_t bits;
    memcpy(&bits, &scale, sizeof bits);
    struct table *t = table_new();
    uint32_t *q = table_op(t, OT_QUANTIZE);
    q[3] = table_input(t, OT_F32, x, sizeof x);
    q[2] = table_made(t, is_signed ? OT_S8 : OT_U8, 33);
    uint32_t *d = table_op(t, OT_DEQUANTIZE);
    d[3] = q[2];
    d[2] = table_made(t, OT_F32, sizeof x);
    const uint32_t words[] = {33, bits, (uint32_t)zero, is_signed};
    memcpy(q + 8, words, sizeof words);
    memcpy(d + 8, words, sizeof words);
    (void)table_op(t, OT_STOP);
    CHECK(table_run(t, &net) == 2, "codes failed");
    const float *back = (const float *)(const void *)net.live[d[2]];
    for (uint32_t i = 0; i < 33u; i++) {
        const float low = is_signed ? -128.0f : 0.0f;
        const float code = fminf(fmaxf(rintf(x[i] / scale) + (float)zero, low), low + 255.0f);
        CHECK(back[i] == (code - (float)zero) * scale, "code %u of %g: %g", i, (double)x[i],
              (double)back[i]);
    }
    table_free(t);
}

/* A transpose, a reversed slice, and a concatenation along the second axis. */
static void test_moves(void)
{
    float x[6] = {0, 1, 2, 3, 4, 5};
    struct table *t = table_new();
    const uint32_t a = table_input(t, OT_F32, x, sizeof x);
    uint32_t *swap = table_op(t, OT_COPY);
    swap[2] = table_made(t, OT_F32, 24);
    swap[3] = a;
    const uint32_t words[] = {1, 1, 3, 2, 6, 6, 2, 1, 6, 6, 1, 3, 0, 0, 4};
    memcpy(swap + 8, words, sizeof words);
    uint32_t *flip = table_op(t, OT_COPY);
    flip[2] = table_made(t, OT_F32, 24);
    flip[3] = a;
    const uint32_t back[] = {1, 1, 1, 6, 6, 6, 6, 1, 6, 6, 6, (uint32_t)-1, 0, 5, 4};
    memcpy(flip + 8, back, sizeof back);
    uint32_t *fill_op = table_op(t, OT_FILL);
    fill_op[2] = table_made(t, OT_F32, 8);
    fill_op[8] = 2;
    fill_op[9] = 0x40E00000u; /* 7.0 */
    fill_op[10] = 4;
    uint32_t *join = table_op(t, OT_CONCAT);
    join[2] = table_made(t, OT_F32, 32);
    const uint32_t parts[] = {a, 3, fill_op[2], 1};
    memcpy(t->lists, parts, sizeof parts);
    t->n_list = 4;
    join[9] = 2;
    join[10] = 2;
    join[11] = 4;
    (void)table_op(t, OT_STOP);
    CHECK(table_run(t, &net) == 4, "a move failed");
    const float swapped[6] = {0, 3, 1, 4, 2, 5};
    const float flipped[6] = {5, 4, 3, 2, 1, 0};
    const float joined[8] = {0, 1, 2, 7, 3, 4, 5, 7};
    CHECK(memcmp(net.live[swap[2]], swapped, sizeof swapped) == 0, "transpose");
    CHECK(memcmp(net.live[flip[2]], flipped, sizeof flipped) == 0, "reversed slice");
    CHECK(memcmp(net.live[join[2]], joined, sizeof joined) == 0, "concat");
    flip[21] = 4; /* now the first element lies before the tensor */
    CHECK(!table_open(t, &net).valid, "a copy from before its tensor was taken");
    table_free(t);
}

int main(int count, char **arguments)
{
    const uint32_t rounds = count > 1 ? (uint32_t)atoi(arguments[1]) : 300u;
    for (uint32_t i = 0; i < rounds; i++) {
        bench_seed(i);
        test_qconv();
        test_qgemm();
        test_codes();
    }
    test_zero_point_out_of_range();
    test_moves();
    printf("%u rounds\n", rounds);
    return 0;
}
