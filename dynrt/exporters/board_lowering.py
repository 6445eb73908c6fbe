"""Turns the operators of one node into operators of the board, one kind at a time.

The kinds are functions of their own (``board_products``, ``board_pointwise``, ``board_moves``,
``board_windows``, ``board_integers``, ``board_recurrent``); here is what they share: which slot holds
which tensor, and which operators are done together with another.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx

from dynrt.bundle.board_kinds import Act, OpKind
from dynrt.bundle.board_table import SlotType
from dynrt.errors import BoardFitError
from dynrt.exporters.board_builder import TableBuilder, float_bits, slot_type
from dynrt.exporters.board_graph import NodeGraph
from dynrt.ir.graph import Array


@dataclass(frozen=True, slots=True, kw_only=True)
class Coded:
    """A tensor of numbers that is held in integers: ``(integer - zero) * scale``.

    Attributes:
        slot: holds the integers.
        scale, zero: of all of them.
        dtype: of the integers.
    """

    slot: int
    scale: float
    zero: int
    dtype: SlotType


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskUse:
    """What a convolution leaves out where a mask drops a group.

    Attributes:
        mode: a value of ``Masks``.
        slot: holds the mask.
        groups: of the channels.
    """

    mode: int
    slot: int
    groups: int


class NodeLowering:
    """One node while it is lowered.

    Args:
        builder: what operators are added to.
        graph: of the node.
        inputs: the slot that each input port takes.
        rules: what to do with each kind of operator.

    Attributes:
        masked: of convolutions, by position, what a mask drops.
        through: of operators, by position, the tensor that they hand on, since a mask is done already.
    """

    def __init__(
        self,
        builder: TableBuilder,
        graph: NodeGraph,
        inputs: Mapping[str, int],
        rules: Mapping[str, Rule],
    ) -> None:
        self.builder, self.graph, self.rules = builder, graph, rules
        self.masked: dict[int, MaskUse] = {}
        self.through: dict[int, str] = {}
        self._at = dict(inputs)
        self._inputs = frozenset(inputs.values())
        self._coded: dict[str, Coded] = {}
        self._done: set[int] = set()
        self._later: dict[int, Callable[[], None]] = {}

    def run(self) -> dict[str, int]:
        """Lower all operators; the slot of each output, which is null where the node does not run.

        Raises:
            BoardFitError: an operator that the board does not have.
        """
        self._done |= self._idle()
        for i, op in enumerate(self.graph.ops):
            self.builder.label = self.graph.name(i)
            if i in self._later:
                self._later.pop(i)()
            elif i in self.through and i not in self._done:
                self.alias(op.output[0], self.through[i])
            elif i not in self._done:
                rule = self.rules.get(op.op_type)
                if rule is None:
                    raise BoardFitError(f"{self.graph.name(i)}: this operator is not on the board")
                rule(self, i, op)
        self.builder.label = self.graph.place
        return {name: self._own(self.slot_of(name)) for name in sorted(self.graph.ends)}

    def _idle(self) -> set[int]:
        """Operators that nothing needs, now that masks are applied by convolutions."""
        needed, idle = set(self.graph.ends), set()
        for i in reversed(range(len(self.graph.ops))):
            op = self.graph.ops[i]
            if needed.isdisjoint(op.output):
                idle.add(i)
            else:
                needed.update([self.through[i]] if i in self.through else op.input)
        return idle

    def _own(self, slot: int) -> int:
        """A slot that only this node makes: what is handed on is chosen."""
        if slot in self._inputs or self.builder.slots[slot].flags:
            return self.builder.select(slot, slot)
        return slot

    # --- tensors

    def slot_of(self, tensor: str) -> int:
        """The slot that holds a tensor: its numbers, not their integer form.

        Raises:
            BoardFitError: an element type that the board does not hold.
        """
        if tensor in self._at:
            return self._at[tensor]
        if tensor in self._coded:
            code = self._coded[tensor]
            slot = self.builder.slot(self.graph.count(tensor), SlotType.F32)
            self.builder.add(
                OpKind.DEQUANTIZE,
                dst=slot,
                a=code.slot,
                n=self.graph.count(tensor),
                scale=float_bits(code.scale),
                zero=code.zero,
                signed=int(code.dtype is SlotType.S8),
            )
            self._at[tensor] = slot
            return slot
        value = self.constant(tensor)
        if value is None:
            raise BoardFitError(f"{self.builder.label}: {tensor!r} is no tensor of numbers")
        dtype = slot_type(value.dtype.name, f"{self.builder.label}: {tensor!r}")
        if dtype is SlotType.F32:
            value = value.astype(np.float32)
        self._at[tensor] = self.builder.constant(value, dtype)
        return self._at[tensor]

    def constant(self, tensor: str) -> Array | None:
        """The value of a tensor that depends on no input, or ``None``."""
        return self.graph.constants.get(tensor)

    def require_constant(self, i: int, position: int, what: str) -> Array:
        """An input of an operator that must be a constant.

        Raises:
            BoardFitError: it depends on the node's inputs, or is left out.
        """
        op = self.graph.ops[i]
        name = op.input[position] if position < len(op.input) else ""
        value = self.constant(name)
        if value is None:
            raise BoardFitError(f"{self.graph.name(i)}: {what} must be constant on the board")
        return value

    def result(self, tensor: str) -> int:
        """A new slot for a tensor that an operator gives."""
        kind = slot_type(self.graph.types[tensor].dtype, f"{self.builder.label}: {tensor!r}")
        self._at[tensor] = self.builder.slot(self.graph.count(tensor), kind)
        return self._at[tensor]

    def alias(self, target: str, source: str) -> None:
        """``target`` is ``source`` in another shape."""
        if source in self._at or source not in self._coded:
            self._at[target] = self.slot_of(source)
        else:
            self._coded[target] = self._coded[source]

    def temporary(self, count: int) -> int:
        """A slot for float32 between two operators."""
        return self.builder.slot(count, SlotType.F32)

    def code_of(self, tensor: str) -> Coded | None:
        """How a tensor is held in integers, if it is."""
        return self._coded.get(tensor)

    def set_code(self, tensor: str, code: Coded) -> None:
        """A tensor's numbers are held in integers; they are turned back where they are needed."""
        self._coded[tensor] = code

    # --- operators that are done together

    def take(self, position: int) -> None:
        """An operator is done as part of another."""
        self._done.add(position)

    def taken(self, position: int) -> bool:
        """Whether an operator is done as part of another."""
        return position in self._done

    def postpone(self, position: int, emit: Callable[[], None]) -> None:
        """Do something where the operator at ``position`` stands."""
        self._later[position] = emit

    def follower(self, tensor: str, *kinds: str) -> int | None:
        """The only operator that reads ``tensor``, if it is of one of these kinds and not yet done."""
        reader = self.graph.only_reader(tensor)
        if reader is None or reader in self._done or reader in self.through:
            return None
        return reader if self.graph.ops[reader].op_type in kinds else None

    def with_relu(self, tensor: str) -> tuple[str, int]:
        """The tensor that is stored in the end, and the activation before: a ReLU is done at once."""
        reader = self.follower(tensor, "Relu")
        if reader is None:
            return tensor, int(Act.NONE)
        self.take(reader)
        return self.graph.ops[reader].output[0], int(Act.RELU)


Rule = Callable[[NodeLowering, int, onnx.NodeProto], None]
