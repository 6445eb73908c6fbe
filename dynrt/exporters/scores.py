"""The rules of :mod:`dynrt.ir.rules` as ONNX operators, in float64 as there, for one sample."""

from __future__ import annotations

import math

import numpy as np
import onnx

from dynrt.exporters.scope import Scope
from dynrt.ir.graph import Argmax, ControlNode, Exit
from dynrt.ir.rules import rule_thresholds

_TINY = float(np.finfo(np.float64).tiny)


def add_actions(scope: Scope, node: ControlNode, scores: str) -> list[str]:
    """A boolean tensor ``()`` for each action of ``node``: whether it is active."""
    stem = node.name
    flat = _flat(scope, scores, stem)
    out = []
    if isinstance(node.rule, Argmax):
        best = scope.add("ArgMax", [flat], f"{stem}.best", axis=0, keepdims=0)
        for action in range(node.actions):
            number = scope.constant(f"{stem}.action", np.array(action, np.int64))
            out.append(scope.add("Equal", [best, number], f"{stem}.active"))
        return out
    for action, threshold in enumerate(rule_thresholds(node)):
        number = scope.constant(f"{stem}.action", np.array(action, np.int64))
        score = scope.add("Gather", [flat, number], f"{stem}.score", axis=0)
        limit = scope.constant(f"{stem}.threshold", np.array(threshold, np.float64))
        out.append(scope.add("GreaterOrEqual", [score, limit], f"{stem}.active"))
    return out


def add_accept(scope: Scope, node: Exit, values: str) -> str:
    """A boolean tensor ``()``: whether the exit accepts ``values``."""
    size = next(math.prod(p.type.shape) for p in node.outputs if p.name == node.accept.port)
    score = _score(scope, node, _flat(scope, values, node.name), size)
    limit = scope.constant(f"{node.name}.threshold", np.array(node.accept.threshold, np.float64))
    return scope.add("GreaterOrEqual", [score, limit], f"{node.name}.accepts")


def _flat(scope: Scope, tensor: str, stem: str) -> str:
    """``tensor`` as a vector of float64."""
    shape = scope.constant(f"{stem}.vector", np.array([-1], np.int64))
    flat = scope.add("Reshape", [tensor, shape], f"{stem}.flat")
    return scope.add("Cast", [flat], f"{stem}.wide", to=onnx.TensorProto.DOUBLE)


def _score(scope: Scope, node: Exit, flat: str, size: int) -> str:
    stem, kind = node.name, node.accept.kind
    if kind == "hinge":
        return _largest(scope, flat, stem, 1)[0]
    if size == 1 and kind in ("margin", "entropy"):
        return scope.constant(f"{stem}.sure", np.array(1.0))
    p = scope.add("Softmax", [flat], f"{stem}.p", axis=0)
    if kind == "max_softmax":
        return _largest(scope, p, stem, 1)[0]
    if kind == "margin":
        first, second = _largest(scope, p, stem, 2)
        return scope.add("Sub", [first, second], f"{stem}.margin")
    tiny = scope.constant(f"{stem}.tiny", np.array(_TINY))
    log = scope.add("Log", [scope.add("Max", [p, tiny], f"{stem}.inside")], f"{stem}.log")
    axis = scope.constant(f"{stem}.axis", np.array([0], np.int64))
    terms = scope.add("Mul", [p, log], f"{stem}.terms")
    total = scope.add("ReduceSum", [terms, axis], f"{stem}.total", keepdims=0)
    scale = scope.constant(f"{stem}.scale", np.array(math.log(size)))
    one = scope.constant(f"{stem}.one", np.array(1.0))
    share = scope.add("Div", [total, scale], f"{stem}.share")
    return scope.add("Add", [one, share], f"{stem}.entropy")


def _largest(scope: Scope, values: str, stem: str, count: int) -> list[str]:
    """The ``count`` largest elements, each as a tensor ``()``."""
    k = scope.constant(f"{stem}.k", np.array([count], np.int64))
    top, where = scope.fresh(f"{stem}.top"), scope.fresh(f"{stem}.where")
    scope.nodes.append(onnx.helper.make_node("TopK", [values, k], [top, where], name=top, axis=0))
    out = []
    for i in range(count):
        number = scope.constant(f"{stem}.rank", np.array(i, np.int64))
        out.append(scope.add("Gather", [top, number], f"{stem}.largest", axis=0))
    return out
