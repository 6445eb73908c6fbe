/* The four functions that decisions and activations need, in double, without a libm. */
#ifndef DYNRT_MATHEMATICS_H
#define DYNRT_MATHEMATICS_H

#include <stdbool.h>
#include <stdint.h>

#define MATH_INFINITY __builtin_inf()

/* Within 2 units in the last place of the true value, over the whole range; NaN gives NaN. */
double math_exp(double x);
double math_log(double x);

/* Correctly rounded but for about one float32 in ten million. */
float math_sigmoid(float x);
float math_tanh(float x);
float math_expf(float x);

/* The nearest whole number, halves to even, of |x| < 2^22. */
static inline float math_round_even(float x)
{
    const float shift = 12582912.0f; /* 1.5 * 2^23: adding it leaves no bits behind the point */
    return x + shift - shift;
}

static inline bool math_is_nan(double x)
{
    return x != x;
}

static inline float math_float(uint32_t bits)
{
    float value;
    __builtin_memcpy(&value, &bits, sizeof value);
    return value;
}

#endif
