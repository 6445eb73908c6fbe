"""What each operator of an op table computes, in numpy (see ``tests.board_oracle``)."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from dynrt.bundle.board_kinds import Act, Broadcast, Function1, Function2, Masks, OpKind, Pools
from dynrt.bundle.board_ops import NONE, OP_FIELDS, BoardOp
from dynrt.bundle.board_table import BoardTable, SlotType

DTYPES = {SlotType.F32: "<f4", SlotType.U8: "u1", SlotType.S8: "i1", SlotType.S32: "<i4"}
A = npt.NDArray[Any]


class Arrays(Protocol):
    """Memory by slots and pointers."""

    table: BoardTable

    def words(self, slot: int) -> A:
        """What a slot points to."""

    def home(self, slot: int) -> A:
        """Where a slot is written."""

    def constant(self, address: int, count: int, dtype: str) -> A:
        """Words behind a pointer."""


def _float(word: int) -> float:
    (value,) = struct.unpack("<f", struct.pack("<I", word))
    return float(value)


def _signed(word: int) -> int:
    return word - (1 << 32) if word >> 31 else word


def _store(op: BoardOp, memory: Arrays, value: A) -> None:
    if "act" in _names(op) and op["act"] == Act.RELU:
        value = np.maximum(value, 0)
    flat = value.reshape(-1)
    memory.home(op["dst"])[: flat.size] = flat


def _names(op: BoardOp) -> set[str]:
    return {name for name, _ in OP_FIELDS[op.kind].values()}


def _patches(op: BoardOp, x: A, fill: float) -> A:
    """``(channels, kh, kw, oh, ow)`` of a padded image ``(channels, h, w)``."""
    (top, left), (bottom, right) = op.pair("pads_begin"), op.pair("pads_end")
    (sh, sw), (dh, dw) = op.pair("strides"), op.pair("dilations")
    kh, kw, oh, ow = (op[n] for n in ("kernel_height", "kernel_width", "out_height", "out_width"))
    more = ((oh - 1) * sh + (kh - 1) * dh + 1, (ow - 1) * sw + (kw - 1) * dw + 1)
    high = max(0, more[0] - x.shape[1] - top - bottom)
    wide = max(0, more[1] - x.shape[2] - left - right)
    padded = np.pad(x, ((0, 0), (top, bottom + high), (left, right + wide)), constant_values=fill)
    out = np.empty((x.shape[0], kh, kw, oh, ow), x.dtype)
    for i in range(kh):
        for j in range(kw):
            rows = slice(i * dh, i * dh + (oh - 1) * sh + 1, sh)
            columns = slice(j * dw, j * dw + (ow - 1) * sw + 1, sw)
            out[:, i, j] = padded[:, rows, columns]
    return out


def _image(op: BoardOp, memory: Arrays) -> A:
    shape = (op["in_channels"], op["in_height"], op["in_width"])
    return memory.words(op["a"])[: int(np.prod(shape))].reshape(shape)


def _correlate(op: BoardOp, x: A, weights: A) -> A:
    """``(out_channels, oh, ow)``, in the type of ``x``; ``x`` is padded with 0."""
    patches = _patches(op, x, 0)
    groups, outs = op["groups"], op["out_channels"]
    per = op["in_channels"] // groups
    kernels = weights.reshape(groups, outs // groups, -1)
    columns = patches.reshape(groups, per * patches.shape[1] * patches.shape[2], -1)
    y: A = np.matmul(kernels, columns).reshape(outs, op["out_height"], op["out_width"])
    return y


def conv(op: BoardOp, memory: Arrays) -> None:
    x = _image(op, memory).astype(np.float64)
    outs, kept = op["out_channels"], None
    if op["mask_mode"] != Masks.NONE:
        kept = memory.words(op["mask"])[: op["mask_groups"]] >= 0.5
    if op["mask_mode"] == Masks.IN and kept is not None:
        x = x * np.repeat(kept, op["in_channels"] // kept.size)[:, None, None]
    taps = op["kernel_height"] * op["kernel_width"] * (op["in_channels"] // op["groups"])
    y = _correlate(op, x, memory.constant(op["weights"], outs * taps, "<f4").astype(np.float64))
    if op["bias"]:
        y = y + memory.constant(op["bias"], outs, "<f4")[:, None, None]
    if op["b"] != NONE:
        y = y + memory.words(op["b"]).reshape(y.shape)
    if op["act"] == Act.RELU:
        y = np.maximum(y, 0)
    if op["mask_mode"] == Masks.OUT and kept is not None:
        y[~np.repeat(kept, outs // kept.size)] = 0
    _store(op, memory, y)


def gemm(op: BoardOp, memory: Arrays) -> None:
    x = memory.words(op["a"])[: op["rows"] * op["k"]].reshape(op["rows"], op["k"])
    weights = memory.constant(op["weights"], op["m"] * op["k"], "<f4").reshape(op["m"], op["k"])
    y = x.astype(np.float64) @ weights.T
    if op["bias"]:
        y = y + memory.constant(op["bias"], op["m"], "<f4")
    _store(op, memory, y)


_BINARY: Mapping[int, Callable[[A, A], A]] = {
    Function2.ADD: np.add,
    Function2.SUB: np.subtract,
    Function2.MUL: np.multiply,
    Function2.DIV: np.divide,
    Function2.MAX: np.maximum,
    Function2.MIN: np.minimum,
    Function2.GE: lambda a, b: (a >= b).astype(np.float32),
}


def binary(op: BoardOp, memory: Arrays) -> None:
    n, a, b = op["n"], memory.words(op["a"]), memory.words(op["b"])
    form = op["broadcast"]
    if form == Broadcast.PER_CHANNEL:
        b = b[np.arange(n) // op["inner"] % op["channels"]]
    a = a[:1] if form == Broadcast.A_SCALAR else a[:n]
    b = b[:1] if form == Broadcast.B_SCALAR else b[:n]
    _store(op, memory, np.broadcast_to(_BINARY[op["function"]](a, b), (n,)))


def unary(op: BoardOp, memory: Arrays) -> None:
    x = memory.words(op["a"])[: op["n"]].astype(np.float64)
    p, q = _float(op["p"]), _float(op["q"])
    functions: Mapping[int, Callable[[], A]] = {
        Function1.RELU: lambda: np.maximum(x, 0),
        Function1.SIGMOID: lambda: 1 / (1 + np.exp(-x)),
        Function1.TANH: lambda: np.tanh(x),
        Function1.EXP: lambda: np.exp(x),
        Function1.NEG: lambda: -x,
        Function1.ABS: lambda: np.abs(x),
        Function1.SQRT: lambda: np.sqrt(x),
        Function1.CLIP: lambda: np.minimum(np.maximum(x, p), q),
        Function1.HARD_SIGMOID: lambda: np.clip(p * x + q, 0, 1),
        Function1.LEAKY_RELU: lambda: np.where(x < 0, p * x, x),
    }
    _store(op, memory, functions[op["function"]]())


def pool(op: BoardOp, memory: Arrays) -> None:
    x = _image(op, memory)
    if op["pool"] == Pools.MAX:
        low = -np.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).min
        _store(op, memory, _patches(op, x, low).max(axis=(1, 2)))
        return
    sums = _patches(op, x.astype(np.float64), 0).sum(axis=(1, 2))
    ones = np.ones_like(x, np.float64)
    if op["pool"] == Pools.AVERAGE_PADDED:
        (top, left), (bottom, right) = op.pair("pads_begin"), op.pair("pads_end")
        ones = np.pad(ones, ((0, 0), (top, bottom), (left, right)), constant_values=1)
        whole = op.replaced(pads_begin=0, pads_end=0)
        counts = _patches(whole, ones, 0).sum(axis=(1, 2))
    else:
        counts = _patches(op, ones, 0).sum(axis=(1, 2))
    _store(op, memory, sums / counts)


def mean(op: BoardOp, memory: Arrays) -> None:
    count = op["outer"] * op["inner"]
    x = memory.words(op["a"])[:count].reshape(op["outer"], op["inner"])
    _store(op, memory, x.astype(np.float64).mean(axis=1))


def softmax(op: BoardOp, memory: Arrays) -> None:
    x = memory.words(op["a"])[: op["outer"] * op["n"]].reshape(op["outer"], op["n"])
    e = np.exp(x.astype(np.float64) - x.max(axis=1, keepdims=True))
    _store(op, memory, e / e.sum(axis=1, keepdims=True))


def concat(op: BoardOp, memory: Arrays) -> None:
    words = memory.table.lists[op["parts"] : op["parts"] + 2 * op["n_parts"]]
    parts = [
        memory.words(slot)[: n * op["outer"]].reshape(op["outer"], n)
        for slot, n in zip(words[::2], words[1::2], strict=True)
    ]
    _store(op, memory, np.concatenate(parts, axis=1))


def copy(op: BoardOp, memory: Arrays) -> None:
    source, target = memory.words(op["a"]), memory.home(op["dst"])
    grid = np.indices([op[f"size{k}"] for k in range(4)])
    places = []
    for side in ("dst", "src"):
        steps = [_signed(op[f"{side}_stride{k}"]) for k in range(4)]
        places.append(sum(g * s for g, s in zip(grid, steps, strict=True)) + op[f"{side}_offset"])
    target[places[0]] = source[places[1]]


def fill(op: BoardOp, memory: Arrays) -> None:
    target = memory.home(op["dst"])
    raw = struct.pack("<I", op["value"])[: op["element_bytes"]]
    target[: op["n"]] = np.frombuffer(raw, target.dtype)[0]


def affine(op: BoardOp, memory: Arrays) -> None:
    channels, inner = op["channels"], op["inner"]
    x = memory.words(op["a"])[: channels * inner].reshape(channels, inner)
    scale, shift = (memory.constant(op[n], channels, "<f4")[:, None] for n in ("scale", "shift"))
    _store(op, memory, x * scale + shift)


def lstm(op: BoardOp, memory: Arrays) -> None:
    n, hidden = op["inputs"], op["hidden"]
    x, h, c = (memory.words(op[name]).astype(np.float64) for name in ("a", "b", "c"))
    w = memory.constant(op["weights"], 4 * hidden * n, "<f4").reshape(4 * hidden, n)
    r = memory.constant(op["recurrence"], 4 * hidden * hidden, "<f4").reshape(4 * hidden, hidden)
    total = w @ x[:n] + r @ h[:hidden]
    if op["bias"]:
        total = total + memory.constant(op["bias"], 4 * hidden, "<f4")
    i, o, f = (1 / (1 + np.exp(-part)) for part in np.split(total, 4)[:3])
    cell = f * c[:hidden] + i * np.tanh(np.split(total, 4)[3])
    memory.home(op["dst2"])[:hidden] = cell
    memory.home(op["dst"])[:hidden] = o * np.tanh(cell)


def quantize(op: BoardOp, memory: Arrays) -> None:
    x = memory.words(op["a"])[: op["n"]]
    low = -128 if op["signed"] else 0
    steps = np.rint(x / np.float32(_float(op["scale"]))) + _signed(op["zero"])
    _store(op, memory, np.clip(steps, low, low + 255))


def dequantize(op: BoardOp, memory: Arrays) -> None:
    x = memory.words(op["a"])[: op["n"]].astype(np.float32)
    _store(op, memory, (x - np.float32(_signed(op["zero"]))) * np.float32(_float(op["scale"])))


def _requantized(op: BoardOp, memory: Arrays, sums: A, channels: int) -> A:
    aux = memory.constant(op["aux"], 16 + 4 * channels, "u1").tobytes()
    _, zero, low, high = struct.unpack("<4i", aux[:16])
    factor = np.frombuffer(aux[16:], "<f4").reshape(-1, *[1] * (sums.ndim - 1))
    codes: A = np.clip(np.rint(sums.astype(np.float32) * factor) + zero, low, high)
    return codes


def _zero(op: BoardOp, memory: Arrays) -> int:
    return int(memory.constant(op["aux"], 1, "<i4")[0])


def qconv(op: BoardOp, memory: Arrays) -> None:
    x = _image(op, memory).astype(np.int64) - _zero(op, memory)
    outs = op["out_channels"]
    taps = op["kernel_height"] * op["kernel_width"] * (op["in_channels"] // op["groups"])
    sums = _correlate(op, x, memory.constant(op["weights"], outs * taps, "i1").astype(np.int64))
    if op["bias"]:
        sums = sums + memory.constant(op["bias"], outs, "<i4")[:, None, None]
    _store(op, memory, _requantized(op, memory, sums, outs))


def qgemm(op: BoardOp, memory: Arrays) -> None:
    x = memory.words(op["a"])[: op["k"]].astype(np.int64) - _zero(op, memory)
    weights = memory.constant(op["weights"], op["m"] * op["k"], "i1").reshape(op["m"], op["k"])
    sums = weights.astype(np.int64) @ x
    if op["bias"]:
        sums = sums + memory.constant(op["bias"], op["m"], "<i4")
    _store(op, memory, _requantized(op, memory, sums, op["m"]))


def qadd(op: BoardOp, memory: Arrays) -> None:
    aux = memory.constant(op["aux"], 32, "u1").tobytes()
    a_zero, b_zero, y_zero, low, high, a_scale, b_scale, inverse = struct.unpack("<5i3f", aux)
    a, b = (memory.words(op[name])[: op["n"]].astype(np.float32) for name in ("a", "b"))
    total = (a - a_zero) * np.float32(a_scale) + (b - b_zero) * np.float32(b_scale)
    _store(op, memory, np.clip(np.rint(total * np.float32(inverse)) + y_zero, low, high))


OPS: Mapping[OpKind, Callable[[BoardOp, Arrays], None]] = {
    OpKind.CONV: conv,
    OpKind.GEMM: gemm,
    OpKind.BINARY: binary,
    OpKind.UNARY: unary,
    OpKind.POOL: pool,
    OpKind.MEAN: mean,
    OpKind.SOFTMAX: softmax,
    OpKind.CONCAT: concat,
    OpKind.COPY: copy,
    OpKind.FILL: fill,
    OpKind.AFFINE: affine,
    OpKind.LSTM: lstm,
    OpKind.QUANTIZE: quantize,
    OpKind.DEQUANTIZE: dequantize,
    OpKind.QCONV: qconv,
    OpKind.QGEMM: qgemm,
    OpKind.QADD: qadd,
}
