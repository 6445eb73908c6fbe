/* The protocol: a network downloaded and run, retries that never run twice, every refusal; and, with
 * an argument, so many damaged and hostile frames. */
#include "agent.h"
#include "bench.h"
#include "checksum.h"
#include "frame.h"
#include "platform_double.h"
#include "store.h"

static uint8_t next_sequence;

/* A request as it is on the wire. */
static size_t encoded(uint8_t type, uint8_t sequence, const void *payload, size_t count,
                      uint8_t *out)
{
    uint8_t body[MAX_BODY];
    body[0] = type;
    body[1] = sequence;
    memcpy(body + 2, payload, count);
    const uint32_t crc = crc32_add(0, body, count + 2u);
    memcpy(body + 2 + count, &crc, 4);
    out[0] = 0;
    const size_t used = cobs_encode(body, count + 6u, out + 1);
    out[used + 1u] = 0;
    return used + 2u;
}

static void take(const uint8_t *bytes, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        agent_take(bytes[i]);
    }
}

static void ask(uint8_t type, const void *payload, size_t count)
{
    uint8_t frame[MAX_ENCODED + 2u];
    take(frame, encoded(type, ++next_sequence, payload, count, frame));
}

/* The next reply of `sent`: every byte the agent sends must belong to a sound frame. */
static struct frame reply_at(size_t *at)
{
    static struct receiver receiver;
    while (*at < sent_count) {
        const struct frame frame = receiver_take(&receiver, sent[(*at)++]);
        if (frame.state != FRAME_NONE) {
            CHECK(frame.state == FRAME_GOOD, "the agent sent a damaged frame");
            return frame;
        }
    }
    return (struct frame){.state = FRAME_NONE};
}

static size_t read_to;

static struct frame reply(uint8_t type)
{
    const struct frame frame = reply_at(&read_to);
    CHECK(frame.state == FRAME_GOOD && frame.type == type, "type %x, not %x", frame.type, type);
    CHECK(frame.sequence == next_sequence, "sequence %u", frame.sequence);
    if (read_to == sent_count) {
        read_to = sent_count = 0;
    }
    return frame;
}

static uint32_t word_of(const struct frame *frame, uint32_t index)
{
    uint32_t value;
    memcpy(&value, frame->payload + index * 4u, 4);
    return value;
}

static void refused(uint8_t code, uint8_t type)
{
    const struct frame frame = reply(WIRE_NAK);
    CHECK(frame.count == 6 && frame.payload[0] == code && frame.payload[1] == type,
          "code %u of type %x, not %u of %x", frame.payload[0], frame.payload[1], code, type);
}

static void write_region(uint32_t session_id, uint32_t region, uint32_t offset, const void *from,
                         uint32_t bytes)
{
    uint8_t payload[MAX_PAYLOAD];
    const uint32_t head[3] = {session_id, region, offset};
    memcpy(payload, head, sizeof head);
    memcpy(payload + 12, from, bytes);
    ask(WIRE_WRITE, payload, 12u + bytes);
}

/* An exit that answers with its input's two floats if the first is at least the threshold. */
static struct table *small_network(void)
{
    const float x[2] = {0};
    struct table *t = table_new();
    uint32_t *op = table_op(t, OT_ACCEPT);
    op[3] = op[4] = table_input(t, OT_F32, x, sizeof x);
    op[8] = OT_HINGE;
    op[9] = 0;
    op[11] = 1;
    t->thresholds[0] = 0.5;
    t->n_thresholds = 1;
    t->n_decisions = 1;
    t->answer_bytes = 8;
    uint32_t *second = table_op(t, OT_UNARY);
    second[2] = table_made(t, OT_F32, 8);
    second[3] = op[3];
    second[8] = OT_NEG;
    second[9] = 2;
    uint32_t *last = table_op(t, OT_ACCEPT);
    last[4] = second[2];
    last[9] = 1;
    t->n_decisions = 2;
    (void)table_op(t, OT_STOP);
    const float weights[4] = {1, 2, 3, 4};
    (void)table_constant(t, OT_F32, weights, sizeof weights);
    table_encode(t);
    return t;
}

