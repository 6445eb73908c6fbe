"""A mutable ONNX graph while it is being cleaned: operators, constants by name, nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import numpy_helper

from dynrt.errors import ExportError
from dynrt.ir.graph import Array

_PASS_THROUGH = ("Identity", "Dropout")


@dataclass(slots=True, kw_only=True)
class OnnxDraft:
    """Operators in topological order, and every constant as an array.

    Attributes:
        nodes: operators; ``Constant`` ones are in ``constants`` instead.
        constants: initialisers and constants by tensor name.
        place: names the node in errors.
    """

    nodes: list[onnx.NodeProto]
    constants: dict[str, Array]
    place: str

    @classmethod
    def of(cls, graph: onnx.GraphProto, place: str) -> OnnxDraft:
        """A draft of ``graph``, which stays as it is."""
        constants = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
        nodes = []
        for node in graph.node:
            if node.op_type == "Constant":
                constants[node.output[0]] = _constant_value(node, place)
                continue
            copy = onnx.NodeProto()
            copy.CopyFrom(node)
            nodes.append(copy)
        return cls(nodes=nodes, constants=constants, place=place)

    def keep_only(self, results: set[str], *, known: set[str]) -> None:
        """Drop all that the tensors ``results`` do not need, given the tensors ``known``.

        Raises:
            ExportError: something needs a tensor that is neither computed, constant nor known.
        """
        needed = set(results)
        kept: list[onnx.NodeProto] = []
        for node in reversed(self.nodes):
            if any(name in needed and name not in known for name in node.output if name):
                kept.append(node)
                needed.update(name for name in node.input if name)
        self.nodes = kept[::-1]
        made = {name for node in self.nodes for name in node.output}
        missing = sorted(needed - made - known - self.constants.keys())
        if missing:
            raise ExportError(
                f"{self.place}: needs tensor {missing[0]!r}, which nothing gives"
                + (f" (+{len(missing) - 1} more)" if len(missing) > 1 else "")
            )
        self.constants = {k: v for k, v in self.constants.items() if k in needed}

    def drop_identities(self, *, protected: set[str]) -> None:
        """Remove operators that only pass a tensor on; ``protected`` tensors keep their names."""
        same: dict[str, str] = {}
        kept = []
        for node in self.nodes:
            node.input[:] = [same.get(name, name) for name in node.input]
            extra = [name for name in node.output[1:] if name]
            if node.op_type in _PASS_THROUGH and not extra and not _training(node):
                source, target = node.input[0], node.output[0]
                if source in self.constants:
                    self.constants[target] = self.constants[source]
                    continue
                if target not in protected:
                    same[target] = source
                    continue
            kept.append(node)
        self.nodes = kept

    def consumers(self) -> dict[str, list[onnx.NodeProto]]:
        """Operators that read each tensor, once for each time they read it."""
        out: dict[str, list[onnx.NodeProto]] = {}
        for node in self.nodes:
            for name in node.input:
                out.setdefault(name, []).append(node)
        return out

    def producers(self) -> Mapping[str, onnx.NodeProto]:
        """The operator that makes each computed tensor."""
        return {name: node for node in self.nodes for name in node.output if name}

    def add_constant(self, stem: str, value: Array) -> str:
        """Add a constant under a new name that begins with ``stem``."""
        made = {name for node in self.nodes for name in (*node.input, *node.output)}
        name, i = stem, 0
        while name in self.constants or name in made:
            i += 1
            name = f"{stem}~{i}"
        self.constants[name] = value
        return name


def attribute(node: onnx.NodeProto, name: str, default: object = None) -> object:
    """Value of an attribute of ``node``, or ``default``."""
    for item in node.attribute:
        if item.name == name:
            return onnx.helper.get_attribute_value(item)
    return default


def attribute_int(node: onnx.NodeProto, name: str, default: int) -> int:
    """An integer attribute of ``node``, or ``default``."""
    value = attribute(node, name, default)
    return value if isinstance(value, int) else default


def attribute_float(node: onnx.NodeProto, name: str, default: float) -> float:
    """A number attribute of ``node``, or ``default``."""
    value = attribute(node, name, default)
    return float(value) if isinstance(value, int | float) else default


def attribute_ints(node: onnx.NodeProto, name: str) -> tuple[int, ...]:
    """An attribute of ``node`` that holds several integers; empty where it has none."""
    value = attribute(node, name, ())
    return tuple(int(v) for v in value) if isinstance(value, list | tuple) else ()


def attribute_text(node: onnx.NodeProto, name: str, default: str) -> str:
    """A text attribute of ``node``, or ``default``."""
    value = attribute(node, name, default)
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _training(node: onnx.NodeProto) -> bool:
    return node.op_type == "Dropout" and len(node.input) > 2 and node.input[2] != ""


def _constant_value(node: onnx.NodeProto, place: str) -> Array:
    for item in node.attribute:
        value = onnx.helper.get_attribute_value(item)
        if item.name == "value":
            return numpy_helper.to_array(value)
        if item.name in ("value_float", "value_floats"):
            return np.asarray(value, dtype=np.float32)
        if item.name in ("value_int", "value_ints"):
            return np.asarray(value, dtype=np.int64)
    raise ExportError(f"{place}: constant {node.output[0]!r} holds no tensor of numbers")
