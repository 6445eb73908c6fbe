#include "validate.h"

#include "ops.h"

#define MAX_REGION_BYTES (1u << 30)

static const struct verdict VALID = {.valid = true, .detail = OT_NONE};

static struct verdict wrong(uint32_t detail)
{
    return (struct verdict){.valid = false, .detail = detail};
}

struct verdict network_open(struct network *net, const uint32_t *table, uint32_t bytes)
{
    static const struct {
        uint32_t word;
        uint32_t most;
    } bounds[] = {
        {OT_H_NODES, MAX_NODES},
        {OT_H_SLOTS, MAX_SLOTS},
        {OT_H_OPS, MAX_OPS},
        {OT_H_LIST_WORDS, MAX_REGION_BYTES / 4u},
        {OT_H_THRESHOLDS, MAX_THRESHOLDS},
        {OT_H_WEIGHTS_BYTES, MAX_REGION_BYTES},
        {OT_H_ARENA_BYTES, MAX_REGION_BYTES},
        {OT_H_INPUT_BYTES, MAX_REGION_BYTES},
        {OT_H_ANSWER_BYTES, MAX_ANSWER_BYTES},
        {OT_H_DECISIONS, MAX_DECISIONS},
    };
    const uint32_t words = bytes / 4u;
    if (bytes % 4u != 0 || words < OT_HEADER_WORDS) {
        return wrong(OT_H_WORDS);
    }
    if (table[OT_H_MAGIC] != OT_MAGIC) {
        return wrong(OT_H_MAGIC);
    }
    if (table[OT_H_VERSION] != OT_VERSION) {
        return wrong(OT_H_VERSION);
    }
    if (table[OT_H_OP_WORDS] != OT_OP_WORDS) {
        return wrong(OT_H_OP_WORDS);
    }
    for (uint32_t i = 0; i < sizeof bounds / sizeof *bounds; i++) {
        if (table[bounds[i].word] > bounds[i].most) {
            return wrong(bounds[i].word);
        }
    }
    for (uint32_t i = OT_H_PARAMS + 1u; i < OT_HEADER_WORDS; i++) {
        if (table[i] != 0) {
            return wrong(i);
        }
    }
    net->words = table;
    net->n_nodes = table[OT_H_NODES];
    net->n_slots = table[OT_H_SLOTS];
    net->n_ops = table[OT_H_OPS];
    net->n_list_words = table[OT_H_LIST_WORDS];
    net->n_thresholds = table[OT_H_THRESHOLDS];
    net->weights_bytes = table[OT_H_WEIGHTS_BYTES];
    net->arena_bytes = table[OT_H_ARENA_BYTES];
    net->input_bytes = table[OT_H_INPUT_BYTES];
    net->answer_bytes = table[OT_H_ANSWER_BYTES];
    net->n_decisions = table[OT_H_DECISIONS];
    const uint32_t slots = OT_HEADER_WORDS + net->n_nodes * OT_NODE_WORDS;
    const uint32_t lists = slots + net->n_slots * OT_SLOT_WORDS;
    const uint32_t thresholds = lists + net->n_list_words;
    const uint32_t ops = thresholds + net->n_thresholds * OT_THRESHOLD_WORDS;
    const uint32_t end = ops + net->n_ops * OT_OP_WORDS;
    if (end != words || table[OT_H_WORDS] != words) {
        return wrong(OT_H_WORDS);
    }
    net->nodes = table + OT_HEADER_WORDS;
    net->slots = table + slots;
    net->lists = table + lists;
    net->ops = table + ops;
    __builtin_memcpy(net->thresholds, table + thresholds, (size_t)net->n_thresholds * 8u);
    return VALID;
}

/* A slot lies in the region that its flags say, aligned, and within it. */
static bool slot_valid(const struct network *net, const uint32_t *slot)
{
    const uint32_t region = slot[0] >> 30;
    const uint32_t offset = slot[0] & 0x3FFFFFFFu;
    const bool wide = slot[2] == OT_F32 || slot[2] == OT_S32;
    uint32_t room = 0;
    uint32_t align = OT_TENSOR_ALIGN;
    if (slot[2] > OT_S32 || slot[1] == 0 || (wide && slot[1] % 4u != 0)) {
        return false;
    }
    switch (slot[3]) {
    case OT_ALWAYS:
        room = region == OT_WEIGHTS ? net->weights_bytes : 0;
        break;
    case OT_IS_INPUT:
        room = region == OT_INPUT ? net->input_bytes : 0;
        align = OT_INPUT_ALIGN;
        break;
    case 0:
        if (slot[0] == 0) {
            return slot[1] <= MAX_REGION_BYTES;
        }
        room = region == OT_ARENA ? net->arena_bytes : 0;
        break;
    default:
        return false;
    }
    return offset % align == 0 && offset <= room && slot[1] <= room - offset;
}

/* Every slot word holds what its kind uses it for, and unused words hold nothing. */
static bool words_valid(const struct network *net, const uint32_t *op)
{
    const struct op_kind *kind = &op_kinds[op[0]];
    for (uint32_t i = 0; i < SLOT_USES; i++) {
        const uint32_t slot = op[slot_word(i)];
        const uint8_t use = kind->uses[i];
        if (use == USE_WORD || (slot == OT_NONE && (use == USE_NOT || use == USE_MAYBE))) {
            continue;
        }
        if (use == USE_NOT || slot >= net->n_slots) {
            return false;
        }
        const uint32_t *s = slot_at(net, slot);
        if (use == USE_WRITE && (s[3] != 0 || s[0] >> 30 != OT_ARENA)) {
            return false;
        }
        if (use == USE_CHOICE && (s[3] != 0 || s[0] != 0)) {
            return false;
        }
    }
    if (op[6] > (kind->act ? OT_ACT_RELU : 0u)) {
        return false;
    }
    for (uint32_t i = kind->words; i < OT_OP_WORDS; i++) {
        if (op[i] != 0) {
            return false;
        }
    }
    return true;
}

struct verdict network_validate(const struct network *net)
{
    const uint32_t *params = net->words + OT_H_PARAMS;
    if (net->input_bytes % OT_INPUT_ALIGN != 0) {
        return wrong(OT_H_INPUT_BYTES);
    }
    if (net->words[OT_H_SCRATCH_BYTES] > net->arena_bytes) {
        return wrong(OT_H_SCRATCH_BYTES);
    }
    if (*params > net->n_slots) {
        return wrong(OT_H_PARAMS);
    }
    for (uint32_t i = 0; i < net->n_nodes; i++) {
        const uint32_t *node = net->nodes + (size_t)i * OT_NODE_WORDS;
        if (node[0] > OT_NODE_EXIT || node[1] > net->n_ops || node[2] > net->n_ops - node[1] ||
            (node[3] != OT_NONE && node[3] >= net->n_decisions)) {
            return wrong((uint32_t)(node - net->words));
        }
    }
    for (uint32_t i = 0; i < net->n_slots; i++) {
        const uint32_t *slot = slot_at(net, i);
        if (!slot_valid(net, slot) || (i < *params && slot[3] != OT_ALWAYS)) {
            return wrong((uint32_t)(slot - net->words));
        }
    }
    for (uint32_t i = 0; i < net->n_ops; i++) {
        const uint32_t *op = op_at(net, i);
        if (op[0] >= OP_KINDS || op_kinds[op[0]].words == 0 || op[1] >= net->n_nodes ||
            !words_valid(net, op) || !validate_fields(net, i)) {
            return wrong(VERDICT_OP | i);
        }
    }
    return VALID;
}
