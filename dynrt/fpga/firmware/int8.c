/* QUANTIZE, DEQUANTIZE, QGEMM and QADD. */
#include "ops.h"
#include "tile8.h"

bool run_quantize(struct network *net, const uint32_t *op)
{
    const float scale = math_float(op[9]);
    const float zero = (float)(int32_t)op[10];
    const bool is_signed = op[11] != 0;
    const float low = is_signed ? -128.0f : 0.0f;
    const float high = is_signed ? 127.0f : 255.0f;
    const float *x = tensor_of(net, op[3]);
    uint8_t *y = tensor_made(net, op[2]);
    for (uint32_t i = 0; i < op[8]; i++) {
        y[i] = (uint8_t)(int32_t)rounded_code(x[i] / scale, zero, low, high);
    }
    return true;
}

bool run_dequantize(struct network *net, const uint32_t *op)
{
    const float scale = math_float(op[9]);
    const int32_t zero = (int32_t)op[10];
    const uint8_t *x = tensor_of(net, op[3]);
    float *y = tensor_made(net, op[2]);
    for (uint32_t i = 0; i < op[8]; i++) {
        const int32_t code = op[11] != 0 && x[i] >= 128u ? (int32_t)x[i] - 256 : (int32_t)x[i];
        y[i] = (float)(code - zero) * scale;
    }
    return true;
}

bool run_qgemm(struct network *net, const uint32_t *op)
{
    struct scaling scaling;
    if (!scaling_at(net, op[12], &scaling)) {
        return false;
    }
    const uint32_t columns = op[8];
    const uint8_t *x = tensor_of(net, op[3]);
    const int8_t *weights = (const int8_t *)memory_at(net, op[10]);
    const int32_t *bias = (const int32_t *)(const void *)memory_at(net, op[11]);
    uint8_t *y = tensor_made(net, op[2]);
    for (uint32_t m = 0; m < op[9]; m++, weights += columns) {
        int32_t sum = 0;
        for (uint32_t k = 0; k < columns; k++) {
            sum += ((int32_t)x[k] - scaling.x_zero) * weights[k];
        }
        y[m] = scaled(&scaling, with_bias(sum, bias, m), m);
    }
    return true;
}

bool run_qadd(struct network *net, const uint32_t *op)
{
    int32_t fields[5]; /* a_zero, b_zero, y_zero, low, high */
    float scales[3];   /* a, b, 1 / y */
    const uint8_t *aux = memory_at(net, op[9]);
    __builtin_memcpy(fields, aux, sizeof fields);
    __builtin_memcpy(scales, aux + sizeof fields, sizeof scales);
    for (unsigned i = 0; i < 5u; i++) {
        if (fields[i] < 0 || fields[i] > 255) {
            return false;
        }
    }
    const uint8_t *a = tensor_of(net, op[3]);
    const uint8_t *b = tensor_of(net, op[4]);
    uint8_t *y = tensor_made(net, op[2]);
    for (uint32_t i = 0; i < op[8]; i++) {
        const float left = (float)((int32_t)a[i] - fields[0]) * scales[0];
        const float right = (float)((int32_t)b[i] - fields[1]) * scales[1];
        y[i] = (uint8_t)rounded_code((left + right) * scales[2], (float)fields[2],
                                     (float)fields[3], (float)fields[4]);
    }
    return true;
}
