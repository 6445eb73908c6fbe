"""Holds a board's answers and decisions against the runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

import dynrt.runtime
from dynrt.bundle import Bundle
from dynrt.bundle.board_ops import NONE
from dynrt.exporters.board import BoardProgram
from dynrt.ir.graph import Array, Exit
from dynrt.runtime import Result


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What a board gave for one sample; decisions as its record holds them."""

    decisions: Sequence[int]
    exit: int
    answer: Array


def want(bundle: Bundle, samples: Sequence[Mapping[str, Array]]) -> list[Result]:
    """What the runtime makes of the samples."""
    network = dynrt.runtime.load(bundle)
    return [network.run(sample, trace=True) for sample in samples]


def differences(
    program: BoardProgram, bundle: Bundle, given: Given, result: Result, *, tolerance: float = 1e-4
) -> list[str]:
    """What differs, in words."""
    out = []
    name = program.decisions[given.exit]
    if name != result.exit:
        out.append(f"exit {name}, not {result.exit}")
    assert result.trace is not None
    decided = {s.node: s.actions for s in result.trace.steps if s.kind == "control" and s.ran}
    for word, node in zip(given.decisions, program.decisions, strict=True):
        if isinstance(bundle.graph.by_name[node], Exit):
            if node == result.exit and bool(word) != result.accepted:
                out.append(f"{node}: accepted {word}, not {result.accepted}")
            continue
        expected = NONE if node not in decided else sum(1 << a for a in decided[node])
        if word != expected:
            out.append(f"{node}: decided {word:#x}, not {expected:#x}")
    answer = result.answer.reshape(-1)
    error = float(np.abs(np.asarray(given.answer) - answer).max())
    if not error <= tolerance * max(1.0, float(np.abs(answer).max())):
        out.append(f"answer off by {error:.3g}")
    return out
