"""Probe inputs, and what the bundle's own models compute from them, node by node."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from dynrt.errors import CompileError
from dynrt.ir.graph import Array, ComputeNode, Exit, Graph, NodeId, PortRef, TensorType
from dynrt.runtime.compile.runner import Loaded

#: Samples by probe: one alone, and two together.
BATCHES = (1, 2)
Values = dict[PortRef, Array]


def probe_inputs(graph: Graph, batch: int, *, seed: int) -> Values:
    """Seeded noise for each input, the stated value for each parameter; ``(batch, ...)``."""
    rng = np.random.default_rng(seed)
    out: Values = {}
    for node in graph.inputs():
        ref = PortRef(node.name, node.name)
        if node.param is not None:
            out[ref] = np.repeat(node.param.value[None], batch, axis=0)
        else:
            out[ref] = noise(rng, node.type, batch)
    return out


def noise(rng: np.random.Generator, kind: TensorType, batch: int) -> Array:
    """A batch of values that a tensor of ``kind`` may hold; integers are 0 or 1, for they may index."""
    shape = (batch, *kind.shape)
    if kind.dtype.startswith("float"):
        values: Array = rng.standard_normal(shape).astype(kind.dtype)
        return values
    high = 256 if kind.dtype == "uint8" else 2
    numbers: Array = rng.integers(0, high, size=shape).astype(kind.dtype)
    return numbers


def disturbed(rng: np.random.Generator, value: Array) -> Array:
    """Other values of about the same size, unlike those of any other tensor."""
    if value.dtype.kind == "f":
        scale = np.maximum(np.abs(value).mean(dtype=np.float64), 0.1)
        moved = value.astype(np.float64) + scale * rng.standard_normal(value.shape)
        with np.errstate(over="ignore", invalid="ignore"):
            other: Array = moved.astype(value.dtype)
            return other
    return np.roll(value.reshape(-1), int(rng.integers(1, 97))).reshape(value.shape)


class Portable:
    """The bundle's own models, loaded when they are first called and then dropped.

    Args:
        graph: valid.
        models: ONNX bytes of its compute nodes and exits.
        whole: nodes with a mask that are run with every group kept, whatever the mask's edge carries.
    """

    def __init__(
        self, graph: Graph, models: Mapping[NodeId, bytes], *, whole: Collection[NodeId] = ()
    ) -> None:
        self._graph, self._models, self._whole = graph, models, whole

    def run_all(self, probes: Sequence[Values]) -> None:
        """Run every node of the schedule on each probe, every edge from its source; adds what they give.

        Raises:
            CompileError: a node fails.
        """
        for name in self._graph.order:
            node = self._graph.by_name[name]
            if isinstance(node, ComputeNode | Exit):
                run = self.loaded(name)
                for values in probes:
                    values.update(self.call(run, node, values))

    def loaded(self, name: NodeId) -> Loaded:
        """The model of a node."""
        return Loaded(self._models[name], optimise=True, place=f"node {name!r}")

    def call(
        self,
        run: Loaded,
        node: ComputeNode | Exit,
        values: Mapping[PortRef, Array],
        mask: Array | None = None,
    ) -> Values:
        """What ``node`` gives when its edges carry ``values`` of their sources; ``(batch, ...)``.

        Args:
            run: its model, loaded.
            node: of the graph.
            values: of all sources of its edges.
            mask: ``(groups,)`` instead of what the mask's edge carries.

        Raises:
            CompileError: it fails, or its outputs are of another shape than declared.
        """
        edges = self._graph.edge_into
        inputs = {p.name: values[edges[PortRef(node.name, p.name)].source] for p in node.inputs}
        batch = len(next(iter(values.values())))
        if isinstance(node, ComputeNode) and node.mask is not None:
            if mask is None and node.name in self._whole:
                mask = np.ones(node.mask.groups, np.float32)
            if mask is not None:
                inputs[node.mask.port] = np.repeat(mask[None], batch, axis=0)
        given = run(inputs)
        out: Values = {}
        for port in node.outputs:
            value = given[port.name]
            if not node.inputs and len(value) == 1:  # one row that serves all
                value = np.repeat(value, batch, axis=0)
            if value.shape != (batch, *port.type.shape):
                raise CompileError(
                    f"node {node.name!r}: output {port.name!r} is {value.shape} for a batch of "
                    f"{batch}, and {port.type} is declared"
                )
            out[PortRef(node.name, port.name)] = value
        return out


def relative_error(want: Array, got: Array) -> float:
    """Largest deviation over the largest finite magnitude (at least 1e-3); inf if kinds differ."""
    if want.shape != got.shape or want.dtype != got.dtype:
        return float("inf")
    a, b = want.astype(np.float64), got.astype(np.float64)
    finite = np.isfinite(a)
    if not np.array_equal(a[~finite], b[~finite], equal_nan=True):
        return float("inf")
    if not finite.any():
        return 0.0
    a, b = a[finite], b[finite]
    largest = float(np.abs(a - b).max()) / max(float(np.abs(a).max()), 1e-3)
    return largest if np.isfinite(largest) else float("inf")
