/* What each kind's fields must satisfy, so that it reads and writes within its tensors. */
#include "ops.h"
#include "patch.h"
#include "validate.h"

/* a * b, or UINT64_MAX if that does not fit. */
static uint64_t times(uint64_t a, uint64_t b)
{
    uint64_t product;
    return __builtin_mul_overflow(a, b, &product) ? UINT64_MAX : product;
}

static uint64_t plus(uint64_t a, uint64_t b)
{
    uint64_t sum;
    return __builtin_add_overflow(a, b, &sum) ? UINT64_MAX : sum;
}

static uint32_t element_bytes(uint32_t dtype)
{
    return dtype == OT_F32 || dtype == OT_S32 ? 4u : 1u;
}

/* The slot has `dtype` and room for `elements`, at least one. */
static bool holds(const struct network *net, uint32_t slot, uint64_t elements, uint32_t dtype)
{
    const uint32_t *s = slot_at(net, slot);
    return elements != 0 && s[2] == dtype && times(elements, element_bytes(dtype)) <= s[1];
}

/* `bytes` of weights at the pointer, in words. */
static bool constants(const struct network *net, uint32_t pointer, uint64_t bytes)
{
    const uint32_t offset = pointer & 0x3FFFFFFFu;
    return pointer >> 30 == OT_WEIGHTS && offset % 4u == 0 && offset <= net->weights_bytes &&
           bytes <= net->weights_bytes - offset;
}

static bool constants_or_null(const struct network *net, uint32_t pointer, uint64_t bytes)
{
    return pointer == 0 || constants(net, pointer, bytes);
}

/* `count` words of the lists. */
static bool listed(const struct network *net, uint32_t start, uint64_t count)
{
    return start <= net->n_list_words && count <= net->n_list_words - start;
}

static bool node_valid(const struct network *net, const uint32_t *op, uint32_t index)
{
    if (!listed(net, op[8], op[9]) || !listed(net, op[10], op[11]) || op[12] <= index ||
        op[12] > net->n_ops) {
        return false;
    }
    for (uint32_t i = 0; i < op[9]; i++) {
        const uint32_t edge = net->lists[op[8] + i];
        if (edge >> 8 >= net->n_decisions || (edge & 255u) >= MAX_ACTIONS) {
            return false;
        }
    }
    for (uint32_t i = 0; i < op[11]; i++) {
        if (net->lists[op[10] + i] >= net->n_slots) {
            return false;
        }
    }
    return true;
}

/* All three slots are of one type and size, so that whoever reads the chosen one stays within it. */
static bool select_valid(const struct network *net, const uint32_t *op)
{
    const uint32_t *to = slot_at(net, op[2]);
    for (uint32_t i = 3; i < 5u; i++) {
        const uint32_t *from = slot_at(net, op[i]);
        if (from[2] != to[2] || from[1] != to[1]) {
            return false;
        }
    }
    return true;
}

static bool thresholds_valid(const struct network *net, uint32_t first, uint32_t count)
{
    return first <= net->n_thresholds && count <= net->n_thresholds - first;
}

static bool accept_valid(const struct network *net, const uint32_t *op)
{
    const uint32_t *answer = slot_at(net, op[4]);
    if (op[8] > OT_ENTROPY || op[9] >= net->n_decisions || answer[2] != OT_F32 ||
        answer[1] > net->answer_bytes) {
        return false;
    }
    if (op[8] == OT_ALWAYS_ACCEPT) {
        return op[3] == OT_NONE && op[10] == 0 && op[11] == 0;
    }
    return op[3] != OT_NONE && holds(net, op[3], op[11], OT_F32) &&
           thresholds_valid(net, op[10], 1u);
}

static bool combine_valid(const struct network *net, const uint32_t *op)
{
    if (op[8] < OT_LAST || op[8] > OT_JOIN || op[10] == 0 || op[13] > 1u ||
        !listed(net, op[9], times(op[10], 2u)) || op[12] >= net->n_decisions ||
        op[10] > net->n_decisions - op[12]) {
        return false;
    }
    const uint32_t *pairs = net->lists + op[9];
    uint64_t total = 0;
    for (uint32_t i = 0; i < op[10]; i++) {
        const uint32_t count = pairs[2u * i + 1u];
        if (pairs[2u * i] >= net->n_slots || !holds(net, pairs[2u * i], count, OT_F32)) {
            return false;
        }
        if (op[8] == OT_JOIN) {
            total += count;
        } else if (i == 0) {
            total = count;
        } else if (count != total) {
            return false;
        }
    }
    return times(total, 4u) <= net->answer_bytes;
}

