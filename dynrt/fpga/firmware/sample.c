#include "sample.h"

#include "ops.h"
#include "platform.h"

static void begin(struct network *net)
{
    for (uint32_t i = 0; i < net->n_slots; i++) {
        const uint32_t *slot = slot_at(net, i);
        net->live[i] = slot[3] == 0 ? NULL : memory_at(net, slot[0]);
    }
    for (uint32_t i = 0; i < net->n_decisions; i++) {
        net->decisions[i] = OT_NONE;
    }
    net->exit = OT_NONE;
    net->answer = NULL;
    net->answer_size = 0;
}

/* Whether a NODE's node runs: some control edge into it is active (or it has none), and all that it
 * needs is there. */
static bool node_runs(const struct network *net, const uint32_t *op)
{
    const uint32_t *edges = net->lists + op[8];
    bool active = op[9] == 0;
    for (uint32_t i = 0; i < op[9] && !active; i++) {
        const uint32_t decided = net->decisions[edges[i] >> 8];
        active = decided != OT_NONE && (decided >> (edges[i] & 31u) & 1u) != 0;
    }
    const uint32_t *needs = net->lists + op[10];
    for (uint32_t i = 0; i < op[11] && active; i++) {
        active = net->live[needs[i]] != NULL;
    }
    return active;
}

/* Whether all tensors that the op reads are there. */
static bool inputs_live(const struct network *net, const struct op_kind *kind, const uint32_t *op)
{
    for (uint32_t i = 0; i < SLOT_USES; i++) {
        const uint32_t slot = op[slot_word(i)];
        const bool read = kind->uses[i] == USE_READ || kind->uses[i] == USE_MAYBE;
        if (read && slot != OT_NONE && net->live[slot] == NULL) {
            return false;
        }
    }
    return true;
}

static bool run_op(struct network *net, uint32_t index, const uint32_t *op)
{
    const struct op_kind *kind = &op_kinds[op[0]];
    if (!inputs_live(net, kind, op)) {
        return false;
    }
    const bool multiplies = OT_MULTIPLIES(op[0]);
    platform_watchdog_feed();
    if (!multiplies && !net->time_ops) {
        return kind->run(net, op);
    }
    const uint64_t start = platform_ticks();
    const bool well = kind->run(net, op);
    const uint64_t ticks = platform_since(start);
    net->op_ticks[index] += ticks;
    if (multiplies) {
        net->mac_ticks += ticks;
    }
    return well;
}

uint32_t network_sample(struct network *net)
{
    begin(net);
    uint32_t at = 0;
    while (at < net->n_ops) {
        const uint32_t *op = op_at(net, at);
        switch (op[0]) {
        case OT_NODE:
            at = node_runs(net, op) ? at + 1u : op[12];
            continue;
        case OT_SELECT:
            net->live[op[2]] = net->live[op[3]] != NULL ? net->live[op[3]] : net->live[op[4]];
            break;
        case OT_STOP:
            return at;
        default:
            if (!run_op(net, at, op)) {
                return at;
            }
            break;
        }
        if (net->answer != NULL) {
            return OT_NONE;
        }
        at++;
    }
    return at;
}
