/* One sample through a checked network. */
#ifndef DYNRT_SAMPLE_H
#define DYNRT_SAMPLE_H

#include "network.h"

/* Run net's ops on net->input until an exit answers. Gives OT_NONE and fills decisions, exit,
 * answer and answer_size; or the index of the op that failed: it reads a tensor that was not made,
 * has a NaN among its scores, or is past the last exit. */
uint32_t network_sample(struct network *net);

#endif
