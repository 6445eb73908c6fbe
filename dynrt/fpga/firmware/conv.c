/* CONV in float32: tiles of four output channels by eight neighbouring pixels of one row. */
#include "lanes.h"
#include "mask.h"
#include "memory.h"
#include "ops.h"
#include "patch.h"

#define TILE_ROWS 4u
#define TILE_VECTORS 2u

/* One convolution's fixed parts. */
struct conv {
    struct window w;
    const float *input;
    const float *weights;
    const float *bias; /* NULL: zeros */
    const float *residual; /* NULL: none */
    float *output;
    struct mask kept_out;
    struct mask kept_in;
    bool relu;
    bool direct; /* the input itself serves as patch */
};

/* Some channels' contribution: taps `taps` of `count`, from `channel` on. */
struct pass {
    uint32_t channel;
    uint32_t channels;
    uint32_t count;
    bool first;
    bool last;
};

/* Up to TILE_ROWS output channels at one place. */
struct rows {
    const float *weights[TILE_ROWS];
    size_t channel[TILE_ROWS];
    uint32_t count;
};

static inline Lanes load_some(const float *at, uint32_t valid)
{
    if (valid >= LANES) {
        return lanes_load(at);
    }
    float part[LANES] = {0};
    for (uint32_t i = 0; i < valid; i++) {
        part[i] = at[i];
    }
    return lanes_load(part);
}

static inline void store_some(float *at, Lanes value, uint32_t valid)
{
    if (valid >= LANES) {
        lanes_store(at, value);
        return;
    }
    float part[LANES];
    lanes_store(part, value);
    for (uint32_t i = 0; i < valid; i++) {
        at[i] = part[i];
    }
}

/* `rows` channels by `vectors` times LANES pixels, of which `valid` are stored, at output element
 * `at` of each channel. `x` is the patch at the first pixel. Both counts are constants. */
static inline __attribute__((always_inline)) void
tile(const struct conv *conv, const struct pass *pass, const struct rows *r, const float *x,
     size_t at, uint32_t valid, const uint32_t rows, const uint32_t vectors)
{
    const size_t plane = (size_t)conv->w.out_h * conv->w.out_w;
    Lanes sums[TILE_ROWS][TILE_VECTORS];
    const float *weights[TILE_ROWS];
    for (uint32_t i = 0; i < rows; i++) {
        weights[i] = r->weights[i];
        for (uint32_t v = 0; v < vectors; v++) {
            if (!pass->first) {
                const float *partial = conv->output + r->channel[i] * plane + at;
                sums[i][v] = load_some(partial + v * LANES, valid - v * LANES);
            } else {
                sums[i][v] = lanes_all(conv->bias == NULL ? 0.0f : conv->bias[r->channel[i]]);
            }
        }
    }
    const uint32_t *const taps = patch_tap_table;
    for (uint32_t k = 0; k < pass->count; k++) {
        const float *const pixel = x + taps[k];
        Lanes pixels[TILE_VECTORS];
        for (uint32_t v = 0; v < vectors; v++) {
            pixels[v] = lanes_load(pixel + v * LANES);
        }
        for (uint32_t i = 0; i < rows; i++) {
            const Lanes weight = lanes_all(weights[i][k]);
            for (uint32_t v = 0; v < vectors; v++) {
                sums[i][v] = lanes_multiply_add(sums[i][v], pixels[v], weight);
            }
        }
    }
    for (uint32_t i = 0; i < rows; i++) {
        const size_t element = r->channel[i] * plane + at;
        for (uint32_t v = 0; v < vectors; v++) {
            Lanes value = sums[i][v];
            const uint32_t left = valid - v * LANES;
            if (pass->last && conv->residual != NULL) {
                const float *residual = conv->residual + element + v * LANES;
                value = lanes_add(value, load_some(residual, left));
            }
            if (pass->last && conv->relu) {
                value = lanes_relu(value);
            }
            store_some(conv->output + element + v * LANES, value, left);
        }
    }
}

static void tile_4x8(const struct conv *conv, const struct pass *pass, const struct rows *r,
                     const float *x, size_t at)
{
    tile(conv, pass, r, x, at, TILE_VECTORS * LANES, TILE_ROWS, TILE_VECTORS);
}

static void tile_4x4(const struct conv *conv, const struct pass *pass, const struct rows *r,
                     const float *x, size_t at, uint32_t valid)
{
    tile(conv, pass, r, x, at, valid, TILE_ROWS, 1u);
}

static void tile_1x8(const struct conv *conv, const struct pass *pass, const struct rows *r,
                     const float *x, size_t at)
{
    tile(conv, pass, r, x, at, TILE_VECTORS * LANES, 1u, TILE_VECTORS);
}

static void tile_1x4(const struct conv *conv, const struct pass *pass, const struct rows *r,
                     const float *x, size_t at, uint32_t valid)
{
    tile(conv, pass, r, x, at, valid, 1u, 1u);
}

/* Output row `y` of the channels in `r`; `x` is the patch under it. */
static void output_row(const struct conv *conv, const struct pass *pass, const struct rows *r,
                       const float *x, uint32_t y)
{
    const uint32_t width = conv->w.out_w;
    size_t at = (size_t)y * width;
    uint32_t done = 0;
    const bool full = r->count == TILE_ROWS;
    for (; width - done >= TILE_VECTORS * LANES; done += TILE_VECTORS * LANES) {
        (full ? tile_4x8 : tile_1x8)(conv, pass, r, x + done, at + done);
    }
    for (; done < width; done += LANES) {
        (full ? tile_4x4 : tile_1x4)(conv, pass, r, x + done, at + done, width - done);
    }
}

