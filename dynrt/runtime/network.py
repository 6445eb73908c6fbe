"""A loaded network: the object that an application holds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from threading import Lock
from typing import Literal, Self

from dynrt.bundle import Bundle
from dynrt.errors import BackendError, BudgetError, BudgetRefusedError
from dynrt.ir.cost import Budget, describe_cost
from dynrt.ir.graph import Array, Graph, NodeId
from dynrt.runtime.answer import Outcome, answer_of, joined_answer
from dynrt.runtime.backends import Backend, CheckedBackend
from dynrt.runtime.compiled import Compiled
from dynrt.runtime.compiled_runs import CompiledRuns
from dynrt.runtime.executor import (
    Row,
    constant_row,
    drive,
    drive_together,
    outcome_of,
    rows_of,
)
from dynrt.runtime.inputs import Inputs, batch_of, take_inputs
from dynrt.runtime.machine import Engine, Machine, Parts, Task
from dynrt.runtime.plan import Plan
from dynrt.runtime.policy import Bounds, Policy, as_budget, changed_policy, default_policy
from dynrt.runtime.profile import measured_graph, measured_parts
from dynrt.runtime.record import Record
from dynrt.runtime.result import Result
from dynrt.runtime.sources import BudgetSource, FixedBudget
from dynrt.runtime.walk import Walk
from dynrt.units import fj_to_j, milli_to_mac_equivalents, ns_to_s

#: Budgets that are remembered ready for use.
_KEPT_BUDGETS = 256


Mode = Literal["compiled", "portable"]


class Network:
    """A dynamic network that answers inputs under a policy.

    Several threads may call ``run`` and ``run_batch`` of one network at once; ``set`` takes effect
    for runs that start after it, whole or not at all.

    Args:
        graph: a valid graph.
        backend: who runs the nodes.
        bundle: where it came from, for labels.
    """

    def __init__(self, graph: Graph, backend: Backend, *, bundle: Bundle | None = None) -> None:
        self.graph = graph
        self.bundle = bundle
        self._plan = Plan(graph)
        self._backend = CheckedBackend(graph, backend)
        self._labels = bundle.labels if bundle is not None else ()
        source = bundle.energy if bundle is not None else None
        self._energy_source = None if source is None else str(source)
        self._policy = default_policy(graph)
        self._lock = Lock()
        self._timed_plan: Plan | None = None
        self._late = self._near_ties = 0
        self._closed = False
        self._runs: CompiledRuns | None = None
        self._ready: dict[Budget | str | None, tuple[Policy, Policy, Task]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def compile(self, compiled: Compiled, engine: Engine) -> None:
        """Run as compiled from now on.

        Args:
            compiled: of this network's bundle.
            engine: has its segments loaded.

        Raises:
            BackendError: it is of another network.
        """
        parts = Parts(self._plan, compiled, engine, self._backend)
        self._runs = CompiledRuns(self.graph, parts)

    @property
    def parts(self) -> Parts | None:
        """What runs in the compiled mode; ``None`` in the portable one."""
        return None if self._runs is None else self._runs.parts

    def prepare(self, machine: Machine, inputs: Inputs) -> Task:
        """Put one input into a machine's buffers; what a run of it goes by.

        Raises:
            InputError, BudgetRefusedError: as :meth:`run`.
        """
        policy = self._policy
        machine.put_arrays(take_inputs(self.graph, policy, inputs, batched=False))
        return self._task(policy, time.perf_counter_ns())

    @property
    def mode(self) -> Mode:
        """How this network runs."""
        return "portable" if self._runs is None else "compiled"

    def close(self) -> None:
        """Let go of all sessions."""
        self._closed = True
        self._runs = None
        self._backend.close()

    @property
    def policy(self) -> Policy:
        """What is in force for runs that start now."""
        return self._policy

    @property
    def late(self) -> int:
        """How many time caps were missed since the network was loaded."""
        return self._late

    @property
    def near_ties(self) -> int:
        """Decisions so near their threshold that another mode may round to the other side."""
        return self._near_ties

    def set(
        self,
        *,
        budget: Budget | str | None = None,
        thresholds: Mapping[NodeId, float | Bounds] | None = None,
        params: Mapping[NodeId, float | Array] | None = None,
    ) -> Policy:
        """Change what is in force, all at once, for runs that start after this.

        Args:
            budget: the new cap; ``Budget()`` lifts it, ``None`` keeps it.
            thresholds: by exit or control node; the others stay.
            params: by parameter; the others stay.

        Returns:
            The policy now in force.

        Raises:
            PolicyError, QuantityError, BudgetError: something is wrong; nothing was changed.
        """
        with self._lock:
            self._policy = changed_policy(
                self.graph, self._policy, budget=budget, thresholds=thresholds, params=params
            )
            return self._policy

    def cheapest(self, budget: Budget) -> Budget:
        """The least budget of the same kind that is not refused.

        Raises:
            BudgetError: the kind is not known for this network (no energy table, nothing capped).
        """
        limits = budget.limits()
        if not limits:
            raise BudgetError("nothing is capped, so nothing is refused")
        parts: dict[str, int] = {}
        for name in limits:
            plan = self._plan_for((name,))
            parts[name] = max(1, plan.completion((name,)).front(0, 0)[0][0])
        return Budget(
            macs=parts.get("macs"),
            joules=fj_to_j(parts["femtojoules"]) if "femtojoules" in parts else None,
            seconds=ns_to_s(parts["nanoseconds"]) if "nanoseconds" in parts else None,
            mac_equivalents=milli_to_mac_equivalents(parts["milli_mac_equivalents"])
            if "milli_mac_equivalents" in parts
            else None,
        )

    def run(
        self, inputs: Inputs, *, budget: Budget | str | None = None, trace: bool = False
    ) -> Result:
        """Answer one input.

        Args:
            inputs: the input's array, one sample without the batch axis; or arrays by input name
                (parameters may be among them).
            budget: hard cap for this input instead of the policy's.
            trace: whether to record every step, with times.

        Raises:
            InputError: wrong name, shape, dtype, or not finite.
            BudgetRefusedError: the budget is below the cheapest answer; nothing ran.
            BudgetError, QuantityError: the budget is none, or of a kind unknown for this network.
            BackendError: a node failed.
        """
        began = time.perf_counter_ns()
        if self._runs is not None:
            policy, task = self._ready_for(budget, began)
            return self._result(self._runs.run(task, inputs, record=trace), policy, began)
        policy = self._policy_for(budget)
        arrays = take_inputs(self.graph, policy, inputs, batched=False)
        walk = self._walk(policy, rows_of(arrays, 0), began, record=trace)
        end = drive(walk, self._backend, timed=trace)
        return self._result(outcome_of(walk, end), policy, began)

    def run_batch(
        self, inputs: Inputs, *, budget: Budget | str | None = None, trace: bool = False
    ) -> list[Result]:
        """Answer many inputs together; decisions, budget and exits are per sample.

        Samples that reach a node are gathered into one call. Under a time cap they run one by one.

        Args:
            inputs: as for :meth:`run`, with the batch axis first.
            budget: hard cap for each input instead of the policy's.
            trace: whether to record every step, without times.

        Returns:
            One result per sample, in order; nothing for an empty batch.

        Raises:
            As :meth:`run`.
        """
        began = time.perf_counter_ns()
        policy = self._policy_for(budget)
        arrays = take_inputs(self.graph, policy, inputs, batched=True)
        count = batch_of(arrays, policy)
        if policy.budget.seconds is not None:
            return [
                self.run(
                    {n: v[i if len(v) > 1 else 0] for n, v in arrays.items()},
                    budget=policy.budget,
                    trace=trace,
                )
                for i in range(count)
            ]
        if self._runs is not None and not trace and count > 0:
            outcomes = self._runs.run_batch(self._task(policy, began), arrays, count)
            return [self._result(outcome, policy, began) for outcome in outcomes]
        walks = [self._walk(policy, rows_of(arrays, i), began, record=trace) for i in range(count)]
        ends = drive_together(walks, self._backend)
        return [
            self._result(outcome_of(walk, end), policy, began)
            for walk, end in zip(walks, ends, strict=True)
        ]

    def stream(
        self,
        inputs: Iterable[Inputs],
        *,
        budget: BudgetSource | Budget | str | None = None,
        on_refusal: Callable[[BudgetError], None] | None = None,
    ) -> Iterator[Result]:
        """Answer inputs as they come, in order, each under what its budget source says then.

        Args:
            inputs: one sample each, as for :meth:`run`.
            budget: a source, or one cap for all.
            on_refusal: told of an input that the budget refused, which is then left out; without
                it the refusal is raised.

        Raises:
            As :meth:`run`.
        """
        source: BudgetSource
        if budget is None:
            source = _PolicyBudget(self)
        elif isinstance(budget, Budget | str):
            source = FixedBudget(as_budget(budget))
        else:
            source = budget
        for item in inputs:
            try:
                result = self.run(item, budget=source.next())
            except BudgetError as exc:
                if on_refusal is None:
                    raise
                on_refusal(exc)
                continue
            source.spent(result)
            yield result

    # --- one run

    def _policy_for(self, budget: Budget | str | None) -> Policy:
        if self._closed:
            raise BackendError("this network is closed")
        policy = self._policy
        if budget is None:
            return policy
        return Policy(budget=as_budget(budget), thresholds=policy.thresholds, params=policy.params)

    def _plan_for(self, resources: Sequence[str]) -> Plan:
        """The plan, or its twin with times from a short profile of this device."""
        if "nanoseconds" not in resources:
            return self._plan
        with self._lock:
            if self._timed_plan is None:
                timed = (
                    measured_graph(self.graph, self._backend)
                    if self._runs is None
                    else measured_parts(self.graph, self._runs.parts)
                )
                self._timed_plan = Plan(timed)
            return self._timed_plan

    def _task(self, policy: Policy, began: int) -> Task:
        """What a run goes by.

        Raises:
            BudgetRefusedError: no answer fits the budget.
        """
        limits = policy.budget.limits()
        if not limits:
            return Task(self._plan, policy, None, limits, _no_time)
        resources = tuple(limits)
        if "nanoseconds" in limits and self._timed_plan is None:
            self._plan_for(resources)  # a first profile is not this input's time
            began = time.perf_counter_ns()
        plan = self._plan_for(resources)
        completion = plan.completion(resources)
        if not completion.fits(0, 0, tuple(limits.values())):
            least = " or ".join(
                describe_cost(name, amount)
                for name, amount in zip(resources, completion.front(0, 0)[0], strict=True)
            )
            cheapest = self.cheapest(policy.budget)
            raise BudgetRefusedError(
                f"budget {policy.budget} is below the cheapest answer: {least}",
                cheapest=cheapest.flops
                or cheapest.joules
                or cheapest.mac_equivalents
                or cheapest.seconds,
            )
        return Task(plan, policy, completion, limits, lambda: time.perf_counter_ns() - began)

    def _ready_for(self, budget: Budget | str | None, began: int) -> tuple[Policy, Task]:
        """What a run under ``budget`` goes by; remembered unless it depends on the clock."""
        base = self._policy
        try:
            known = self._ready.get(budget)
        except TypeError:  # no budget, as policy_for will say
            known = None
        if known is not None and known[0] is base:
            return known[1], known[2]
        policy = self._policy_for(budget)
        task = self._task(policy, began)
        if policy.budget.seconds is None:
            if len(self._ready) >= _KEPT_BUDGETS:
                self._ready.clear()
            self._ready[budget] = (base, policy, task)
        return policy, task

    def _walk(self, policy: Policy, rows: Mapping[str, Row], began: int, *, record: bool) -> Walk:
        task = self._task(policy, began)
        return Walk(
            task.plan,
            policy,
            rows,
            constant=constant_row,
            completion=task.completion,
            purse=task.purse(),
            record=Record() if record else None,
        )

    def _result(self, outcome: Outcome, policy: Policy, began: int) -> Result:
        answer = joined_answer(self.graph, outcome)
        index, score = answer_of(answer)
        if index < 0:
            raise BackendError(f"exit {outcome.exit.name!r} answered NaN")
        labelled = len(self._labels) == answer.size
        elapsed_s = (time.perf_counter_ns() - began) / 1e9
        late = policy.budget.seconds is not None and elapsed_s > policy.budget.seconds
        if late:
            with self._lock:
                self._late += 1
        if outcome.near_ties:
            with self._lock:
                self._near_ties += outcome.near_ties
        return Result(
            answer=answer,
            index=index,
            label=self._labels[index] if labelled else None,
            score=score,
            exit=outcome.exit.name,
            accepted=outcome.accepted,
            forced=outcome.forced,
            macs=outcome.cost.macs,
            femtojoules=outcome.cost.femtojoules,
            milli_mac_equivalents=outcome.cost.milli_mac_equivalents,
            seconds=elapsed_s,
            late=late,
            near_ties=outcome.near_ties,
            path=outcome.path,
            skipped=outcome.skipped,
            budget=policy.budget,
            thresholds=policy.thresholds,
            trace=outcome.trace,
            energy_source=self._energy_source,
        )


def _no_time() -> int:
    return 0


class _PolicyBudget:
    """The budget of the network's policy at the time of each input."""

    def __init__(self, network: Network) -> None:
        self._network = network

    def next(self) -> Budget:
        return self._network.policy.budget

    def spent(self, result: Result) -> None:
        """Nothing to note."""
