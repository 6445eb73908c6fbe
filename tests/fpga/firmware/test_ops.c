/* Operators against plain loops in double, over random shapes. */
#include <math.h>

#include "bench.h"
#include "mathematics.h"

static struct network net;

static float *floats(uint32_t count)
{
    float *values = malloc(count * sizeof *values);
    CHECK(values != NULL, "no memory");
    for (uint32_t i = 0; i < count; i++) {
        values[i] = bench_float();
    }
    return values;
}

static void near(const float *got, const double *want, uint32_t count, const char *what)
{
    for (uint32_t i = 0; i < count; i++) {
        const double error = fabs((double)got[i] - want[i]);
        CHECK(error <= 1e-5 * (1.0 + fabs(want[i])), "%s %u of %u: %g, not %g", what, i, count,
              (double)got[i], want[i]);
    }
}

struct shape {
    uint32_t c, h, w, m, kh, kw, sh, sw, pt, pl, pb, pr, oh, ow, groups, dh, dw;
};

static struct shape random_shape(void)
{
    struct shape s;
    do {
        s = (struct shape){.groups = bench_range(1, 3)};
        s.c = s.groups * bench_range(1, 5);
        s.m = s.groups * bench_range(1, 9);
        s.h = bench_range(1, 12);
        s.w = bench_range(1, 19);
        s.kh = bench_range(1, 4);
        s.kw = bench_range(1, 4);
        s.sh = bench_range(1, 3);
        s.sw = bench_range(1, 3);
        s.dh = bench_range(1, 2);
        s.dw = bench_range(1, 2);
        s.pt = bench_range(0, 2);
        s.pl = bench_range(0, 2);
        s.pb = bench_range(0, 2);
        s.pr = bench_range(0, 2);
    } while ((s.kh - 1) * s.dh + 1 > s.h + s.pt + s.pb || (s.kw - 1) * s.dw + 1 > s.w + s.pl + s.pr);
    if (bench_range(0, 3) == 0) { /* the form that reads its input without a patch */
        s.kh = s.kw = s.sh = s.sw = 1;
        s.pt = s.pl = s.pb = s.pr = 0;
    }
    s.oh = (s.h + s.pt + s.pb - (s.kh - 1) * s.dh - 1) / s.sh + 1;
    s.ow = (s.w + s.pl + s.pr - (s.kw - 1) * s.dw - 1) / s.sw + 1;
    return s;
}

static void set_window(uint32_t *op, const struct shape *s)
{
    const uint32_t words[] = {s->c, s->h, s->w, s->m, s->kh, s->kw, s->sh << 16 | s->sw,
                              s->pt << 16 | s->pl, s->pb << 16 | s->pr, s->oh, s->ow, s->groups,
                              s->dh << 16 | s->dw};
    memcpy(op + 8, words, sizeof words);
}

/* The input at a tap, or 0 in the padding. */
static double pixel(const float *x, const struct shape *s, uint32_t c, uint32_t oy, uint32_t ox,
                    uint32_t ky, uint32_t kx, bool *inside)
{
    const int y = (int)(oy * s->sh + ky * s->dh) - (int)s->pt;
    const int at = (int)(ox * s->sw + kx * s->dw) - (int)s->pl;
    *inside = y >= 0 && y < (int)s->h && at >= 0 && at < (int)s->w;
    return *inside ? (double)x[(c * s->h + (uint32_t)y) * s->w + (uint32_t)at] : 0.0;
}

static double convolved(const struct shape *s, const float *x, const float *weights,
                        const float *kept, uint32_t per_group, uint32_t m, uint32_t oy, uint32_t ox)
{
    const uint32_t cg = s->c / s->groups;
    double sum = 0.0;
    for (uint32_t c = 0; c < cg; c++) {
        const uint32_t channel = m / (s->m / s->groups) * cg + c;
        if (kept != NULL && kept[channel / per_group] < 0.5f) {
            continue;
        }
        for (uint32_t k = 0; k < s->kh * s->kw; k++) {
            bool inside;
            sum += pixel(x, s, channel, oy, ox, k / s->kw, k % s->kw, &inside) *
                   (double)weights[(m * cg + c) * s->kh * s->kw + k];
        }
    }
    return sum;
}

