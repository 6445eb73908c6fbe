"""A bundle as one ONNX file with ``If``, for languages without a dynrt runtime; batch 1, no budget.

Each exit that may reject nests all that follows in the branch not taken, so weights stand inside
the branches (outside, onnxruntime neither prepacks nor reorders them). A skipped node is an ``If``
whose other branch carries the edge's default. What has no such form is refused: nulls that travel
on, exits under control, several joined answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import onnx
from onnx import helper, numpy_helper

from dynrt.bundle import Bundle
from dynrt.errors import ExportError
from dynrt.exporters.scope import Scope
from dynrt.exporters.scores import add_accept, add_actions
from dynrt.ir.graph import (
    ComputeNode,
    Constant,
    ControlNode,
    DataEdge,
    Default,
    Exit,
    Graph,
    InputNode,
    NodeId,
    PortRef,
    TensorType,
)
from dynrt.ir.rules import can_accept

#: Outputs of the fused model: the answer ``(1, ...)``, and the exit's place in the order, ``(1,)``.
ANSWER, EXIT = "answer", "exit"


def fuse(bundle: Bundle) -> bytes:
    """One ONNX model that answers as the bundle does without a budget, one sample at a time.

    Inputs are the network's, with a first axis of 1; runtime parameters are inputs with defaults.
    Outputs are ``answer`` and ``exit`` (the index of the exit in their order, int64).

    Raises:
        ExportError: the graph has something without such a form, or its nodes differ in opset.
    """
    graph, place = bundle.graph, f"bundle {bundle.name!r}"
    if graph.combine.kind != "first":
        raise ExportError(f"{place}: answers joined by {graph.combine.kind!r} have no fused form")
    models = {n: onnx.load_model_from_string(data) for n, data in bundle.models.items()}
    opsets = sorted({o.version for m in models.values() for o in m.opset_import})
    if len(opsets) != 1:
        raise ExportError(f"{place}: its nodes use the operator sets {opsets}; one is needed")
    fuser = _Fuser(graph=graph, models=models, place=place)
    top = Scope(prefix="")
    inputs, defaults = [], []
    for node in graph.inputs():
        inputs.append(_info(node.name, node.type))
        if node.param is not None:
            defaults.append(numpy_helper.from_array(node.param.value[None], node.name))
    state = _State(have={PortRef(n.name, n.name): n.name for n in graph.inputs()})
    answer, index = fuser.rest(0, top, state)
    top.nodes.append(helper.make_node("Identity", [answer], [ANSWER], name="answer"))
    top.nodes.append(helper.make_node("Identity", [index], [EXIT], name="exit"))
    outputs = [_info(ANSWER, fuser.answer), _info(EXIT, TensorType(dtype="int64", shape=()))]
    body = helper.make_graph(top.nodes, "network", inputs, outputs, [*defaults, *top.initializers])
    opset = helper.make_opsetid("", opsets[0])
    ir_version = max(8, helper.find_min_ir_version_for([opset]))
    model = helper.make_model(body, opset_imports=[opset], ir_version=ir_version)
    model.producer_name = "dynrt"
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString(deterministic=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class _State:
    """What is known at one point of the schedule; branches extend copies of it.

    Attributes:
        have: tensor of every port that surely holds one; input ports too.
        fed: tensor for input ports whose edge has a default that may be in force.
        active: boolean tensor of each (control node, action).
        passed: the exit passed last, and its answer if its head has run.
    """

    have: dict[PortRef, str] = field(default_factory=dict)
    fed: dict[PortRef, str] = field(default_factory=dict)
    active: dict[tuple[NodeId, int], str] = field(default_factory=dict)
    passed: tuple[Exit, str | None] | None = None


@dataclass(slots=True, kw_only=True)
class _Fuser:
    graph: Graph
    models: Mapping[NodeId, onnx.ModelProto]
    place: str

    @property
    def answer(self) -> TensorType:
        """Type of the answer, which all exits share."""
        node = self.graph.by_name[self.graph.exits[0]]
        return next(
            p.type for p in node.outputs if isinstance(node, Exit) and p.name == node.answer
        )

    def rest(self, i: int, scope: Scope, state: _State) -> tuple[str, str]:
        """Add all from step ``i`` on to ``scope``; the tensors of answer and exit."""
        for at in range(i, len(self.graph.order)):
            node = self.graph.by_name[self.graph.order[at]]
            if isinstance(node, InputNode):
                continue
            state = self._taken(node, state)
            if isinstance(node, ControlNode):
                scores = state.have[PortRef(node.name, "scores")]
                for action, tensor in enumerate(add_actions(scope, node, scores)):
                    state.active[node.name, action] = tensor
            elif isinstance(node, Exit):
                ended = self._exit(node, at, scope, state)
                if isinstance(ended, tuple):
                    return ended
                state = ended
            elif node.name in self.graph.controls_of:
                self._switched(node, scope, state)
            else:
                self._call(node, scope, state)
        return self._stop(scope, state)

    def _taken(self, node: ComputeNode | ControlNode | Exit, state: _State) -> _State:
        """``state`` with a tensor for every input port of ``node``."""
        have = dict(state.have)
        for port in node.inputs:
            target = PortRef(node.name, port.name)
            edge = self.graph.edge_into[target]
            tensor = state.fed.get(target, state.have.get(edge.source))
            if tensor is None:
                raise ExportError(
                    f"{self.place}: {edge.source} may be skipped and {target} has no default; "
                    "nulls have no fused form"
                )
            have[target] = tensor
        return replace(state, have=have, fed=dict(state.fed), active=dict(state.active))

    def _call(self, node: ComputeNode | Exit, scope: Scope, state: _State) -> None:
        """The node's operators, in ``scope``."""
        feeds = {p.name: state.have[PortRef(node.name, p.name)] for p in node.inputs}
        given = scope.inline(self.models[node.name], feeds, stem=node.name, place=self.place)
        state.have.update({PortRef(node.name, name): tensor for name, tensor in given.items()})

    def _exit(self, node: Exit, at: int, scope: Scope, state: _State) -> _State | tuple[str, str]:
        """Pass an exit: the state after it, or the answer if the run ends in here."""
        if node.name in self.graph.controls_of:
            raise ExportError(f"{self.place}: exit {node.name!r} is under control; no fused form")
        rule = node.accept
        if not can_accept(rule, rule.threshold):
            return replace(state, passed=(node, None))
        self._call(node, scope, state)
        answer = state.have[PortRef(node.name, node.answer)]
        state = replace(state, passed=(node, answer))
        if rule.kind == "always" or at == len(self.graph.order) - 1:
            return self._stop(scope, state)
        scored = state.have[PortRef(node.name, rule.port)]
        accepted = add_accept(scope, node, scored)
        yes, no = scope.inner(f"{node.name}.yes"), scope.inner(f"{node.name}.no")
        kinds = (self.answer, TensorType(dtype="int64", shape=()))
        taken = yes.graph(self._stop(yes, state), kinds)
        other = no.graph(self.rest(at + 1, no, state), kinds)
        stem = f"{node.name}.ends"
        first, second = scope.branch(accepted, taken, other, outputs=2, stem=stem)
        return first, second

    def _stop(self, scope: Scope, state: _State) -> tuple[str, str]:
        """Answer at the exit passed last."""
        if state.passed is None:
            raise ExportError(f"{self.place}: a path passes no exit")
        node, answer = state.passed
        if answer is None:
            self._call(node, scope, state)
            answer = state.have[PortRef(node.name, node.answer)]
        place = np.array([self.graph.exits.index(node.name)], np.int64)
        return scope.copy(answer, f"{node.name}.answer"), scope.copy(
            scope.constant(f"{node.name}.place", place), f"{node.name}.exit"
        )

    def _switched(self, node: ComputeNode, scope: Scope, state: _State) -> None:
        """A node under control: an ``If`` that gives its outputs, or the defaults."""
        links = self.graph.controls_of[node.name]
        on = [state.active[link.control, link.action] for link in links]
        condition = on[0]
        for other in on[1:]:
            condition = scope.add("Or", [condition, other], f"{node.name}.on")
        leaving = [e for e in self.graph.data if e.source.node == node.name]
        wanted: dict[tuple[str, Default | None], list[DataEdge]] = {}
        for edge in leaving:
            wanted.setdefault((edge.source.port, edge.default), []).append(edge)
        run, skip = scope.inner(f"{node.name}.run"), scope.inner(f"{node.name}.skip")
        ran = replace(state, have=dict(state.have))
        self._call(node, run, ran)
        types = {p.name: p.type for p in node.outputs}
        done = [run.copy(ran.have[PortRef(node.name, port)], port) for port, _ in wanted]
        left = [self._default(key, skip, state, edges[0]) for key, edges in wanted.items()]
        kinds = [types[port] for port, _ in wanted]
        given = scope.branch(
            condition,
            run.graph(done, kinds),
            skip.graph(left, kinds),
            outputs=len(wanted),
            stem=f"{node.name}.out",
        )
        for tensor, edges in zip(given, wanted.values(), strict=True):
            state.fed.update({edge.target: tensor for edge in edges})

    def _default(
        self, key: tuple[str, Default | None], scope: Scope, state: _State, edge: DataEdge
    ) -> str:
        port, default = key
        if isinstance(default, Constant):
            return scope.copy(scope.constant(f"{port}.constant", default.value[None]), port)
        tensor = None if default is None else state.have.get(default)
        if tensor is None:
            raise ExportError(
                f"{self.place}: {edge.source} may be skipped and {edge.target} has no default "
                "that always holds a tensor; nulls have no fused form"
            )
        return scope.copy(tensor, port)


def _info(name: str, kind: TensorType) -> onnx.ValueInfoProto:
    dtype = helper.np_dtype_to_tensor_dtype(np.dtype(kind.dtype))
    return helper.make_tensor_value_info(name, dtype, [1, *kind.shape])
