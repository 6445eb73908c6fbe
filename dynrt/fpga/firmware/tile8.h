/* Int8 results: an int32 sum scaled, rounded half to even, moved to its zero point and clamped. */
#ifndef DYNRT_TILE8_H
#define DYNRT_TILE8_H

#include "mathematics.h"
#include "network.h"

/* The words {x_zero, y_zero, low, high} of QCONV and QGEMM, and a multiplier per output channel. */
struct scaling {
    int32_t x_zero;
    float y_zero;
    float low;
    float high;
    const float *multipliers;
};

/* False if a field is no uint8: memory may have been written since the table was checked. */
static inline bool scaling_at(const struct network *net, uint32_t pointer, struct scaling *scaling)
{
    int32_t fields[4];
    const uint8_t *at = memory_at(net, pointer);
    __builtin_memcpy(fields, at, sizeof fields);
    for (unsigned i = 0; i < 4u; i++) {
        if (fields[i] < 0 || fields[i] > 255) {
            return false;
        }
    }
    *scaling = (struct scaling){
        .x_zero = fields[0],
        .y_zero = (float)fields[1],
        .low = (float)fields[2],
        .high = (float)fields[3],
        .multipliers = (const float *)(const void *)(at + sizeof fields),
    };
    return true;
}

/* `value` rounded and moved to `zero`, within low..high (of NaN: low). */
static inline float rounded_code(float value, float zero, float low, float high)
{
    if (!(value > low - zero)) {
        return low;
    }
    if (value > high - zero) {
        return high;
    }
    return math_round_even(value) + zero;
}

static inline uint8_t scaled(const struct scaling *s, int32_t sum, uint32_t channel)
{
    const float value = (float)sum * s->multipliers[channel];
    return (uint8_t)rounded_code(value, s->y_zero, s->low, s->high);
}

/* The sum of an accumulator and a bias, which may wrap. */
static inline int32_t with_bias(int32_t sum, const int32_t *bias, uint32_t channel)
{
    const uint32_t added = bias == NULL ? 0u : (uint32_t)bias[channel];
    return (int32_t)((uint32_t)sum + added);
}

#endif