/* The next kept output channels from `*channel` on, below `end`: a full tile's rows, or one. */
static struct rows next_rows(const struct conv *conv, const struct pass *pass, uint32_t *channel,
                             uint32_t end)
{
    const uint32_t per_group = conv->w.channels / conv->w.groups;
    const size_t taps = (size_t)conv->w.kernel_h * conv->w.kernel_w;
    const uint32_t offset = pass->channel % per_group;
    struct rows r = {.count = 0};
    uint32_t behind_first = end;
    for (; *channel < end && r.count < TILE_ROWS; ++*channel) {
        if (mask_keeps(&conv->kept_out, *channel)) {
            r.channel[r.count] = *channel;
            r.weights[r.count] = conv->weights + ((size_t)*channel * per_group + offset) * taps;
            if (r.count++ == 0) {
                behind_first = *channel + 1u;
            }
        }
    }
    if (r.count > 0 && r.count < TILE_ROWS) {
        r.count = 1;
        *channel = behind_first;
    }
    return r;
}

/* One pass over output channels first..end-1 of a group. */
static void run_pass(const struct conv *conv, const struct pass *pass, uint32_t first, uint32_t end)
{
    const struct window *w = &conv->w;
    const size_t plane = (size_t)w->height * w->width;
    uint32_t channels = pass->channels;
    uint32_t rows = w->out_h;
    uint32_t row = w->width;
    const bool direct = conv->direct || channels == 0;
    if (direct) {
        for (uint32_t c = 0; c < channels; c++) {
            patch_tap_table[c] = (uint32_t)(c * plane);
        }
    } else {
        patch_split(w, &channels, &rows);
        patch_taps(w, channels, rows, patch_tap_table);
        row = patch_layout(w).row * w->stride_h;
    }
    for (uint32_t y = 0; y < w->out_h; y += rows) {
        const float *patch = conv->input + pass->channel * plane;
        if (!direct) {
            const size_t high = patch_rows(w, rows);
            for (uint32_t c = 0; c < channels; c++) {
                patch_floats(w, patch + c * plane, y, rows,
                             patch_memory + c * high * patch_layout(w).row);
            }
            patch = patch_memory;
        }
        const uint32_t last = w->out_h - y < rows ? w->out_h - y : rows;
        uint32_t channel = first;
        while (channel < end) {
            const struct rows r = next_rows(conv, pass, &channel, end);
            for (uint32_t i = 0; r.count != 0 && i < last; i++) {
                output_row(conv, pass, &r, patch + (size_t)i * row, y + i);
            }
        }
    }
}

/* The next run of kept input channels from `channel` on, no longer than one pass takes. */
static struct pass next_pass(const struct conv *conv, uint32_t channel, uint32_t end)
{
    while (channel < end && !mask_keeps(&conv->kept_in, channel)) {
        channel++;
    }
    struct pass pass = {.channel = channel};
    if (channel >= end) {
        return pass;
    }
    uint32_t limit = end - channel;
    const uint32_t taps = conv->w.kernel_h * conv->w.kernel_w;
    uint32_t rows = 1;
    if (conv->direct) {
        limit = limit < MAX_TAPS ? limit : MAX_TAPS;
    } else {
        patch_split(&conv->w, &limit, &rows);
    }
    while (pass.channels < limit && mask_keeps(&conv->kept_in, channel + pass.channels)) {
        pass.channels++;
    }
    pass.count = pass.channels * taps;
    return pass;
}

/* Outputs of dropped channels: 0, plus what is added behind the mask. */
static void drop_outputs(const struct conv *conv)
{
    const size_t plane = (size_t)conv->w.out_h * conv->w.out_w;
    for (uint32_t m = 0; m < conv->w.outputs; m++) {
        if (mask_keeps(&conv->kept_out, m)) {
            continue;
        }
        float *out = conv->output + m * plane;
        for (size_t i = 0; i < plane; i++) {
            const float value = conv->residual == NULL ? 0.0f : conv->residual[m * plane + i];
            out[i] = conv->relu && value < 0.0f ? 0.0f : value;
        }
    }
}

bool run_conv(struct network *net, const uint32_t *op)
{
    struct conv conv = {
        .w = window_of(op),
        .input = tensor_of(net, op[3]),
        .weights = floats_at(net, op[21]),
        .bias = floats_at(net, op[22]),
        .residual = op[4] == OT_NONE ? NULL : tensor_of(net, op[4]),
        .relu = op[6] == OT_ACT_RELU,
    };
    struct window *w = &conv.w;
    conv.kept_out = mask_of(net, op, OT_MASK_OUT, w->outputs);
    conv.kept_in = mask_of(net, op, OT_MASK_IN, w->channels);
    conv.output = tensor_made(net, op[2]);
    if (w->kernel_h * w->kernel_w == 1u && w->stride_h * w->stride_w == 1u &&
        w->out_h == w->height && w->out_w == w->width && w->height * w->width % LANES == 0) {
        conv.direct = true;
        w->width *= w->height;
        w->out_w = w->width;
        w->height = w->out_h = 1;
    }
    const uint32_t per_group = w->channels / w->groups;
    const uint32_t outputs = w->outputs / w->groups;
    for (uint32_t g = 0; g < w->groups; g++) {
        const uint32_t end = (g + 1u) * per_group;
        struct pass pass = next_pass(&conv, g * per_group, end);
        pass.first = true;
        do {
            struct pass behind = next_pass(&conv, pass.channel + pass.channels, end);
            pass.last = behind.count == 0;
            run_pass(&conv, &pass, g * outputs, (g + 1u) * outputs);
            pass = behind;
        } while (pass.count != 0);
    }
    drop_outputs(&conv);
    return true;
}
