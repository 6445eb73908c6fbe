"""Compiled networks for the cache's tests: made up, but of a real bundle's graph and real programs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dynrt.bundle import Bundle
from dynrt.errors import CacheError
from dynrt.ir.graph import ComputeNode, Exit, PortRef
from dynrt.runtime.cache_key import key_facts, key_of
from dynrt.runtime.cache_store import Store
from dynrt.runtime.compiled import (
    PLAIN,
    Compiled,
    Gathered,
    Layout,
    Segment,
    SegmentPort,
    SmallGate,
)
from dynrt.runtime.kernels.program import Operation, Pool, Program, Region


def small_program(weight: float = 0.5) -> Program:
    """``scores = W pool(x) + b`` for three channels and two actions."""
    constants = np.zeros(48, "<f4")
    constants[:8] = weight
    return Program(
        pools={"x": Pool(shape=(3, 8, 8))},
        loads={"x": Region(48, 3)},
        stores={"scores": Region(64, 2)},
        operations=(
            Operation(
                kind="linear",
                out=Region(64, 2),
                takes=(Region(48, 3), Region(0, 6), Region(16, 2)),
            ),
        ),
        floats=80,
        constants=constants.tobytes(),
    )


def _gathered(node: ComputeNode | Exit, rng: np.random.Generator) -> Gathered | None:
    if not node.inputs:
        return None
    mask = PortRef(node.name, node.inputs[0].name)
    return Gathered(mask=mask, groups=4, model=rng.bytes(700))


def made_up(bundle: Bundle, *, seed: int = 0, bytes_each: int = 3000) -> Compiled:
    """Every kind of value that a compiled network may hold; the models are noise."""
    rng = np.random.default_rng(seed)
    nodes = [n for n in bundle.graph.nodes if isinstance(n, ComputeNode | Exit)]
    pictures: dict[PortRef, Layout] = {}
    kinds = (Layout(kind="nchwc", block=16), Layout(kind="nhwc"), PLAIN)
    for node in bundle.graph.nodes:
        for port in node.outputs:
            rank = len(port.type.shape)
            pictures[PortRef(node.name, port.name)] = kinds[seed % 3] if rank == 3 else PLAIN
    segments = tuple(
        Segment(
            nodes=(node.name,),
            takes=tuple(
                SegmentPort(name=f"t{i}", port=PortRef(node.name, p.name))
                for i, p in enumerate(node.inputs)
            ),
            gives=tuple(
                SegmentPort(name=f"g{i}", port=PortRef(node.name, p.name))
                for i, p in enumerate(node.outputs)
            ),
            overwrites=((0, 0),) if node.inputs else (),
            model=rng.bytes(bytes_each + i),
            raw=i % 2 == 1,
            gathered=_gathered(node, rng) if i % 2 == 0 else None,
        )
        for i, node in enumerate(nodes[:-1])
    )
    gate = SmallGate(node=nodes[-1].name, program=small_program(1 + seed), tie_distance=0.1)
    return Compiled(layouts=pictures, segments=segments, gates=(gate,))


class CountingCompile:
    """Compiles by :func:`made_up`, and counts."""

    def __init__(self, *, seed: int = 0, bytes_each: int = 3000) -> None:
        self.seed, self.bytes_each, self.calls = seed, bytes_each, 0

    def __call__(self, bundle: Bundle, *, threads: int) -> Compiled:
        self.calls += 1
        return made_up(bundle, seed=self.seed, bytes_each=self.bytes_each)


def refused_compile(bundle: Bundle, *, threads: int) -> Compiled:
    """For where the cache must have the entry."""
    raise AssertionError(f"compiled again: {bundle.name}")


def entry_path(folder: Path, bundle: Bundle, *, threads: int = 1) -> Path:
    """The file that ``bundle`` has in the cache."""
    return folder / f"{key_of(key_facts(bundle.sha256, threads=threads)).hex()}.dynrtc"


def fill(folder: Path, keys: Sequence[str], *, size: int, limit_bytes: int = 1 << 30) -> None:
    """Entries of ``size`` zeros, used in this order."""
    with Store(folder, create=True) as store:
        for key in keys:
            store.write(key, [bytes(size)], limit_bytes=limit_bytes)


def error_of(folder: Path) -> str:
    """What the store says about ``folder``; empty if it takes it."""
    try:
        with Store(folder, create=True):
            return ""
    except CacheError as exc:
        return str(exc)
