/* A channel mask of CONV: which channels are kept, group by group. */
#ifndef DYNRT_MASK_H
#define DYNRT_MASK_H

#include "network.h"

struct mask {
    const float *values; /* one per group; NULL: all are kept */
    uint32_t channels_per_group;
};

/* Mode `wanted`'s mask of an op over `channels` channels; keeps all if the op has another mode. */
static inline struct mask mask_of(const struct network *net, const uint32_t *op, uint32_t wanted,
                                  uint32_t channels)
{
    if (op[23] != wanted) {
        return (struct mask){.values = NULL, .channels_per_group = channels};
    }
    return (struct mask){
        .values = tensor_of(net, op[7]),
        .channels_per_group = channels / op[5],
    };
}

static inline bool mask_keeps(const struct mask *mask, uint32_t channel)
{
    return mask->values == NULL || mask->values[channel / mask->channels_per_group] >= 0.5f;
}

#endif
