/* A convolution's input, padded and with its columns sorted by stride phase, so that the inner loop
 * reads neighbouring pixels of neighbouring outputs and never asks where the border is.
 */
#ifndef DYNRT_PATCH_H
#define DYNRT_PATCH_H

#include "network.h"

struct window {
    uint32_t channels, height, width;
    uint32_t outputs, kernel_h, kernel_w;
    uint32_t stride_h, stride_w;
    uint32_t pad_top, pad_left;
    uint32_t out_h, out_w;
    uint32_t groups;
    uint32_t dilation_h, dilation_w;
};

/* The fields of an op that has the words 8..20 of CONV. */
struct window window_of(const uint32_t *op);

/* Rows are `row` elements: `stride_w` phases of `phase` elements each. */
struct patch_layout {
    uint32_t phase;
    uint32_t row;
};

/* Elements behind the last pixel that a full group of lanes may read. */
#define PATCH_SPARE 8u

struct patch_layout patch_layout(const struct window *w);

/* Patch rows under `out_rows` output rows. */
static inline uint32_t patch_rows(const struct window *w, uint32_t out_rows)
{
    return (out_rows - 1u) * w->stride_h + (w->kernel_h - 1u) * w->dilation_h + 1u;
}

/* How many channels (at most `channels`) and then output rows (at most `rows`) fit at once.
 * At least one each: the table was checked. */
void patch_split(const struct window *w, uint32_t *channels, uint32_t *rows);

/* Where, relative to an output pixel's first element, each tap of `channels` channels lies. */
void patch_taps(const struct window *w, uint32_t channels, uint32_t rows, uint32_t *taps);

/* Copy the rows under output rows first..first+rows-1 of one channel; zero outside of it. The int8
 * form subtracts the zero point, so that the border is 0 as well. */
void patch_floats(const struct window *w, const float *channel, uint32_t first, uint32_t rows,
                  float *to);
void patch_bytes(const struct window *w, const uint8_t *channel, int32_t zero, uint32_t first,
                 uint32_t rows, int16_t *to);

/* The one patch memory, PATCH_FLOATS floats, and the tap table, MAX_TAPS words. */
extern float patch_memory[];
extern uint32_t patch_tap_table[];

#endif
