"""What is in force for a run: budget, thresholds and parameters; frozen, validated, echoed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np

from dynrt.errors import BudgetError, PolicyError
from dynrt.ir.cost import Budget
from dynrt.ir.graph import Argmax, Array, ControlNode, Exit, Graph, InputNode, NodeId
from dynrt.ir.rules import rule_thresholds

Bounds = tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What every run that starts now goes by.

    Attributes:
        budget: hard cap per input; nothing capped by default.
        thresholds: in force at each exit that is scored and each threshold control node; one per
            action (an exit has one).
        params: value ``(1, ...)`` of each runtime parameter.
    """

    budget: Budget = field(default_factory=Budget)
    thresholds: Mapping[NodeId, Bounds]
    params: Mapping[NodeId, Array]


def default_policy(graph: Graph) -> Policy:
    """The thresholds and parameters that the graph carries, and no cap."""
    thresholds: dict[NodeId, Bounds] = {}
    for node in graph.nodes:
        if isinstance(node, Exit) and node.accept.scored:
            thresholds[node.name] = (node.accept.threshold,)
        elif isinstance(node, ControlNode) and not isinstance(node.rule, Argmax):
            thresholds[node.name] = rule_thresholds(node)
    params = {
        n.name: n.param.value[None]
        for n in graph.nodes
        if isinstance(n, InputNode) and n.param is not None
    }
    return Policy(thresholds=MappingProxyType(thresholds), params=MappingProxyType(params))


def changed_policy(
    graph: Graph,
    policy: Policy,
    *,
    budget: Budget | str | None = None,
    thresholds: Mapping[NodeId, float | Bounds] | None = None,
    params: Mapping[NodeId, float | Array] | None = None,
) -> Policy:
    """``policy`` with some things replaced; what is ``None`` stays.

    Raises:
        PolicyError: no such threshold or parameter, a wrong count or shape, or NaN.
        QuantityError, BudgetError: the budget is no budget.
    """
    bounds = dict(policy.thresholds)
    for name, value in (thresholds or {}).items():
        if name not in bounds:
            known = ", ".join(sorted(bounds)) or "none"
            raise PolicyError(f"no threshold at {name!r}; this network has: {known}")
        bounds[name] = _bounds(name, value, len(bounds[name]))
    values = dict(policy.params)
    for name, given in (params or {}).items():
        if name not in values:
            known = ", ".join(sorted(values)) or "none"
            raise PolicyError(f"no parameter {name!r}; this network has: {known}")
        values[name] = _param(name, given, values[name])
    return Policy(
        budget=policy.budget if budget is None else as_budget(budget),
        thresholds=MappingProxyType(bounds),
        params=MappingProxyType(values),
    )


def as_budget(budget: Budget | str) -> Budget:
    """A budget from itself or from text such as ``100M``.

    Raises:
        QuantityError, BudgetError: it is none.
    """
    if isinstance(budget, Budget):
        return budget
    if isinstance(budget, str):
        return Budget.parse(budget)
    raise BudgetError(f"{budget!r} is no budget: give text such as '100M', or a Budget")


def _bounds(name: NodeId, value: float | Bounds, count: int) -> Bounds:
    try:
        got = tuple(float(t) for t in value) if isinstance(value, tuple | list) else (float(value),)
    except (TypeError, ValueError) as exc:
        raise PolicyError(f"threshold of {name!r}: {value!r} is no number") from exc
    if len(got) != count:
        raise PolicyError(f"threshold of {name!r}: {len(got)} values where {count} are needed")
    if any(math.isnan(t) for t in got):
        raise PolicyError(f"threshold of {name!r} is NaN")
    return got


def _param(name: NodeId, given: float | Array, like: Array) -> Array:
    try:
        value = np.asarray(given, dtype=like.dtype)
    except (TypeError, ValueError) as exc:
        raise PolicyError(f"parameter {name!r}: {given!r} is no {like.dtype}") from exc
    if value.shape == () and like[0].size == 1:
        value = value.reshape(like[0].shape)
    if value.shape != like[0].shape:
        raise PolicyError(f"parameter {name!r} has shape {value.shape}, not {like[0].shape}")
    if np.issubdtype(value.dtype, np.floating) and not np.isfinite(value).all():
        raise PolicyError(f"parameter {name!r} holds a value that is not finite")
    return value[None]
