"""Expected energy of a run as a differentiable function of what gates and exits are likely to do.

Skipped blocks, channel groups and early exits are trained with soft decisions: a probability that a
gate keeps its block, that an exit accepts. The energy of a run is the sum over nodes of *whether it
runs* times *what it takes*, so its expectation is

    E = sum_i P(node i runs) * e_i

and a masked node's e_i is itself the expectation over how many of its groups are kept. Decisions are
taken as independent of one another, given that they are reached: exact for a network whose gates
are sampled so, an approximation where they are correlated over the inputs. Under that assumption
the figures are exact on any graph, nulls, defaults, several controllers and exits included: they
come from the same schedule that bounds a bundle's certificate, without a budget.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from dynrt.bundle import Bundle
from dynrt.energy.model import EnergyReport
from dynrt.errors import EnergyError
from dynrt.ir.completion import MAX_STATES
from dynrt.ir.graph import ComputeNode, Exit, Graph, NodeId
from dynrt.train.energy_paths import Charge, Program, write_program
from dynrt.train.probabilities import Probability, alike, columns, parts
from dynrt.units import fj_to_j, milli_to_mac_equivalents


class PathEnergy:
    """Expected energy of a run through a graph.

    Attributes:
        unit: of the energies: ``J``, ``MACeq``, or what the caller calls it.
        actions: (control node, action) in the order in which a tensor gives their probabilities.
        exits: exits whose acceptance decides what else runs, in the order of a tensor.
        groups: of nodes with a channel mask whose energy depends on it: how many groups.
        full: energy of the dearest run; what shares are of.

    Args:
        graph: a valid graph.
        energies: of each compute node and exit, all channels kept, one sample, in ``unit``.
        kept_energies: of a node with a channel mask: with 0, 1, ... all groups kept.
        unit: of the energies.
        limit: how many states the schedule may have.

    Raises:
        EnergyError: an energy is missing, negative or not finite, or there are too many states.
    """

    def __init__(
        self,
        graph: Graph,
        energies: Mapping[NodeId, float],
        *,
        kept_energies: Mapping[NodeId, Sequence[float]] | None = None,
        unit: str = "J",
        limit: int = MAX_STATES,
    ) -> None:
        self._program: Program = write_program(graph, limit=limit)
        self._energies = {n: _energy(n, energies.get(n)) for n in self._program.nodes}
        self._kept = {
            n: tuple(_energy(n, value) for value in values)
            for n, values in (kept_energies or {}).items()
            if n in self._energies
        }
        for name, values in self._kept.items():
            if len(values) < 2:
                raise EnergyError(f"node {name!r}: {len(values)} energies by kept groups")
        self.unit = unit
        self.actions = self._program.actions
        self.exits = self._program.exits
        self.groups: Mapping[NodeId, int] = {n: len(v) - 1 for n, v in self._kept.items()}
        self.full = self._dearest()

    @classmethod
    def from_bundle(cls, bundle: Bundle, *, limit: int = MAX_STATES) -> PathEnergy:
        """With the energies that a bundle carries: joules, or MAC-equivalents of its table.

        Raises:
            EnergyError: a node has no energy; ``dynrt energy --write`` stores them.
        """
        nodes = [n for n in bundle.graph.nodes if isinstance(n, ComputeNode | Exit)]
        masks = {n.name: n.mask for n in nodes if isinstance(n, ComputeNode) and n.mask is not None}
        if all(n.cost.femtojoules is not None for n in nodes):
            energies = {n.name: fj_to_j(n.cost.femtojoules or 0) for n in nodes}
            kept = {n: tuple(map(fj_to_j, m.kept_femtojoules)) for n, m in masks.items()}
            unit = "J"
        elif all(n.cost.milli_mac_equivalents is not None for n in nodes):
            to_unit = milli_to_mac_equivalents
            energies = {n.name: to_unit(n.cost.milli_mac_equivalents or 0) for n in nodes}
            kept = {n: tuple(map(to_unit, m.kept_milli_mac_equivalents)) for n, m in masks.items()}
            unit = "MACeq"
        else:
            name = next(n.name for n in nodes if n.cost.femtojoules is None)
            raise EnergyError(
                f"{bundle.name}: the energy of node {name!r} is not known; dynrt energy --write "
                "stores it"
            )
        modelled = {n: values for n, values in kept.items() if values}
        return cls(bundle.graph, energies, kept_energies=modelled, unit=unit, limit=limit)

    @classmethod
    def from_report(
        cls, report: EnergyReport, graph: Graph, *, limit: int = MAX_STATES
    ) -> PathEnergy:
        """With the energies of a report on the nodes of ``graph``.

        Raises:
            EnergyError: a node is not in the report.
        """
        in_unit = report.in_unit
        nodes = {
            n.name: report.node(n.name) for n in graph.nodes if isinstance(n, ComputeNode | Exit)
        }
        return cls(
            graph,
            {name: in_unit(node.amount.value) for name, node in nodes.items()},
            kept_energies={
                name: [in_unit(amount.value) for amount in node.kept]
                for name, node in nodes.items()
                if node.kept
            },
            unit=report.unit,
            limit=limit,
        )

    def __call__(
        self,
        gates: Tensor | Mapping[NodeId, Probability] | None = None,
        *,
        exits: Tensor | Mapping[NodeId, Probability] | None = None,
        masks: Mapping[NodeId, Probability] | None = None,
        share: bool = False,
    ) -> Tensor:
        """Expected energy of each sample, ``(batch,)``, in ``unit``.

        Args:
            gates: probability of each action: ``(batch, len(actions))``, or by control node
                ``(batch, its actions)``; of one action also ``(batch,)``. A threshold rule's
                actions are independent; an argmax rule's add up to 1 (a softmax).
            exits: probability that each exit accepts, once it is reached: ``(batch,
                len(self.exits))``, or by exit ``(batch,)``.
            masks: probability that each group is kept, by node: ``(batch, groups)``.
            share: divide by ``full``.

        Raises:
            EnergyError: a probability is missing, of the wrong shape, or outside 0..1.
        """
        energy = self._expected(gates, exits, masks)
        return energy / self.full if share else energy

    def running(
        self,
        gates: Tensor | Mapping[NodeId, Probability] | None = None,
        *,
        exits: Tensor | Mapping[NodeId, Probability] | None = None,
    ) -> dict[NodeId, Tensor]:
        """Probability that each node runs, ``(batch,)`` each; arguments as for the energy."""
        chances = self._chances(gates, exits)
        never = {n: chances.new_zeros(len(chances)) for n in self._program.nodes}
        return never | dict(self._walk(chances))

    def _expected(
        self,
        gates: Tensor | Mapping[NodeId, Probability] | None,
        exits: Tensor | Mapping[NodeId, Probability] | None,
        masks: Mapping[NodeId, Probability] | None,
    ) -> Tensor:
        chances = self._chances(gates, exits)
        for name in masks or {}:
            if name not in self._kept:
                known = ", ".join(self._kept) or "none"
                raise EnergyError(f"no mask of {name!r} changes an energy; these do: {known}")
        by_node = {name: self._masked(name, masks, chances) for name in self._kept}
        total = chances.new_zeros(len(chances))
        for name, chance in self._walk(chances):
            total = total + chance * by_node.get(name, self._energies[name])
        return total

    def _walk(self, chances: Tensor) -> Iterator[tuple[NodeId, Tensor]]:
        """Each node that may run with the probability that it does, ``(batch,)``."""
        batch = len(chances)
        factors = torch.cat([chances.new_ones(batch, 1), chances, 1 - chances], 1)
        alive = chances.new_ones(batch, 1)
        for step in self._program.steps:
            if isinstance(step, Charge):
                yield step.node, alive[:, step.states.to(alive.device)].sum(1)
                continue
            weight = factors[:, step.factors.to(alive.device)]
            moved = alive[:, step.sources.to(alive.device)] * weight
            alive = alive.new_zeros(batch, step.size).index_add(
                1, step.targets.to(alive.device), moved
            )

    def _chances(
        self,
        gates: Tensor | Mapping[NodeId, Probability] | None,
        exits: Tensor | Mapping[NodeId, Probability] | None,
    ) -> Tensor:
        """Probabilities of all actions and exits side by side, ``(batch, columns)``."""
        widths: dict[NodeId, int] = {}
        for name, _ in self.actions:
            widths[name] = widths.get(name, 0) + 1
        found = [
            *parts(gates, widths, "gate"),
            *parts(exits, dict.fromkeys(self.exits, 1), "exit"),
        ]
        return torch.cat(alike(found), 1)

    def _masked(
        self, name: NodeId, masks: Mapping[NodeId, Probability] | None, chances: Tensor
    ) -> Tensor:
        """Expected energy of a masked node that runs, ``(batch,)`` or ``(1,)``.

        The number of kept groups is a sum of independent yes-or-no draws; its distribution is
        built up group by group.
        """
        if masks is None or name not in masks:
            raise EnergyError(f"node {name!r} has a channel mask, and no probabilities for it")
        kept = columns(masks[name], self.groups[name], f"mask of {name!r}").to(chances)
        if len(kept) not in (1, len(chances)) and len(chances) != 1:
            raise EnergyError(
                f"mask of {name!r}: {len(kept)} samples beside {len(chances)} of the others"
            )
        spread = kept.new_ones(len(kept), 1)
        for group in kept.unbind(1):
            p = group[:, None]
            spread = functional.pad(spread * (1 - p), (0, 1)) + functional.pad(spread * p, (1, 0))
        return spread @ spread.new_tensor(self._kept[name])

    def _dearest(self) -> float:
        """Energy of the dearest run; a masked node with the dearest count of groups."""
        most = self._energies | {n: max(values) for n, values in self._kept.items()}
        level, best = [0.0], 0.0
        for step in self._program.steps:
            if isinstance(step, Charge):
                for state in step.states.tolist():
                    level[state] += most[step.node]
                best = max(best, *level) if level else best
                continue
            behind = [0.0] * step.size
            for source, target in zip(step.sources.tolist(), step.targets.tolist(), strict=True):
                behind[target] = max(behind[target], level[source])
            level = behind
        return best


def _energy(name: NodeId, value: float | None) -> float:
    if value is None:
        raise EnergyError(f"the energy of node {name!r} is not known")
    if not math.isfinite(value) or value < 0:
        raise EnergyError(f"the energy of node {name!r} is {value!r}")
    return float(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One block of a chain: first its gate runs, then perhaps the block, then perhaps a head.

    Attributes:
        energy: of the block.
        gate_energy: of the gate that may skip the block; ``None``: it always runs. A gate that
            takes no energy has 0.
        head_energy: of the exit behind the block; ``None``: there is none.
    """

    energy: float
    gate_energy: float | None = None
    head_energy: float | None = None


