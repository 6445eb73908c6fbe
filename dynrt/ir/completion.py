"""The cheapest way from any point of a run to the next answer.

Exact where the schedule has few states (chains, trees, moderate graphs): one backward pass over all
reachable states. Otherwise one stored fallback decision per control node, whose cost is exact
though not always the least. Both keep the promise the executor needs: from a point with an
affordable completion, at least one decision leads to a point with an affordable completion.
Several resources at once (MACs and joules) are kept as Pareto fronts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from dynrt.errors import BudgetError
from dynrt.ir.flow import Flow, FlowStep
from dynrt.ir.graph import ControlNode, Exit, NodeId, Threshold
from dynrt.ir.rules import MAX_SUBSET_ACTIONS

Amounts = tuple[int, ...]
Front = tuple[Amounts, ...]

#: Above so many (step, state, decision) triples a fallback decision vector replaces the exact pass.
MAX_STATES = 50_000
#: A Pareto front keeps at most so many points; each that is kept can be reached.
MAX_FRONT = 32
#: Partial paths that the search for a fallback vector keeps per step.
_BEAM = 64


_NEEDS = {
    "femtojoules": ("energy", "an energy table"),
    "nanoseconds": ("time", "a profile of this device"),
    "milli_mac_equivalents": ("energy in MAC-equivalents", "a normalised energy table"),
}


class _Partial(NamedTuple):
    """A partial settled path: what it cost, and the decisions on it, newest first."""

    amounts: Amounts
    decided: tuple[NodeId, tuple[int, ...], object] | None


def reachable(flow: Flow, *, limit: int = MAX_STATES) -> list[set[int]] | None:
    """The states before each step, and behind the last; ``None`` if that is over ``limit``."""
    if any(isinstance(s.node, ControlNode) and _some_left_out(s.node) for s in flow.steps):
        return None
    levels: list[set[int]] = [{0}]
    count = 1
    for i in range(len(flow.steps)):
        level: set[int] = set()
        for state in levels[i]:
            following = flow.successors(i, state)
            level.update(after for _, _, after in following)
            count += len(following)
            if count > limit:
                return None
        levels.append(level)
    return levels


def _some_left_out(node: ControlNode) -> bool:
    return isinstance(node.rule, Threshold) and node.actions > MAX_SUBSET_ACTIONS


class Completion:
    """Costs to the next answer, for some resources.

    Args:
        flow: the schedule.
        resources: names of :class:`~dynrt.ir.cost.Cost` fields.
        limit: how many (step, state, decision) triples the exact pass may visit.

    Raises:
        BudgetError: a node's cost in a resource is unknown.
    """

    def __init__(
        self, flow: Flow, resources: Sequence[str] = ("macs",), *, limit: int = MAX_STATES
    ) -> None:
        self.flow = flow
        self.resources = tuple(resources)
        self.amounts = tuple(self._amounts(s) for s in flow.steps)
        self._zero: Amounts = (0,) * len(self.resources)
        levels = reachable(flow, limit=limit)
        self.exact = levels is not None
        self.fallback: Mapping[NodeId, tuple[int, ...]] = {}
        self._table: list[dict[int, Front]] = []
        if levels is None:
            self.fallback = self._search_fallback()
        else:
            self._fill(levels)

    def _amounts(self, step: FlowStep) -> Amounts:
        out = []
        for name in self.resources:
            value = getattr(step.cost, name)
            if value is None:
                what, needs = _NEEDS[name]
                raise BudgetError(
                    f"the {what} of node {step.node.name!r} is not known: a budget in that unit "
                    f"needs {needs}"
                )
            out.append(value)
        return tuple(out)

    def front(self, i: int, state: int) -> Front:
        """Least amounts from before step ``i`` up to an answer, its head included.

        Gates are left out, as in a settled run. Empty if no exit can be passed any more.
        """
        if self.exact:
            return self._table[i][state]
        return self._simulate(i, state)

    def fits(self, i: int, state: int, left: Amounts) -> bool:
        """Whether an answer can still be passed from before step ``i`` within ``left``."""
        return any(all(a <= b for a, b in zip(p, left, strict=True)) for p in self.front(i, state))

    def settled(self, i: int, state: int, left: Amounts) -> tuple[tuple[int, ...], int] | None:
        """A decision of control step ``i`` from which an answer fits ``left``, and the state behind.

        The first in the fixed order of ``decisions``; ``None`` if there is none.
        """
        step = self.flow.steps[i]
        for actions, mask in self._choices(step):
            after = step.after(state, ran=True, switched_on=mask)
            if self.fits(i + 1, after, left):
                return actions, after
        return None

    def _choices(self, step: FlowStep) -> Iterable[tuple[tuple[int, ...], int]]:
        if self.exact:
            return step.choices
        actions = self.fallback[step.node.name]
        return ((actions, step.switched_on(actions)),)

    # --- exact: backward over all reachable states

    def _fill(self, levels: list[set[int]]) -> None:
        table: list[dict[int, Front]] = [{} for _ in levels]
        table[-1] = dict.fromkeys(levels[-1], ())
        for i in range(len(self.flow.steps) - 1, -1, -1):
            step, cost, behind = self.flow.steps[i], self.amounts[i], table[i + 1]
            for state in levels[i]:
                points: set[Amounts] = set()
                for ran, _, after in self.flow.successors(i, state):
                    further = behind[after]
                    if isinstance(step.node, Exit):
                        points.update(further)
                        if ran:
                            points.add(cost)
                    elif ran and not step.gate and any(cost):
                        points.update(_plus(p, cost) for p in further)
                    else:
                        points.update(further)
                table[i][state] = pareto(points)
        self._table = table

    # --- otherwise: one decision per control node

    def _simulate(self, i: int, state: int) -> Front:
        spent, points = self._zero, set[Amounts]()
        for j in range(i, len(self.flow.steps)):
            step = self.flow.steps[j]
            ran = step.runs(state)
            mask = 0
            if ran and isinstance(step.node, Exit):
                points.add(_plus(spent, self.amounts[j]))
            elif ran and isinstance(step.node, ControlNode):
                mask = step.switched_on(self.fallback[step.node.name])
            elif ran and not step.gate:
                spent = _plus(spent, self.amounts[j])
            state = step.after(state, ran=ran, switched_on=mask)
        return pareto(points)

    def _search_fallback(self) -> dict[NodeId, tuple[int, ...]]:
        steps = self.flow.steps
        out: dict[NodeId, tuple[int, ...]] = {}
        switched = {s.control_bit: self.amounts[i] for i, s in enumerate(steps) if s.control_bit}
        for step in steps:
            if isinstance(step.node, ControlNode):
                out[step.node.name] = min(
                    step.choices,
                    key=lambda c: (sum(sum(a) for b, a in switched.items() if c[1] & b), c[0]),
                )[0]
        beam: dict[int, _Partial] = {0: _Partial(self._zero, None)}
        best: _Partial | None = None
        for i, step in enumerate(steps):
            level: dict[int, _Partial] = {}
            for state, partial in beam.items():
                for ran, actions, after in self.flow.successors(i, state):
                    amounts, decided = partial
                    if ran and isinstance(step.node, Exit):
                        total = _plus(amounts, self.amounts[i])
                        if best is None or total < best.amounts:
                            best = _Partial(total, decided)
                    elif ran and not step.gate:
                        amounts = _plus(amounts, self.amounts[i])
                    if ran and step.choices:
                        decided = (step.node.name, actions, decided)
                    if after not in level or amounts < level[after].amounts:
                        level[after] = _Partial(amounts, decided)
            if len(level) > _BEAM:
                kept = sorted(level.items(), key=lambda kv: (kv[1].amounts, kv[0]))[:_BEAM]
                level = dict(kept)
            beam = level
        chain: object = best.decided if best is not None else None
        while isinstance(chain, tuple):
            name, actions, chain = chain
            out[name] = actions
        return out


def _plus(a: Amounts, b: Amounts) -> Amounts:
    return tuple(x + y for x, y in zip(a, b, strict=True))


def pareto(points: Iterable[Amounts]) -> Front:
    """The points that no other point beats in every resource, sorted, at most ``MAX_FRONT``."""
    rows = sorted(points)
    if not rows or len(rows[0]) == 1:
        return tuple(rows[:1])
    kept: list[Amounts] = []
    for row in rows:
        if not any(all(a <= b for a, b in zip(k, row, strict=True)) for k in kept):
            kept.append(row)
            if len(kept) == MAX_FRONT:
                break
    return tuple(kept)
