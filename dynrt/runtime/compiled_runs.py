"""Runs of a compiled network: who has which machine, and how a batch is run."""

from __future__ import annotations

import time
from collections.abc import Mapping

from dynrt.errors import BackendError, DynrtError, first_line
from dynrt.ir.graph import Array, Graph
from dynrt.runtime.answer import Outcome
from dynrt.runtime.inputs import Inputs, take_inputs
from dynrt.runtime.machine import Choice, Group, Machine, Parts, Task, run_recorded

#: Samples of a batch that run together at most.
GROUP_ROWS = 64


class CompiledRuns:
    """Hands machines to whoever runs; safe from several threads.

    Args:
        graph: of the network.
        parts: of the same.
    """

    def __init__(self, graph: Graph, parts: Parts) -> None:
        self.parts = parts
        self._graph = graph
        self._idle: list[Machine] = []  # one for each thread that was at work at once
        self._idle_groups: list[Group] = []
        self._choice = Choice(("one", "together"))

    def idle_machines(self) -> tuple[Machine, ...]:
        """Machines that nobody uses now."""
        return tuple(self._idle)

    def run(self, task: Task, inputs: Inputs, *, record: bool = False) -> Outcome:
        """Answer one input; see :meth:`dynrt.runtime.Network.run`.

        Raises:
            InputError: wrong name, shape, dtype, or not finite.
            BackendError: a segment failed.
        """
        try:
            machine = self._idle.pop()
        except IndexError:
            machine = Machine(self.parts)
        try:
            if not machine.put(inputs, task.policy.params):
                arrays = take_inputs(self._graph, task.policy, inputs, batched=False)
                machine.put_arrays(arrays)
            return run_recorded(machine, task) if record else machine.run(task)
        except DynrtError:
            raise
        except Exception as exc:  # onnxruntime's errors share no public root
            raise _failed(exc) from exc
        finally:
            self._idle.append(machine)

    def run_batch(self, task: Task, arrays: Mapping[str, Array], count: int) -> list[Outcome]:
        """Answer checked inputs, together or one at a time, whichever was quicker before.

        Args:
            task: in force for all; time is not capped.
            arrays: ``(count, ...)`` of every input, or one row for all.
            count: of samples.

        Raises:
            BackendError: a segment failed.
        """
        way = self._choice.pick(count)
        start = time.perf_counter()
        run = self._run_one_by_one if way == "one" else self._run_together
        out = run(task, arrays, count)
        self._choice.took(count, way, time.perf_counter() - start)
        return out

    def _run_one_by_one(self, task: Task, arrays: Mapping[str, Array], count: int) -> list[Outcome]:
        try:
            machine = self._idle.pop()
        except IndexError:
            machine = Machine(self.parts)
        out: list[Outcome] = []
        try:
            for i in range(count):
                machine.put_arrays(arrays, at=i)
                out.append(machine.run(task))
        except DynrtError:
            raise
        except Exception as exc:  # onnxruntime's errors share no public root
            raise _failed(exc) from exc
        finally:
            self._idle.append(machine)
        return out

    def _run_together(self, task: Task, arrays: Mapping[str, Array], count: int) -> list[Outcome]:
        try:
            group = self._idle_groups.pop()
        except IndexError:
            group = Group(Machine(self.parts, rows=GROUP_ROWS))
        out: list[Outcome] = []
        try:
            for first in range(0, count, GROUP_ROWS):
                rows = min(GROUP_ROWS, count - first)
                for row in range(rows):
                    group.machine.put_arrays(arrays, row, first + row)
                out += group.run(task, rows)
        except DynrtError:
            raise
        except Exception as exc:  # onnxruntime's errors share no public root
            raise _failed(exc) from exc
        finally:
            self._idle_groups.append(group)
        return out


def _failed(exc: Exception) -> BackendError:
    return BackendError(f"a compiled segment failed: {first_line(exc)}")
