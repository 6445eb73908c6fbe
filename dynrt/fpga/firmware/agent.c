#include "agent.h"

#include "checksum.h"
#include "frame.h"
#include "memory.h"
#include "platform.h"
#include "store.h"
#include "window.h"

#ifndef DYNRT_BUILD
#define DYNRT_BUILD "unknown"
#endif
#define BUILD_CHARS 16u
/* Windows of this session whose results are kept for retries. */
#define HISTORY 64u

/* Payload of the reply that is being made. */
static uint8_t reply[MAX_PAYLOAD];
static size_t reply_count;

static struct receiver receiver;

static struct window_request requests[HISTORY];
static struct window_result results[HISTORY];
static uint32_t history_count; /* of all windows so far; the last HISTORY are kept */
static bool pending;           /* the last request is still to be run */
static bool running;

struct refusal {
    uint32_t code; /* NAK_NONE: answered */
    uint32_t detail;
};

static const struct refusal OK = {.code = NAK_NONE};

static struct refusal refuse(uint32_t code, uint32_t detail)
{
    return (struct refusal){.code = code, .detail = detail};
}

static void put_bytes(const void *bytes, size_t count)
{
    memcpy(reply + reply_count, bytes, count);
    reply_count += count;
}

static void put_word(uint32_t value)
{
    put_bytes(&value, sizeof value);
}

static void put_long(uint64_t value)
{
    put_bytes(&value, sizeof value);
}

/* Word `index` of a request. */
static uint32_t word(const struct frame *frame, uint32_t index)
{
    uint32_t value;
    memcpy(&value, frame->payload + (size_t)index * 4u, sizeof value);
    return value;
}

static struct refusal hello(void)
{
    const uint32_t words[] = {
        WIRE_VERSION,         OT_VERSION,           platform_cpu_id(),
        platform_device_id(), platform_ticks_per_s(), TABLE_CAP,
        WEIGHTS_CAP,          ARENA_CAP,            INPUTS_CAP,
        MAX_PAYLOAD,          session.id,           platform_reset_reason(),
        LOG_CAP,
    };
    static const char build[] = DYNRT_BUILD;
    char name[BUILD_CHARS] = {0};
    memcpy(name, build, sizeof build < BUILD_CHARS ? sizeof build : BUILD_CHARS);
    put_bytes(words, sizeof words);
    put_bytes(name, sizeof name);
    return OK;
}

static struct refusal begin(const struct frame *frame)
{
    const struct session wanted = {
        .id = word(frame, 0),
        .table_bytes = word(frame, 1),
        .weights_bytes = word(frame, 2),
        .n_inputs = word(frame, 3),
        .input_bytes = word(frame, 4),
    };
    if (!store_begin(&wanted)) {
        return refuse(NAK_BOUNDS, wanted.table_bytes);
    }
    history_count = 0;
    put_word(wanted.id);
    return OK;
}

/* The bytes that a request's session, region, offset and `length` name. */
static struct refusal addressed(const struct frame *frame, uint32_t length, struct span *span)
{
    const uint32_t offset = word(frame, 2);
    if (session.id == 0 || word(frame, 0) != session.id) {
        return refuse(NAK_NO_SESSION, session.id);
    }
    const uint32_t region = frame->payload[4];
    *span = store_region(region);
    if (region > REGION_INPUTS && region <= REGION_ANSWERS && !session.committed) {
        return refuse(NAK_NOT_COMMITTED, region);
    }
    if (span->at == NULL || offset > span->bytes || length > span->bytes - offset) {
        return refuse(NAK_BOUNDS, offset);
    }
    span->at += offset;
    span->bytes = length;
    return OK;
}

static struct refusal write(const struct frame *frame)
{
    const uint32_t length = (uint32_t)frame->count - 12u;
    struct span span;
    const struct refusal refusal = addressed(frame, length, &span);
    if (refusal.code != NAK_NONE) {
        return refusal;
    }
    if (!store_writable(frame->payload[4])) {
        return refuse(NAK_BOUNDS, frame->payload[4]);
    }
    memcpy(span.at, frame->payload + 12, length);
    put_word(word(frame, 2));
    put_word(length);
    return OK;
}

static struct refusal checksum(const struct frame *frame)
{
    struct span span;
    const struct refusal refusal = addressed(frame, word(frame, 3), &span);
    if (refusal.code == NAK_NONE) {
        put_word(crc32_add(0, span.at, span.bytes));
    }
    return refusal;
}

static struct refusal read(const struct frame *frame)
{
    struct span span;
    const struct refusal refusal = addressed(frame, word(frame, 3), &span);
    if (refusal.code != NAK_NONE) {
        return refusal;
    }
    if (span.bytes > MAX_PAYLOAD) {
        return refuse(NAK_BOUNDS, span.bytes);
    }
    put_bytes(span.at, span.bytes);
    return OK;
}

