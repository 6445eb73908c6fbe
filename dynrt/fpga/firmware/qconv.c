/* QCONV: uint8 pixels, int8 weights, int32 sums; tiles as in conv.c. */
#include "lanes.h"
#include "ops.h"
#include "patch.h"
#include "tile8.h"

#define TILE_ROWS 4u
#define TILE_VECTORS 2u

struct qconv {
    struct window w;
    const uint8_t *input;
    const int8_t *weights;
    const int32_t *bias;
    uint8_t *output;
    struct scaling scaling;
    uint32_t channels; /* of one group, all in one pass */
    uint32_t taps;
};

/* `rows` channels from `channel` on by `vectors` times LANES pixels, `valid` of them stored. */
static inline __attribute__((always_inline)) void
tile(const struct qconv *conv, uint32_t channel, const int16_t *x, size_t at, uint32_t valid,
     const uint32_t rows, const uint32_t vectors)
{
    const size_t plane = (size_t)conv->w.out_h * conv->w.out_w;
    Sums sums[TILE_ROWS][TILE_VECTORS];
    const int8_t *weights[TILE_ROWS];
    for (uint32_t i = 0; i < rows; i++) {
        weights[i] = conv->weights + (size_t)(channel + i) * conv->taps;
        for (uint32_t v = 0; v < vectors; v++) {
            sums[i][v] = sums_all(0);
        }
    }
    for (uint32_t k = 0; k < conv->taps; k++) {
        const int16_t *const pixel = x + patch_tap_table[k];
        Halves pixels[TILE_VECTORS];
        for (uint32_t v = 0; v < vectors; v++) {
            pixels[v] = halves_load(pixel + v * LANES);
        }
        for (uint32_t i = 0; i < rows; i++) {
            for (uint32_t v = 0; v < vectors; v++) {
                sums[i][v] = sums_multiply_add(sums[i][v], pixels[v], weights[i][k]);
            }
        }
    }
    for (uint32_t i = 0; i < rows; i++) {
        int32_t row[TILE_VECTORS * LANES];
        for (uint32_t v = 0; v < vectors; v++) {
            sums_store(row + v * LANES, sums[i][v]);
        }
        uint8_t *out = conv->output + (channel + i) * plane + at;
        for (uint32_t p = 0; p < valid && p < vectors * LANES; p++) {
            out[p] = scaled(&conv->scaling, with_bias(row[p], conv->bias, channel + i),
                            channel + i);
        }
    }
}

static void tile_4x8(const struct qconv *conv, uint32_t channel, const int16_t *x, size_t at,
                     uint32_t valid)
{
    tile(conv, channel, x, at, valid, TILE_ROWS, TILE_VECTORS);
}

static void tile_1x8(const struct qconv *conv, uint32_t channel, const int16_t *x, size_t at,
                     uint32_t valid)
{
    tile(conv, channel, x, at, valid, 1u, TILE_VECTORS);
}

/* Output rows y..y+rows-1 of channels first..end-1; `patch` lies under the first. */
static void output_rows(const struct qconv *conv, uint32_t first, uint32_t end, uint32_t y,
                        uint32_t rows, const int16_t *patch)
{
    const uint32_t width = conv->w.out_w;
    const size_t step = (size_t)patch_layout(&conv->w).row * conv->w.stride_h;
    const uint32_t pixels = TILE_VECTORS * LANES;
    uint32_t channel = first;
    while (channel < end) {
        const bool full = end - channel >= TILE_ROWS;
        for (uint32_t i = 0; i < rows; i++) {
            const size_t at = (size_t)(y + i) * width;
            for (uint32_t x = 0; x < width; x += pixels) {
                (full ? tile_4x8 : tile_1x8)(conv, channel, patch + i * step + x, at + x,
                                             width - x);
            }
        }
        channel += full ? TILE_ROWS : 1u;
    }
}

bool run_qconv(struct network *net, const uint32_t *op)
{
    struct qconv conv = {
        .w = window_of(op),
        .input = tensor_of(net, op[3]),
        .weights = (const int8_t *)memory_at(net, op[21]),
        .bias = (const int32_t *)(const void *)memory_at(net, op[22]),
    };
    if (!scaling_at(net, op[23], &conv.scaling)) {
        return false;
    }
    conv.output = tensor_made(net, op[2]);
    const struct window *w = &conv.w;
    const size_t plane = (size_t)w->height * w->width;
    const uint32_t outputs = w->outputs / w->groups;
    conv.channels = w->channels / w->groups;
    conv.taps = conv.channels * w->kernel_h * w->kernel_w;
    uint32_t channels = conv.channels;
    uint32_t rows = w->out_h;
    patch_split(w, &channels, &rows);
    patch_taps(w, channels, rows, patch_tap_table);
    int16_t *const patch = (int16_t *)(void *)patch_memory;
    const size_t size = (size_t)patch_rows(w, rows) * patch_layout(w).row;
    for (uint32_t g = 0; g < w->groups; g++) {
        const uint8_t *input = conv.input + g * channels * plane;
        for (uint32_t y = 0; y < w->out_h; y += rows) {
            for (uint32_t c = 0; c < channels; c++) {
                patch_bytes(w, input + c * plane, conv.scaling.x_zero, y, rows, patch + c * size);
            }
            const uint32_t left = w->out_h - y < rows ? w->out_h - y : rows;
            output_rows(&conv, g * outputs, (g + 1u) * outputs, y, left, patch);
        }
    }
    return true;
}
