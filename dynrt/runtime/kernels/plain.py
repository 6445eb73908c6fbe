"""The kernels in numpy: slower, everywhere, and what the native ones are compared with.

Each ``bind_*`` fixes the memory once and gives a function of no arguments. The interface, shared with
``native``, is :class:`~dynrt.runtime.kernels.protocol.Kernels`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from dynrt.errors import BackendError
from dynrt.ir.graph import Array, ScoreKind
from dynrt.ir.rules import accept_score
from dynrt.runtime.kernels.hop import Hop, follow
from dynrt.runtime.kernels.program import Operation, Program, Region

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

NAME = "plain"
NEAR = -1
NOT_A_NUMBER = -2


def bind_pool(
    source: Array,
    *,
    shape: tuple[int, int, int],
    layout: Layout,
    scale: float = 1.0,
    zero: int = 0,
    out: Array,
) -> Callable[[], None]:
    """The mean over height and width of one stored sample.

    Args:
        source: one sample, C-contiguous; float32, uint8 or int8.
        shape: ``(c, h, w)`` as declared.
        layout: how it is stored.
        scale: ``out`` is ``(mean - zero) * scale``.
        zero: the zero point.
        out: float32 ``(c,)``.

    Raises:
        BackendError: sizes, dtypes or memory do not fit.
    """
    values = stored_pixels(source, shape, layout, out)
    c, pixels = shape[0], shape[1] * shape[2]
    factor = scale / pixels
    offset = -zero * scale
    kind = np.float64 if source.dtype == np.float32 else np.int64
    axis = 1 if values.ndim == 3 else (1 if layout.kind == "plain" else 0)

    def pool() -> None:
        sums = values.sum(axis=axis, dtype=kind).reshape(-1)[:c]
        np.copyto(out, sums * factor + offset, casting="same_kind")

    return pool


def stored_pixels(source: Array, shape: tuple[int, int, int], layout: Layout, out: Array) -> Array:
    """``source`` as ``(c, pixels)`` plain, ``(pixels, c)`` nhwc or ``(blocks, pixels, block)``.

    Raises:
        BackendError: sizes, dtypes or memory do not fit.
    """
    c, h, w = shape
    stored = math.prod(layout.stored_shape(shape))
    if source.dtype not in (np.float32, np.uint8, np.int8) or source.size != stored:
        raise BackendError(f"pool of {shape} on {source.size} x {source.dtype}, stored {stored}")
    if out.dtype != np.float32 or out.shape != (c,) or not out.flags.writeable:
        raise BackendError(f"pool of {c} channels into {out.dtype}{list(out.shape)}")
    if not (source.flags.c_contiguous and out.flags.c_contiguous) or min(shape) < 1:
        raise BackendError(f"pool of {shape} on memory with gaps")
    if layout.kind == "plain":
        return source.reshape(c, h * w)
    if layout.kind == "nhwc":
        return source.reshape(h * w, c)
    return source.reshape(-1, h * w, layout.block)


def bind_program(
    program: Program, takes: Mapping[str, Array], gives: Mapping[str, Array]
) -> Callable[[], None]:
    """A small node on fixed memory.

    Args:
        program: what it computes.
        takes: a float32 vector per input port; of a pooled port, the pooled vector.
        gives: a float32 vector per output port; may share memory with ``takes``.

    Raises:
        BackendError: a port is missing, or its vector does not fit.
    """
    check_ports(program, takes, gives)
    memory = np.zeros(program.floats, np.float32)
    constants = program.constant_values()
    memory[: constants.size] = constants

    def view(region: Region) -> Array:
        return memory[region.start : region.start + region.size]

    loads = [(view(region), takes[port]) for port, region in program.loads.items()]
    stores = [(gives[port], view(region)) for port, region in program.stores.items()]
    steps = [_step(o, view(o.out), [view(r) for r in o.takes]) for o in program.operations]

    def run() -> None:
        with np.errstate(all="ignore"):
            for to, source in loads:
                np.copyto(to, source)
            for step in steps:
                step()
            for to, source in stores:
                np.copyto(to, source)

    return run


def check_ports(program: Program, takes: Mapping[str, Array], gives: Mapping[str, Array]) -> None:
    """Refuses vectors that are not what the program's ports need.

    Raises:
        BackendError: naming the port.
    """
    for ports, given in ((program.loads, takes), (program.stores, gives)):
        for port, region in ports.items():
            value = given.get(port)
            if value is None:
                raise BackendError(f"kernel: port {port!r} has no memory")
            fits = value.dtype == np.float32 and value.shape == (region.size,)
            if not fits or not value.flags.c_contiguous:
                got = f"{value.dtype}{list(value.shape)}"
                raise BackendError(f"kernel: port {port!r} takes float32[{region.size}], not {got}")
            if ports is program.stores and not value.flags.writeable:
                raise BackendError(f"kernel: port {port!r} is read-only")


def _step(operation: Operation, out: Array, a: Sequence[Array]) -> Callable[[], object]:
    """One operation on views of the memory."""
    kind = operation.kind
    x = a[0]
    if kind in _UFUNCS:
        ufunc = _UFUNCS[kind]
        return (lambda: ufunc(x, out=out)) if len(a) == 1 else (lambda: ufunc(x, a[1], out=out))
    if kind in _REDUCTIONS:
        reduction = _REDUCTIONS[kind]
        return lambda: reduction(x, out=out[:1], keepdims=True)
    if kind == "copy":
        return lambda: np.copyto(out, x)
    if kind == "relu":
        return lambda: np.maximum(x, np.float32(0), out=out)
    if kind == "clip":
        low, high = map(np.float32, operation.values)
        return lambda: np.minimum(np.maximum(x, low), high, out=out)
    if kind == "sigmoid":
        return lambda: np.copyto(out, _sigmoid(x))
    if kind == "softmax":
        return lambda: np.copyto(out, _softmax(x))
    if kind == "concat":
        return lambda: np.concatenate(a, out=out)
    if kind == "linear":
        weight, bias = a[1].reshape(out.size, x.size), a[2]
        return lambda: np.add(weight @ x, bias, out=out)
    return _lstm(out, a)


def _lstm(out: Array, a: Sequence[Array]) -> Callable[[], None]:
    x, h, c, w, r, bias = a
    k = h.size
    wx, rh = w.reshape(4 * k, x.size), r.reshape(4 * k, k)

    def step() -> None:
        z = wx @ x + rh @ h + bias
        i, o, f = (_sigmoid(z[n * k : (n + 1) * k]) for n in range(3))
        cell = f * c + i * np.tanh(z[3 * k :])
        out[:k] = o * np.tanh(cell)
        out[k:] = cell

    return step


def _sigmoid(x: Array) -> Array:
    y: Array = np.float32(1) / (np.float32(1) + np.exp(-x))
    return y


def _softmax(x: Array) -> Array:
    e = np.exp(x - x.max())
    y: Array = e / e.sum()
    return y


_UFUNCS: dict[str, np.ufunc] = {
    "neg": np.negative,
    "exp": np.exp,
    "sqrt": np.sqrt,
    "tanh": np.tanh,
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "max": np.maximum,
    "min": np.minimum,
}
_REDUCTIONS: dict[str, Callable[..., Array]] = {
    "reduce_max": np.max,
    "reduce_sum": np.sum,
    "reduce_mean": np.mean,
}


def bind_threshold(scores: Array, bounds: Sequence[float], tie: float) -> Callable[[], int]:
    """Reads the active actions off ``scores``, as ``dynrt.ir.rules.threshold_actions`` does.

    Args:
        scores: of any real dtype, one per action at least.
        bounds: one per action; may be infinite.
        tie: a score no farther than this from its bound is near; 0: none is.

    Returns:
        A function that gives a mask (bit ``i``: action ``i``), -1 if near, -2 if a score is NaN.

    Raises:
        BackendError: there are more bounds than scores, or a bound or ``tie`` is NaN.
    """
    values = scores.reshape(-1)
    limits = check_bounds(bounds, tie, values.size)

    def decide() -> int:
        mask = 0
        near = False
        seen = values.tolist()
        for score in seen:
            if math.isnan(score):
                return NOT_A_NUMBER
        for i, (score, bound) in enumerate(zip(seen, limits, strict=False)):
            near = near or (tie > 0 and math.isfinite(bound) and abs(score - bound) <= tie)
            mask |= (score >= bound) << i
        return NEAR if near else mask

    return decide


def check_bounds(bounds: Sequence[float], tie: float, size: int) -> tuple[float, ...]:
    """``bounds`` as floats.

    Raises:
        BackendError: there are more than ``size``, or one of them or ``tie`` is NaN or negative.
    """
    limits = tuple(map(float, bounds))
    if len(limits) > size:
        raise BackendError(f"{len(limits)} thresholds for {size} scores")
    if any(map(math.isnan, limits)) or not 0 <= tie < math.inf:
        raise BackendError(f"thresholds {limits} with tie distance {tie}")
    return limits


def bind_argmax(scores: Array, tie: float) -> Callable[[], int]:
    """Reads the index of the highest score, the lowest of equals.

    Returns:
        A function that gives the index, -1 if ``tie`` > 0 and the second is as near, -2 if NaN.

    Raises:
        BackendError: there are no scores, or ``tie`` is no distance.
    """
    values = scores.reshape(-1)
    check_bounds((), tie, values.size)
    if not values.size:
        raise BackendError("the highest of no scores")

    def decide() -> int:
        best, second, index = -math.inf, -math.inf, 0
        for i, score in enumerate(values.tolist()):
            if math.isnan(score):
                return NOT_A_NUMBER
            if score > best:
                best, second, index = score, best, i
            elif score > second:
                second = score
        # equal infinities are a tie too, although their difference is NaN
        near = tie > 0 and values.size > 1 and (best == second or best - second <= tie)
        return NEAR if near else index

    return decide


def bind_accept(kind: ScoreKind, values: Array, bound: float, tie: float) -> Callable[[], int]:
    """Whether an exit accepts: ``dynrt.ir.rules.accept_score`` against ``bound``.

    Returns:
        A function that gives 1, 0, -1 if near, or -2 if the values have no score (NaN, or infinite
        where that has none).

    Raises:
        BackendError: the kind has no score, there are no values, or ``bound`` or ``tie`` is NaN.
    """
    flat = values.reshape(-1)
    (limit,) = check_bounds((bound,), tie, flat.size)
    if kind not in ("hinge", "max_softmax", "margin", "entropy"):
        raise BackendError(f"an exit that accepts {kind!r} has no score")

    def decide() -> int:
        try:
            score = accept_score(kind, flat)
        except BackendError:
            return NOT_A_NUMBER
        if tie > 0 and math.isfinite(limit) and abs(score - limit) <= tie:
            return NEAR
        return int(score >= limit)

    return decide


def bind_finite_copy(source_shape: tuple[int, ...], out: Array) -> Callable[[Array], bool]:
    """Copies a C-contiguous float32 array into ``out``, unless something in it is not finite.

    Args:
        source_shape: of what will be copied.
        out: float32, C-contiguous, of as many elements.

    Returns:
        A function of the array that gives whether all was finite; if not, ``out`` may be partly
        written. It raises ``BackendError`` for an array of another shape, dtype or order.

    Raises:
        BackendError: ``out`` does not fit.
    """
    check_copy(source_shape, out)
    flat = out.reshape(-1)

    def copy(source: Array) -> bool:
        if source.shape != source_shape or source.dtype != np.float32:
            raise BackendError(f"copy of {source.dtype}{list(source.shape)}, not {source_shape}")
        if not source.flags.c_contiguous:
            raise BackendError("copy of memory with gaps")
        if not np.isfinite(source).all():
            return False
        np.copyto(flat, source.reshape(-1))
        return True

    return copy


def check_copy(source_shape: tuple[int, ...], out: Array) -> None:
    """Refuses a target that does not fit.

    Raises:
        BackendError: says why.
    """
    fits = out.dtype == np.float32 and out.size == math.prod(source_shape)
    if not fits or not out.flags.c_contiguous or not out.flags.writeable:
        raise BackendError(f"copy of float32{list(source_shape)} into {out.dtype}{list(out.shape)}")


def answer_of(values: Array) -> tuple[int, float]:
    """Index of the highest value and its softmax probability in float64; ``(-1, nan)`` if NaN."""
    x = np.asarray(values, dtype=np.float64).reshape(-1)
    if not x.size or np.isnan(x).any():
        return -1, math.nan
    index = int(x.argmax())
    if math.isinf(x[index]):
        return index, math.nan
    return index, float(1.0 / np.exp(x - x[index]).sum())