static struct refusal commit(const struct frame *frame)
{
    if (session.id == 0 || word(frame, 0) != session.id) {
        return refuse(NAK_NO_SESSION, session.id);
    }
    for (uint32_t region = REGION_TABLE; region <= REGION_WEIGHTS; region++) {
        const struct span span = store_region(region);
        if (crc32_add(0, span.at, span.bytes) != word(frame, 1u + region)) {
            return refuse(NAK_CRC, region);
        }
    }
    uint32_t detail;
    if (!session.committed && !store_commit(&detail)) {
        return refuse(NAK_TABLE, detail);
    }
    put_word(1u);
    return OK;
}

/* The kept window with this run id, or NULL. */
static const struct window_request *remembered(uint32_t run_id)
{
    const uint32_t kept = history_count < HISTORY ? history_count : HISTORY;
    for (uint32_t i = 1; i <= kept; i++) {
        const struct window_request *request = &requests[(history_count - i) % HISTORY];
        if (request->run_id == run_id) {
            return request;
        }
    }
    return NULL;
}

static void put_result(const struct window_result *result)
{
    put_word(result->run_id);
    put_word(result->state);
    put_long(result->start);
    put_long(result->end);
    put_long(result->mac_ticks);
    put_word(result->samples);
    put_word(result->crc);
    put_word(result->fault);
}

static void send_done(uint8_t sequence, const struct window_result *result)
{
    reply_count = 0;
    put_result(result);
    frame_send(WIRE_DONE, sequence, reply, reply_count);
}

/* Answer that the window has started; it runs when agent_work is called. A window that is known is
 * not run again: its result is sent, or will be when it is done. */
static struct refusal start(const struct window_request *wanted)
{
    if (wanted->run_id == 0) {
        return refuse(NAK_BOUNDS, 0);
    }
    const struct window_request *known = remembered(wanted->run_id);
    if (known != NULL && !window_same(known, wanted)) {
        return refuse(NAK_RUN_ID, wanted->run_id);
    }
    if (known == NULL && (running || pending)) {
        return refuse(NAK_BUSY, requests[(history_count - 1u) % HISTORY].run_id);
    }
    put_word(wanted->run_id);
    frame_send(WIRE_STARTED, wanted->sequence, reply, reply_count);
    if (known == NULL) {
        const uint32_t place = history_count++ % HISTORY;
        requests[place] = *wanted;
        results[place] = (struct window_result){
            .run_id = wanted->run_id,
            .state = STATE_RUNNING,
            .fault = OT_NONE,
        };
        pending = true;
    } else if (results[known - requests].state != STATE_RUNNING) {
        send_done(wanted->sequence, &results[known - requests]);
    } else {
        requests[known - requests].sequence = wanted->sequence;
    }
    return OK;
}

/* Whether the session is the request's and its network may run. */
static struct refusal runnable(const struct frame *frame, bool needs_network)
{
    if (session.id == 0 || word(frame, 0) != session.id) {
        return refuse(NAK_NO_SESSION, session.id);
    }
    if (needs_network && !session.committed) {
        return refuse(NAK_NOT_COMMITTED, 0);
    }
    return OK;
}

static struct refusal run(const struct frame *frame)
{
    const struct refusal refusal = runnable(frame, true);
    const struct window_request wanted = {
        .run_id = word(frame, 1),
        .sequence = frame->sequence,
        .first = word(frame, 2),
        .count = word(frame, 3),
        .passes = word(frame, 4),
        .flags = word(frame, 5),
    };
    if (refusal.code != NAK_NONE) {
        return refusal;
    }
    if (wanted.first > session.n_inputs || wanted.count > session.n_inputs - wanted.first ||
        wanted.count == 0 || wanted.passes == 0 ||
        (uint64_t)wanted.count * wanted.passes > UINT32_MAX) {
        return refuse(NAK_BOUNDS, wanted.first);
    }
    if (wanted.flags > (RUN_MARKER | RUN_OP_TICKS)) {
        return refuse(NAK_BOUNDS, wanted.flags);
    }
    return start(&wanted);
}

static struct refusal idle(const struct frame *frame)
{
    const struct refusal refusal = runnable(frame, false);
    const struct window_request wanted = {
        .run_id = word(frame, 1),
        .idle = true,
        .sequence = frame->sequence,
        .ticks = (uint64_t)word(frame, 3) << 32 | word(frame, 2),
        .flags = word(frame, 4),
    };
    if (refusal.code != NAK_NONE) {
        return refusal;
    }
    if (wanted.flags > (RUN_MARKER | RUN_OP_TICKS)) {
        return refuse(NAK_BOUNDS, wanted.flags);
    }
    if (wanted.ticks > UINT64_MAX / 4u) {
        return refuse(NAK_BOUNDS, OT_NONE);
    }
    return start(&wanted);
}

