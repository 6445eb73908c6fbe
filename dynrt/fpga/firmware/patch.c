#include "patch.h"

#include "memory.h"

#if defined(DYNRT_BARE)
#define BULK __attribute__((section(".bulk"), aligned(64)))
#else
#define BULK __attribute__((aligned(64)))
#endif

float patch_memory[PATCH_FLOATS] BULK;
uint32_t patch_tap_table[MAX_TAPS] BULK;

struct window window_of(const uint32_t *op)
{
    return (struct window){
        .channels = op[8],
        .height = op[9],
        .width = op[10],
        .outputs = op[11],
        .kernel_h = op[12],
        .kernel_w = op[13],
        .stride_h = high_half(op[14]),
        .stride_w = low_half(op[14]),
        .pad_top = high_half(op[15]),
        .pad_left = low_half(op[15]),
        .out_h = op[17],
        .out_w = op[18],
        .groups = op[19],
        .dilation_h = high_half(op[20]),
        .dilation_w = low_half(op[20]),
    };
}

struct patch_layout patch_layout(const struct window *w)
{
    const uint32_t reach = (w->kernel_w - 1u) * w->dilation_w / w->stride_w + 1u;
    const uint32_t phase = w->out_w + reach + PATCH_SPARE;
    return (struct patch_layout){.phase = phase, .row = phase * w->stride_w};
}

void patch_split(const struct window *w, uint32_t *channels, uint32_t *rows)
{
    const uint32_t row = patch_layout(w).row;
    const uint32_t taps = w->kernel_h * w->kernel_w;
    const uint32_t fit = (PATCH_FLOATS - PATCH_SPARE) / row / patch_rows(w, 1u);
    if (*channels > MAX_TAPS / taps) {
        *channels = MAX_TAPS / taps;
    }
    if (*channels > fit) {
        *channels = fit;
    }
    const uint32_t high = (PATCH_FLOATS - PATCH_SPARE) / row / *channels - patch_rows(w, 1u);
    const uint32_t out_rows = high / w->stride_h + 1u;
    if (*rows > out_rows) {
        *rows = out_rows;
    }
}

void patch_taps(const struct window *w, uint32_t channels, uint32_t rows, uint32_t *taps)
{
    const struct patch_layout layout = patch_layout(w);
    const uint32_t high = patch_rows(w, rows);
    for (uint32_t c = 0; c < channels; c++) {
        for (uint32_t ky = 0; ky < w->kernel_h; ky++) {
            const uint32_t row = (c * high + ky * w->dilation_h) * layout.row;
            for (uint32_t kx = 0; kx < w->kernel_w; kx++) {
                const uint32_t x = kx * w->dilation_w;
                *taps++ = row + (x % w->stride_w) * layout.phase + x / w->stride_w;
            }
        }
    }
}

/* The part of a phase that lies within the channel's row: element i is pixel start + i * stride. */
struct run {
    uint32_t first;
    uint32_t count;
    uint32_t pixel;
};

static struct run inside(const struct window *w, uint32_t phase_length, uint32_t phase)
{
    uint32_t first = 0;
    if (w->pad_left > phase) {
        first = (w->pad_left - phase + w->stride_w - 1u) / w->stride_w;
    }
    const uint32_t pixel = first * w->stride_w + phase - w->pad_left;
    if (first >= phase_length || pixel >= w->width) {
        return (struct run){.first = phase_length};
    }
    uint32_t count = (w->width - pixel - 1u) / w->stride_w + 1u;
    if (count > phase_length - first) {
        count = phase_length - first;
    }
    return (struct run){.first = first, .count = count, .pixel = pixel};
}

/* The channel's row under patch row `y`, or OT_NONE where that is padding. */
static uint32_t source_row(const struct window *w, uint32_t first, uint32_t y)
{
    const uint64_t padded = (uint64_t)first * w->stride_h + y;
    if (padded < w->pad_top || padded - w->pad_top >= w->height) {
        return OT_NONE;
    }
    return (uint32_t)(padded - w->pad_top);
}

void patch_floats(const struct window *w, const float *channel, uint32_t first, uint32_t rows,
                  float *to)
{
    const struct patch_layout layout = patch_layout(w);
    const uint32_t high = patch_rows(w, rows);
    for (uint32_t y = 0; y < high; y++) {
        const uint32_t row = source_row(w, first, y);
        if (row == OT_NONE) {
            memset(to, 0, (size_t)layout.row * sizeof *to);
            to += layout.row;
            continue;
        }
        const float *from = channel + (size_t)row * w->width;
        for (uint32_t phase = 0; phase < w->stride_w; phase++, to += layout.phase) {
            const struct run run = inside(w, layout.phase, phase);
            const uint32_t behind = run.first + run.count;
            memset(to, 0, (size_t)run.first * sizeof *to);
            if (w->stride_w == 1u) {
                memcpy(to + run.first, from + run.pixel, (size_t)run.count * sizeof *to);
            } else {
                for (uint32_t i = 0; i < run.count; i++) {
                    to[run.first + i] = from[run.pixel + i * w->stride_w];
                }
            }
            memset(to + behind, 0, (size_t)(layout.phase - behind) * sizeof *to);
        }
    }
}

void patch_bytes(const struct window *w, const uint8_t *channel, int32_t zero, uint32_t first,
                 uint32_t rows, int16_t *to)
{
    const struct patch_layout layout = patch_layout(w);
    const uint32_t high = patch_rows(w, rows);
    for (uint32_t y = 0; y < high; y++) {
        const uint32_t row = source_row(w, first, y);
        memset(to, 0, (size_t)layout.row * sizeof *to);
        if (row == OT_NONE) {
            to += layout.row;
            continue;
        }
        const uint8_t *from = channel + (size_t)row * w->width;
        for (uint32_t phase = 0; phase < w->stride_w; phase++, to += layout.phase) {
            const struct run run = inside(w, layout.phase, phase);
            for (uint32_t i = 0; i < run.count; i++) {
                to[run.first + i] = (int16_t)(from[run.pixel + i * w->stride_w] - zero);
            }
        }
    }
}
