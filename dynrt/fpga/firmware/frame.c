#include "frame.h"

#include "checksum.h"
#include "memory.h"
#include "platform.h"

struct frame receiver_take(struct receiver *receiver, uint8_t byte)
{
    struct frame frame = {.state = FRAME_NONE};
    if (byte != 0) {
        if (receiver->used < sizeof receiver->bytes) {
            receiver->bytes[receiver->used++] = byte;
        } else {
            receiver->overflow = true;
        }
        return frame;
    }
    const size_t used = receiver->used;
    const bool overflow = receiver->overflow;
    receiver->used = 0;
    receiver->overflow = false;
    if (used == 0) {
        return frame;
    }
    const size_t body = overflow ? COBS_BAD : cobs_decode(receiver->bytes, used);
    if (body == COBS_BAD || body < FRAME_HEAD + FRAME_TAIL || body > MAX_BODY) {
        frame.state = FRAME_BAD_COBS;
        return frame;
    }
    const size_t covered = body - FRAME_TAIL;
    uint32_t sent;
    memcpy(&sent, receiver->bytes + covered, sizeof sent);
    frame.type = receiver->bytes[0];
    frame.sequence = receiver->bytes[1];
    frame.payload = receiver->bytes + FRAME_HEAD;
    frame.count = covered - FRAME_HEAD;
    frame.state = crc32_add(0, receiver->bytes, covered) == sent ? FRAME_GOOD : FRAME_BAD_CRC;
    return frame;
}

void frame_send(uint8_t type, uint8_t sequence, const uint8_t *payload, size_t count)
{
    static uint8_t body[MAX_BODY];
    static uint8_t encoded[MAX_ENCODED + 2u];
    body[0] = type;
    body[1] = sequence;
    if (count != 0) {
        memmove(body + FRAME_HEAD, payload, count);
    }
    const uint32_t crc = crc32_add(0, body, FRAME_HEAD + count);
    memcpy(body + FRAME_HEAD + count, &crc, sizeof crc);
    encoded[0] = 0;
    const size_t used = cobs_encode(body, FRAME_HEAD + count + FRAME_TAIL, encoded + 1);
    encoded[used + 1u] = 0;
    platform_write(encoded, used + 2u);
}
