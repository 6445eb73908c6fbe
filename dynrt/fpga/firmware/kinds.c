/* Every kind of op: how it uses its words, and the function that runs it. */
#include "ops.h"

#define NOT USE_NOT
#define READ USE_READ
#define MAYBE USE_MAYBE
#define NULLABLE USE_NULLABLE
#define WRITE USE_WRITE

const struct op_kind op_kinds[OP_KINDS] = {
    [OT_NODE] = {.uses = {NOT, NOT, NOT, NOT, NOT}, .words = 13},
    [OT_SELECT] = {.uses = {USE_CHOICE, NULLABLE, NULLABLE, NOT, NOT}, .words = 8},
    [OT_ARGMAX] = {.uses = {NOT, READ, NOT, NOT, NOT}, .words = 10, .run = run_argmax},
    [OT_THRESHOLD] = {.uses = {NOT, READ, NOT, NOT, NOT}, .words = 11, .run = run_threshold},
    [OT_ACCEPT] = {.uses = {NOT, MAYBE, READ, NOT, NOT}, .words = 12, .run = run_accept},
    [OT_COMBINE] = {.uses = {NOT, NOT, NOT, NOT, NOT}, .words = 14, .run = run_combine},
    [OT_STOP] = {.uses = {NOT, NOT, NOT, NOT, NOT}, .words = 8},
    [OT_CONV] = {.uses = {WRITE, READ, MAYBE, USE_WORD, MAYBE},
                 .act = true, .words = 24, .run = run_conv},
    [OT_GEMM] = {.uses = {WRITE, READ, NOT, NOT, NOT}, .act = true, .words = 13, .run = run_gemm},
    [OT_BINARY] = {.uses = {WRITE, READ, READ, NOT, NOT},
                   .act = true, .words = 13, .run = run_binary},
    [OT_UNARY] = {.uses = {WRITE, READ, NOT, NOT, NOT}, .words = 12, .run = run_unary},
    [OT_POOL] = {.uses = {WRITE, READ, NOT, NOT, NOT}, .words = 21, .run = run_pool},
    [OT_MEAN] = {.uses = {WRITE, READ, NOT, NOT, NOT}, .words = 10, .run = run_mean},
    [OT_SOFTMAX] = {.uses = {WRITE, READ, NOT, NOT, NOT}, .words = 10, .run = run_softmax},
    [OT_CONCAT] = {.uses = {WRITE, NOT, NOT, NOT, NOT}, .words = 12, .run = run_concat},
    [OT_COPY] = {.uses = {WRITE, READ, NOT, NOT, NOT}, .words = 23, .run = run_copy},
    [OT_FILL] = {.uses = {WRITE, NOT, NOT, NOT, NOT}, .words = 11, .run = run_fill},
    [OT_AFFINE] = {.uses = {WRITE, READ, NOT, NOT, NOT},
                   .act = true, .words = 12, .run = run_affine},
    [OT_LSTM] = {.uses = {WRITE, READ, READ, READ, WRITE}, .words = 13, .run = run_lstm},
    [OT_QUANTIZE] = {.uses = {WRITE, READ, NOT, NOT, NOT}, .words = 12, .run = run_quantize},
    [OT_DEQUANTIZE] = {.uses = {WRITE, READ, NOT, NOT, NOT}, .words = 12, .run = run_dequantize},
    [OT_QCONV] = {.uses = {WRITE, READ, NOT, NOT, NOT}, .words = 24, .run = run_qconv},
    [OT_QGEMM] = {.uses = {WRITE, READ, NOT, NOT, NOT}, .words = 13, .run = run_qgemm},
    [OT_QADD] = {.uses = {WRITE, READ, READ, NOT, NOT}, .words = 10, .run = run_qadd},
};