static bool in_range(uint32_t value, uint32_t low, uint32_t high)
{
    return value >= low && value <= high;
}

/* What CONV, QCONV and POOL have in common; `ceil` allows windows that hang over by one stride. */
static bool window_valid(const uint32_t *op, const struct window *w, bool ceil)
{
    const uint32_t sizes[] = {w->channels, w->height,   w->width,    w->outputs,
                              w->kernel_h, w->kernel_w, w->out_h,    w->out_w,
                              w->stride_h, w->stride_w, w->dilation_h, w->dilation_w};
    for (uint32_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        if (!in_range(sizes[i], 1u, MAX_DIMENSION)) {
            return false;
        }
    }
    const uint64_t high = (uint64_t)w->height + w->pad_top + high_half(op[16]);
    const uint64_t wide = (uint64_t)w->width + w->pad_left + low_half(op[16]);
    const uint64_t reach_h = (uint64_t)(w->kernel_h - 1u) * w->dilation_h + 1u;
    const uint64_t reach_w = (uint64_t)(w->kernel_w - 1u) * w->dilation_w + 1u;
    if (reach_h > high || reach_w > wide) {
        return false;
    }
    const uint64_t rows = (high - reach_h) / w->stride_h + 1u;
    const uint64_t columns = (wide - reach_w) / w->stride_w + 1u;
    if (ceil) {
        return in_range(w->out_h, 1u, (uint32_t)rows + 1u) &&
               in_range(w->out_w, 1u, (uint32_t)columns + 1u);
    }
    return w->out_h == rows && w->out_w == columns;
}

/* The patch under one output row of `channels` channels fits, and so do their taps. */
static bool patch_fits(const struct window *w, uint32_t channels)
{
    const uint64_t taps = times(times(w->kernel_h, w->kernel_w), channels);
    const uint64_t reach = (uint64_t)(w->kernel_w - 1u) * w->dilation_w / w->stride_w + 1u;
    const uint64_t row = times(plus(w->out_w, reach + PATCH_SPARE), w->stride_w);
    const uint64_t rows = (uint64_t)(w->kernel_h - 1u) * w->dilation_h + 1u;
    return taps <= MAX_TAPS && times(times(row, rows), channels) <= PATCH_FLOATS - PATCH_SPARE;
}

/* Groups, weights and bias of a convolution whose tensors have the given types. */
static bool convolution_valid(const struct network *net, const uint32_t *op, const struct window *w,
                              uint32_t dtype, uint32_t weight_bytes)
{
    if (!window_valid(op, w, false) || w->groups == 0 || w->channels % w->groups != 0 ||
        w->outputs % w->groups != 0) {
        return false;
    }
    const uint64_t pixels = times(w->out_h, w->out_w);
    const uint64_t taps = times(times(w->kernel_h, w->kernel_w), w->channels / w->groups);
    return holds(net, op[3], times(w->channels, times(w->height, w->width)), dtype) &&
           holds(net, op[2], times(w->outputs, pixels), dtype) &&
           constants(net, op[21], times(times(taps, w->outputs), weight_bytes)) &&
           constants_or_null(net, op[22], (uint64_t)w->outputs * 4u);
}

static bool conv_valid(const struct network *net, const uint32_t *op)
{
    const struct window w = window_of(op);
    if (!convolution_valid(net, op, &w, OT_F32, 4u) || !patch_fits(&w, 1u)) {
        return false;
    }
    const uint64_t made = (uint64_t)w.outputs * w.out_h * w.out_w;
    if (op[4] != OT_NONE && !holds(net, op[4], made, OT_F32)) {
        return false;
    }
    if (op[23] == OT_MASK_NONE) {
        return op[5] == 0 && op[7] == OT_NONE;
    }
    const uint32_t channels = op[23] == OT_MASK_OUT ? w.outputs : w.channels;
    return op[23] <= OT_MASK_IN && op[5] != 0 && channels % op[5] == 0 && op[7] != OT_NONE &&
           holds(net, op[7], op[5], OT_F32);
}

static bool qconv_valid(const struct network *net, const uint32_t *op)
{
    const struct window w = window_of(op);
    return convolution_valid(net, op, &w, OT_U8, 1u) && patch_fits(&w, w.channels / w.groups) &&
           constants(net, op[23], 16u + (uint64_t)w.outputs * 4u);
}

