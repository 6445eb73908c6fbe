#include "mathematics.h"

static const double LN2_HIGH = 6.93147180369123816490e-01; /* its low 32 bits are zero */
static const double LN2_LOW = 1.90821492927058770002e-10;
static const double LOG2_E = 1.44269504088896338700;

static double from_bits(uint64_t bits)
{
    double value;
    __builtin_memcpy(&value, &bits, sizeof value);
    return value;
}

static uint64_t to_bits(double value)
{
    uint64_t bits;
    __builtin_memcpy(&bits, &value, sizeof bits);
    return bits;
}

/* 2^k of a normal number's exponent. */
static double power_of_two(int k)
{
    return from_bits((uint64_t)(k + 1023) << 52);
}

/* e^x = 2^k e^r with |r| <= ln 2 / 2, whose Taylor series of degree 13 is exact to 4e-18. */
double math_exp(double x)
{
    static const double inverse_factorial[] = {
        1.0 / 6227020800.0, 1.0 / 479001600.0, 1.0 / 39916800.0, 1.0 / 3628800.0,
        1.0 / 362880.0,     1.0 / 40320.0,     1.0 / 5040.0,     1.0 / 720.0,
        1.0 / 120.0,        1.0 / 24.0,        1.0 / 6.0,        0.5,
    };
    if (math_is_nan(x)) {
        return x;
    }
    if (x > 709.79) {
        return MATH_INFINITY;
    }
    if (x < -745.14) {
        return 0.0;
    }
    const int k = (int)(x * LOG2_E + (x < 0 ? -0.5 : 0.5));
    const double r = (x - (double)k * LN2_HIGH) - (double)k * LN2_LOW;
    double sum = inverse_factorial[0];
    for (unsigned i = 1; i < sizeof inverse_factorial / sizeof *inverse_factorial; i++) {
        sum = sum * r + inverse_factorial[i];
    }
    const double value = 1.0 + (r + r * r * sum);
    if (k > 1022) { /* 2^1024 is no number, though the product may be one */
        return value * power_of_two(k - 1) * 2.0;
    }
    if (k < -1021) { /* towards the subnormal numbers in two steps */
        return value * power_of_two(k + 64) * power_of_two(-64);
    }
    return value * power_of_two(k);
}

/* ln(m 2^e) = e ln 2 + 2 artanh((m - 1) / (m + 1)) with m in [sqrt(1/2), sqrt(2)). */
double math_log(double x)
{
    if (math_is_nan(x) || x < 0) {
        return __builtin_nan("");
    }
    if (x == 0.0) {
        return -MATH_INFINITY;
    }
    if (x == MATH_INFINITY) {
        return x;
    }
    int exponent = 0;
    if (x < power_of_two(-1022)) {
        x *= power_of_two(54);
        exponent = -54;
    }
    const uint64_t bits = to_bits(x);
    exponent += (int)(bits >> 52) - 1023;
    double m = from_bits((bits & 0x000FFFFFFFFFFFFFull) | 0x3FF0000000000000ull);
    if (m > 1.41421356237309514547) {
        m *= 0.5;
        exponent++;
    }
    const double f = m - 1.0;
    const double s = f / (2.0 + f);
    const double z = s * s;
    double sum = 0.0;
    for (int term = 23; term >= 3; term -= 2) {
        sum = sum * z + 2.0 / term;
    }
    /* 2 s = f - s f, so the large part f stays exact. */
    const double tail = s * (z * sum) - s * f;
    return (double)exponent * LN2_HIGH + (f + (tail + (double)exponent * LN2_LOW));
}

float math_expf(float x)
{
    const double value = math_exp((double)x);
    return value > 3.4028235677973366e38 ? (float)MATH_INFINITY : (float)value;
}

float math_sigmoid(float x)
{
    return (float)(1.0 / (1.0 + math_exp(-(double)x)));
}

float math_tanh(float x)
{
    const double v = (double)x;
    const double size = v < 0 ? -v : v;
    if (size < 1e-3) {
        return (float)(v - v * v * v / 3.0);
    }
    if (size > 20.0) {
        return v < 0 ? -1.0f : 1.0f;
    }
    const double e = math_exp(2.0 * v);
    return (float)((e - 1.0) / (e + 1.0));
}
