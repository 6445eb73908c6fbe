/* Numbers of the protocol, version 1. */
#ifndef DYNRT_WIRE_H
#define DYNRT_WIRE_H

#define WIRE_VERSION 1u
#define WIRE_REPLY 0x80u

enum wire_type {
    WIRE_HELLO = 0x01,
    WIRE_ECHO = 0x02,
    WIRE_TIME = 0x03,
    WIRE_XADC = 0x04,
    WIRE_BEGIN = 0x10,
    WIRE_WRITE = 0x11,
    WIRE_CRC = 0x12,
    WIRE_COMMIT = 0x13,
    WIRE_READ = 0x14,
    WIRE_RUN = 0x20,
    WIRE_STATUS = 0x21,
    WIRE_IDLE = 0x22,
    WIRE_STARTED = 0xA0,
    WIRE_DONE = 0xA1,
    WIRE_NAK = 0xFF
};

enum wire_nak {
    NAK_NONE = 0,
    NAK_COBS = 1,
    NAK_CRC = 2, /* of a frame; of COMMIT: detail is the region whose CRC differs */
    NAK_TYPE = 3,
    NAK_LENGTH = 4,
    NAK_BOUNDS = 5,
    NAK_NO_SESSION = 6,
    NAK_TABLE = 7, /* detail: index of the op | 0x80000000, or of the table's word */
    NAK_BUSY = 8,
    NAK_NOT_COMMITTED = 9,
    NAK_FAULT = 10, /* the processor itself: detail is the address */
    NAK_RUN_ID = 11
};

enum wire_region {
    REGION_TABLE = 0,
    REGION_WEIGHTS = 1,
    REGION_INPUTS = 2,
    REGION_FORCE = 3,
    REGION_THRESHOLDS = 4,
    REGION_LOG = 5,
    REGION_OPTICKS = 6,
    REGION_ANSWERS = 7
};

enum wire_run_flag { RUN_MARKER = 1, RUN_OP_TICKS = 2 };

enum wire_state { STATE_UNKNOWN = 0, STATE_RUNNING = 1, STATE_DONE = 2, STATE_FAULT = 3 };

#endif
