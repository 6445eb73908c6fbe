"""LSTM cells: as one operator of ONNX, or spelt out as torch's exporter writes ``LSTMCell``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx

from dynrt.bundle.board_kinds import OpKind
from dynrt.errors import BoardFitError
from dynrt.exporters.board_graph import NodeGraph
from dynrt.exporters.board_lowering import NodeLowering
from dynrt.exporters.draft import attribute, attribute_float, attribute_int, attribute_text
from dynrt.ir.graph import Array


def lstm(low: NodeLowering, i: int, op: onnx.NodeProto) -> None:
    """LSTM over one step, one direction, without peepholes.

    Raises:
        BoardFitError: any other LSTM.
    """
    plain = (
        attribute_text(op, "direction", "forward") == "forward"
        and not any(attribute(op, name) for name in ("activations", "clip", "input_forget"))
        and low.graph.shape(op.input[0])[:2] == (1, 1)
        and len(op.input) > 6
        and all(op.input[k] for k in (5, 6))
        and not any(op.input[k] for k in (4, 7) if k < len(op.input))
        and low.graph.constants.get(op.input[3]) is not None
        and not (op.output[0] and low.graph.readers.get(op.output[0]))
    )
    if not plain:
        raise BoardFitError(f"{low.graph.name(i)}: only one step with a state, on the board")
    weights, recurrence, bias = (
        low.require_constant(i, k, "weights")[0].astype(np.float32) for k in (1, 2, 3)
    )
    outputs = [*op.output, "", ""][1:3]
    _add(
        low,
        _Weights(
            weights=weights, recurrence=recurrence, bias=bias.reshape(2, -1).sum(0, np.float32)
        ),
        (op.input[0], op.input[5], op.input[6]),
        (outputs[0], outputs[1]),
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Weights:
    """Gates in ONNX's order: input, output, forget, cell."""

    weights: Array
    recurrence: Array
    bias: Array


def _add(
    low: NodeLowering, held: _Weights, takes: tuple[str, str, str], gives: tuple[str, str]
) -> None:
    slots = [low.slot_of(name) for name in takes]
    hidden = held.recurrence.shape[1]
    made = [low.result(name) if name else low.temporary(hidden) for name in gives]
    low.builder.add(
        OpKind.LSTM,
        dst=made[0],
        dst2=made[1],
        a=slots[0],
        b=slots[1],
        c=slots[2],
        inputs=held.weights.shape[1],
        hidden=hidden,
        weights=low.builder.data(held.weights),
        recurrence=low.builder.data(held.recurrence),
        bias=low.builder.data(held.bias),
    )


# --- spelt out


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """A cell that is spelt out.

    Attributes:
        inside: positions of its operators.
        last: the last of them.
        takes: input, state h, state c.
        gives: the next h, the next c.
        products: positions of the products with the input and with h.
    """

    inside: frozenset[int]
    last: int
    takes: tuple[str, str, str]
    gives: tuple[str, str]
    products: tuple[int, int]


def find_cells(graph: NodeGraph) -> tuple[Cell, ...]:
    """Every cell in a node."""
    found = [_cell(graph, i) for i, op in enumerate(graph.ops) if op.op_type == "Split"]
    return tuple(cell for cell in found if cell is not None)


def lower_cell(low: NodeLowering, cell: Cell) -> None:
    """Lower a cell where its last operator stands; torch orders gates input, forget, cell, output."""
    of_input, of_state = (_product(low.graph, p) for p in cell.products)
    hidden = of_state[0].shape[1]
    order = np.concatenate([np.arange(k * hidden, (k + 1) * hidden) for k in (0, 3, 1, 2)])
    held = _Weights(
        weights=of_input[0][order],
        recurrence=of_state[0][order],
        bias=(of_input[1] + of_state[1])[order],
    )
    for position in cell.inside - {cell.last}:
        low.take(position)
    low.postpone(cell.last, lambda: _add(low, held, cell.takes, cell.gives))


def _product(graph: NodeGraph, position: int) -> tuple[Array, Array]:
    op = graph.ops[position]
    weights = graph.constants[op.input[1]].astype(np.float32)
    bias = graph.constants.get(op.input[2]) if len(op.input) > 2 and op.input[2] else None
    zeros = np.zeros(len(weights), np.float32)
    return weights, zeros if bias is None else bias.astype(np.float32).reshape(-1)


