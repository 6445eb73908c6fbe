#include "store.h"

#include "checksum.h"
#include "memory.h"
#include "validate.h"

#if defined(DYNRT_BARE)
#define BULK __attribute__((section(".bulk"), aligned(64)))
#else
#define BULK __attribute__((aligned(64)))
#endif

static uint32_t table[TABLE_CAP / 4u] BULK;
static uint8_t weights[WEIGHTS_CAP] BULK;
static uint8_t arena[ARENA_CAP] BULK;
static uint8_t inputs[INPUTS_CAP] BULK;
static uint32_t records[LOG_CAP * MAX_RECORD_WORDS] BULK;
static uint8_t answers[LOG_CAP * MAX_ANSWER_BYTES] BULK;

struct session session;
struct network network;

bool store_begin(const struct session *wanted)
{
    const uint64_t samples = (uint64_t)wanted->n_inputs * wanted->input_bytes;
    if (wanted->id == 0 || wanted->table_bytes > TABLE_CAP ||
        wanted->weights_bytes > WEIGHTS_CAP || samples > INPUTS_CAP) {
        return false;
    }
    session = *wanted;
    session.committed = false;
    return true;
}

bool store_commit(uint32_t *detail)
{
    struct verdict verdict = network_open(&network, table, session.table_bytes);
    if (verdict.valid && network.weights_bytes != session.weights_bytes) {
        verdict = (struct verdict){.detail = OT_H_WEIGHTS_BYTES};
    }
    if (verdict.valid && network.input_bytes != session.input_bytes) {
        verdict = (struct verdict){.detail = OT_H_INPUT_BYTES};
    }
    if (verdict.valid && network.arena_bytes > ARENA_CAP) {
        verdict = (struct verdict){.detail = OT_H_ARENA_BYTES};
    }
    if (verdict.valid) {
        verdict = network_validate(&network);
    }
    *detail = verdict.detail;
    session.committed = verdict.valid;
    if (!verdict.valid) {
        return false;
    }
    network.weights = weights;
    network.arena = arena;
    network.input = inputs;
    for (uint32_t i = 0; i < network.n_decisions; i++) {
        network.force[i] = OT_NONE;
    }
    memset(network.op_ticks, 0, sizeof network.op_ticks);
    memset(records, 0, sizeof records);
    memset(answers, 0, (size_t)network.answer_bytes * LOG_CAP);
    return true;
}

static uint32_t record_words(void)
{
    return RECORD_HEAD_WORDS + network.n_decisions;
}

struct span store_region(uint32_t region)
{
    const struct span none = {.at = NULL, .bytes = 0};
    if (region > REGION_INPUTS && !session.committed) {
        return none;
    }
    switch (region) {
    case REGION_TABLE:
        return (struct span){.at = (uint8_t *)table, .bytes = session.table_bytes};
    case REGION_WEIGHTS:
        return (struct span){.at = weights, .bytes = session.weights_bytes};
    case REGION_INPUTS:
        return (struct span){.at = inputs, .bytes = session.n_inputs * session.input_bytes};
    case REGION_FORCE:
        return (struct span){.at = (uint8_t *)network.force, .bytes = network.n_decisions * 4u};
    case REGION_THRESHOLDS:
        return (struct span){
            .at = (uint8_t *)network.thresholds,
            .bytes = network.n_thresholds * 8u,
        };
    case REGION_LOG:
        return (struct span){.at = (uint8_t *)records, .bytes = record_words() * 4u * LOG_CAP};
    case REGION_OPTICKS:
        return (struct span){.at = (uint8_t *)network.op_ticks, .bytes = network.n_ops * 8u};
    case REGION_ANSWERS:
        return (struct span){.at = answers, .bytes = network.answer_bytes * LOG_CAP};
    default:
        return none;
    }
}

bool store_writable(uint32_t region)
{
    return region == REGION_TABLE ? !session.committed : region <= REGION_THRESHOLDS;
}

void store_select(uint32_t index)
{
    network.input = inputs + (size_t)index * session.input_bytes;
}

uint32_t store_record(uint32_t position, uint32_t input, uint64_t ticks, uint32_t crc)
{
    const uint32_t place = position % LOG_CAP;
    uint32_t *record = records + (size_t)place * record_words();
    uint8_t *answer = answers + (size_t)place * network.answer_bytes;
    record[0] = input;
    record[1] = network.exit;
    record[2] = network.answer_size;
    record[3] = (uint32_t)ticks;
    record[4] = (uint32_t)(ticks >> 32);
    memcpy(record + RECORD_HEAD_WORDS, network.decisions, (size_t)network.n_decisions * 4u);
    memcpy(answer, network.answer, network.answer_size);
    crc = crc32_add(crc, record, 3u * sizeof *record);
    crc = crc32_add(crc, record + RECORD_HEAD_WORDS, (size_t)network.n_decisions * 4u);
    return crc32_add(crc, answer, network.answer_size);
}
