/* Checks that a downloaded table cannot make the interpreter leave its memory. */
#ifndef DYNRT_VALIDATE_H
#define DYNRT_VALIDATE_H

#include "network.h"

struct verdict {
    bool valid;
    uint32_t detail; /* op index | VERDICT_OP, or the table's word that is wrong */
};

/* Set in the detail if an op is wrong. */
#define VERDICT_OP 0x80000000u

/* Read the header of a table of `bytes` bytes and find its sections; counts are checked against
 * the limits and the sections against `bytes`. */
struct verdict network_open(struct network *net, const uint32_t *table, uint32_t bytes);

/* Check all of an opened table: pointers, sizes, indices, jumps, products. */
struct verdict network_validate(const struct network *net);

/* Check one op's fields beyond its slot indices and unused words. */
bool validate_fields(const struct network *net, uint32_t index);

#endif
