"""What the fields of each kind of operator must satisfy, so that it stays within its tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from dynrt.bundle.board_kinds import (
    Accepts,
    Broadcast,
    Combines,
    Function1,
    Function2,
    Masks,
    OpKind,
    Pools,
)
from dynrt.bundle.board_ops import NONE, BoardOp
from dynrt.bundle.board_table import (
    MAX_ACTIONS,
    MAX_DIMENSION,
    MAX_INT8_TERMS,
    MAX_TAPS,
    PATCH_FLOATS,
    SLOT_BYTES,
    BoardTable,
    Region,
    SlotType,
    offset_of,
    region_of,
)

F32, U8 = SlotType.F32, SlotType.U8
#: Elements behind the last pixel of a patch that a group of lanes may read.
PATCH_SPARE = 8
_MOST_STEPS = 1 << 28


class FieldChecker:
    """Checks the operators of one table, whose slots and lists are there to look up."""

    def __init__(self, table: BoardTable) -> None:
        self._table = table
        self._checks: Mapping[OpKind, Callable[[BoardOp], bool]] = {
            OpKind.SELECT: self._select,
            OpKind.ARGMAX: self._argmax,
            OpKind.THRESHOLD: self._threshold,
            OpKind.ACCEPT: self._accept,
            OpKind.COMBINE: self._combine,
            OpKind.STOP: lambda _: True,
            OpKind.CONV: self._conv,
            OpKind.GEMM: self._gemm,
            OpKind.BINARY: self._binary,
            OpKind.UNARY: self._unary,
            OpKind.POOL: self._pool,
            OpKind.MEAN: self._rows,
            OpKind.SOFTMAX: self._rows,
            OpKind.CONCAT: self._concat,
            OpKind.COPY: self._copy,
            OpKind.FILL: self._fill,
            OpKind.AFFINE: self._affine,
            OpKind.LSTM: self._lstm,
            OpKind.QUANTIZE: lambda op: self._code(op, op["a"], op["dst"]),
            OpKind.DEQUANTIZE: lambda op: self._code(op, op["dst"], op["a"]),
            OpKind.QCONV: self._qconv,
            OpKind.QGEMM: self._qgemm,
            OpKind.QADD: self._qadd,
        }

    def valid(self, op: BoardOp, index: int) -> bool:
        """Whether ``op``, whose slots exist, stays within its tensors, and jumps only forward."""
        if op.kind is OpKind.NODE:
            return self._node(op, index)
        return self._checks[op.kind](op)

    # --- parts

    def _holds(self, slot: int, elements: int, dtype: SlotType) -> bool:
        found = self._table.slots[slot]
        size = elements * SLOT_BYTES[dtype]
        return elements > 0 and found.dtype is dtype and size <= found.size_bytes

    def _constants(self, address: int, size: int, *, null: bool = False) -> bool:
        if null and address == 0:
            return True
        offset = offset_of(address)
        inside = offset % 4 == 0 and offset + size <= self._table.weights_bytes
        return region_of(address) is Region.WEIGHTS and inside

    def _listed(self, start: int, count: int) -> bool:
        return start + count <= len(self._table.lists)

    def _pairs(self, start: int, count: int) -> list[tuple[int, int]] | None:
        """Pairs of a slot and a number, if there are so many and the slots exist."""
        if not count or not self._listed(start, 2 * count):
            return None
        words = self._table.lists[start : start + 2 * count]
        pairs = list(zip(words[::2], words[1::2], strict=True))
        return pairs if all(s < len(self._table.slots) for s, _ in pairs) else None

    # --- control

    def _node(self, op: BoardOp, index: int) -> bool:
        table = self._table
        listed = self._listed(op["controls"], op["n_controls"])
        if not listed or not self._listed(op["needs"], op["n_needs"]):
            return False
        edges = table.lists[op["controls"] : op["controls"] + op["n_controls"]]
        needs = table.lists[op["needs"] : op["needs"] + op["n_needs"]]
        return (
            index < op["jump"] <= len(table.ops)
            and all(e >> 8 < table.n_decisions and e & 255 < MAX_ACTIONS for e in edges)
            and all(s < len(table.slots) for s in needs)
        )

    def _select(self, op: BoardOp) -> bool:
        kinds = {
            (s.dtype, s.size_bytes) for s in (self._table.slots[op[n]] for n in ("dst", "a", "b"))
        }
        return len(kinds) == 1

    def _decides(self, op: BoardOp) -> bool:
        n = op["n"]
        known = op["decision"] < self._table.n_decisions
        return 1 <= n <= MAX_ACTIONS and known and self._holds(op["a"], n, F32)

    def _argmax(self, op: BoardOp) -> bool:
        return self._decides(op)

    def _threshold(self, op: BoardOp) -> bool:
        return self._decides(op) and op["threshold"] + op["n"] <= len(self._table.thresholds)

    def _accept(self, op: BoardOp) -> bool:
        answer = self._table.slots[op["b"]]
        if op["rule"] not in set(Accepts) or op["decision"] >= self._table.n_decisions:
            return False
        if answer.dtype is not F32 or answer.size_bytes > self._table.answer_bytes:
            return False
        if op["rule"] == Accepts.ALWAYS_ACCEPT:
            return op["a"] == NONE and op["threshold"] == 0 and op["n"] == 0
        return (
            op["a"] != NONE
            and self._holds(op["a"], op["n"], F32)
            and op["threshold"] < len(self._table.thresholds)
        )

    def _combine(self, op: BoardOp) -> bool:
        count, pairs = op["n_answers"], self._pairs(op["answers"], op["n_answers"])
        if op["rule"] not in set(Combines) or op["accepted"] > 1 or pairs is None:
            return False
        if op["decision"] + count > self._table.n_decisions:
            return False
        if not all(self._holds(slot, n, F32) for slot, n in pairs):
            return False
        sizes = [n for _, n in pairs]
        joins = op["rule"] == Combines.JOIN
        if not joins and len(set(sizes)) != 1:
            return False
        return 4 * (sum(sizes) if joins else sizes[0]) <= self._table.answer_bytes

    # --- windows

    def _window(self, op: BoardOp, *, hangs_over: bool) -> bool:
        names = ("in_channels", "in_height", "in_width", "out_channels", "kernel_height")
        sizes = [op[n] for n in (*names, "kernel_width", "out_height", "out_width")]
        strides, dilations = op.pair("strides"), op.pair("dilations")
        if not all(1 <= s <= MAX_DIMENSION for s in (*sizes, *strides, *dilations)):
            return False
        begin, end = op.pair("pads_begin"), op.pair("pads_end")
        for axis, name in enumerate(("height", "width")):
            padded = op[f"in_{name}"] + begin[axis] + end[axis]
            reach = (op[f"kernel_{name}"] - 1) * dilations[axis] + 1
            if reach > padded:
                return False
            places, out = (padded - reach) // strides[axis] + 1, op[f"out_{name}"]
            if not (out == places or (hangs_over and 1 <= out <= places + 1)):
                return False
        return True

    @staticmethod
    def _patch_fits(op: BoardOp, channels: int) -> bool:
        taps = op["kernel_height"] * op["kernel_width"] * channels
        stride, dilations = op.pair("strides")[1], op.pair("dilations")
        reach = (op["kernel_width"] - 1) * dilations[1] // stride + 1
        row = (op["out_width"] + reach + PATCH_SPARE) * stride
        rows = (op["kernel_height"] - 1) * dilations[0] + 1
        return taps <= MAX_TAPS and row * rows * channels <= PATCH_FLOATS - PATCH_SPARE

    def _convolution(self, op: BoardOp, dtype: SlotType, weight_bytes: int) -> bool:
        groups, ins, outs = op["groups"], op["in_channels"], op["out_channels"]
        if not self._window(op, hangs_over=False) or not groups or ins % groups or outs % groups:
            return False
        taps = op["kernel_height"] * op["kernel_width"] * (ins // groups)
        return (
            self._holds(op["a"], ins * op["in_height"] * op["in_width"], dtype)
            and self._holds(op["dst"], outs * op["out_height"] * op["out_width"], dtype)
            and self._constants(op["weights"], taps * outs * weight_bytes)
            and self._constants(op["bias"], 4 * outs, null=True)
        )

    def _conv(self, op: BoardOp) -> bool:
        if not self._convolution(op, F32, 4) or not self._patch_fits(op, 1):
            return False
        made = op["out_channels"] * op["out_height"] * op["out_width"]
        if op["b"] != NONE and not self._holds(op["b"], made, F32):
            return False
        groups, mode = op["mask_groups"], op["mask_mode"]
        if mode == Masks.NONE:
            return groups == 0 and op["mask"] == NONE
        if mode not in set(Masks) or not groups or op["mask"] == NONE:
            return False
        channels = op["out_channels"] if mode == Masks.OUT else op["in_channels"]
        return channels % groups == 0 and self._holds(op["mask"], groups, F32)

    def _qconv(self, op: BoardOp) -> bool:
        return (
            self._convolution(op, U8, 1)
            and self._patch_fits(op, op["in_channels"] // op["groups"])
            and self._constants(op["aux"], 16 + 4 * op["out_channels"])
        )

    def _pool(self, op: BoardOp) -> bool:
        dtype = self._table.slots[op["a"]].dtype
        if op["pool"] not in set(Pools) or not self._window(op, hangs_over=True):
            return False
        if dtype is SlotType.S32 or (op["pool"] != Pools.MAX and dtype is not F32):
            return False
        channels = op["in_channels"]
        return (
            channels == op["out_channels"]
            and self._holds(op["a"], channels * op["in_height"] * op["in_width"], dtype)
            and self._holds(op["dst"], channels * op["out_height"] * op["out_width"], dtype)
        )

    # --- products

    def _gemm(self, op: BoardOp) -> bool:
        return (
            self._holds(op["a"], op["k"] * op["rows"], F32)
            and self._holds(op["dst"], op["m"] * op["rows"], F32)
            and self._constants(op["weights"], 4 * op["k"] * op["m"])
            and self._constants(op["bias"], 4 * op["m"], null=True)
        )

    def _qgemm(self, op: BoardOp) -> bool:
        return (
            1 <= op["k"] <= MAX_INT8_TERMS
            and self._holds(op["a"], op["k"], U8)
            and self._holds(op["dst"], op["m"], U8)
            and self._constants(op["weights"], op["k"] * op["m"])
            and self._constants(op["bias"], 4 * op["m"], null=True)
            and self._constants(op["aux"], 16 + 4 * op["m"])
        )

    def _lstm(self, op: BoardOp) -> bool:
        hidden = op["hidden"]
        return (
            hidden <= PATCH_FLOATS // 4
            and self._holds(op["a"], op["inputs"], F32)
            and all(self._holds(op[n], hidden, F32) for n in ("b", "c", "dst", "dst2"))
            and self._constants(op["weights"], 16 * hidden * op["inputs"])
            and self._constants(op["recurrence"], 16 * hidden * hidden)
            and self._constants(op["bias"], 16 * hidden, null=True)
        )

    # --- one place after the other

    def _binary(self, op: BoardOp) -> bool:
        form, n = op["broadcast"], op["n"]
        if op["function"] not in set(Function2) or form not in set(Broadcast):
            return False
        per_channel = form == Broadcast.PER_CHANNEL
        if per_channel != bool(op["inner"]) or per_channel != bool(op["channels"]):
            return False
        b = op["channels"] if per_channel else 1 if form == Broadcast.B_SCALAR else n
        return (
            self._holds(op["a"], 1 if form == Broadcast.A_SCALAR else n, F32)
            and self._holds(op["b"], b, F32)
            and self._holds(op["dst"], n, F32)
        )

    def _unary(self, op: BoardOp) -> bool:
        known = op["function"] in set(Function1)
        return known and all(self._holds(op[name], op["n"], F32) for name in ("a", "dst"))

    def _rows(self, op: BoardOp) -> bool:
        outer, inner = (op["outer"], op["inner" if op.kind is OpKind.MEAN else "n"])
        made = outer if op.kind is OpKind.MEAN else outer * inner
        return self._holds(op["a"], outer * inner, F32) and self._holds(op["dst"], made, F32)

    def _affine(self, op: BoardOp) -> bool:
        count, size = op["channels"] * op["inner"], 4 * op["channels"]
        return (
            self._holds(op["a"], count, F32)
            and self._holds(op["dst"], count, F32)
            and self._constants(op["scale"], size)
            and self._constants(op["shift"], size)
        )

    def _code(self, op: BoardOp, real: int, code: int) -> bool:
        if op["signed"] > 1:
            return False
        zero = op["zero"] - (1 << 32 if op["zero"] >> 31 else 0)
        low = -128 if op["signed"] else 0
        dtype = SlotType.S8 if op["signed"] else U8
        return (
            low <= zero <= low + 255
            and self._holds(real, op["n"], F32)
            and self._holds(code, op["n"], dtype)
        )

    def _qadd(self, op: BoardOp) -> bool:
        held = all(self._holds(op[name], op["n"], U8) for name in ("a", "b", "dst"))
        return held and self._constants(op["aux"], 32)

    # --- moves

    def _concat(self, op: BoardOp) -> bool:
        dtype = self._table.slots[op["dst"]].dtype
        pairs = self._pairs(op["parts"], op["n_parts"])
        if pairs is None or not op["outer"] or op["element_bytes"] != SLOT_BYTES[dtype]:
            return False
        outer = op["outer"]
        total = sum(n for _, n in pairs)
        parts = all(self._holds(slot, n * outer, dtype) for slot, n in pairs)
        return parts and self._holds(op["dst"], total * outer, dtype)

    def _steps(self, op: BoardOp, side: str, slot: int) -> bool:
        low = high = op[f"{side}_offset"]
        for axis in range(4):
            size, word = op[f"size{axis}"], op[f"{side}_stride{axis}"]
            stride = word - (1 << 32 if word >> 31 else 0)
            if not 1 <= size <= _MOST_STEPS or not -_MOST_STEPS < stride < _MOST_STEPS:
                return False
            low += min(0, (size - 1) * stride)
            high += max(0, (size - 1) * stride)
        return low >= 0 and high < self._table.slots[slot].size_bytes // op["element_bytes"]

    def _copy(self, op: BoardOp) -> bool:
        dtype = self._table.slots[op["dst"]].dtype
        return (
            all(op[f"dst_stride{axis}"] < _MOST_STEPS for axis in range(4))
            and self._table.slots[op["a"]].dtype is dtype
            and op["element_bytes"] == SLOT_BYTES[dtype]
            and self._steps(op, "dst", op["dst"])
            and self._steps(op, "src", op["a"])
        )

    def _fill(self, op: BoardOp) -> bool:
        dtype = self._table.slots[op["dst"]].dtype
        held = self._holds(op["dst"], op["n"], dtype)
        return op["element_bytes"] == SLOT_BYTES[dtype] and held