def _cell(graph: NodeGraph, split: int) -> Cell | None:
    gates = graph.ops[split]
    products = _products(graph, gates.input[0])
    if products is None or len(gates.output) != 4:
        return None
    steps = _steps(graph, gates)
    if steps is None or len({graph.shape(n) for n in gates.output}) != 1:
        return None
    add, of_input, of_state = products
    inside = frozenset({split, add, of_input, of_state, *steps.positions.values()})
    own = {n for p in inside for n in graph.ops[p].output}
    gives = steps.gives
    for name in own - set(gives):
        if name in graph.ends or not inside.issuperset(graph.readers.get(name, ())):
            return None
    # the other product's state is the one that is as wide as a gate
    hidden = math.prod(graph.shape(gates.output[0]))
    first, second = graph.ops[of_input].input[0], graph.ops[of_state].input[0]
    if graph.count(second) != hidden or graph.count(steps.state) != hidden:
        return None
    return Cell(
        inside=inside,
        last=max(inside),
        takes=(first, second, steps.state),
        gives=gives,
        products=(of_input, of_state),
    )


def _products(graph: NodeGraph, total: str) -> tuple[int, int, int] | None:
    """Positions of an addition and of the two products that it adds."""
    add = graph.maker.get(total)
    if add is None or graph.ops[add].op_type != "Add":
        return None
    found = [graph.maker.get(n) for n in graph.ops[add].input]
    hidden = graph.count(total) // 4
    state_last: list[int] = []
    for position in found:
        if position is None:
            return None
        op = graph.ops[position]
        plain = (
            op.op_type == "Gemm"
            and attribute_int(op, "transB", 0) == 1
            and not attribute_int(op, "transA", 0)
            and attribute_float(op, "alpha", 1.0) == attribute_float(op, "beta", 1.0) == 1
            and all(n in graph.constants for n in op.input[1:] if n)
            and graph.shape(op.output[0])[0] == 1
        )
        if not plain:
            return None
        state_last.append(position)
    if len(set(state_last)) != 2:
        return None
    a, b = state_last
    widths = [graph.count(graph.ops[p].input[0]) for p in (a, b)]
    # torch puts the state's product first; where only one is as wide as a gate, that one is it
    if widths[0] == hidden:
        return add, b, a
    return (add, a, b) if widths[1] == hidden else None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Steps:
    positions: Mapping[str, int]
    state: str
    gives: tuple[str, str]


def _steps(graph: NodeGraph, gates: onnx.NodeProto) -> _Steps | None:
    """Follow the gates: ``c' = f * c + i * g``, ``h' = o * tanh(c')``."""
    at: dict[str, int] = {}
    signals = []
    for name, out, kind in zip(
        "ifgo", gates.output, ("Sigmoid", "Sigmoid", "Tanh", "Sigmoid"), strict=True
    ):
        position = graph.only_reader(out)
        if position is None or graph.ops[position].op_type != kind:
            return None
        at[name] = position
        signals.append(graph.ops[position].output[0])
    i, f, g, o = signals
    keep, new, out = (graph.only_reader(n) for n in (f, i, o))
    if keep is None or new is None or out is None or graph.only_reader(g) != new:
        return None
    if any(graph.ops[p].op_type != "Mul" for p in (keep, new, out)):
        return None
    states = [n for n in graph.ops[keep].input if n != f]
    total = graph.only_reader(graph.ops[keep].output[0])
    if len(states) != 1 or total is None or graph.ops[total].op_type != "Add":
        return None
    if graph.only_reader(graph.ops[new].output[0]) != total:
        return None
    c_next = graph.ops[total].output[0]
    bounded = [n for n in graph.ops[out].input if n != o]
    tanh = graph.maker.get(bounded[0]) if len(bounded) == 1 else None
    if tanh is None or graph.ops[tanh].op_type != "Tanh" or graph.ops[tanh].input[0] != c_next:
        return None
    at |= {"keep": keep, "new": new, "out": out, "total": total, "tanh": tanh}
    return _Steps(positions=at, state=states[0], gives=(graph.ops[out].output[0], c_next))
