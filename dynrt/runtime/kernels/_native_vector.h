/* Vector loops, included once per instruction set by _native.c.
 *
 * The includer defines W (floats per register: 4, 8 or 16) and FN(name) (adds a suffix). A "panel"
 * is 16 columns of a matrix, row after row: PANEL / W registers wide.
 */

#define NV (PANEL / W)
#define vf FN(vf)
#define vi FN(vi)
#define vfu FN(vfu)
#define viu FN(viu)
typedef float vf __attribute__((vector_size(W * 4)));
typedef int32_t vi __attribute__((vector_size(W * 4)));
/* The same, wherever a float may lie. */
typedef float vfu __attribute__((vector_size(W * 4), aligned(4), may_alias));
typedef int32_t viu __attribute__((vector_size(W * 4), aligned(4), may_alias));

#define load FN(load)
#define store FN(store)
#define splat FN(splat)
#define either FN(either)
#define v_exp FN(v_exp)
#define v_sigmoid FN(v_sigmoid)
#define v_tanh FN(v_tanh)
#define v_sum FN(v_sum)

static inline vf load(const float *p) { return (vf)*(const vfu *)p; }
static inline void store(float *p, vf x) { *(vfu *)p = (vfu)x; }
static inline vf splat(float x) { return (vf){0} + x; }
static inline vf either(vi mask, vf yes, vf no) { return (vf)((mask & (vi)yes) | (~mask & (vi)no)); }