def chain_energy(
    stages: Sequence[Stage], *, keep: Tensor | None = None, accept: Tensor | None = None
) -> Tensor:
    """The same for a chain of blocks in closed form, where there is no graph yet: ``(batch,)``.

    With ``a_j`` the chance that exit j accepts, ``p_k`` that gate k keeps its block, and heads
    charged wherever they are reached,

        E = sum_k prod_(j before k) (1 - a_j) * (gate_k + p_k * e_k + head_k)

    Args:
        stages: in order; whatever always runs at the start is a stage without a gate.
        keep: ``(batch, stages with a gate)``.
        accept: ``(batch, heads that are not behind the last stage)``.

    Raises:
        EnergyError: an energy is negative, or probabilities do not fit.
    """
    if not stages:
        raise EnergyError("a chain of no stages has no energy")
    gated = [i for i, s in enumerate(stages) if s.gate_energy is not None]
    heads = [i for i, s in enumerate(stages[:-1]) if s.head_energy is not None]
    found = [
        *parts(keep, {f"stage {i}": 1 for i in gated}, "gate"),
        *parts(accept, {f"stage {i}": 1 for i in heads}, "exit"),
    ]
    chances = torch.cat(alike(found), 1)
    p, a = chances[:, : len(gated)], chances[:, len(gated) :]
    own = [_energy(f"stage {i}", s.energy) for i, s in enumerate(stages)]
    extra = [
        sum(_energy(f"stage {i}", e) for e in (s.gate_energy, s.head_energy) if e is not None)
        for i, s in enumerate(stages)
    ]
    kept = chances.new_ones(len(chances), len(stages))
    goes_on = chances.new_ones(len(chances), len(stages))
    if gated:
        kept = kept.index_copy(1, torch.tensor(gated, device=p.device), p)
    if heads:  # the head of stage i decides on what follows it
        goes_on = goes_on.index_copy(1, torch.tensor(heads, device=a.device) + 1, 1 - a)
    each = kept * chances.new_tensor(own) + chances.new_tensor(extra)
    return (goes_on.cumprod(1) * each).sum(1)


def energy_loss(expected: Tensor, *, weight: float = 1.0, target: float = 0.0) -> Tensor:
    """``weight`` times what the batch's mean energy exceeds ``target`` by; a scalar.

    Args:
        expected: ``(batch,)``, of :class:`PathEnergy` or :func:`chain_energy`.
        weight: of the term in the whole loss.
        target: mean energy that costs nothing, in the unit of ``expected``.
    """
    return weight * functional.relu(expected.mean() - target)