static bool pool_valid(const struct network *net, const uint32_t *op)
{
    const struct window w = window_of(op);
    const uint32_t dtype = slot_at(net, op[3])[2];
    return op[19] <= OT_POOL_AVERAGE_PADDED && dtype <= (op[19] == OT_POOL_MAX ? OT_S8 : OT_F32) &&
           window_valid(op, &w, true) && w.outputs == w.channels &&
           holds(net, op[3], times(w.channels, times(w.height, w.width)), dtype) &&
           holds(net, op[2], times(w.channels, times(w.out_h, w.out_w)), dtype);
}

static bool gemm_valid(const struct network *net, const uint32_t *op)
{
    return holds(net, op[3], times(op[8], op[12]), OT_F32) &&
           holds(net, op[2], times(op[9], op[12]), OT_F32) &&
           constants(net, op[10], times(times(op[8], op[9]), 4u)) &&
           constants_or_null(net, op[11], times(op[9], 4u));
}

static bool qgemm_valid(const struct network *net, const uint32_t *op)
{
    return in_range(op[8], 1u, MAX_INT8_TERMS) && holds(net, op[3], op[8], OT_U8) &&
           holds(net, op[2], op[9], OT_U8) && constants(net, op[10], times(op[8], op[9])) &&
           constants_or_null(net, op[11], times(op[9], 4u)) &&
           constants(net, op[12], plus(16u, times(op[9], 4u)));
}

static bool binary_valid(const struct network *net, const uint32_t *op)
{
    const uint64_t count = op[9];
    uint64_t a = count;
    uint64_t b = count;
    if (!in_range(op[8], OT_ADD, OT_GE) || op[10] > OT_A_SCALAR) {
        return false;
    }
    if (op[10] == OT_PER_CHANNEL) {
        b = op[12];
        if (op[11] == 0 || op[12] == 0) {
            return false;
        }
    } else if (op[11] != 0 || op[12] != 0) {
        return false;
    } else if (op[10] == OT_B_SCALAR) {
        b = 1u;
    } else if (op[10] == OT_A_SCALAR) {
        a = 1u;
    }
    return holds(net, op[3], a, OT_F32) && holds(net, op[4], b, OT_F32) &&
           holds(net, op[2], count, OT_F32);
}

static bool concat_valid(const struct network *net, const uint32_t *op)
{
    const uint32_t *to = slot_at(net, op[2]);
    if (op[9] == 0 || op[10] == 0 || !listed(net, op[8], times(op[9], 2u)) ||
        op[11] != element_bytes(to[2])) {
        return false;
    }
    uint64_t inner = 0;
    for (uint32_t i = 0; i < op[9]; i++) {
        const uint32_t *pair = net->lists + op[8] + 2u * (size_t)i;
        if (pair[0] >= net->n_slots || !holds(net, pair[0], times(pair[1], op[10]), to[2])) {
            return false;
        }
        inner += pair[1];
    }
    return holds(net, op[2], times(inner, op[10]), to[2]);
}

/* Whether all elements `offset` + the sum of index * stride lie within `slot`. */
static bool steps_valid(const struct network *net, const uint32_t *sizes, const uint32_t *strides,
                        uint32_t offset, uint32_t slot, uint32_t bytes)
{
    uint64_t back = 0;
    uint64_t ahead = offset;
    for (uint32_t axis = 0; axis < 4u; axis++) {
        const int64_t stride = (int32_t)strides[axis];
        if (!in_range(sizes[axis], 1u, 1u << 28) || stride >= 1 << 28 || stride <= -(1 << 28)) {
            return false;
        }
        const uint64_t steps = sizes[axis] - 1u;
        if (stride < 0) {
            back += steps * (uint64_t)-stride;
        } else {
            ahead += steps * (uint64_t)stride;
        }
    }
    return back <= offset && ahead < slot_at(net, slot)[1] / bytes;
}

static bool copy_valid(const struct network *net, const uint32_t *op)
{
    const uint32_t dtype = slot_at(net, op[2])[2];
    for (uint32_t axis = 12; axis < 16u; axis++) {
        if (op[axis] >= 1u << 28) { /* dst strides are unsigned */
            return false;
        }
    }
    return slot_at(net, op[3])[2] == dtype && op[22] == element_bytes(dtype) &&
           steps_valid(net, op + 8, op + 12, op[20], op[2], op[22]) &&
           steps_valid(net, op + 8, op + 16, op[21], op[3], op[22]);
}

static bool fill_valid(const struct network *net, const uint32_t *op)
{
    const uint32_t dtype = slot_at(net, op[2])[2];
    return op[10] == element_bytes(dtype) && holds(net, op[2], op[8], dtype);
}

