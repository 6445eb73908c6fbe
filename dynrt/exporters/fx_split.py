"""Splits a torch module at named sub-modules, by its fx graph, into segments with ports.

Segment *k* holds what the *k*-th cut needs and no earlier one did; the last holds the rest. Every
tensor that a later segment reads becomes a port, so a cut may have several (DenseNet, U-Net). What
is no tensor (a size, an index) or depends on no input (a parameter) is computed again where it is
read. Only modules that contain a cut are traced; all others stay whole.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor, fx, nn

from dynrt.errors import ExportError
from dynrt.exporters.foreign import brief
from dynrt.exporters.onnx_node import frozen_copy


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """One part of a split module.

    Attributes:
        module: takes the tensors ``inputs`` in order, gives a tuple of ``outputs``.
        inputs: names of tensors, of the whole module's inputs or of earlier segments.
        outputs: names of tensors that something later reads; what its cut gives is among them.
    """

    module: nn.Module
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """A module in segments.

    Attributes:
        inputs: names of its inputs in order.
        cuts: sub-modules in the order of their segments.
        segments: one per cut, then the rest.
        tensor_of: name of the tensor that each cut gives.
        answer: name of the tensor that the whole module gives.
    """

    inputs: tuple[str, ...]
    cuts: tuple[str, ...]
    segments: tuple[Segment, ...]
    tensor_of: Mapping[str, str]
    answer: str


class _CutTracer(fx.Tracer):
    """Opens only what contains a cut, and notes which node each cut's result is."""

    def __init__(self, cuts: Iterable[str]) -> None:
        super().__init__()
        self.cuts = set(cuts)
        self.opened = {
            ".".join(cut.split(".")[:i]) for cut in cuts for i in range(1, cut.count(".") + 1)
        }
        self.found: dict[str, list[Any]] = {}

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Everything that contains no cut."""
        return module_qualified_name not in self.opened

    def call_module(
        self, m: nn.Module, forward: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Trace a call; note its result if it is a cut."""
        result = super().call_module(m, forward, args, kwargs)
        path = self.path_of_module(m)
        if path in self.cuts:
            self.found.setdefault(path, []).append(result)
        return result


def split_module(
    module: nn.Module, example: Sequence[Tensor], cuts: Sequence[str], *, before: str | None = None
) -> Split:
    """Split ``module``.

    Args:
        module: any module that fx can trace as far as its cuts lie; it is copied, not changed.
        example: its inputs, with the batch axis.
        cuts: names of sub-modules, as ``named_modules`` gives them; a segment ends after each.
        before: a sub-module; one more segment ends before it.

    Raises:
        ExportError: an unknown name, a sub-module called never or more than once or giving no
            tensor, a module that cannot be traced, or something other than tensors in a cut.
    """
    frozen = frozen_copy(module)
    named = dict(frozen.named_modules())
    wanted = [*cuts, *([before] if before is not None else [])]
    for cut in wanted:
        if cut not in named or not cut:
            near = get_close_matches(cut, named, n=3, cutoff=0.5)
            hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
            raise ExportError(f"{type(module).__name__} has no sub-module {cut!r}{hint}")
    if len(set(wanted)) < len(wanted):
        raise ExportError(f"a sub-module is named twice: {', '.join(sorted(wanted))}")
    tracer = _CutTracer(wanted)
    try:
        graph = tracer.trace(frozen)
    except Exception as exc:
        raise ExportError(
            f"{type(module).__name__} cannot be traced down to {', '.join(wanted)}: {brief(exc)}"
        ) from exc
    cut_nodes = {cut: _result_node(cut, tracer.found.get(cut, [])) for cut in wanted}
    return _Splitter(frozen, graph, example).split(cut_nodes, before)


def _result_node(cut: str, results: list[Any]) -> fx.Node:
    if len(results) != 1:
        often = f"{len(results)} times" if results else "never"
        raise ExportError(f"sub-module {cut!r} is called {often}; a cut is called once")
    if not isinstance(results[0], fx.Proxy):
        raise ExportError(f"sub-module {cut!r} gives {type(results[0]).__name__}, not a tensor")
    return results[0].node


class _Kinds(fx.Interpreter):
    """Runs a graph once and notes whether each node's value is a tensor."""

    def __init__(self, root: nn.Module, graph: fx.Graph) -> None:
        super().__init__(fx.GraphModule(root, graph))
        self.values: dict[str, type] = {}

    def run_node(self, n: fx.Node) -> Any:
        """Run one node."""
        value = super().run_node(n)
        self.values[n.name] = type(value) if not isinstance(value, Tensor) else Tensor
        return value


