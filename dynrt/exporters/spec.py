"""How to say that torch modules form a dynamic network: any graph of :mod:`dynrt.ir`, declared.

A spec holds modules where a graph holds costs; port types are found by running the modules::

    net = NetworkBuilder("skipper")
    x = net.input("image", (3, 32, 32))
    stem = net.compute("stem", stem_module, {"x": x})
    gate = net.gate("gate", gate_module, {"x": stem}, actions=[["block"]])
    block = net.compute("block", block_module, {"x": stem})
    net.exit("final", head_module, {"x": wire(block, default="block.x")})
    spec = net.build()
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import numpy as np
from torch import nn

from dynrt.bundle import Preprocessing
from dynrt.errors import ExportError
from dynrt.exporters.onnx_node import call_module, frozen_copy
from dynrt.ir.graph import (
    Accept,
    Array,
    Combine,
    Constant,
    InputNode,
    NodeId,
    PortRef,
    Rule,
    TensorType,
    Threshold,
)
from dynrt.ir.reference import Function

#: ``"zeros"`` stands for a constant of zeros of the source's type.
WireDefault = Constant | PortRef | Literal["zeros"] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Wire:
    """Where a tensor comes from, and what stands in if that did not run."""

    source: PortRef
    default: WireDefault = None


#: A wire without default may be written as its source: a reference, or ``"node.port"``.
Source = Wire | PortRef | str


def port_ref(text: PortRef | str) -> PortRef:
    """Read ``"node.port"``.

    Raises:
        ExportError: the text is not of that form.
    """
    if isinstance(text, PortRef):
        return text
    node, dot, port = text.partition(".")
    if not dot or not node or not port:
        raise ExportError(f"{text!r} names no port; write node.port")
    return PortRef(node, port)


def wire(
    source: Source, *, default: Constant | PortRef | Array | float | str | None = None
) -> Wire:
    """A wire with a default.

    Args:
        source: an output port.
        default: ``"zeros"``, a tensor without batch axis, or a port (``"block.x"``: the identity
            path of a skipped block).
    """
    base = source.source if isinstance(source, Wire) else port_ref(source)
    kept: WireDefault
    if default is None or isinstance(default, Constant | PortRef):
        kept = default
    elif isinstance(default, str):
        kept = "zeros" if default == "zeros" else port_ref(default)
    else:
        kept = Constant(np.asarray(default))
    return Wire(source=base, default=kept)


@dataclass(frozen=True, slots=True, kw_only=True)
class ComputeSpec:
    """A module as a node.

    Attributes:
        name: of the node.
        module: called with the inputs in order; gives a tensor, several, or a mapping by name.
        inputs: wires by input port, in the order of the module's arguments.
        outputs: output ports, in the order of the module's results.
        mask: the input port of a channel mask, ``(groups,)``, or ``None``.
    """

    name: NodeId
    module: nn.Module
    inputs: Mapping[str, Wire]
    outputs: tuple[str, ...]
    mask: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitSpec:
    """A module as an exit; see :class:`ComputeSpec`, and :class:`dynrt.ir.graph.Exit` for the rest."""

    name: NodeId
    module: nn.Module
    inputs: Mapping[str, Wire]
    outputs: tuple[str, ...]
    answer: str
    accept: Accept


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlSpec:
    """A control node: ``actions[i]`` are the nodes that action ``i`` switches on."""

    name: NodeId
    scores: Wire
    rule: Rule
    actions: tuple[tuple[NodeId, ...], ...]


NodeSpec = ComputeSpec | ControlSpec | ExitSpec


@dataclass(frozen=True, kw_only=True)
class NetworkSpec:
    """A dynamic network of torch modules.

    Attributes:
        name: of the network.
        inputs: inputs and runtime parameters.
        nodes: in any order, but exits in the order in which they are tried.
        combine: how several final answers join.
        labels: names of the classes.
        preprocessing: what a picture goes through first.
        card: the model card.
    """

    name: str
    inputs: tuple[InputNode, ...]
    nodes: tuple[NodeSpec, ...]
    combine: Combine = field(default_factory=Combine)
    labels: tuple[str, ...] = ()
    preprocessing: Preprocessing | None = None
    card: Mapping[str, object] = field(default_factory=dict)

    @property
    def modules(self) -> Mapping[NodeId, nn.Module]:
        """The module of each compute node and exit."""
        return {n.name: n.module for n in self.nodes if not isinstance(n, ControlSpec)}

    def functions(self) -> Mapping[NodeId, Function]:
        """The modules as functions of the reference interpreter; copies, in evaluation mode."""
        return {
            n.name: partial(_call, frozen_copy(n.module), tuple(n.inputs), n.outputs, n.name)
            for n in self.nodes
            if not isinstance(n, ControlSpec)
        }


def _call(
    module: nn.Module,
    inputs: tuple[str, ...],
    outputs: tuple[str, ...],
    name: str,
    values: Mapping[str, Array],
) -> Mapping[str, Array]:
    return call_module(module, [values[port] for port in inputs], outputs, place=f"node {name!r}")


class NetworkBuilder:
    """Collects nodes and gives a :class:`NetworkSpec`; each call returns what later ones refer to.

    Args:
        name: of the network.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._inputs: list[InputNode] = []
        self._nodes: list[NodeSpec] = []

    def input(self, name: NodeId, shape: Sequence[int], dtype: str = "float32") -> PortRef:
        """An input of one sample's ``shape``."""
        kind = TensorType(dtype=dtype, shape=tuple(shape))
        self._inputs.append(InputNode(name=name, type=kind))
        return PortRef(name, name)

    def param(self, name: NodeId, value: Array | float) -> PortRef:
        """A runtime parameter with its default; numbers become float32 of shape ``(1,)``."""
        array = np.asarray([value], np.float32) if np.isscalar(value) else np.asarray(value)
        kind = TensorType(dtype=array.dtype.name, shape=array.shape)
        self._inputs.append(InputNode(name=name, type=kind, param=Constant(array)))
        return PortRef(name, name)

    def compute(
        self,
        name: NodeId,
        module: nn.Module,
        inputs: Mapping[str, Source],
        outputs: Sequence[str] = ("y",),
        *,
        mask: str | None = None,
    ) -> PortRef:
        """A compute node; returns its first output port.

        Args:
            name: its name.
            module: called with the inputs in order.
            inputs: wires by input port.
            outputs: output ports.
            mask: the input port, float32 ``(groups,)``, that says which groups of the channels
                between two of the module's convolutions are kept (``dynrt.zoo.MaskedBlock``).
        """
        _require_outputs(name, outputs)
        node = ComputeSpec(
            name=name,
            module=module,
            inputs=_wires(inputs),
            outputs=tuple(outputs),
            mask=mask,
        )
        self._nodes.append(node)
        return PortRef(name, outputs[0])

    def control(
        self, name: NodeId, scores: Source, rule: Rule, actions: Sequence[Sequence[NodeId]]
    ) -> NodeId:
        """A control node that reads ``scores``; returns its name."""
        targets = tuple(tuple(a) for a in actions)
        self._nodes.append(
            ControlSpec(name=name, scores=wire_of(scores), rule=rule, actions=targets)
        )
        return name

    def gate(
        self,
        name: NodeId,
        module: nn.Module,
        inputs: Mapping[str, Source],
        *,
        actions: Sequence[Sequence[NodeId]],
        rule: Rule | None = None,
        outputs: Sequence[str] = ("scores",),
    ) -> NodeId:
        """A compute node that scores, and the control node ``NAME_control`` that decides.

        Args:
            name: of the compute node.
            module: its first result, or what it calls ``scores``, holds one score per action.
            inputs: wires by input port.
            actions: nodes that each action switches on.
            rule: by default each action whose score is at least 0.5.
            outputs: its output ports.

        Returns:
            The name of the control node.
        """
        first = self.compute(name, module, inputs, outputs)
        scores = PortRef(name, "scores") if "scores" in outputs else first
        chosen = rule or Threshold(thresholds=(0.5,) * len(actions))
        return self.control(f"{name}_control", scores, chosen, actions)

    def exit(
        self,
        name: NodeId,
        module: nn.Module,
        inputs: Mapping[str, Source],
        *,
        outputs: Sequence[str] = ("logits",),
        answer: str | None = None,
        accept: Accept | None = None,
    ) -> NodeId:
        """An exit; tried after those added before it. Answers with its first output, always."""
        _require_outputs(name, outputs)
        node = ExitSpec(
            name=name,
            module=module,
            inputs=_wires(inputs),
            outputs=tuple(outputs),
            answer=answer or outputs[0],
            accept=accept or Accept(kind="always"),
        )
        self._nodes.append(node)
        return name

    def build(
        self,
        *,
        combine: Combine | None = None,
        labels: Sequence[str] = (),
        preprocessing: Preprocessing | None = None,
        card: Mapping[str, object] | None = None,
    ) -> NetworkSpec:
        """The network so far; what is wrong with it is found when it is lowered."""
        return NetworkSpec(
            name=self._name,
            inputs=tuple(self._inputs),
            nodes=tuple(self._nodes),
            combine=combine or Combine(),
            labels=tuple(labels),
            preprocessing=preprocessing,
            card=dict(card or {}),
        )


def wire_of(source: Source) -> Wire:
    """``source`` as a wire."""
    return source if isinstance(source, Wire) else Wire(source=port_ref(source))


def _wires(inputs: Mapping[str, Source]) -> dict[str, Wire]:
    return {port: wire_of(source) for port, source in inputs.items()}


def _require_outputs(name: NodeId, outputs: Sequence[str]) -> None:
    if not outputs or isinstance(outputs, str):
        raise ExportError(f"node {name!r}: outputs are {outputs!r}; name at least one, in a list")
