"""One ONNX graph under construction, the outermost or a branch; names are unique across all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import helper, numpy_helper

from dynrt.errors import ExportError
from dynrt.ir.graph import Array, TensorType


@dataclass(slots=True, kw_only=True)
class Scope:
    """Operators and initialisers of one (sub)graph.

    Attributes:
        prefix: of all names in here.
        nodes, initializers: so far.
        names: taken names, shared by all scopes of a model.
    """

    prefix: str
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    initializers: list[onnx.TensorProto] = field(default_factory=list)
    names: set[str] = field(default_factory=set)

    def inner(self, name: str) -> Scope:
        """A scope for a branch."""
        return Scope(prefix=f"{self.prefix}{name}/", names=self.names)

    def fresh(self, stem: str) -> str:
        """A new name."""
        base = f"{self.prefix}{stem}"
        name, i = base, 1
        while name in self.names:
            i += 1
            name = f"{base}~{i}"
        self.names.add(name)
        return name

    def add(self, op: str, inputs: Sequence[str], stem: str, **attributes: int) -> str:
        """Add an operator of one output; its name."""
        name = self.fresh(stem)
        node = helper.make_node(op, inputs, [name], name=name)
        node.attribute.extend(helper.make_attribute(k, v) for k, v in attributes.items())
        self.nodes.append(node)
        return name

    def constant(self, stem: str, value: Array) -> str:
        """Add an initialiser; its name."""
        name = self.fresh(stem)
        self.initializers.append(numpy_helper.from_array(np.asarray(value, order="C"), name))
        return name

    def copy(self, tensor: str, stem: str) -> str:
        """Add an ``Identity``: a branch gives tensors of its own."""
        return self.add("Identity", [tensor], stem)

    def inline(
        self, model: onnx.ModelProto, feeds: Mapping[str, str], *, stem: str, place: str
    ) -> dict[str, str]:
        """Add all of ``model``; the tensors of its outputs by name.

        Args:
            model: plain ONNX.
            feeds: tensor of this scope, or one around it, for each input.
            stem: of all names.
            place: for messages.

        Raises:
            ExportError: the model has subgraphs itself.
        """
        names = {"": "", **feeds}
        for tensor in model.graph.initializer:
            copy = onnx.TensorProto()
            copy.CopyFrom(tensor)
            copy.name = names[tensor.name] = self.fresh(f"{stem}/{tensor.name}")
            self.initializers.append(copy)
        for node in model.graph.node:
            if any(a.type == onnx.AttributeProto.GRAPH for a in node.attribute):
                raise ExportError(
                    f"{place}: node {stem!r} has a subgraph of its own; no fused form"
                )
            clone = onnx.NodeProto()
            clone.CopyFrom(node)
            clone.input[:] = [names[n] for n in node.input]
            for output in node.output:
                if output:
                    names[output] = self.fresh(f"{stem}/{output}")
            clone.output[:] = [names[n] for n in node.output]
            clone.name = self.fresh(f"{stem}/{node.name}.op")
            self.nodes.append(clone)
        return {o.name: names[o.name] for o in model.graph.output}

    def graph(self, outputs: Sequence[str], kinds: Sequence[TensorType]) -> onnx.GraphProto:
        """This scope as a branch that gives ``outputs``, each with a leading axis of 1."""
        infos = [
            helper.make_tensor_value_info(
                name, helper.np_dtype_to_tensor_dtype(np.dtype(kind.dtype)), [1, *kind.shape]
            )
            for name, kind in zip(outputs, kinds, strict=True)
        ]
        return helper.make_graph(self.nodes, self.prefix.rstrip("/"), [], infos, self.initializers)

    def branch(
        self,
        condition: str,
        yes: onnx.GraphProto,
        no: onnx.GraphProto,
        *,
        outputs: int,
        stem: str,
    ) -> list[str]:
        """Add an ``If``; the names of its outputs."""
        names = [self.fresh(stem) for _ in range(outputs)]
        self.nodes.append(
            helper.make_node(
                "If", [condition], names, name=names[0], then_branch=yes, else_branch=no
            )
        )
        return names
