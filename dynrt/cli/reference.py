"""``--mode reference``: the reference interpreter over the bundle's own models."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Self

from dynrt.bundle import Bundle
from dynrt.errors import BudgetError
from dynrt.ir.graph import Array, ComputeNode, NodeId
from dynrt.ir.reference import interpret
from dynrt.ir.rules import softmax
from dynrt.runtime import Backend, Network, Policy, Result
from dynrt.runtime.inputs import take_inputs


class ReferenceNetwork:
    """Answers as a :class:`Network` does, one sample at a time, by the reference semantics.

    Args:
        bundle: what to run.
        backend: runs its nodes.
    """

    def __init__(self, bundle: Bundle, backend: Backend) -> None:
        self.bundle = bundle
        self._network = Network(bundle.graph, backend, bundle=bundle)
        self._functions: dict[NodeId, Callable[[Mapping[str, Array]], Mapping[str, Array]]] = {
            name: partial(backend.call, name) for name in bundle.models
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._network.close()

    @property
    def policy(self) -> Policy:
        """What is in force."""
        return self._network.policy

    def set(self, **changes: object) -> Policy:
        """As :meth:`Network.set`; a time cap is refused, the reference has no clock.

        Raises:
            PolicyError, QuantityError, BudgetError: as there.
        """
        policy = self._network.set(**changes)  # type: ignore[arg-type]
        if policy.budget.seconds is not None:
            raise BudgetError("the reference mode takes no time budget: give FLOPs, MACs or joules")
        return policy

    def run(self, inputs: Mapping[str, Array], *, trace: bool = False) -> Result:
        """Answer one input.

        Raises:
            InputError, BudgetRefusedError, BackendError: as :meth:`Network.run`.
        """
        if trace:
            raise BudgetError("the reference mode records no trace")
        began = time.perf_counter()
        policy, graph = self.policy, self.bundle.graph
        if policy.budget.joules is not None or policy.budget.mac_equivalents is not None:
            self._network.cheapest(policy.budget)  # refuses where energy is not known
        came = interpret(
            graph,
            self._functions,
            take_inputs(graph, policy, inputs, batched=False),
            budget=policy.budget,
            thresholds=policy.thresholds,
        )
        answer = came.answer[0]
        flat = answer.reshape(-1)
        index = int(flat.argmax())
        labels = self.bundle.labels
        ran = set(came.path)
        return Result(
            answer=answer,
            index=index,
            label=labels[index] if len(labels) == flat.size else None,
            score=float(softmax(flat)[index]),
            exit=came.exit,
            accepted=came.accepted,
            forced=came.forced,
            macs=came.macs,
            energy_source=None if self.bundle.energy is None else str(self.bundle.energy),
            femtojoules=came.cost.femtojoules,
            milli_mac_equivalents=came.cost.milli_mac_equivalents,
            seconds=time.perf_counter() - began,
            late=False,
            path=came.path,
            skipped=tuple(
                n.name for n in graph.nodes if isinstance(n, ComputeNode) and n.name not in ran
            ),
            budget=policy.budget,
            thresholds=MappingProxyType(dict(policy.thresholds)),
        )

    def run_batch(self, inputs: Mapping[str, Array], *, trace: bool = False) -> list[Result]:
        """Answer each input of a batch by itself."""
        count = len(next(iter(inputs.values())))
        return [self.run({k: v[i] for k, v in inputs.items()}, trace=trace) for i in range(count)]