static bool affine_valid(const struct network *net, const uint32_t *op)
{
    const uint64_t count = times(op[8], op[9]);
    return holds(net, op[3], count, OT_F32) && holds(net, op[2], count, OT_F32) &&
           constants(net, op[10], times(op[8], 4u)) && constants(net, op[11], times(op[8], 4u));
}

static bool lstm_valid(const struct network *net, const uint32_t *op)
{
    const uint64_t inputs = op[8];
    const uint64_t hidden = op[9];
    return hidden <= PATCH_FLOATS / 4u && holds(net, op[3], inputs, OT_F32) &&
           holds(net, op[4], hidden, OT_F32) && holds(net, op[5], hidden, OT_F32) &&
           holds(net, op[2], hidden, OT_F32) && holds(net, op[7], hidden, OT_F32) &&
           constants(net, op[10], times(16u * hidden, inputs)) &&
           constants(net, op[11], times(16u * hidden, hidden)) &&
           constants_or_null(net, op[12], 16u * hidden);
}

/* QUANTIZE (float32 in word 3) and DEQUANTIZE (in word 2). */
static bool code_valid(const struct network *net, const uint32_t *op, uint32_t real, uint32_t code)
{
    const int32_t zero = (int32_t)op[10];
    const int32_t low = op[11] == 1u ? -128 : 0;
    return op[11] <= 1u && zero >= low && zero <= low + 255 && holds(net, real, op[8], OT_F32) &&
           holds(net, code, op[8], op[11] == 1u ? OT_S8 : OT_U8);
}

static bool qadd_valid(const struct network *net, const uint32_t *op)
{
    return holds(net, op[3], op[8], OT_U8) && holds(net, op[4], op[8], OT_U8) &&
           holds(net, op[2], op[8], OT_U8) && constants(net, op[9], 32u);
}

/* SOFTMAX: as many out as in. MEAN: one out per row. */
static bool rows_valid(const struct network *net, const uint32_t *op)
{
    const uint64_t count = times(op[8], op[9]);
    const uint64_t made = op[0] == OT_MEAN ? op[8] : count;
    return holds(net, op[3], count, OT_F32) && holds(net, op[2], made, OT_F32);
}

static bool unary_valid(const struct network *net, const uint32_t *op)
{
    return in_range(op[8], OT_RELU, OT_LEAKY_RELU) && holds(net, op[3], op[9], OT_F32) &&
           holds(net, op[2], op[9], OT_F32);
}

bool validate_fields(const struct network *net, uint32_t index)
{
    const uint32_t *op = op_at(net, index);
    switch (op[0]) {
    case OT_NODE:
        return node_valid(net, op, index);
    case OT_SELECT:
        return select_valid(net, op);
    case OT_ARGMAX:
        return in_range(op[8], 1u, MAX_ACTIONS) && op[9] < net->n_decisions &&
               holds(net, op[3], op[8], OT_F32);
    case OT_THRESHOLD:
        return in_range(op[8], 1u, MAX_ACTIONS) && op[9] < net->n_decisions &&
               holds(net, op[3], op[8], OT_F32) && thresholds_valid(net, op[10], op[8]);
    case OT_ACCEPT:
        return accept_valid(net, op);
    case OT_COMBINE:
        return combine_valid(net, op);
    case OT_STOP:
        return true;
    case OT_CONV:
        return conv_valid(net, op);
    case OT_GEMM:
        return gemm_valid(net, op);
    case OT_BINARY:
        return binary_valid(net, op);
    case OT_UNARY:
        return unary_valid(net, op);
    case OT_POOL:
        return pool_valid(net, op);
    case OT_MEAN:
    case OT_SOFTMAX:
        return rows_valid(net, op);
    case OT_CONCAT:
        return concat_valid(net, op);
    case OT_COPY:
        return copy_valid(net, op);
    case OT_FILL:
        return fill_valid(net, op);
    case OT_AFFINE:
        return affine_valid(net, op);
    case OT_LSTM:
        return lstm_valid(net, op);
    case OT_QUANTIZE:
        return code_valid(net, op, op[3], op[2]);
    case OT_DEQUANTIZE:
        return code_valid(net, op, op[2], op[3]);
    case OT_QCONV:
        return qconv_valid(net, op);
    case OT_QGEMM:
        return qgemm_valid(net, op);
    case OT_QADD:
        return qadd_valid(net, op);
    default:
        return false;
    }
}
