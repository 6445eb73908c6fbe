"""Decisions forced from outside, by finite thresholds: no gate or head can be left out as settled."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

import dynrt
from bench.row import MissingError, require
from bench.timing import Alternative
from dynrt.bundle import Bundle
from dynrt.ir.graph import Array, ControlNode, Graph, NodeId, Threshold
from dynrt.runtime import Network, Result

#: Beyond every score, and yet a number that a score has to be compared with.
FAR = 1e30
_SUFFIX = "_gate_control"


def loaded(path: Path | Bundle, *, threads: int = 1) -> Network:
    """A network in the compiled mode.

    Raises:
        MissingError: this device runs it in the portable mode.
    """
    network = dynrt.load(path, threads=threads)
    if network.mode != "compiled":
        network.close()
        raise MissingError("this device cannot compile the bundle (see its warning)")
    return network


def gated(graph: Graph) -> tuple[NodeId, ...]:
    """Blocks behind a threshold gate, in order."""
    return tuple(
        name.removesuffix(_SUFFIX)
        for name in graph.order
        if isinstance(graph.by_name[name], ControlNode) and name.endswith(_SUFFIX)
    )


def thresholds(graph: Graph, skipped: Collection[NodeId]) -> dict[NodeId, float]:
    """Thresholds under which exactly the gated blocks ``skipped`` are skipped."""
    return {f"{b}{_SUFFIX}": FAR if b in skipped else -FAR for b in gated(graph)}


def forced_bundle(bundle: Bundle, skipped: Collection[NodeId]) -> Bundle:
    """``bundle`` with these thresholds as its own."""
    bounds = thresholds(bundle.graph, skipped)
    nodes = tuple(
        replace(node, rule=Threshold(thresholds=(bounds[node.name],)))
        if isinstance(node, ControlNode) and node.name in bounds
        else node
        for node in bundle.graph.nodes
    )
    return replace(bundle, graph=replace(bundle.graph, nodes=nodes))


def half_patterns(graph: Graph, count: int = 4, *, seed: int = 0) -> list[frozenset[NodeId]]:
    """Random halves of the gated blocks; of an odd number now the smaller, now the larger one."""
    blocks = gated(graph)
    rng = np.random.default_rng(seed)
    sizes = [(len(blocks) + i % 2) // 2 for i in range(count)]
    return [frozenset(rng.permutation(np.array(blocks))[:size].tolist()) for size in sizes]


def forced_run(
    network: Network,
    inputs: Array | Mapping[str, Array],
    skipped: Collection[NodeId],
) -> tuple[Alternative, Result]:
    """The whole ``Network.run`` with ``skipped`` blocks, and one result of it.

    Raises:
        UnfairError: other blocks were skipped than should be.
    """
    alternative = under(network, inputs, thresholds(network.graph, skipped))
    alternative.prepare()
    result = network.run(inputs)
    left_out = set(gated(network.graph)).intersection(result.skipped)
    require(left_out == set(skipped), f"{len(left_out)} blocks skipped, not {len(skipped)}")
    return alternative, result


def under(
    network: Network, inputs: Array | Mapping[str, Array], bounds: Mapping[NodeId, float]
) -> Alternative:
    """The whole ``Network.run`` under these thresholds."""
    prepare: Callable[[], object] = lambda: network.set(thresholds=bounds)  # noqa: E731
    return Alternative(call=lambda: network.run(inputs), prepare=prepare)


def noise(*shape: int, seed: int = 1) -> Array:
    """Seeded float32 noise."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