/* exp to about 1e-7 relative: 2^n times a polynomial on [-ln 2 / 2, ln 2 / 2]; NaN stays NaN. */
static inline vf v_exp(vf x) {
    const vf top = splat(88.722839f), bottom = splat(-87.336544f);
    vf y = either(x > top, top, x);
    y = either(y < bottom, bottom, y);
    vf t = y * 1.44269504f + 12582912.0f; /* rounds: the integer is in the low bits */
    vi n = (vi)t - 0x4B400000;
    vf k = t - 12582912.0f;
    vf r = y - k * 0.693359375f;
    r = r + k * 2.12194440e-4f;
    vf p = splat(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1.0f;
    /* in two steps, as 2^128 is no float */
    vi half = n >> 1;
    vf low = (vf)((half + 127) << 23), high = (vf)((n - half + 127) << 23);
    p = p * low * high;
    p = either(x > top, splat(INFINITY), p);
    p = either(x < bottom, splat(0.0f), p);
    return either(x != x, x, p);
}

/* No check of the ends: x must not be above 88, and below -87 it gives a little more than 0. */
static inline vf FN(v_exp_bounded)(vf x) {
    vf y = either(x < splat(-87.0f), splat(-87.0f), x);
    vf t = y * 1.44269504f + 12582912.0f;
    vi n = (vi)t - 0x4B400000;
    vf k = t - 12582912.0f;
    vf r = y - k * 0.693359375f;
    r = r + k * 2.12194440e-4f;
    vf p = splat(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1.0f;
    p = p * (vf)((n + 127) << 23);
    return either(x != x, x, p);
}

/* 1 / (1 + exp(-x)), by the smaller exponential, so that nothing overflows. */
static inline vf v_sigmoid(vf x) {
    vf e = FN(v_exp_bounded)(either(x < splat(0.0f), x, -x));
    vf q = 1.0f / (1.0f + e);
    return either(x < splat(0.0f), e * q, q);
}

static inline vf v_tanh(vf x) {
    vi sign = (vi)x & INT32_MIN;
    vf a = (vf)((vi)x & 0x7FFFFFFF);
    vf e = FN(v_exp_bounded)(-2.0f * a);
    vf t = (1.0f - e) / (1.0f + e);
    /* near 0 the difference has lost its digits: x - x^3 / 3 + 2 x^5 / 15 */
    vf s = a * a, u = a + a * s * (s * 0.13333334f - 0.33333334f);
    t = either(a < splat(0.0625f), u, t);
    return (vf)((vi)t | sign);
}

static inline float v_sum(vf x) {
#if HAS_SHUFFLE && W == 16
    x += __builtin_shufflevector(x, x, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7);
    x += __builtin_shufflevector(x, x, 4, 5, 6, 7, 0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3);
    x += __builtin_shufflevector(x, x, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1);
    return x[0] + x[1];
#elif HAS_SHUFFLE && W == 8
    x += __builtin_shufflevector(x, x, 4, 5, 6, 7, 0, 1, 2, 3);
    x += __builtin_shufflevector(x, x, 2, 3, 0, 1, 2, 3, 0, 1);
    return x[0] + x[1];
#else
    float s = 0;
    for (int k = 0; k < W; k++) s += x[k];
    return s;
#endif
}

/* out (16 per panel) = bias + panels x; four chains, so that the additions overlap. */
static void FN(linear)(const Op *o) {
    const float *x = o->a, *w = o->packed, *bias = w + (size_t)o->panels * o->n * PANEL;
    const int n = o->n;
    for (int panel = 0; panel < o->panels; panel++, w += (size_t)n * PANEL, bias += PANEL) {
        vf s0[NV], s1[NV], s2[NV], s3[NV];
        EACH(v) {
            s0[v] = load(bias + v * W);
            s1[v] = s2[v] = s3[v] = splat(0.0f);
        }
        int j = 0;
        for (; j + 4 <= n; j += 4) {
            const float *row = w + (size_t)j * PANEL;
            EACH(v) {
                s0[v] += x[j] * load(row + v * W);
                s1[v] += x[j + 1] * load(row + PANEL + v * W);
                s2[v] += x[j + 2] * load(row + 2 * PANEL + v * W);
                s3[v] += x[j + 3] * load(row + 3 * PANEL + v * W);
            }
        }
        for (; j < n; j++) {
            EACH(v) s0[v] += x[j] * load(w + (size_t)j * PANEL + v * W);
        }
        EACH(v) store(o->out + panel * PANEL + v * W, (s0[v] + s1[v]) + (s2[v] + s3[v]));
    }
}

/* The same for few outputs: rows padded with zeros to whole panels, one product each. */
static void FN(dots)(const Op *o) {
    const int n = o->n, wide = (n + PANEL - 1) / PANEL * PANEL;
    const float *w = o->packed, *bias = w + (size_t)o->m * wide;
    for (int i = 0; i < o->m; i++, w += wide) {
        vf s[NV];
        EACH(v) s[v] = splat(0.0f);
        int j = 0;
        for (; j + PANEL <= n; j += PANEL) {
            EACH(v) s[v] += load(o->a + j + v * W) * load(w + j + v * W);
        }
        float rest = bias[i];
        for (; j < n; j++) rest += o->a[j] * w[j];
        vf all = s[0];
        for (int v = 1; v < NV; v++) all += s[v];
        o->out[i] = rest + v_sum(all);
    }
}

/* One step of an LSTM. Per 16 units and row of (x; h): 16 weights of each of the four gates. */
static void FN(lstm)(const Op *o) {
    const int k = o->m, n = o->n;
    const float *x = o->a, *h = o->b, *c = o->c, *w = o->packed;
    float cell[PANEL], hidden[PANEL];
    for (int unit = 0; unit < k; unit += PANEL) {
        vf z[4][NV], y[4][NV];
        for (int g = 0; g < 4; g++) {
            EACH(v) {
                z[g][v] = load(w + g * PANEL + v * W);
                y[g][v] = splat(0.0f);
            }
        }
        w += 4 * PANEL;
        for (int part = 0; part < 2; part++) {
            const float *from = part ? h : x;
            const int rows = part ? k : n;
            int j = 0;
            for (; j + 2 <= rows; j += 2, w += 8 * PANEL) {
                _Pragma("GCC unroll 4") for (int g = 0; g < 4; g++) {
                    EACH(v) {
                        z[g][v] += from[j] * load(w + g * PANEL + v * W);
                        y[g][v] += from[j + 1] * load(w + (4 + g) * PANEL + v * W);
                    }
                }
            }
            if (j < rows) {
                _Pragma("GCC unroll 4") for (int g = 0; g < 4; g++) {
                    EACH(v) z[g][v] += from[j] * load(w + g * PANEL + v * W);
                }
                w += 4 * PANEL;
            }
        }
        const int left = k - unit < PANEL ? k - unit : PANEL;
        EACH(v) {
            /* c may end before the panel does, but not before the memory's padding */
            vf i = v_sigmoid(z[0][v] + y[0][v]), out = v_sigmoid(z[1][v] + y[1][v]);
            vf forget = v_sigmoid(z[2][v] + y[2][v]), g = v_tanh(z[3][v] + y[3][v]);
            vf now = forget * load(c + unit + v * W) + i * g;
            store(cell + v * W, now);
            store(hidden + v * W, out * v_tanh(now));
        }
        memcpy(o->out + unit, hidden, left * sizeof(float));
        memcpy(o->out + k + unit, cell, left * sizeof(float));
    }
}

#define UNARY(expression)                              \
    for (int i = 0; i < o->m; i += W) {                \
        vf x = load(o->a + i);                         \
        store(o->out + i, expression);                 \
    }                                                  \
    break
#define BINARY(expression)                                             \
    for (int i = 0; i < o->m; i += W) {                                \
        vf x = o->an == 1 ? splat(o->a[0]) : load(o->a + i);           \
        vf y = o->bn == 1 ? splat(o->b[0]) : load(o->b + i);           \
        store(o->out + i, expression);                                 \
    }                                                                  \
    break

static float FN(highest)(const float *x, int n) {
    float best = x[0];
    for (int i = 0; i < n; i++) best = x[i] > best || x[i] != x[i] ? x[i] : best;
    return best;
}

static float FN(total)(const float *x, int n) {
    vf s = splat(0.0f);
    int i = 0;
    for (; i + W <= n; i += W) s += load(x + i);
    float rest = v_sum(s);
    for (; i < n; i++) rest += x[i];
    return rest;
}

static void FN(softmax)(const Op *o) {
    const vf top = splat(FN(highest)(o->a, o->m));
    for (int i = 0; i < o->m; i += W) store(o->out + i, v_exp(load(o->a + i) - top));
    const vf sum = splat(FN(total)(o->out, o->m));
    for (int i = 0; i < o->m; i += W) store(o->out + i, load(o->out + i) / sum);
}

static void FN(operation)(const Op *o) {
    switch (o->kind) {
    case COPY: memmove(o->out, o->a, o->m * sizeof(float)); break;
    case NEG: UNARY(-x);
    case EXP: UNARY(v_exp(x));
    case SQRT: for (int i = 0; i < o->m; i++) o->out[i] = sqrtf(o->a[i]); break;
    case RELU: UNARY(either(x < splat(0.0f), splat(0.0f), x));
    case SIGMOID: UNARY(v_sigmoid(x));
    case TANH: UNARY(v_tanh(x));
    case CLIP: {
        const vf low = splat(o->low), high = splat(o->high);
        for (int i = 0; i < o->m; i += W) {
            vf x = load(o->a + i);
            x = either(x < low, low, x);
            store(o->out + i, either(x > high, high, x));
        }
        break;
    }
    case SOFTMAX: FN(softmax)(o); break;
    case ADD: BINARY(x + y);
    case SUB: BINARY(x - y);
    case MUL: BINARY(x * y);
    case DIV: BINARY(x / y);
    case MAX: BINARY(either((x >= y) | (x != x), x, y));
    case MIN: BINARY(either((x <= y) | (x != x), x, y));
    case REDUCE_MAX: o->out[0] = FN(highest)(o->a, o->an); break;
    case REDUCE_SUM: o->out[0] = FN(total)(o->a, o->an); break;
    case REDUCE_MEAN: o->out[0] = FN(total)(o->a, o->an) / (float)o->an; break;
    case CONCAT: {
        float *to = o->out;
        for (int i = 0; i < o->n; i++) {
            memmove(to, o->memory + o->regions[2 * i], o->regions[2 * i + 1] * sizeof(float));
            to += o->regions[2 * i + 1];
        }
        break;
    }
    case LINEAR: o->panels ? FN(linear)(o) : FN(dots)(o); break;
    case LSTM: FN(lstm)(o); break;
    default: break;
    }
}

static int64_t FN(program)(Kernel *self) {
    const ProgramState *s = self->state;
    for (int i = 0; i < s->loads; i++) memcpy(s->copies[i].to, s->copies[i].from, s->copies[i].bytes);
    for (int i = 0; i < s->operations; i++) FN(operation)(&s->ops[i]);
    for (int i = s->loads; i < s->loads + s->stores; i++)
        memcpy(s->copies[i].to, s->copies[i].from, s->copies[i].bytes);
    return 0;
}

/* Global average pools of one stored sample. */
static int64_t FN(pool_planes)(Kernel *self) { /* float32, plain: (c, pixels) */
    const PoolState *s = self->state;
    const float *x = s->source;
    const int n = s->pixels;
    for (int channel = 0; channel < s->channels; channel++, x += n) {
        vf a = splat(0.0f), b = a, c = a, d = a;
        int i = 0;
        for (; i + 4 * W <= n; i += 4 * W) {
            a += load(x + i);
            b += load(x + i + W);
            c += load(x + i + 2 * W);
            d += load(x + i + 3 * W);
        }
        for (; i + W <= n; i += W) a += load(x + i);
        float rest = v_sum((a + b) + (c + d));
        for (; i < n; i++) rest += x[i];
        s->out[channel] = rest * s->factor + s->offset;
    }
    return 0;
}

/* float32, blocks of 16 channels: (blocks, pixels, 16); as (1, pixels, row) also nhwc of 16 n. */
static int64_t FN(pool_blocks16)(Kernel *self) {
    const PoolState *s = self->state;
    const int n = s->pixels, row = s->row;
    const size_t step = (size_t)(row == PANEL ? n * PANEL : PANEL);
    const float *block = s->source;
    for (int channel = 0; channel < s->channels; channel += PANEL, block += step) {
        vf a[NV], b[NV], c[NV], d[NV];
        EACH(v) a[v] = b[v] = c[v] = d[v] = splat(0.0f);
        const float *x = block;
        int i = 0;
        for (; i + 4 <= n; i += 4, x += 4 * (size_t)row) {
            EACH(v) {
                a[v] += load(x + v * W);
                b[v] += load(x + row + v * W);
                c[v] += load(x + 2 * (size_t)row + v * W);
                d[v] += load(x + 3 * (size_t)row + v * W);
            }
        }
        for (; i < n; i++, x += row) {
            EACH(v) a[v] += load(x + v * W);
        }
        float mean[PANEL];
        EACH(v) store(mean + v * W, ((a[v] + b[v]) + (c[v] + d[v])) * s->factor + s->offset);
        const int left = s->channels - channel < PANEL ? s->channels - channel : PANEL;
        memcpy(s->out + channel, mean, left * sizeof(float));
    }
    return 0;
}

static int64_t FN(pool_blocks8)(Kernel *self) { /* float32, blocks of 8: two pixels in a panel */
    const PoolState *s = self->state;
    const int n = s->pixels * 8;
    const float *x = s->source;
    for (int channel = 0; channel < s->channels; channel += 8, x += n) {
        vf a[NV], b[NV];
        EACH(v) a[v] = b[v] = splat(0.0f);
        int i = 0;
        for (; i + 2 * PANEL <= n; i += 2 * PANEL) {
            EACH(v) {
                a[v] += load(x + i + v * W);
                b[v] += load(x + i + PANEL + v * W);
            }
        }
        float sum[PANEL];
        EACH(v) store(sum + v * W, a[v] + b[v]);
        for (; i < n; i++) sum[i & 7] += x[i];
        const int left = s->channels - channel < 8 ? s->channels - channel : 8;
        for (int k = 0; k < left; k++)
            s->out[channel + k] = (sum[k] + sum[k + 8]) * s->factor + s->offset;
    }
    return 0;
}

/* Any other layout: (blocks, pixels, block) of any dtype; nhwc is one block of c, plain blocks of 1. */
#define POOL_ANY(name, type, sum_type)                                                        \
    static inline __attribute__((always_inline)) void FN(name##_tile)(                        \
        const type *x, int n, int row, int wide, sum_type *sums) {                            \
        sum_type s[TILE] = {0};                                                               \
        for (int i = 0; i < n; i++, x += row)                                                 \
            for (int k = 0; k < wide; k++) s[k] += x[k];                                      \
        for (int k = 0; k < wide; k++) sums[k] = s[k];                                        \
    }                                                                                         \
    static int64_t FN(name)(Kernel *self) {                                                   \
        const PoolState *s = self->state;                                                     \
        const type *x = s->source;                                                            \
        const int n = s->pixels, row = s->row;                                                \
        for (int first = 0; first < s->channels; first += row, x += (size_t)n * row) {        \
            if (row == 1) {                                                                   \
                sum_type sum = 0;                                                             \
                for (int i = 0; i < n; i++) sum += x[i];                                      \
                s->out[first] = (float)sum * s->factor + s->offset;                           \
                continue;                                                                     \
            }                                                                                 \
            int wide = 0;                                                                     \
            for (int from = 0; from < row; from += wide) {                                    \
                sum_type sums[TILE];                                                          \
                const int left = row - from;                                                  \
                wide = left >= TILE ? TILE : left >= 32 ? 32 : left >= 16 ? 16 : left;        \
                if (wide == TILE) FN(name##_tile)(x + from, n, row, TILE, sums);              \
                else if (wide == 32) FN(name##_tile)(x + from, n, row, 32, sums);             \
                else if (wide == 16) FN(name##_tile)(x + from, n, row, 16, sums);             \
                else FN(name##_tile)(x + from, n, row, wide, sums);                           \
                for (int k = 0; k < wide && first + from + k < s->channels; k++)              \
                    s->out[first + from + k] = (float)sums[k] * s->factor + s->offset;        \
            }                                                                                 \
        }                                                                                     \
        return 0;                                                                             \
    }
POOL_ANY(pool_float, float, float)
POOL_ANY(pool_uint8, uint8_t, int32_t)
POOL_ANY(pool_int8, int8_t, int32_t)
#undef POOL_ANY

/* Copies n floats; whether all of them are finite. */
static int FN(finite_copy)(float *to, const float *from, Py_ssize_t n) {
    vi bad = {0};
    Py_ssize_t i = 0;
    for (; i + W <= n; i += W) {
        vf x = load(from + i);
        bad |= ((vi)x & 0x7F800000) == 0x7F800000;
        store(to + i, x);
    }
    int any = 0;
    for (int k = 0; k < W; k++) any |= bad[k];
    for (; i < n; i++) {
        any |= !isfinite(from[i]);
        to[i] = from[i];
    }
    return !any;
}

static const Vectors FN(vectors) = {
    FN(program),    FN(pool_planes), FN(pool_blocks16), FN(pool_blocks8),
    FN(pool_float), FN(pool_uint8),  FN(pool_int8),     FN(finite_copy),
};

#undef UNARY
#undef BINARY
#undef NV
#undef vf
#undef vi
#undef vfu
#undef viu
#undef load
#undef store
#undef splat
#undef either
#undef v_exp
#undef v_sigmoid
#undef v_tanh
#undef v_sum