static void test_conv(void)
{
    const struct shape s = random_shape();
    const uint32_t plane = s.oh * s.ow;
    const uint32_t n_weights = s.m * (s.c / s.groups) * s.kh * s.kw;
    float *x = floats(s.c * s.h * s.w);
    float *weights = floats(n_weights);
    float *bias = floats(s.m);
    float *residual = floats(s.m * plane);
    const bool biased = bench_range(0, 1) != 0;
    const bool added = bench_range(0, 1) != 0;
    const bool relu = bench_range(0, 1) != 0;
    const uint32_t mode = bench_range(0, 2);
    const uint32_t masked = mode == OT_MASK_OUT ? s.m : s.c;
    uint32_t groups = bench_range(1, masked);
    while (masked % groups != 0) {
        groups--;
    }
    float *mask = floats(groups);
    for (uint32_t i = 0; i < groups; i++) {
        mask[i] = (float)bench_range(0, 1);
    }
    struct table *t = table_new();
    const uint32_t a = table_input(t, OT_F32, x, s.c * s.h * s.w * 4u);
    const uint32_t b = table_input(t, OT_F32, residual, s.m * plane * 4u);
    const uint32_t gate = table_constant(t, OT_F32, mask, groups * 4u);
    const uint32_t y = table_made(t, OT_F32, s.m * plane * 4u);
    uint32_t *op = table_op(t, OT_CONV);
    set_window(op, &s);
    op[2] = y;
    op[3] = a;
    op[4] = added ? b : OT_NONE;
    op[5] = mode == OT_MASK_NONE ? 0 : groups;
    op[6] = relu ? OT_ACT_RELU : OT_ACT_NONE;
    op[7] = mode == OT_MASK_NONE ? OT_NONE : gate;
    op[21] = table_weights(t, weights, n_weights * 4u);
    op[22] = biased ? table_weights(t, bias, s.m * 4u) : 0;
    op[23] = mode;
    (void)table_op(t, OT_STOP);
    CHECK(table_run(t, &net) == 1, "a convolution failed");
    double *want = malloc(s.m * plane * sizeof *want);
    for (uint32_t m = 0; m < s.m; m++) {
        const bool dropped = mode == OT_MASK_OUT && mask[m / (s.m / groups)] < 0.5f;
        for (uint32_t i = 0; i < plane; i++) {
            double v = convolved(&s, x, weights, mode == OT_MASK_IN ? mask : NULL,
                                 mode == OT_MASK_IN ? s.c / groups : 1u, m, i / s.ow, i % s.ow);
            v = dropped ? 0.0 : v + (biased ? (double)bias[m] : 0.0);
            v += added ? (double)residual[m * plane + i] : 0.0;
            want[m * plane + i] = relu && v < 0 ? 0.0 : v;
        }
    }
    near((const float *)(const void *)net.live[y], want, s.m * plane, "conv");
    free(want);
    free(mask);
    free(residual);
    free(bias);
    free(weights);
    free(x);
    table_free(t);
}

/* More channels than one pass takes: sums go on over passes. */
static void test_many_taps(void)
{
    struct shape s = {.c = 300, .h = 9, .w = 9, .m = 5, .kh = 8, .kw = 8, .sh = 1, .sw = 1,
                      .oh = 2, .ow = 2, .groups = 1, .dh = 1, .dw = 1};
    float *x = floats(s.c * 81u);
    float *weights = floats(s.m * s.c * 64u);
    for (uint32_t i = 0; i < s.m * s.c * 64u; i++) {
        weights[i] /= 64.0f; /* sums of order 1, whose rounding errors stay small */
    }
    struct table *t = table_new();
    const uint32_t a = table_input(t, OT_F32, x, s.c * 81u * 4u);
    const uint32_t y = table_made(t, OT_F32, s.m * 16u);
    uint32_t *op = table_op(t, OT_CONV);
    set_window(op, &s);
    op[2] = y;
    op[3] = a;
    op[21] = table_weights(t, weights, s.m * s.c * 64u * 4u);
    (void)table_op(t, OT_STOP);
    CHECK(table_run(t, &net) == 1, "a large convolution failed");
    double want[20];
    for (uint32_t i = 0; i < 20u; i++) {
        want[i] = convolved(&s, x, weights, NULL, 1u, i / 4u, i % 4u / 2u, i % 2u);
    }
    near((const float *)(const void *)net.live[y], want, 20, "conv of 19200 taps");
    free(weights);
    free(x);
    table_free(t);
}

