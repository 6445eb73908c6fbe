"""ONNX operators that reshape, cut, join, pool or reduce, for kernel programs."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from dynrt.ir.graph import Array
from dynrt.runtime.compile.assembling import Feature, Shape, UnfitError, Value, Vector
from dynrt.runtime.compile.operators import (
    Context,
    Operator,
    Takes,
    axis_of,
    constant,
    needed,
    operand,
    optional,
    reshaped,
    small,
    vector_or_feature,
    whole_axis,
)

#: ONNX's numbers of the dtypes that constants may be cast to.
_DTYPES = {1: np.float32, 6: np.int32, 7: np.int64, 9: np.bool_}
_FLOAT = 1
_MAX_RANK = 8


def _ints(value: Value | None) -> list[int]:
    """A constant list of integers."""
    array = constant(value)
    if array.dtype.kind not in "iu" or array.size > 64:
        raise UnfitError(f"indices of {array.dtype}")
    return [int(v) for v in array.reshape(-1)]


def _axes(context: Context, takes: Takes, at: int = 1) -> list[int] | None:
    """Axes given as an attribute (older) or an input."""
    if "axes" in context.attributes:
        return [int(a) for a in context.attributes["axes"]]
    given = optional(takes, at)
    return None if given is None else _ints(given)


def identity(_: Context, takes: Takes) -> list[Value]:
    """Identity, and Dropout where nothing is trained."""
    return [needed(takes)]


def dropout(context: Context, takes: Takes) -> list[Value]:
    """Dropout in inference: its first output only."""
    training = optional(takes, 2)
    if context.outputs > 1 or (training is not None and constant(training).any()):
        raise UnfitError("dropout in training")
    return [needed(takes)]


def cast(context: Context, takes: Takes) -> list[Value]:
    """Cast of constants; of floats to float, which does nothing."""
    x, to = needed(takes), context.get("to", 0)
    if isinstance(x, np.ndarray):
        if to not in _DTYPES:
            raise UnfitError(f"a cast to {to}")
        return [x.astype(_DTYPES[to])]
    if to != _FLOAT or (isinstance(x, Feature) and x.dtype != "float32" and x.scale is None):
        raise UnfitError(f"a cast to {to}")
    return [x]


def constant_node(context: Context, _: Takes) -> list[Value]:
    """Constant in its numeric forms."""
    for name, dtype in (
        ("value", None),
        ("value_float", np.float32),
        ("value_floats", np.float32),
        ("value_int", np.int64),
        ("value_ints", np.int64),
    ):
        if name in context.attributes:
            return [np.asarray(context.attributes[name], dtype=dtype)]
    raise UnfitError("a constant of another kind")


def constant_of_shape(context: Context, takes: Takes) -> list[Value]:
    """ConstantOfShape, small."""
    shape = _ints(needed(takes))
    small(shape)
    fill = context.get("value", np.zeros(1, np.float32)).reshape(-1)
    return [np.broadcast_to(fill[0], shape)]


def shape_of(context: Context, takes: Takes) -> list[Value]:
    """Shape; the batch is one."""
    if context.attributes:
        shape = needed(takes).shape[slice(context.get("start", 0), context.get("end", None))]
    else:
        shape = needed(takes).shape
    return [np.array(shape, np.int64)]


def reshape(context: Context, takes: Takes) -> list[Value]:
    """Reshape, with 0 (keep) and -1 (whatever is left)."""
    x, wanted = needed(takes), _ints(needed(takes, 1))
    if len(wanted) > _MAX_RANK:
        raise UnfitError(f"{len(wanted)} axes")
    if not context.get("allowzero", 0):
        wanted = [x.shape[i] if n == 0 else n for i, n in enumerate(wanted)]
    if wanted.count(-1) == 1:
        known = math.prod(n for n in wanted if n != -1)
        wanted[wanted.index(-1)] = math.prod(x.shape) // known
    return [reshaped(x, tuple(wanted))]


def flatten(context: Context, takes: Takes) -> list[Value]:
    """Flatten to two axes."""
    x = needed(takes)
    axis = context.get("axis", 1)
    axis = axis + len(x.shape) if axis < 0 else axis
    return [reshaped(x, (math.prod(x.shape[:axis]), math.prod(x.shape[axis:])))]


def squeeze(context: Context, takes: Takes) -> list[Value]:
    """Squeeze of named or of all size-one axes."""
    x = needed(takes)
    rank = len(x.shape)
    axes = _axes(context, takes)
    gone = {i for i, n in enumerate(x.shape) if n == 1}
    if axes is not None:
        named = {axis_of(a, rank) for a in axes}
        if not named <= gone:
            raise UnfitError(f"squeeze of {x.shape}")
        gone = named
    return [reshaped(x, tuple(n for i, n in enumerate(x.shape) if i not in gone))]


def unsqueeze(context: Context, takes: Takes) -> list[Value]:
    """Unsqueeze."""
    x, axes = needed(takes), _axes(context, takes)
    if axes is None or len(x.shape) + len(axes) > _MAX_RANK:
        raise UnfitError("unsqueeze of no or too many axes")
    rank = len(x.shape) + len(axes)
    new = {axis_of(a, rank) for a in axes}
    old = iter(x.shape)
    return [reshaped(x, tuple(1 if i in new else next(old) for i in range(rank)))]


def transpose(context: Context, takes: Takes) -> list[Value]:
    """Transpose of size-one axes, or of a constant."""
    x = needed(takes)
    order = [int(i) for i in context.get("perm", range(len(x.shape))[::-1])]
    if sorted(order) != list(range(len(x.shape))):
        raise UnfitError(f"transpose by {order}")
    if isinstance(x, np.ndarray):
        return [x.transpose(order)]
    long = [i for i in order if x.shape[i] != 1]
    if long != sorted(long) or isinstance(x, Feature):
        raise UnfitError(f"transpose of {x.shape}")
    return [Vector(tuple(x.shape[i] for i in order), x.start)]


def concat(context: Context, takes: Takes) -> list[Value]:
    """Concat along the first axis that is longer than one."""
    parts = [needed(takes, i) for i in range(len(takes))]
    rank = len(parts[0].shape)
    axis = axis_of(context.get("axis", 0), rank)
    if all(isinstance(p, np.ndarray) for p in parts):
        arrays = [constant(p) for p in parts]
        small((sum(a.size for a in arrays),))
        return [np.concatenate(arrays, axis)]
    values = [operand(context.to, p) for p in parts]
    rest = {(*v.shape[:axis], *v.shape[axis + 1 :]) for v in values}
    if len(rest) != 1 or any(n != 1 for n in parts[0].shape[:axis]):
        raise UnfitError("concat of inner axes")
    length = sum(v.shape[axis] for v in values)
    first = values[0].shape
    return [context.to.emit("concat", (*first[:axis], length, *first[axis + 1 :]), values)]


def _cut(x: Vector, axis: int, start: int, length: int) -> Vector:
    """A piece along an axis before which nothing is longer than one: memory in one piece."""
    inside = start >= 0 and length > 0 and start + length <= x.shape[axis]
    if not inside or any(n != 1 for n in x.shape[:axis]):
        raise UnfitError(f"{length} at {start} of axis {axis} of {x.shape}")
    inner = math.prod(x.shape[axis + 1 :])
    return Vector((*x.shape[:axis], length, *x.shape[axis + 1 :]), x.start + start * inner)


def split(context: Context, takes: Takes) -> list[Value]:
    """Split, by sizes or into equal parts."""
    x = operand(context.to, vector_or_feature(takes))
    axis = axis_of(context.get("axis", 0), len(x.shape))
    given = optional(takes, 1)
    if given is not None:
        sizes = _ints(given)
    elif "split" in context.attributes:
        sizes = [int(n) for n in context.attributes["split"]]
    else:
        each = -(-x.shape[axis] // context.outputs)
        sizes = [each] * (context.outputs - 1)
        sizes.append(x.shape[axis] - sum(sizes))
    if isinstance(x, np.ndarray) or sum(sizes) != x.shape[axis]:
        raise UnfitError(f"split of {x.shape} into {sizes}")
    starts = np.cumsum([0, *sizes[:-1]]).tolist()
    return [_cut(x, axis, at, n) for at, n in zip(starts, sizes, strict=True)]


def slice_of(context: Context, takes: Takes) -> list[Value]:
    """Slice in steps of one."""
    x = needed(takes)
    rank = len(x.shape)
    if "starts" in context.attributes:
        starts, ends = (list(map(int, context.attributes[n])) for n in ("starts", "ends"))
        axes = [int(a) for a in context.get("axes", range(len(starts)))]
        steps = [1] * len(starts)
    else:
        starts, ends = _ints(needed(takes, 1)), _ints(needed(takes, 2))
        given, stepped = optional(takes, 3), optional(takes, 4)
        axes = list(range(len(starts))) if given is None else _ints(given)
        steps = [1] * len(starts) if stepped is None else _ints(stepped)
    value: Value = x if isinstance(x, np.ndarray) else operand(context.to, x)
    for start, end, given_axis, step in zip(starts, ends, axes, steps, strict=True):
        axis = axis_of(given_axis, rank)
        if step != 1:
            raise UnfitError(f"a step of {step}")
        first, last, _ = slice(start, end).indices(value.shape[axis])
        if isinstance(value, np.ndarray):
            value = value[(slice(None),) * axis + (slice(first, last),)]
        elif isinstance(value, Vector):
            value = _cut(value, axis, first, last - first)
    return [value]


def gather(context: Context, takes: Takes) -> list[Value]:
    """Gather of one index, or from a constant."""
    x, wanted = needed(takes), constant(needed(takes, 1))
    axis = axis_of(context.get("axis", 0), len(x.shape))
    indices = _ints(wanted)
    if isinstance(x, np.ndarray):
        small((x.size, len(indices)))
        return [np.asarray(np.take(x, wanted.astype(np.int64), axis))]
    if len(indices) != 1:
        raise UnfitError(f"a gather of {len(indices)}")
    whole = operand(context.to, x)
    if isinstance(whole, np.ndarray):
        raise UnfitError("a gather from a constant")
    piece = _cut(whole, axis, axis_of(indices[0], x.shape[axis]), 1)
    return [Vector((*x.shape[:axis], *wanted.shape, *x.shape[axis + 1 :]), piece.start)]


def expand(_: Context, takes: Takes) -> list[Value]:
    """Expand that adds size-one axes only, or of a constant."""
    x, wanted = needed(takes), _ints(needed(takes, 1))
    shape = np.broadcast_shapes(x.shape, tuple(wanted))
    if isinstance(x, np.ndarray):
        small(shape)
        return [np.broadcast_to(x, shape)]
    return [reshaped(x, shape)]


# --- pools and reductions


def _pooled(context: Context, x: Feature, axes: Sequence[int], *, keep: bool) -> Value:
    """The mean of a feature over all axes that hold its pixels."""
    rank = len(x.shape)
    pixels = set(range(2, rank))
    over = {axis_of(a, rank) for a in axes}
    long = {i for i in pixels if x.shape[i] != 1}
    if x.shape[:2] != (1, x.stored[0]) or not long <= over <= pixels:
        raise UnfitError(f"a mean of {x.shape} over {sorted(over)}")
    kept = tuple(1 if i in over else n for i, n in enumerate(x.shape))
    return context.to.pooled(
        x, kept if keep else tuple(n for i, n in enumerate(kept) if i not in over)
    )


def global_average_pool(context: Context, takes: Takes) -> list[Value]:
    """GlobalAveragePool of a feature; of one pixel it does nothing."""
    x = needed(takes)
    if not isinstance(x, Feature):
        return [_no_pixels(x)]
    return [_pooled(context, x, range(2, len(x.shape)), keep=True)]


def average_pool(context: Context, takes: Takes) -> list[Value]:
    """AveragePool whose window is the whole picture."""
    x = needed(takes)
    window = tuple(context.get("kernel_shape", ()))
    odd = (
        any(context.get("pads", ()))
        or any(d != 1 for d in context.get("dilations", ()))
        or context.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID")
    )
    if window != x.shape[2:] or odd:
        raise UnfitError(f"a pool of {window} over {x.shape}")
    return global_average_pool(context, takes)


def _no_pixels(x: Value) -> Value:
    if isinstance(x, np.ndarray) or any(n != 1 for n in x.shape[2:]):
        raise UnfitError(f"a pool of {x.shape}")
    return x


def reduction(kind: str) -> Operator:
    """ReduceMax, ReduceSum or ReduceMean over all that there is, or over size-one axes."""

    def apply(context: Context, takes: Takes) -> list[Value]:
        x = vector_or_feature(takes)
        rank = len(x.shape)
        axes = _axes(context, takes)
        if not axes:
            if context.get("noop_with_empty_axes", 0):
                return [x]
            axes = list(range(rank))
        keep = bool(context.get("keepdims", 1))
        if isinstance(x, Feature) and math.prod(x.stored[1:]) != 1:
            if kind != "reduce_mean":
                raise UnfitError(f"{kind} over pixels")
            return [_pooled(context, x, axes, keep=keep)]
        over = {axis_of(a, rank) for a in axes}
        shape: Shape = tuple(
            1 if i in over else n for i, n in enumerate(x.shape) if keep or i not in over
        )
        value = operand(context.to, x)
        if isinstance(value, np.ndarray):
            raise UnfitError(f"{kind} of a constant")
        if math.prod(shape) == value.size:
            return [reshaped(value, shape)]
        if not whole_axis(x.shape, sorted(over)):
            raise UnfitError(f"{kind} of {x.shape} over {sorted(over)}")
        return [context.to.emit(kind, shape, [value])]

    return apply


def dequantize(context: Context, takes: Takes) -> list[Value]:
    """DequantizeLinear of a feature with one scale, or of a constant."""
    x = needed(takes)
    scale = constant(needed(takes, 1))
    given = optional(takes, 2)
    zero: Array = np.zeros((), np.int64) if given is None else constant(given).astype(np.int64)
    if context.get("block_size", 0) or scale.dtype != np.float32:
        raise UnfitError("quantised by blocks")
    if isinstance(x, np.ndarray):
        axis = axis_of(context.get("axis", 1), max(1, x.ndim)) if scale.size > 1 else 0
        spread = (-1, *([1] * (x.ndim - axis - 1))) if scale.size > 1 else ()
        whole = x.astype(np.int64) - zero.reshape(spread)
        return [(whole * scale.reshape(spread)).astype(np.float32)]
    if not isinstance(x, Feature) or x.scale is not None or x.dtype == "float32":
        raise UnfitError("dequantised twice")
    if scale.size != 1 or zero.size != 1 or not np.isfinite(scale).all():
        raise UnfitError("quantised by channels")
    return [x._replace(scale=float(scale.reshape(-1)[0]), zero=int(zero.reshape(-1)[0]))]


MOVING: dict[str, Operator] = {
    "AveragePool": average_pool,
    "Cast": cast,
    "Concat": concat,
    "Constant": constant_node,
    "ConstantOfShape": constant_of_shape,
    "DequantizeLinear": dequantize,
    "Dropout": dropout,
    "Expand": expand,
    "Flatten": flatten,
    "Gather": gather,
    "GlobalAveragePool": global_average_pool,
    "Identity": identity,
    "ReduceMax": reduction("reduce_max"),
    "ReduceMean": reduction("reduce_mean"),
    "ReduceSum": reduction("reduce_sum"),
    "Reshape": reshape,
    "Shape": shape_of,
    "Slice": slice_of,
    "Split": split,
    "Squeeze": squeeze,
    "Transpose": transpose,
    "Unsqueeze": unsqueeze,
}
