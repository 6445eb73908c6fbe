"""A bundle as a board's op table: what runs on bare metal, decisions and exits included.

>>> program = lower_to_board(read_bundle(resolve("resnet38-ddi")))  # doctest: +SKIP

``program.table_bytes`` and ``program.weights`` are downloaded, samples are packed by
``program.pack``; ``program.decisions`` names what the board's records hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from dynrt.bundle.board_kinds import OpKind
from dynrt.bundle.board_table import (
    MAX_ANSWER_BYTES,
    MAX_DECISIONS,
    MAX_NODES,
    MAX_OPS,
    MAX_SLOTS,
    MAX_THRESHOLDS,
    BoardLimits,
    BoardTable,
    Region,
    encode,
    offset_of,
    pointer,
)
from dynrt.bundle.board_validate import validate
from dynrt.bundle.model import Bundle
from dynrt.errors import BoardFitError, BundleError, InputError
from dynrt.exporters.board_builder import TableBuilder, op_macs
from dynrt.exporters.board_flow import FlowLowering
from dynrt.exporters.board_graph import node_graph
from dynrt.exporters.board_lowering import NodeLowering
from dynrt.exporters.board_masks import find_masks
from dynrt.exporters.board_operators import RULES
from dynrt.exporters.board_plan import lives, placed
from dynrt.exporters.board_recurrent import find_cells, lower_cell
from dynrt.ir.graph import Array, ComputeNode, Exit, NodeId, TensorType

DEFAULT_LIMITS = BoardLimits()


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardInput:
    """A real input in a sample, or a parameter in the weights.

    Attributes:
        offset: in bytes.
        type: of one sample.
    """

    offset: int
    type: TensorType


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardProgram:
    """What is downloaded, and what the board's numbers mean.

    Attributes:
        name: of the network.
        table: the op table.
        table_bytes: the same, encoded.
        weights: constants, and the parameters' values.
        decisions: names of control nodes, then of exits in their order: the words of a record.
        thresholds: of each node that has any, its place in the thresholds, and how many.
        op_names: of each operator: node, kind and name in the ONNX.
        op_macs: of each operator: multiply-accumulates, no channel masked.
        op_nodes: of each operator: the network's node, or ``answer``.
        inputs: real inputs.
        params: parameters.
        answers: type of each exit's answer.
    """

    name: str
    table: BoardTable
    table_bytes: bytes
    weights: bytes
    decisions: tuple[NodeId, ...]
    thresholds: Mapping[NodeId, tuple[int, int]]
    op_names: tuple[str, ...]
    op_macs: tuple[int, ...]
    op_nodes: tuple[str, ...]
    inputs: Mapping[NodeId, BoardInput]
    params: Mapping[NodeId, BoardInput]
    answers: Mapping[NodeId, TensorType]

    @property
    def arena_bytes(self) -> int:
        """Memory for tensors."""
        return self.table.arena_bytes

    @property
    def input_bytes(self) -> int:
        """Of one sample."""
        return self.table.input_bytes

    def pack(self, inputs: Mapping[NodeId, Array]) -> bytes:
        """One sample as the board reads it.

        Args:
            inputs: arrays without the batch axis, by name.

        Raises:
            InputError: one is missing, or of another type or shape.
        """
        sample = bytearray(self.input_bytes)
        for name, where in self.inputs.items():
            if name not in inputs:
                raise InputError(f"input {name!r} is missing")
            raw = as_bytes(inputs[name], where.type, f"input {name!r}")
            sample[where.offset : where.offset + len(raw)] = raw
        return bytes(sample)

    def packed_param(self, name: NodeId, value: Array) -> tuple[int, bytes]:
        """Where a parameter is written in the weights, and its bytes.

        Raises:
            InputError: no such parameter, or another type or shape.
        """
        if name not in self.params:
            raise InputError(
                f"{name!r} is no parameter; there are {', '.join(self.params) or 'none'}"
            )
        where = self.params[name]
        return where.offset, as_bytes(value, where.type, f"parameter {name!r}")


def as_bytes(value: Array, kind: TensorType, place: str) -> bytes:
    """The words of one tensor; truth values become numbers.

    Raises:
        InputError: not of this type and shape.
    """
    if value.shape != kind.shape or value.dtype != np.dtype(kind.dtype):
        raise InputError(f"{place} is {value.dtype}{list(value.shape)}, not {kind}")
    board = value.astype(np.float32) if kind.dtype == "bool" else value
    return np.ascontiguousarray(board).tobytes()


def lower_to_board(bundle: Bundle, *, limits: BoardLimits = DEFAULT_LIMITS) -> BoardProgram:
    """Lower a bundle to the op table, and plan its memory.

    Raises:
        BoardFitError: an operator, element type or rule that the board does not have, or more bytes
            than it has room for; names the operator and the bytes.
        ExportError: a node's ONNX is not sound.
    """
    builder = TableBuilder()

    def lower_node(node: ComputeNode | Exit, taken: Mapping[str, int]) -> Mapping[str, int]:
        low = NodeLowering(builder, node_graph(bundle.models[node.name], node), taken, RULES)
        if isinstance(node, ComputeNode):
            find_masks(low, node, bundle.models[node.name])
        for cell in find_cells(low.graph):
            lower_cell(low, cell)
        return low.run()

    flow = FlowLowering(builder, bundle.graph, lower_node)
    flow.run()
    arena_bytes = _place(builder, limits)
    sizes = [kind.size_bytes for kind in flow.answers.values()]
    if bundle.graph.combine.kind == "concat":
        sizes.append(sum(sizes))
    table = BoardTable(
        nodes=tuple(flow.nodes),
        slots=tuple(builder.slots),
        lists=tuple(builder.lists),
        thresholds=tuple(builder.thresholds),
        ops=tuple(builder.ops),
        weights_bytes=len(builder.weights),
        arena_bytes=arena_bytes,
        input_bytes=flow.input_bytes,
        answer_bytes=max(sizes),
        n_decisions=len(flow.decisions),
        n_params=len(flow.param_slots),
    )
    _require_fit(table, builder, limits)
    try:
        data = encode(table)
        validate(table, limits=limits)
    except BundleError as exc:
        raise BoardFitError(f"{bundle.name}: {exc}") from exc
    kinds = {n.name: n.type for n in bundle.graph.inputs()}
    return BoardProgram(
        name=bundle.name,
        table=table,
        table_bytes=data,
        weights=bytes(builder.weights),
        decisions=flow.decisions,
        thresholds=flow.thresholds,
        op_names=tuple(builder.op_names),
        op_macs=tuple(op_macs(op) for op in builder.ops),
        op_nodes=tuple(flow.node_names[op.node] for op in builder.ops),
        inputs={k: BoardInput(offset=v, type=kinds[k]) for k, v in flow.input_at.items()},
        params={
            k: BoardInput(offset=offset_of(table.slots[v].home), type=kinds[k])
            for k, v in flow.param_slots.items()
        },
        answers=flow.answers,
    )


def _place(builder: TableBuilder, limits: BoardLimits) -> int:
    """Give every slot that operators write a home; the arena's bytes.

    Raises:
        BoardFitError: the arena is too small; names the operator at which most is needed.
    """
    sizes = {
        slot: s.size_bytes
        for slot, s in enumerate(builder.slots)
        if not s.flags and slot not in builder.choices
    }
    found = lives(
        [builder.reads(op) for op in builder.ops],
        [builder.writes(op) for op in builder.ops],
        builder.choices,
        sizes,
    )
    offsets, total = placed(found)
    if total > limits.arena_bytes:
        needed = [0] * len(builder.ops)
        for life in found.values():
            for i in range(life.first, life.last + 1):
                needed[i] += life.size_bytes
        worst = max(range(len(needed)), key=needed.__getitem__)
        raise BoardFitError(
            f"tensors need {total} bytes and the board has {limits.arena_bytes}; "
            f"{needed[worst]} of them at {builder.op_names[worst]}"
        )
    for slot, offset in offsets.items():
        home = pointer(Region.ARENA, offset)
        builder.slots[slot] = replace(builder.slots[slot], home=home)
    return total


def _require_fit(table: BoardTable, builder: TableBuilder, limits: BoardLimits) -> None:
    """Refuse what is more than the board takes, and name the operator that adds most to it."""
    counts = (
        ("nodes", len(table.nodes), MAX_NODES),
        ("slots", len(table.slots), MAX_SLOTS),
        ("operators", len(table.ops), MAX_OPS),
        ("decisions", table.n_decisions, MAX_DECISIONS),
        ("thresholds", len(table.thresholds), MAX_THRESHOLDS),
        ("bytes of one answer", table.answer_bytes, MAX_ANSWER_BYTES),
        ("bytes of the op table", 4 * table.total_words, limits.table_bytes),
        ("bytes of one sample", table.input_bytes, limits.inputs_bytes),
    )
    for what, got, limit in counts:
        if got > limit:
            raise BoardFitError(f"{got} {what}, and the board takes {limit}")
    if table.weights_bytes > limits.weights_bytes:
        worst, size = _largest_weights(builder)
        raise BoardFitError(
            f"weights need {table.weights_bytes} bytes and the board has {limits.weights_bytes}; "
            f"{size} of them are of {worst}"
        )


def _largest_weights(builder: TableBuilder) -> tuple[str, int]:
    each = {OpKind.QCONV: 1, OpKind.QGEMM: 1}
    sizes = []
    for i, op in enumerate(builder.ops):
        count = 0
        if op.kind in (OpKind.CONV, OpKind.QCONV):
            taps = op["kernel_height"] * op["kernel_width"]
            count = op["out_channels"] * op["in_channels"] // op["groups"] * taps
        elif op.kind in (OpKind.GEMM, OpKind.QGEMM):
            count = op["k"] * op["m"]
        elif op.kind is OpKind.LSTM:
            count = 4 * op["hidden"] * (op["hidden"] + op["inputs"])
        sizes.append((count * each.get(op.kind, 4), i))
    size, worst = max(sizes)
    return builder.op_names[worst], size