static void test_pool(void)
{
    struct shape s = random_shape();
    const uint32_t kind = bench_range(0, 2);
    s.m = s.c;
    float *x = floats(s.c * s.h * s.w);
    struct table *t = table_new();
    const uint32_t a = table_input(t, OT_F32, x, s.c * s.h * s.w * 4u);
    const uint32_t y = table_made(t, OT_F32, s.c * s.oh * s.ow * 4u);
    uint32_t *op = table_op(t, OT_POOL);
    set_window(op, &s);
    op[2] = y;
    op[3] = a;
    op[19] = kind;
    (void)table_op(t, OT_STOP);
    CHECK(table_run(t, &net) == 1, "a pool failed");
    const float *got = (const float *)(const void *)net.live[y];
    for (uint32_t i = 0; i < s.c * s.oh * s.ow; i++) {
        double sum = 0.0;
        double top = -3.4028234663852886e38;
        uint32_t count = 0;
        for (uint32_t k = 0; k < s.kh * s.kw; k++) {
            bool inside;
            const double v = pixel(x, &s, i / (s.oh * s.ow), i / s.ow % s.oh, i % s.ow, k / s.kw,
                                   k % s.kw, &inside);
            sum += v;
            count += inside ? 1u : 0u;
            top = inside && v > top ? v : top;
        }
        if (kind == OT_POOL_AVERAGE_PADDED) {
            count = s.kh * s.kw;
        }
        const double mean = count == 0 ? 0.0 : sum / count;
        const double want = kind == OT_POOL_MAX ? top : mean;
        CHECK(fabs((double)got[i] - want) <= 1e-5, "pool %u %u: %g, not %g", kind, i,
              (double)got[i], want);
    }
    free(x);
    table_free(t);
}

static void test_gemm(void)
{
    const uint32_t k = bench_range(1, 70);
    const uint32_t m = bench_range(1, 20);
    const uint32_t rows = bench_range(1, 3);
    float *x = floats(k * rows);
    float *weights = floats(k * m);
    float *bias = floats(m);
    struct table *t = table_new();
    uint32_t *op = table_op(t, OT_GEMM);
    op[3] = table_input(t, OT_F32, x, k * rows * 4u);
    op[2] = table_made(t, OT_F32, m * rows * 4u);
    const uint32_t words[] = {k, m, table_weights(t, weights, k * m * 4u),
                              table_weights(t, bias, m * 4u), rows};
    memcpy(op + 8, words, sizeof words);
    (void)table_op(t, OT_STOP);
    CHECK(table_run(t, &net) == 1, "a product failed");
    double *want = malloc(m * rows * sizeof *want);
    for (uint32_t i = 0; i < m * rows; i++) {
        want[i] = (double)bias[i % m];
        for (uint32_t j = 0; j < k; j++) {
            want[i] += (double)weights[i % m * k + j] * (double)x[i / m * k + j];
        }
    }
    near((const float *)(const void *)net.live[op[2]], want, m * rows, "gemm");
    free(want);
    free(bias);
    free(weights);
    free(x);
    table_free(t);
}

static double sigmoid(double x)
{
    return 1.0 / (1.0 + exp(-x));
}

