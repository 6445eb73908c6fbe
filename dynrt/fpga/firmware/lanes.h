/* Four floats, or four int32 sums of int16 products, at a time: NEON on the board, the compiler's
 * own vectors elsewhere. Products are rounded before they are added (as NEON's VMLA does), so that
 * host and board give the same bits.
 */
#ifndef DYNRT_LANES_H
#define DYNRT_LANES_H

#include <stdint.h>

#define LANES 4u

#if defined(__ARM_NEON)

#include <arm_neon.h>

typedef float32x4_t Lanes;
typedef int32x4_t Sums;
typedef int16x4_t Halves;

static inline Lanes lanes_load(const float *at)
{
    return vld1q_f32(at);
}

static inline void lanes_store(float *at, Lanes value)
{
    vst1q_f32(at, value);
}

static inline Lanes lanes_all(float value)
{
    return vdupq_n_f32(value);
}

static inline Lanes lanes_add(Lanes a, Lanes b)
{
    return vaddq_f32(a, b);
}

static inline Lanes lanes_multiply_add(Lanes sum, Lanes a, Lanes b)
{
    return vmlaq_f32(sum, a, b);
}

/* Of each lane the larger of it and zero; NaN stays NaN. */
static inline Lanes lanes_relu(Lanes value)
{
    return vmaxq_f32(value, vdupq_n_f32(0.0f));
}

static inline Halves halves_load(const int16_t *at)
{
    return vld1_s16(at);
}

static inline Sums sums_load(const int32_t *at)
{
    return vld1q_s32(at);
}

static inline void sums_store(int32_t *at, Sums value)
{
    vst1q_s32(at, value);
}

static inline Sums sums_all(int32_t value)
{
    return vdupq_n_s32(value);
}

static inline Sums sums_multiply_add(Sums sum, Halves a, int16_t b)
{
    return vmlal_s16(sum, a, vdup_n_s16(b));
}

#else

typedef float Lanes __attribute__((vector_size(16)));
typedef int32_t Sums __attribute__((vector_size(16)));
typedef int16_t Halves __attribute__((vector_size(8)));

static inline Lanes lanes_load(const float *at)
{
    Lanes value;
    __builtin_memcpy(&value, at, sizeof value);
    return value;
}

static inline void lanes_store(float *at, Lanes value)
{
    __builtin_memcpy(at, &value, sizeof value);
}

static inline Lanes lanes_all(float value)
{
    return (Lanes){value, value, value, value};
}

static inline Lanes lanes_add(Lanes a, Lanes b)
{
    return a + b;
}

static inline Lanes lanes_multiply_add(Lanes sum, Lanes a, Lanes b)
{
    return sum + a * b;
}

/* Of each lane the larger of it and zero; NaN stays NaN. */
static inline Lanes lanes_relu(Lanes value)
{
    for (unsigned i = 0; i < LANES; i++) {
        value[i] = value[i] < 0.0f ? 0.0f : value[i];
    }
    return value;
}

static inline Halves halves_load(const int16_t *at)
{
    Halves value;
    __builtin_memcpy(&value, at, sizeof value);
    return value;
}

static inline Sums sums_load(const int32_t *at)
{
    Sums value;
    __builtin_memcpy(&value, at, sizeof value);
    return value;
}

static inline void sums_store(int32_t *at, Sums value)
{
    __builtin_memcpy(at, &value, sizeof value);
}

static inline Sums sums_all(int32_t value)
{
    return (Sums){value, value, value, value};
}

static inline Sums sums_multiply_add(Sums sum, Halves a, int16_t b)
{
    return sum + __builtin_convertvector(a, Sums) * (int32_t)b;
}

#endif

static inline float lanes_total(Lanes value)
{
    float parts[LANES];
    lanes_store(parts, value);
    return (parts[0] + parts[1]) + (parts[2] + parts[3]);
}

#endif