static struct refusal status(const struct frame *frame)
{
    const struct refusal refusal = runnable(frame, false);
    if (refusal.code != NAK_NONE) {
        return refusal;
    }
    const struct window_request *known = remembered(word(frame, 1));
    const struct window_result unknown = {
        .run_id = word(frame, 1),
        .state = STATE_UNKNOWN,
        .fault = OT_NONE,
    };
    put_result(known == NULL ? &unknown : &results[known - requests]);
    return OK;
}

/* A request's payload: exactly `least` bytes, or from there to `most`. */
struct shape {
    uint8_t type;
    uint16_t least;
    uint16_t most;
    bool while_running;
};

static const struct shape shapes[] = {
    {WIRE_HELLO, 0, 0, true},        {WIRE_ECHO, 0, MAX_PAYLOAD, true},
    {WIRE_TIME, 0, 0, true},         {WIRE_XADC, 4, 4, true},
    {WIRE_BEGIN, 20, 20, false},     {WIRE_WRITE, 12, MAX_PAYLOAD, false},
    {WIRE_CRC, 16, 16, false},       {WIRE_COMMIT, 12, 12, false},
    {WIRE_READ, 16, 16, false},      {WIRE_RUN, 24, 24, true},
    {WIRE_STATUS, 8, 8, true},       {WIRE_IDLE, 20, 20, true},
};

static struct refusal dispatch(const struct frame *frame)
{
    const struct shape *shape = NULL;
    for (uint32_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        if (shapes[i].type == frame->type) {
            shape = &shapes[i];
        }
    }
    if (shape == NULL) {
        return refuse(NAK_TYPE, frame->type);
    }
    if (frame->count < shape->least || frame->count > shape->most) {
        return refuse(NAK_LENGTH, (uint32_t)frame->count);
    }
    if (running && !shape->while_running) {
        return refuse(NAK_BUSY, requests[(history_count - 1u) % HISTORY].run_id);
    }
    switch (frame->type) {
    case WIRE_HELLO:
        return hello();
    case WIRE_ECHO:
        put_bytes(frame->payload, frame->count);
        return OK;
    case WIRE_TIME:
        put_long(platform_ticks());
        return OK;
    case WIRE_XADC:
        put_word(word(frame, 0));
        put_word(platform_xadc(word(frame, 0)));
        return OK;
    case WIRE_BEGIN:
        return begin(frame);
    case WIRE_WRITE:
        return write(frame);
    case WIRE_CRC:
        return checksum(frame);
    case WIRE_COMMIT:
        return commit(frame);
    case WIRE_READ:
        return read(frame);
    case WIRE_RUN:
        return run(frame);
    case WIRE_IDLE:
        return idle(frame);
    default:
        return status(frame);
    }
}

void agent_take(uint8_t byte)
{
    const struct frame frame = receiver_take(&receiver, byte);
    struct refusal refusal = OK;
    if (frame.state == FRAME_NONE) {
        return;
    }
    reply_count = 0;
    if (frame.state == FRAME_GOOD) {
        refusal = dispatch(&frame);
    } else {
        refusal.code = frame.state == FRAME_BAD_COBS ? NAK_COBS : NAK_CRC;
    }
    if (refusal.code != NAK_NONE) {
        const bool good = frame.state == FRAME_GOOD;
        const uint8_t head[2] = {(uint8_t)refusal.code, good ? frame.type : 0};
        reply_count = 0;
        put_bytes(head, sizeof head);
        put_word(refusal.detail);
        frame_send(WIRE_NAK, frame.sequence, reply, reply_count);
    } else if (frame.type != WIRE_RUN && frame.type != WIRE_IDLE) {
        frame_send(frame.type | WIRE_REPLY, frame.sequence, reply, reply_count);
    }
}

static void take_all(void)
{
    for (int byte = platform_read(); byte >= 0; byte = platform_read()) {
        agent_take((uint8_t)byte);
    }
}

void agent_work(void)
{
    if (!pending) {
        return;
    }
    const uint32_t place = (history_count - 1u) % HISTORY;
    pending = false;
    running = true;
    const struct window_result result = window_run(&requests[place], take_all);
    running = false;
    results[place] = result;
    send_done(requests[place].sequence, &result);
}

void agent_serve(void)
{
    for (;;) {
        const int byte = platform_read();
        if (byte >= 0) {
            agent_take((uint8_t)byte);
            agent_work();
            continue;
        }
        platform_watchdog_disarm();
        if (!platform_wait(PLATFORM_FOREVER)) {
            return;
        }
        platform_watchdog_arm();
    }
}
