"""A loaded network: the object that an application holds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import Literal, Self

import numpy as np

from dynrt.bundle import Bundle, read_bundle, resolve
from dynrt.errors import BackendError, BudgetError, BudgetRefusedError
from dynrt.ir.cost import Budget, describe_cost
from dynrt.ir.graph import Array, Graph, NodeId
from dynrt.ir.rules import softmax
from dynrt.ir.trace import Trace
from dynrt.runtime.answer import joined_answer
from dynrt.runtime.backends import Backend, CheckedBackend
from dynrt.runtime.executor import drive, drive_together, rows_of
from dynrt.runtime.inputs import batch_of, take_inputs
from dynrt.runtime.plan import Plan
from dynrt.runtime.policy import Bounds, Policy, as_budget, changed_policy, default_policy
from dynrt.runtime.profile import measured_graph
from dynrt.runtime.result import Result
from dynrt.runtime.sources import BudgetSource, FixedBudget
from dynrt.runtime.walk import Outcome, Row, Walk
from dynrt.units import fj_to_j, ns_to_s

Inputs = Array | Mapping[str, Array]


def load(
    bundle: str | Path | Bundle,
    *,
    backend: Backend | None = None,
    threads: int = 1,
    mode: Literal["portable"] = "portable",
) -> Network:
    """Load a bundle, ready to run.

    Args:
        bundle: a ``.dynrt`` file, a folder, the name of a packaged bundle, or a bundle already read.
        backend: who runs the nodes; onnxruntime on the CPU by default.
        threads: threads that one call may use; more than one makes all networks of the process
            share one pool of that size.
        mode: ``portable`` runs the bundle's nodes one by one as they are.

    Raises:
        BundleError, GraphError: the bundle cannot be trusted or read.
        BackendError: a model is refused, or the mode or thread count cannot be had.
    """
    if mode != "portable":
        raise BackendError(f"mode {mode!r} is not there; this version has: portable")
    read = bundle if isinstance(bundle, Bundle) else read_bundle(resolve(bundle))
    if backend is None:
        from dynrt.runtime.ort import OrtBackend  # onnxruntime is loaded when it is needed

        backend = OrtBackend(read.models, threads=threads)
    return Network(read.graph, backend, bundle=read)


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
        self._policy = default_policy(graph)
        self._lock = Lock()
        self._timed_plan: Plan | None = None
        self._late = 0
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of all sessions."""
        self._closed = True
        self._backend.close()

    @property
    def policy(self) -> Policy:
        """What is in force for runs that start now."""
        return self._policy

    @property
    def late(self) -> int:
        """How many time caps were missed since the network was loaded."""
        return self._late

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
        policy = self._policy_for(budget)
        arrays = take_inputs(self.graph, policy, inputs, batched=False)
        walk = self._walk(policy, rows_of(arrays, 0), began, record=trace)
        outcome = drive(walk.steps(), self._backend, timed=trace)
        return self._result(outcome, policy, began)

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
        walks = [self._walk(policy, rows_of(arrays, i), began, record=trace) for i in range(count)]
        outcomes = drive_together([w.steps() for w in walks], self._backend)
        return [self._result(outcome, policy, began) for outcome in outcomes]

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
                self._timed_plan = Plan(measured_graph(self.graph, self._backend))
            return self._timed_plan

    def _walk(self, policy: Policy, rows: Mapping[str, Row], began: int, *, record: bool) -> Walk:
        limits = policy.budget.limits()
        resources = tuple(limits)
        if "nanoseconds" in limits and self._timed_plan is None:
            self._plan_for(resources)  # a first profile is not this input's time
            began = time.perf_counter_ns()
        plan = self._plan_for(resources)
        completion = plan.completion(resources) if resources else None
        if completion is not None and not completion.fits(0, 0, tuple(limits.values())):
            least = " or ".join(
                describe_cost(name, amount)
                for name, amount in zip(resources, completion.front(0, 0)[0], strict=True)
            )
            cheapest = self.cheapest(policy.budget)
            raise BudgetRefusedError(
                f"budget {policy.budget} is below the cheapest answer: {least}",
                cheapest=cheapest.flops or cheapest.joules or cheapest.seconds,
            )
        return Walk(
            plan,
            policy,
            rows,
            completion=completion,
            elapsed_ns=lambda: time.perf_counter_ns() - began,
            record=record,
        )

    def _result(self, outcome: Outcome, policy: Policy, began: int) -> Result:
        answer = joined_answer(self.graph, outcome)
        flat = answer.reshape(-1)
        if np.isnan(flat).any():
            raise BackendError(f"exit {outcome.exit.name!r} answered NaN")
        index = int(flat.argmax())
        labelled = len(self._labels) == flat.size
        elapsed_s = (time.perf_counter_ns() - began) / 1e9
        late = policy.budget.seconds is not None and elapsed_s > policy.budget.seconds
        if late:
            with self._lock:
                self._late += 1
        ran = set(outcome.path)
        return Result(
            answer=answer,
            index=index,
            label=self._labels[index] if labelled else None,
            score=float(softmax(flat)[index]),
            exit=outcome.exit.name,
            accepted=outcome.accepted,
            forced=outcome.forced,
            macs=outcome.cost.macs,
            femtojoules=outcome.cost.femtojoules,
            seconds=elapsed_s,
            late=late,
            path=outcome.path,
            skipped=tuple(n for n in self._plan.compute_names if n not in ran),
            budget=policy.budget,
            thresholds=policy.thresholds,
            trace=Trace(steps=outcome.steps) if outcome.steps is not None else None,
        )


class _PolicyBudget:
    """The budget of the network's policy at the time of each input."""

    def __init__(self, network: Network) -> None:
        self._network = network

    def next(self) -> Budget:
        return self._network.policy.budget

    def spent(self, result: Result) -> None:
        """Nothing to note."""