class _Splitter:
    """The state of one split."""

    def __init__(self, root: nn.Module, graph: fx.Graph, example: Sequence[Tensor]) -> None:
        self.root = root
        self.graph = graph
        self.order = {node: i for i, node in enumerate(graph.nodes)}
        self.placeholders = [n for n in graph.nodes if n.op == "placeholder"][: len(example)]
        kinds = _Kinds(root, graph)
        try:
            with torch.no_grad():
                kinds.run(*example)
        except Exception as exc:
            raise ExportError(f"the module fails on the example: {brief(exc)}") from exc
        self.kinds = kinds.values
        self.fed: set[fx.Node] = set(self.placeholders)
        for node in graph.nodes:
            if any(parent in self.fed for parent in node.all_input_nodes):
                self.fed.add(node)
        output = next(n for n in graph.nodes if n.op == "output")
        answer = output.args[0]
        if not isinstance(answer, fx.Node) or self.kinds[answer.name] is not Tensor:
            raise ExportError(f"the module gives {answer!r}, not one tensor")
        self.answer = answer

    def split(self, cuts: Mapping[str, fx.Node], before: str | None) -> Split:
        """Segments by cut, in the order in which the cuts are computed."""
        for cut, node in cuts.items():
            if self.kinds[node.name] is not Tensor:
                kind = self.kinds[node.name].__name__
                raise ExportError(f"sub-module {cut!r} gives {kind}, not a tensor")
        names = sorted((c for c in cuts if c != before), key=lambda c: self.order[cuts[c]])
        owner: dict[fx.Node, int] = {}
        for k, cut in enumerate(names):
            for node in self._needed(cuts[cut]):
                owner.setdefault(node, k)
        count = len(names)
        if before is not None:
            late = cuts[before]
            if late in owner:
                raise ExportError(f"{before!r} is needed by the cut {names[owner[late]]!r}")
            for node in self._needed(late) - {late}:
                owner.setdefault(node, count)
            count += 1
        for node in self._needed(self.answer):
            owner.setdefault(node, count)
        for node in list(owner):  # a tuple's parts are taken where it is made
            for user in node.users:
                if user.target is operator.getitem and self.kinds[node.name] is not Tensor:
                    owner[user] = min(owner.get(user, owner[node]), owner[node])
        for node in self.placeholders:
            owner.pop(node, None)
        return self._assemble(names, cuts, owner, count + 1)

    def _needed(self, node: fx.Node) -> set[fx.Node]:
        """``node`` and all before it that depends on an input."""
        seen: set[fx.Node] = set()
        stack = [node]
        while stack:
            here = stack.pop()
            if here not in seen and here in self.fed:
                seen.add(here)
                stack.extend(here.all_input_nodes)
        return seen

    def _assemble(
        self, names: list[str], cuts: Mapping[str, fx.Node], owner: dict[fx.Node, int], count: int
    ) -> Split:
        reads: list[dict[fx.Node, None]] = [{} for _ in range(count)]
        members: list[list[fx.Node]] = [[] for _ in range(count)]
        for k in range(count):
            own = {n for n, at in owner.items() if at == k}
            copied = self._copied(own, reads[k])
            members[k] = sorted(own | copied, key=self.order.__getitem__)
        wanted: list[dict[fx.Node, None]] = [{} for _ in range(count)]
        for k, cut in enumerate(names):
            wanted[k][cuts[cut]] = None
        for node in sorted({n for read in reads for n in read}, key=self.order.__getitem__):
            if node in owner:
                wanted[owner[node]][node] = None
        if self.answer in owner:
            wanted[owner[self.answer]][self.answer] = None
        label = self._labels()
        segments = [
            Segment(
                module=self._module(members[k], list(reads[k]), list(wanted[k])),
                inputs=tuple(label[n] for n in reads[k]),
                outputs=tuple(label[n] for n in wanted[k]),
            )
            for k in range(count)
        ]
        return Split(
            inputs=tuple(label[n] for n in self.placeholders),
            cuts=tuple(names),
            segments=tuple(segments),
            tensor_of={cut: label[cuts[cut]] for cut in names},
            answer=label[self.answer],
        )

    def _copied(self, own: set[fx.Node], reads: dict[fx.Node, None]) -> set[fx.Node]:
        """What a segment computes again; fills ``reads`` with the tensors it takes instead."""
        copied: set[fx.Node] = set()
        stack = [p for node in own for p in node.all_input_nodes]
        taken: set[fx.Node] = set()
        while stack:
            node = stack.pop()
            if node in own or node in copied or node in taken:
                continue
            if node in self.fed and self.kinds[node.name] is Tensor:
                taken.add(node)
            elif issubclass(self.kinds[node.name], tuple | list) and not self._is_size(node):
                kind = self.kinds[node.name].__name__
                raise ExportError(f"a {kind} ({node.name}) crosses a cut; only tensors can")
            else:
                copied.add(node)
                stack.extend(node.all_input_nodes)
        reads.update(dict.fromkeys(sorted(taken, key=self.order.__getitem__)))
        return copied

    def _is_size(self, node: fx.Node) -> bool:
        return issubclass(self.kinds[node.name], torch.Size)

    def _labels(self) -> dict[fx.Node, str]:
        """A port name for every node: its fx name, made safe."""
        out: dict[fx.Node, str] = {}
        taken: set[str] = set()
        for node in self.graph.nodes:
            stem = re.sub(r"[^A-Za-z0-9_]", "_", node.name)[:80] or "t"
            stem = stem if not stem[0].isdigit() else f"t{stem}"
            name, i = stem, 0
            while name in taken:
                i += 1
                name = f"{stem}_{i}"
            taken.add(name)
            out[node] = name
        return out

    def _module(
        self, members: list[fx.Node], reads: list[fx.Node], gives: list[fx.Node]
    ) -> nn.Module:
        graph = fx.Graph()
        env: dict[fx.Node, fx.Node] = {n: graph.placeholder(n.name) for n in reads}
        for node in members:
            env[node] = graph.node_copy(node, env.__getitem__)
        graph.output(tuple(env[n] for n in gives))
        graph.lint()
        return fx.GraphModule(self.root, graph)
