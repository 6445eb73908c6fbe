"""What an op table's operators are called, and the choices that their words make."""

from __future__ import annotations

from enum import IntEnum


class OpKind(IntEnum):
    """What an operator does."""

    NODE = 1
    SELECT = 2
    ARGMAX = 3
    THRESHOLD = 4
    ACCEPT = 5
    COMBINE = 6
    STOP = 7
    CONV = 16
    GEMM = 17
    BINARY = 18
    UNARY = 19
    POOL = 20
    MEAN = 21
    SOFTMAX = 22
    CONCAT = 23
    COPY = 24
    FILL = 25
    AFFINE = 26
    LSTM = 27
    QUANTIZE = 32
    DEQUANTIZE = 33
    QCONV = 34
    QGEMM = 35
    QADD = 36


class Act(IntEnum):
    """Applied to a result before it is stored."""

    NONE = 0
    RELU = 1


class Accepts(IntEnum):
    """When an exit ends the sample (``dynrt.ir.rules``)."""

    ALWAYS_ACCEPT = 0
    HINGE = 1
    MAX_SOFTMAX = 2
    MARGIN = 3
    ENTROPY = 4


class Combines(IntEnum):
    """How several answers join (``dynrt.ir.graph.Combine``)."""

    LAST = 1
    SUM = 2
    MAXIMUM = 3
    JOIN = 4


class Masks(IntEnum):
    """Which channels of a convolution a mask drops."""

    NONE = 0
    OUT = 1
    IN = 2


class Function2(IntEnum):
    """Functions of two numbers; ``GE`` gives 1 or 0."""

    ADD = 1
    SUB = 2
    MUL = 3
    DIV = 4
    MAX = 5
    MIN = 6
    GE = 7


class Broadcast(IntEnum):
    """How the operands of a BINARY meet."""

    SAME = 0
    B_SCALAR = 1
    PER_CHANNEL = 2
    A_SCALAR = 3


class Function1(IntEnum):
    """Functions of one number."""

    RELU = 1
    SIGMOID = 2
    TANH = 3
    EXP = 4
    NEG = 5
    ABS = 6
    SQRT = 7
    CLIP = 8
    HARD_SIGMOID = 9
    LEAKY_RELU = 10


class Pools(IntEnum):
    """What a window gives."""

    MAX = 0
    AVERAGE = 1
    AVERAGE_PADDED = 2