static const float samples[4][2] = {{1, 2}, {0.25, 3}, {0.5, 4}, {-1, 5}};

static void download(struct table *t)
{
    const uint32_t begin[5] = {77, t->n_words * 4u, t->weights_bytes, 4, 8};
    ask(WIRE_BEGIN, begin, sizeof begin);
    CHECK(reply(WIRE_BEGIN | WIRE_REPLY).count == 4, "BEGIN");
    write_region(77, REGION_TABLE, 0, t->words, t->n_words * 4u);
    (void)reply(WIRE_WRITE | WIRE_REPLY);
    write_region(77, REGION_WEIGHTS, 0, t->weights, t->weights_bytes);
    (void)reply(WIRE_WRITE | WIRE_REPLY);
    write_region(77, REGION_INPUTS, 0, samples, sizeof samples);
    (void)reply(WIRE_WRITE | WIRE_REPLY);
}

static void commit(const struct table *t)
{
    const uint32_t words[3] = {77, crc32_add(0, t->words, t->n_words * 4u),
                               crc32_add(0, t->weights, t->weights_bytes)};
    ask(WIRE_COMMIT, words, sizeof words);
}

static struct frame read_region(uint32_t region, uint32_t offset, uint32_t length)
{
    const uint32_t words[4] = {77, region, offset, length};
    ask(WIRE_READ, words, sizeof words);
    return reply(WIRE_READ | WIRE_REPLY);
}

static void test_download(struct table *t)
{
    const uint32_t run[6] = {77, 5, 0, 4, 1, RUN_MARKER};
    ask(WIRE_RUN, run, sizeof run);
    refused(NAK_NO_SESSION, WIRE_RUN);
    download(t);
    ask(WIRE_RUN, run, sizeof run);
    refused(NAK_NOT_COMMITTED, WIRE_RUN);
    const uint32_t bad[3] = {77, 1, 2};
    ask(WIRE_COMMIT, bad, sizeof bad);
    refused(NAK_CRC, WIRE_COMMIT);
    uint32_t word = 99;
    write_region(77, REGION_TABLE, t->n_words * 4u - 96u, &word, 4); /* the last op's kind */
    (void)reply(WIRE_WRITE | WIRE_REPLY);
    uint32_t *last = t->words + t->n_words - OT_OP_WORDS;
    *last = 99;
    commit(t);
    const struct frame nak = reply(WIRE_NAK);
    memcpy(&word, nak.payload + 2, 4);
    CHECK(nak.payload[0] == NAK_TABLE && word == (VERDICT_OP | 3u), "op %x", word);
    *last = OT_STOP;
    write_region(77, REGION_TABLE, t->n_words * 4u - 96u, last, 4);
    (void)reply(WIRE_WRITE | WIRE_REPLY);
    commit(t);
    const struct frame done = reply(WIRE_COMMIT | WIRE_REPLY);
    CHECK(word_of(&done, 0) == 1, "COMMIT");
    write_region(77, REGION_TABLE, 0, t->words, 4);
    refused(NAK_BOUNDS, WIRE_WRITE);
}