static void test_lstm(void)
{
    const uint32_t inputs = bench_range(1, 12);
    const uint32_t hidden = bench_range(1, 9);
    float *x = floats(inputs);
    float *h = floats(hidden);
    float *c = floats(hidden);
    float *w = floats(4u * hidden * inputs);
    float *r = floats(4u * hidden * hidden);
    float *b = floats(4u * hidden);
    struct table *t = table_new();
    uint32_t *op = table_op(t, OT_LSTM);
    op[3] = table_input(t, OT_F32, x, inputs * 4u);
    op[4] = table_input(t, OT_F32, h, hidden * 4u);
    op[5] = table_input(t, OT_F32, c, hidden * 4u);
    op[2] = table_made(t, OT_F32, hidden * 4u);
    op[7] = table_made(t, OT_F32, hidden * 4u);
    op[8] = inputs;
    op[9] = hidden;
    op[10] = table_weights(t, w, 16u * hidden * inputs);
    op[11] = table_weights(t, r, 16u * hidden * hidden);
    op[12] = table_weights(t, b, 16u * hidden);
    (void)table_op(t, OT_STOP);
    CHECK(table_run(t, &net) == 1, "a step failed");
    double want_h[9];
    double want_c[9];
    for (uint32_t i = 0; i < hidden; i++) {
        double gate[4];
        for (uint32_t g = 0; g < 4u; g++) {
            const uint32_t row = g * hidden + i;
            gate[g] = (double)b[row];
            for (uint32_t j = 0; j < inputs; j++) {
                gate[g] += (double)w[row * inputs + j] * (double)x[j];
            }
            for (uint32_t j = 0; j < hidden; j++) {
                gate[g] += (double)r[row * hidden + j] * (double)h[j];
            }
        }
        want_c[i] = sigmoid(gate[2]) * (double)c[i] + sigmoid(gate[0]) * tanh(gate[3]);
        want_h[i] = sigmoid(gate[1]) * tanh(want_c[i]);
    }
    near((const float *)(const void *)net.live[op[2]], want_h, hidden, "lstm h");
    near((const float *)(const void *)net.live[op[7]], want_c, hidden, "lstm c");
    free(b);
    free(r);
    free(w);
    free(c);
    free(h);
    free(x);
    table_free(t);
}

/* The unit in the last place of `x`. */
static double ulp(double x)
{
    return nextafter(fabs(x), INFINITY) - fabs(x);
}

static void test_mathematics(void)
{
    double worst_exp = 0.0;
    double worst_log = 0.0;
    for (uint32_t i = 0; i < 200000u; i++) {
        const double x = (double)bench_word() / 4294967296.0 * 1450.0 - 742.0;
        const double e = exp(x);
        worst_exp = fmax(worst_exp, fabs(math_exp(x) - e) / ulp(e));
        const double v = (i & 1u) != 0 ? e : 0.5 + (double)bench_word() / 4294967296.0;
        const double l = log(v);
        worst_log = fmax(worst_log, fabs(math_log(v) - l) / ulp(l));
        const float f = (float)(x / 60.0);
        CHECK(fabsf(math_tanh(f) - (float)tanh((double)f)) <= 6e-8f, "tanh %g", (double)f);
        CHECK(fabsf(math_sigmoid(f) - (float)sigmoid((double)f)) <= 6e-8f, "sigmoid %g", (double)f);
    }
    printf("exp within %.2f ulp, log within %.2f ulp\n", worst_exp, worst_log);
    CHECK(worst_exp <= 2.0 && worst_log <= 2.0, "exp %g ulp, log %g ulp", worst_exp, worst_log);
    CHECK(math_exp(-INFINITY) == 0.0 && isinf(math_exp(INFINITY)) && isnan(math_exp(NAN)), "exp");
    CHECK(isinf(math_log(0.0)) && isnan(math_log(-1.0)) && isinf(math_log(INFINITY)), "log");
    CHECK(math_exp(0.0) == 1.0 && math_log(1.0) == 0.0, "fixed points");
}

int main(int count, char **arguments)
{
    const uint32_t rounds = count > 1 ? (uint32_t)atoi(arguments[1]) : 300u;
    test_many_taps();
    for (uint32_t i = 0; i < rounds; i++) {
        bench_seed(i);
        test_conv();
        test_pool();
        test_gemm();
        test_lstm();
    }
    test_mathematics();
    printf("%u rounds\n", rounds);
    return 0;
}
