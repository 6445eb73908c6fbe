/* BINARY, UNARY, AFFINE and SOFTMAX in float32. */
#include "lanes.h"
#include "mathematics.h"
#include "ops.h"

static float binary(uint32_t function, float a, float b)
{
    switch (function) {
    case OT_ADD:
        return a + b;
    case OT_SUB:
        return a - b;
    case OT_MUL:
        return a * b;
    case OT_DIV:
        return a / b;
    case OT_MAX:
        return a > b || a != a ? a : b;
    case OT_MIN:
        return a < b || a != a ? a : b;
    default:
        return a >= b ? 1.0f : 0.0f;
    }
}

/* y = a + b, the form that residual blocks need, four at a time. */
static void add_all(const float *a, const float *b, float *y, uint32_t count, bool relu)
{
    uint32_t i = 0;
    for (; count - i >= LANES; i += LANES) {
        const Lanes sum = lanes_add(lanes_load(a + i), lanes_load(b + i));
        lanes_store(y + i, relu ? lanes_relu(sum) : sum);
    }
    for (; i < count; i++) {
        const float sum = a[i] + b[i];
        y[i] = relu && sum < 0.0f ? 0.0f : sum;
    }
}

bool run_binary(struct network *net, const uint32_t *op)
{
    const uint32_t function = op[8];
    const uint32_t count = op[9];
    const uint32_t broadcast = op[10];
    const bool relu = op[6] == OT_ACT_RELU;
    const float *a = tensor_of(net, op[3]);
    const float *b = tensor_of(net, op[4]);
    float *y = tensor_made(net, op[2]);
    if (function == OT_ADD && broadcast == OT_SAME) {
        add_all(a, b, y, count, relu);
        return true;
    }
    const uint32_t inner = broadcast == OT_PER_CHANNEL ? op[11] : 1u;
    uint32_t channel = 0;
    uint32_t within = 0;
    for (uint32_t i = 0; i < count; i++) {
        const float left = broadcast == OT_A_SCALAR ? a[0] : a[i];
        float right = b[0];
        if (broadcast == OT_SAME || broadcast == OT_A_SCALAR) {
            right = b[i];
        } else if (broadcast == OT_PER_CHANNEL) {
            right = b[channel];
            if (++within == inner) {
                within = 0;
                channel = channel + 1u == op[12] ? 0 : channel + 1u;
            }
        }
        const float value = binary(function, left, right);
        y[i] = relu && value < 0.0f ? 0.0f : value;
    }
    return true;
}

static float unary(const uint32_t *op, float x)
{
    switch (op[8]) {
    case OT_RELU:
        return x < 0.0f ? 0.0f : x;
    case OT_SIGMOID:
        return math_sigmoid(x);
    case OT_TANH:
        return math_tanh(x);
    case OT_EXP:
        return math_expf(x);
    case OT_NEG:
        return -x;
    case OT_ABS:
        return __builtin_fabsf(x);
    case OT_SQRT:
        return __builtin_sqrtf(x);
    case OT_CLIP: {
        const float low = math_float(op[10]);
        const float high = math_float(op[11]);
        const float raised = x < low ? low : x;
        return raised > high ? high : raised;
    }
    case OT_HARD_SIGMOID: {
        const float value = math_float(op[10]) * x + math_float(op[11]);
        const float raised = value < 0.0f ? 0.0f : value;
        return raised > 1.0f ? 1.0f : raised;
    }
    default:
        return x < 0.0f ? math_float(op[10]) * x : x;
    }
}

bool run_unary(struct network *net, const uint32_t *op)
{
    const float *x = tensor_of(net, op[3]);
    float *y = tensor_made(net, op[2]);
    uint32_t i = 0;
    if (op[8] == OT_RELU) {
        for (; op[9] - i >= LANES; i += LANES) {
            lanes_store(y + i, lanes_relu(lanes_load(x + i)));
        }
    }
    for (; i < op[9]; i++) {
        y[i] = unary(op, x[i]);
    }
    return true;
}

bool run_affine(struct network *net, const uint32_t *op)
{
    const bool relu = op[6] == OT_ACT_RELU;
    const float *x = tensor_of(net, op[3]);
    const float *scale = floats_at(net, op[10]);
    const float *shift = floats_at(net, op[11]);
    float *y = tensor_made(net, op[2]);
    for (uint32_t c = 0; c < op[8]; c++, x += op[9], y += op[9]) {
        for (uint32_t i = 0; i < op[9]; i++) {
            const float value = x[i] * scale[c] + shift[c];
            y[i] = relu && value < 0.0f ? 0.0f : value;
        }
    }
    return true;
}

bool run_softmax(struct network *net, const uint32_t *op)
{
    const uint32_t count = op[9];
    const float *x = tensor_of(net, op[3]);
    float *y = tensor_made(net, op[2]);
    for (uint32_t row = 0; row < op[8]; row++, x += count, y += count) {
        float top = x[0];
        for (uint32_t i = 1; i < count; i++) {
            top = x[i] > top || x[i] != x[i] ? x[i] : top;
        }
        double sum = 0.0;
        for (uint32_t i = 0; i < count; i++) {
            const double e = math_exp((double)x[i] - (double)top);
            y[i] = (float)e;
            sum += e;
        }
        for (uint32_t i = 0; i < count; i++) {
            y[i] = (float)((double)y[i] / sum);
        }
    }
    return true;
}