static void test_run(void)
{
    const uint32_t run[6] = {77, 5, 0, 4, 1, RUN_MARKER | RUN_OP_TICKS};
    ask(WIRE_RUN, run, sizeof run);
    struct frame frame = reply(WIRE_STARTED);
    CHECK(word_of(&frame, 0) == 5, "STARTED");
    const uint32_t status[2] = {77, 5};
    ask(WIRE_STATUS, status, sizeof status);
    frame = reply(WIRE_STATUS | WIRE_REPLY);
    CHECK(word_of(&frame, 1) == STATE_RUNNING, "state %u", word_of(&frame, 1));
    next_sequence--;
    agent_work();
    frame = reply(WIRE_DONE);
    CHECK(frame.count == 44 && word_of(&frame, 0) == 5 && word_of(&frame, 1) == STATE_DONE &&
              word_of(&frame, 8) == 4 && word_of(&frame, 10) == OT_NONE,
          "DONE");
    uint8_t first[44];
    memcpy(first, frame.payload, sizeof first);
    CHECK(marked_count > 0 && memcmp(marked, "M1,5,run,", 9) == 0, "marker %.20s", marked);
    for (size_t at = 0, end = 0; at < marked_count; at = end + 7u) { /* *HHHH\r\n */
        for (end = at; marked[end] != '*'; end++) {
        }
        char digits[5];
        snprintf(digits, sizeof digits, "%04X", crc16_add(0xFFFF, marked + at, end - at));
        CHECK(memcmp(marked + end + 1, digits, 4) == 0, "CRC %.30s", marked + at);
    }
    /* Records and answers, and the CRC over them. */
    const uint32_t exits[4] = {0, 1, 0, 1};
    uint32_t crc = 0;
    for (uint32_t i = 0; i < 4u; i++) {
        uint32_t record[7];
        frame = read_region(REGION_LOG, i * 28u, 28);
        memcpy(record, frame.payload, 28);
        CHECK(record[0] == i && record[1] == exits[i] && record[2] == 8, "record %u", i);
        CHECK(record[5] == (exits[i] == 0) && record[6] == (exits[i] == 0 ? OT_NONE : 1u),
              "decisions of %u", i);
        float answer[2];
        frame = read_region(REGION_ANSWERS, i * 8u, 8);
        memcpy(answer, frame.payload, 8);
        const float sign = exits[i] == 0 ? 1.0f : -1.0f;
        CHECK(answer[0] == sign * samples[i][0] && answer[1] == sign * samples[i][1], "answer");
        crc = crc32_add(crc32_add(crc32_add(crc, record, 12), record + 5, 8), answer, 8);
    }
    uint32_t told;
    memcpy(&told, first + 36, 4);
    CHECK(told == crc, "CRC of the run");
    /* A retry is answered and not run; another request under its number is refused. */
    const size_t lines = marked_count;
    ask(WIRE_RUN, run, sizeof run);
    (void)reply(WIRE_STARTED);
    frame = reply(WIRE_DONE);
    CHECK(memcmp(frame.payload, first, sizeof first) == 0 && marked_count == lines, "ran twice");
    agent_work();
    CHECK(sent_count == 0, "ran twice");
    uint32_t other[6];
    memcpy(other, run, sizeof other);
    other[4] = 2;
    ask(WIRE_RUN, other, sizeof other);
    refused(NAK_RUN_ID, WIRE_RUN);
}

/* Requests that arrive within a window. */
static void test_busy(void)
{
    uint8_t frames[3 * (MAX_ENCODED + 2u)];
    const uint32_t run[6] = {77, 6, 0, 4, 1, 0};
    const uint32_t another[6] = {77, 7, 0, 4, 1, 0};
    const uint32_t status[2] = {77, 6};
    ask(WIRE_RUN, run, sizeof run);
    (void)reply(WIRE_STARTED);
    const uint8_t sequence = next_sequence;
    arriving = frames;
    arriving_count = encoded(WIRE_STATUS, sequence, status, 8, frames);
    arriving_count += encoded(WIRE_RUN, sequence, another, 24, frames + arriving_count);
    arriving_count += encoded(WIRE_RUN, sequence, run, 24, frames + arriving_count);
    agent_work();
    const struct frame frame = reply(WIRE_STATUS | WIRE_REPLY);
    CHECK(word_of(&frame, 1) == STATE_RUNNING, "state within a window");
    refused(NAK_BUSY, WIRE_RUN);
    (void)reply(WIRE_STARTED);
    (void)reply(WIRE_DONE);
    CHECK(sent_count == 0, "more than one DONE");
}

