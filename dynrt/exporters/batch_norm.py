"""Folds batch normalisation into the convolution or product before it, or right after it.

``bn(x) = x * a + b`` per channel with ``a = scale / sqrt(var + epsilon)``, ``b = bias - mean * a``;
computed in float64, stored in the weight's own type. What has no linear neighbour (a norm before an
activation and after a sum, as in DenseNet) stays.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx

from dynrt.exporters.draft import (
    OnnxDraft,
    attribute_float,
    attribute_int,
    attribute_ints,
    attribute_text,
)
from dynrt.ir.graph import Array


def fold_batch_norms(draft: OnnxDraft, *, results: set[str], rank: Mapping[str, int]) -> None:
    """Fold every ``BatchNormalization`` of ``draft`` that has a foldable neighbour.

    Args:
        draft: changed in place.
        results: tensors that must go on existing under their names.
        rank: ranks of tensors as far as they are known.
    """
    for norm in [n for n in draft.nodes if n.op_type == "BatchNormalization"]:
        affine = _affine(draft, norm)
        if affine is None:
            continue
        if _fold_backward(draft, norm, affine, results, rank):
            continue
        _fold_forward(draft, norm, affine, results, rank)


def _affine(draft: OnnxDraft, norm: onnx.NodeProto) -> tuple[Array, Array] | None:
    """Slope and offset per channel in float64, or ``None`` if they are not constant."""
    if attribute_int(norm, "training_mode", 0) or any(
        n not in draft.constants for n in norm.input[1:]
    ):
        return None
    scale, bias, mean, var = (draft.constants[n].astype(np.float64) for n in norm.input[1:5])
    slope = scale / np.sqrt(var + attribute_float(norm, "epsilon", 1e-5))
    return slope, bias - mean * slope


def _constant(draft: OnnxDraft, node: onnx.NodeProto, index: int) -> Array | None:
    if len(node.input) <= index or not node.input[index]:
        return None
    return draft.constants.get(node.input[index])


def _fold_backward(
    draft: OnnxDraft,
    norm: onnx.NodeProto,
    affine: tuple[Array, Array],
    results: set[str],
    rank: Mapping[str, int],
) -> bool:
    """Fold into the operator whose output the norm reads; whether that was possible."""
    tensor = norm.input[0]
    before = draft.producers().get(tensor)
    if before is None or tensor in results or len(draft.consumers().get(tensor, ())) != 1:
        return False
    slope, offset = affine
    weight = _constant(draft, before, 1)
    has_bias = len(before.input) > 2 and before.input[2] != ""
    bias = _constant(draft, before, 2)
    if weight is None or (has_bias and bias is None):
        return False
    wide = weight.astype(np.float64)
    old = np.zeros(slope.size) if bias is None else bias.astype(np.float64).reshape(-1)
    kind, axis = before.op_type, 0
    if kind == "Conv":
        new = wide * slope.reshape(-1, *[1] * (wide.ndim - 1))
    elif kind == "ConvTranspose":
        groups = attribute_int(before, "group", 1)
        split = wide.reshape(groups, wide.shape[0] // groups, *wide.shape[1:])
        new = (split * slope.reshape(groups, 1, -1, *[1] * (wide.ndim - 2))).reshape(wide.shape)
    elif kind == "Gemm" and attribute_float(before, "alpha", 1.0) == 1.0:
        if old.size not in (1, slope.size) or attribute_float(before, "beta", 1.0) != 1.0:
            return False
        axis = 0 if attribute_int(before, "transB", 0) else 1
        new = wide * (slope[:, None] if axis == 0 else slope[None, :])
    elif kind == "MatMul" and wide.ndim == 2 and rank.get(tensor) == 2:
        new = wide * slope[None, :]
        before.op_type = "Gemm"
    else:
        return False
    stem = norm.output[0]
    w_name = draft.add_constant(f"{stem}.weight", new.astype(weight.dtype))
    b_name = draft.add_constant(f"{stem}.bias", (old * slope + offset).astype(weight.dtype))
    before.input[:] = [before.input[0], w_name, b_name]
    before.output[0] = norm.output[0]
    draft.nodes.remove(norm)
    return True


def _fold_forward(
    draft: OnnxDraft,
    norm: onnx.NodeProto,
    affine: tuple[Array, Array],
    results: set[str],
    rank: Mapping[str, int],
) -> None:
    """Fold into the only reader of the norm, where that is exact (no padding, one group)."""
    tensor = norm.output[0]
    readers = draft.consumers().get(tensor, [])
    if tensor in results or len(readers) != 1 or readers[0].input[0] != tensor:
        return
    after = readers[0]
    weight, bias = _constant(draft, after, 1), _constant(draft, after, 2)
    has_bias = len(after.input) > 2 and after.input[2] != ""
    if weight is None or (has_bias and bias is None):
        return
    slope, offset = affine
    wide = weight.astype(np.float64)
    if after.op_type == "Conv":
        padded = any(attribute_ints(after, "pads"))
        automatic = attribute_text(after, "auto_pad", "NOTSET") not in ("NOTSET", "VALID")
        if padded or automatic or attribute_int(after, "group", 1) != 1:
            return
        shape = (1, -1, *[1] * (wide.ndim - 2))
        new = wide * slope.reshape(shape)
        shift = (wide * offset.reshape(shape)).reshape(wide.shape[0], -1).sum(axis=1)
    elif after.op_type == "Gemm" and not attribute_int(after, "transA", 0):
        if (
            attribute_float(after, "alpha", 1.0) != 1.0
            or attribute_float(after, "beta", 1.0) != 1.0
        ):
            return
        by_row = attribute_int(after, "transB", 0) == 1
        new = wide * (slope[None, :] if by_row else slope[:, None])
        shift = wide @ offset if by_row else offset @ wide
    elif after.op_type == "MatMul" and wide.ndim == 2 and rank.get(tensor) == 2:
        new, shift = wide * slope[:, None], offset @ wide
        after.op_type = "Gemm"
    else:
        return
    old = np.zeros(shift.size) if bias is None else bias.astype(np.float64)
    if old.size not in (1, shift.size):
        return
    stem = after.output[0]
    w_name = draft.add_constant(f"{stem}.weight", new.astype(weight.dtype))
    total = (old.reshape(-1) + shift).astype(weight.dtype)
    after.input[:] = [norm.input[0], w_name, draft.add_constant(f"{stem}.bias", total)]
    draft.nodes.remove(norm)
