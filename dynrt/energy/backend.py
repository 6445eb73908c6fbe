"""The two backends behind one interface: our closed forms, and the simulator itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, Protocol, get_args

from dynrt.energy import analytic
from dynrt.energy.array import SimCounts, SimLayer, SystolicArray
from dynrt.errors import EnergyError

BackendName = Literal["analytic", "scalesim"]
Job = tuple[SimLayer, SystolicArray]
Progress = Callable[[int, int], None]

#: Version of our closed forms; raised whenever they count anything otherwise.
ANALYTIC_VERSION = "analytic 1"


class Backend(Protocol):
    """Counts distinct layers.

    Attributes:
        version: its name and version, as results state them.
    """

    version: str

    def count(self, jobs: Sequence[Job]) -> Mapping[Job, SimCounts]:
        """Counts of every job.

        Raises:
            EnergyError: a layer that cannot be counted.
        """
        ...


class AnalyticBackend:
    """Closed forms, exact and instant."""

    version = ANALYTIC_VERSION

    def count(self, jobs: Sequence[Job]) -> Mapping[Job, SimCounts]:
        """See :class:`Backend`."""
        return {job: analytic.simulate(*job) for job in dict.fromkeys(jobs)}


class SimulatorBackend:
    """SCALE-Sim, in processes of its own, with a cache on disk.

    Args:
        workers: processes; all cores by default.
        progress: told (done, all) as layers come in.
    """

    def __init__(self, *, workers: int | None = None, progress: Progress | None = None) -> None:
        from dynrt.energy import simulator

        self._workers, self._progress = workers, progress
        self._simulator = simulator
        self.version = simulator.VERSION

    def count(self, jobs: Sequence[Job]) -> Mapping[Job, SimCounts]:
        """See :class:`Backend`."""
        distinct = list(dict.fromkeys(jobs))
        results = self._simulator.simulate_many(
            distinct, workers=self._workers, progress=self._progress
        )
        out: dict[Job, SimCounts] = {}
        for job, result in zip(distinct, results, strict=True):
            if isinstance(result, EnergyError):
                raise result
            out[job] = result
        return out


def backend_named(
    name: str, *, workers: int | None = None, progress: Progress | None = None
) -> Backend:
    """The backend of a name; ``scalesim`` needs the extra ``energy``.

    Raises:
        EnergyError: there is none of that name.
        MissingExtraError: the simulator is not installed.
    """
    if name == "analytic":
        return AnalyticBackend()
    if name == "scalesim":
        return SimulatorBackend(workers=workers, progress=progress)
    names = ", ".join(get_args(BackendName))
    raise EnergyError(f"backend {name[:64]!r} is not there; there are: {names}")