static void test_force_and_fault(void)
{
    const uint32_t force[2] = {0, 0};
    write_region(77, REGION_FORCE, 0, force, sizeof force);
    (void)reply(WIRE_WRITE | WIRE_REPLY);
    const uint32_t run[6] = {77, 8, 0, 1, 1, 0};
    ask(WIRE_RUN, run, sizeof run);
    (void)reply(WIRE_STARTED);
    agent_work();
    const struct frame frame = reply(WIRE_DONE);
    CHECK(word_of(&frame, 1) == STATE_FAULT && word_of(&frame, 10) == 3, "no exit accepted");
    const uint32_t decide[2] = {OT_NONE, OT_NONE};
    write_region(77, REGION_FORCE, 0, decide, sizeof decide);
    (void)reply(WIRE_WRITE | WIRE_REPLY);
}

static void test_idle(void)
{
    const uint32_t idle[5] = {77, 9, 5000, 0, RUN_MARKER};
    ask(WIRE_IDLE, idle, sizeof idle);
    (void)reply(WIRE_STARTED);
    agent_work();
    const struct frame frame = reply(WIRE_DONE);
    uint64_t span[2];
    memcpy(span, frame.payload + 8, sizeof span);
    CHECK(span[1] - span[0] >= 5000 && span[1] - span[0] < 5100 && word_of(&frame, 8) == 0,
          "%u ticks", (uint32_t)(span[1] - span[0]));
}

static void test_refusals(void)
{
    const uint32_t words[8] = {77, 0, 0, 0, 0, 0, 0, 0};
    ask(0x55, words, 0);
    refused(NAK_TYPE, 0x55);
    ask(WIRE_HELLO, words, 4);
    refused(NAK_LENGTH, WIRE_HELLO);
    ask(WIRE_RUN, words, 24);
    refused(NAK_BOUNDS, WIRE_RUN);
    const uint32_t past[4] = {77, REGION_INPUTS, 33, 0};
    ask(WIRE_READ, past, sizeof past);
    refused(NAK_BOUNDS, WIRE_READ);
    const uint32_t wraps[4] = {77, REGION_INPUTS, 8, 0xFFFFFFFC};
    ask(WIRE_CRC, wraps, sizeof wraps);
    refused(NAK_BOUNDS, WIRE_CRC);
    const uint32_t no_region[4] = {77, 8, 0, 0};
    ask(WIRE_READ, no_region, sizeof no_region);
    refused(NAK_BOUNDS, WIRE_READ);
    const uint32_t stranger[4] = {78, REGION_INPUTS, 0, 4};
    ask(WIRE_READ, stranger, sizeof stranger);
    refused(NAK_NO_SESSION, WIRE_READ);
    write_region(77, REGION_LOG, 0, words, 4);
    refused(NAK_BOUNDS, WIRE_WRITE);
    const uint32_t large[5] = {1, 4, 0xFFFFFFFF, 1, 8};
    ask(WIRE_BEGIN, large, sizeof large);
    refused(NAK_BOUNDS, WIRE_BEGIN);
    uint8_t frame[MAX_ENCODED + 2u];
    size_t count = encoded(WIRE_ECHO, ++next_sequence, "hello", 5, frame);
    frame[5] ^= 0x20;
    take(frame, count);
    refused(NAK_CRC, 0);
    const uint8_t cut[] = {0, 9, 1, 0};
    take(cut, sizeof cut);
    const struct frame nak = reply_at(&read_to);
    CHECK(nak.type == WIRE_NAK && nak.payload[0] == NAK_COBS, "a cut frame");
    read_to = sent_count = 0;
    for (uint32_t i = 0; i < 2u * MAX_ENCODED; i++) {
        agent_take(1);
    }
    agent_take(0);
    CHECK(reply_at(&read_to).payload[0] == NAK_COBS, "an endless frame");
    read_to = sent_count = 0;
    ask(WIRE_ECHO, "hello", 5);
    CHECK(memcmp(reply(WIRE_ECHO | WIRE_REPLY).payload, "hello", 5) == 0, "echo");
}

