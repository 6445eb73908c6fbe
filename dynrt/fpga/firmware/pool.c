/* POOL and MEAN. */
#include "lanes.h"
#include "ops.h"
#include "patch.h"

/* Where a window meets the channel: taps first..end-1 of one axis, and how many lie in the padding
 * that counts. */
struct taps {
    uint32_t first;
    uint32_t end;
    uint32_t padded;
};

static struct taps taps_of(uint32_t out, uint32_t stride, uint32_t pad, uint32_t pad_behind,
                           uint32_t kernel, uint32_t dilation, uint32_t size)
{
    struct taps taps = {.first = kernel};
    for (uint32_t k = 0; k < kernel; k++) {
        const int64_t at = (int64_t)out * stride + (int64_t)k * dilation - pad;
        if (at >= (int64_t)size + pad_behind) {
            break;
        }
        taps.padded++;
        if (at >= 0 && at < (int64_t)size) {
            taps.first = taps.first < k ? taps.first : k;
            taps.end = k + 1u;
        }
    }
    return taps;
}

static float pooled(const struct window *w, uint32_t kind, const float *channel, int64_t y,
                    int64_t x, struct taps rows, struct taps columns)
{
    const bool largest = kind == OT_POOL_MAX;
    float value = largest ? -3.402823466e38f : 0.0f;
    for (uint32_t ky = rows.first; ky < rows.end; ky++) {
        const float *row = channel + (y + (int64_t)ky * w->dilation_h) * w->width;
        for (uint32_t kx = columns.first; kx < columns.end; kx++) {
            const float v = row[x + (int64_t)kx * w->dilation_w];
            if (!largest) {
                value += v;
            } else if (v > value || v != v) {
                value = v;
            }
        }
    }
    if (largest) {
        return value;
    }
    const uint32_t inside = (rows.end - rows.first) * (columns.end - columns.first);
    const uint32_t all = rows.padded * columns.padded;
    const uint32_t count = kind == OT_POOL_AVERAGE ? inside : all;
    return count == 0 ? 0.0f : value / (float)count;
}

static uint8_t pooled_bytes(const struct window *w, const uint8_t *channel, int64_t y, int64_t x,
                            struct taps rows, struct taps columns, uint8_t flip)
{
    uint8_t value = 0;
    for (uint32_t ky = rows.first; ky < rows.end; ky++) {
        const uint8_t *row = channel + (y + (int64_t)ky * w->dilation_h) * w->width;
        for (uint32_t kx = columns.first; kx < columns.end; kx++) {
            const uint8_t v = row[x + (int64_t)kx * w->dilation_w] ^ flip;
            value = v > value ? v : value;
        }
    }
    return value ^ flip;
}

bool run_pool(struct network *net, const uint32_t *op)
{
    struct window w = window_of(op);
    const uint32_t kind = op[19];
    const uint32_t dtype = slot_at(net, op[3])[2];
    const uint8_t flip = dtype == OT_S8 ? 0x80u : 0; /* orders int8 as uint8 */
    const size_t plane = (size_t)w.height * w.width;
    const uint8_t *bytes = tensor_of(net, op[3]);
    const float *floats = (const float *)(const void *)bytes;
    uint8_t *byte_out = tensor_made(net, op[2]);
    float *float_out = (float *)(void *)byte_out;
    size_t at = 0;
    for (uint32_t c = 0; c < w.channels; c++) {
        for (uint32_t oy = 0; oy < w.out_h; oy++) {
            const struct taps rows = taps_of(oy, w.stride_h, w.pad_top, high_half(op[16]),
                                             w.kernel_h, w.dilation_h, w.height);
            const int64_t y = (int64_t)oy * w.stride_h - w.pad_top;
            for (uint32_t ox = 0; ox < w.out_w; ox++, at++) {
                const struct taps columns = taps_of(ox, w.stride_w, w.pad_left, low_half(op[16]),
                                                    w.kernel_w, w.dilation_w, w.width);
                const int64_t x = (int64_t)ox * w.stride_w - w.pad_left;
                if (dtype == OT_F32) {
                    float_out[at] = pooled(&w, kind, floats + c * plane, y, x, rows, columns);
                } else {
                    byte_out[at] = pooled_bytes(&w, bytes + c * plane, y, x, rows, columns, flip);
                }
            }
        }
    }
    return true;
}

bool run_mean(struct network *net, const uint32_t *op)
{
    const uint32_t inner = op[9];
    const float *x = tensor_of(net, op[3]);
    float *y = tensor_made(net, op[2]);
    for (uint32_t row = 0; row < op[8]; row++, x += inner) {
        Lanes parts = lanes_all(0.0f);
        uint32_t i = 0;
        for (; inner - i >= LANES; i += LANES) {
            parts = lanes_add(parts, lanes_load(x + i));
        }
        float sum = lanes_total(parts);
        for (; i < inner; i++) {
            sum += x[i];
        }
        y[row] = sum / (float)inner;
    }
    return true;
}
