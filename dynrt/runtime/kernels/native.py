"""The kernels in C, for whatever is float32; the rest is left to their numpy twins.

Raises ``ImportError`` when imported where the extension was not built.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from dynrt.ir.graph import Array, ScoreKind
from dynrt.runtime.kernels import _native, plain
from dynrt.runtime.kernels.program import KINDS, Program

if TYPE_CHECKING:  # compiled imports this package for its programs
    from dynrt.runtime.compiled import Layout

__all__ = [
    "NAME",
    "Hop",
    "answer_of",
    "bind_accept",
    "bind_argmax",
    "bind_finite_copy",
    "bind_pool",
    "bind_program",
    "bind_threshold",
    "follow",
]

NAME = "native"
Hop = _native.Hop
follow = _native.follow
answer_of = _native.answer_of
_native.set_plain_answer(plain.answer_of)

_CODES = {kind: code for code, kind in enumerate(KINDS)}
_THRESHOLD, _ARGMAX, _ACCEPT = range(3)
_SCORE_KINDS = ("hinge", "max_softmax", "margin", "entropy")
#: Bits of a native mask.
_MAX_ACTIONS = 62
_MAX_PIXELS = 1 << 22
_MAX_AXES = 8


def bind_pool(
    source: Array,
    *,
    shape: tuple[int, int, int],
    layout: Layout,
    scale: float = 1.0,
    zero: int = 0,
    out: Array,
) -> Callable[[], None]:
    """As ``plain.bind_pool``."""
    plain.stored_pixels(source, shape, layout, out)
    c, pixels = shape[0], shape[1] * shape[2]
    row = {"plain": 1, "nhwc": c}.get(layout.kind, layout.block)
    if max(pixels, row, c) > _MAX_PIXELS:
        return plain.bind_pool(source, shape=shape, layout=layout, scale=scale, zero=zero, out=out)
    return _native.pool(source, out, c, pixels, row, scale / pixels, -zero * scale)


def bind_program(
    program: Program, takes: Mapping[str, Array], gives: Mapping[str, Array]
) -> Callable[[], None]:
    """As ``plain.bind_program``."""
    plain.check_ports(program, takes, gives)
    code: list[int] = []
    values: list[float] = []
    for operation in program.operations:
        code += (_CODES[operation.kind], len(operation.takes), *operation.out)
        for region in operation.takes:
            code += region
        values += operation.values
    return _native.program(
        program.floats,
        program.constants,
        np.array(code, np.int32).tobytes(),
        np.array(values, np.float32).tobytes(),
        tuple((takes[port], *region) for port, region in program.loads.items()),
        tuple((gives[port], *region) for port, region in program.stores.items()),
    )


def bind_threshold(scores: Array, bounds: Sequence[float], tie: float) -> Callable[[], int]:
    """As ``plain.bind_threshold``."""
    twin = plain.bind_threshold(scores, bounds, tie)
    if not _is_native(scores) or len(bounds) > _MAX_ACTIONS:
        return twin
    return _native.decision(_THRESHOLD, scores, tuple(map(float, bounds)), float(tie), twin)


def bind_argmax(scores: Array, tie: float) -> Callable[[], int]:
    """As ``plain.bind_argmax``."""
    twin = plain.bind_argmax(scores, tie)
    if not _is_native(scores):
        return twin
    return _native.decision(_ARGMAX, scores, (), float(tie), twin)


def bind_accept(kind: ScoreKind, values: Array, bound: float, tie: float) -> Callable[[], int]:
    """As ``plain.bind_accept``."""
    twin = plain.bind_accept(kind, values, bound, tie)
    if not _is_native(values):
        return twin
    rule = _ACCEPT + _SCORE_KINDS.index(kind)
    return _native.decision(rule, values, (float(bound),), float(tie), twin)


def _is_native(scores: Array) -> bool:
    """Whether the C side reads such scores."""
    return scores.dtype == np.float32 and scores.size > 0 and bool(scores.flags.c_contiguous)


def bind_finite_copy(source_shape: tuple[int, ...], out: Array) -> Callable[[Array], bool]:
    """As ``plain.bind_finite_copy``."""
    twin = plain.bind_finite_copy(source_shape, out)
    if len(source_shape) > _MAX_AXES:
        return twin
    return _native.copier(out, tuple(source_shape), twin)


def choose_simd(name: str | None) -> str:
    """Let kernels bound from now on use ``base``, ``avx2`` or ``avx512``; for tests.

    Args:
        name: the widest set to use if the processor has it; ``None``: the best.

    Returns:
        The set that is used.
    """
    return _native.choose_simd(name)