/* Frames of all types with likely and hostile words, and bytes flipped, dropped and put in. */
static void fuzz(uint32_t frames, struct table *t)
{
    static const uint32_t values[] = {0, 1, 4, 8, 77, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x40000000};
    static const uint8_t types[] = {1, 2, 3, 4, 0x10, 0x11, 0x12, 0x13, 0x14, 0x20, 0x21, 0x22};
    uint32_t answered = 0;
    uint32_t windows = 0;
    for (uint32_t i = 0; i < frames; i++) {
        uint8_t payload[64];
        uint8_t frame[MAX_ENCODED + 2u];
        uint8_t type = types[bench_range(0, 11)];
        type = bench_range(0, 63) == 0 ? (uint8_t)bench_word() : type;
        size_t count = bench_range(0, 15) == 0 ? bench_range(0, 64) : type >= 0x20 ? 24u : 16u;
        count = type == WIRE_BEGIN || type == WIRE_IDLE ? 20u : count;
        count = type == WIRE_STATUS ? 8u : type == WIRE_COMMIT ? 12u : count;
        for (uint32_t w = 0; w < 16u; w++) {
            uint32_t value = bench_range(0, 3) == 0 ? values[bench_range(0, 8)] : bench_range(0, 9);
            value = w == 0 && bench_range(0, 7) != 0 ? session.id : value;
            memcpy(payload + w * 4u, &value, 4);
        }
        if (type == WIRE_RUN || type == WIRE_IDLE) { /* windows that end soon */
            const uint32_t few = bench_range(0, 4);
            memcpy(payload + (type == WIRE_RUN ? 16 : 8), &few, 4);
            memset(payload + 12, 0, type == WIRE_IDLE ? 4 : 0);
        }
        if (type == WIRE_BEGIN && bench_range(0, 15) != 0) {
            continue;
        }
        if (i % 512u == 0) {
            read_to = sent_count = 0;
            download(t);
            commit(t);
        }
        sent_count = read_to = marked_count = 0;
        count = encoded(type, (uint8_t)bench_word(), payload, count, frame);
        for (uint32_t faults = bench_range(0, 9) < 3u ? bench_range(1, 3) : 0; faults; faults--) {
            const uint32_t at = bench_range(0, (uint32_t)count - 1u);
            switch (bench_range(0, 2)) {
            case 0:
                frame[at] ^= (uint8_t)(1u << bench_range(0, 7));
                break;
            case 1:
                memmove(frame + at, frame + at + 1, count - at - 1u);
                count -= count > 1 ? 1 : 0;
                break;
            default:
                memmove(frame + at + 1, frame + at, count - at);
                frame[at] = (uint8_t)bench_word();
                count++;
            }
        }
        take(frame, count);
        agent_work();
        agent_take(0); /* whatever is left of a frame ends here */
        agent_work();
        size_t at = 0;
        for (struct frame r = reply_at(&at); r.state != FRAME_NONE; r = reply_at(&at)) {
            answered++;
            windows += r.type == WIRE_DONE;
        }
    }
    sent_count = read_to = marked_count = 0;
    ask(WIRE_ECHO, "alive", 5);
    CHECK(memcmp(reply(WIRE_ECHO | WIRE_REPLY).payload, "alive", 5) == 0, "dead");
    printf("%u frames, %u replies, %u windows\n", frames, answered, windows);
    CHECK(answered > frames / 2u && windows > frames / 1000u, "the fuzz does not get through");
}

int main(int count, char **arguments)
{
    const uint32_t frames = count > 1 ? (uint32_t)strtoul(arguments[1], NULL, 10) : 20000u;
    bench_seed(count > 2 ? strtoul(arguments[2], NULL, 10) : 1u);
    struct table *t = small_network();
    test_download(t);
    test_run();
    test_busy();
    test_force_and_fault();
    test_idle();
    test_refusals();
    fuzz(frames, t);
    table_free(t);
    return 0;
}
