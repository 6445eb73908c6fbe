"""Runs batches of labelled pictures through a network, in this process or spread over several.

A batch is run whole by one worker, with the pictures that it would have here, so that what comes
back is the same to the bit wherever it ran; results are put back in order.
"""

from __future__ import annotations

import contextlib
import io
import itertools
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from dynrt.bundle import DEFAULT_LIMITS, Bundle
from dynrt.bundle.archive import ArchiveMembers, encode_archive
from dynrt.bundle.build import encode_again
from dynrt.bundle.reader import read_members
from dynrt.calibrate.pictures import prepare
from dynrt.errors import CalibrationError
from dynrt.ir.cost import Budget
from dynrt.ir.graph import Array, NodeId
from dynrt.workers import Failure, Spread, Work, spread_over

if TYPE_CHECKING:
    from dynrt.calibrate.datasets import Dataset, Labels, Pictures
    from dynrt.runtime import Network
    from dynrt.runtime.network import Mode

Asked = TypeVar("Asked")
Found = TypeVar("Found")
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Batch(Generic[Asked]):
    """Some pictures and what is asked of them.

    Attributes:
        number: of the task, in order.
        part: of the pictures: batches with one number hold the same ones.
        pictures, labels: as in a data set.
        asked: anything, such as a budget.
    """

    number: int
    part: int
    pictures: Pictures
    labels: Labels
    asked: Asked


@dataclass(slots=True, kw_only=True)
class Station:
    """What works on batches: a network, and the pictures that it had last.

    Attributes:
        network: loaded.
    """

    network: Network
    _part: int = -1
    _inputs: Array | None = field(default=None)

    def inputs(self, batch: Batch[Any]) -> Array:
        """The batch as the network takes it; prepared once for all that is asked of it in turn.

        Raises:
            CalibrationError: the network takes no pictures.
        """
        if self._inputs is None or self._part != batch.part:
            rule = bundle_of(self.network).preprocessing
            if rule is None:
                raise CalibrationError("this network takes no pictures")
            self._inputs, self._part = prepare(batch.pictures, rule), batch.part
        return self._inputs


@dataclass(frozen=True, slots=True, kw_only=True)
class Parcel:
    """A network in a form that crosses processes.

    Attributes:
        archive: the bundle's file.
        sha256: of the bundle that it was made of, under which its compiled form is kept.
        mode: how it runs.
        thresholds, params: in force.
    """

    archive: bytes
    sha256: str
    mode: Mode
    thresholds: Mapping[NodeId, tuple[float, ...]]
    params: Mapping[NodeId, Array]


def bundle_of(network: Network) -> Bundle:
    """The bundle of a network that takes pictures.

    Raises:
        CalibrationError: it has none, or takes no pictures.
    """
    bundle = network.bundle
    if bundle is None or bundle.preprocessing is None:
        raise CalibrationError("this network takes no pictures (its bundle has no preprocessing)")
    return bundle


def require_classes(bundle: Bundle, dataset: Dataset) -> None:
    """Check that a network knows the classes of the data.

    Raises:
        CalibrationError: it knows fewer.
    """
    if bundle.labels and len(bundle.labels) < len(dataset.names):
        raise CalibrationError(
            f"{bundle.name} knows {len(bundle.labels)} classes; {dataset.source} has "
            f"{len(dataset.names)}"
        )


def require_no_clock(budgets: Sequence[Budget], spread: Spread) -> None:
    """Check that no budget is a time: workers that share a machine slow one another.

    Raises:
        CalibrationError: one is, and work is to be spread.
    """
    if not spread.here and any(b.seconds is not None for b in budgets):
        raise CalibrationError(
            "a budget of seconds is kept by the clock of one process: leave out workers and ray"
        )


def each_batch(
    network: Network,
    call: Callable[[Station, Batch[Asked]], Found],
    dataset: Dataset,
    asked: Sequence[Asked],
    *,
    batch: int,
    spread: Spread,
    progress: Progress | None = None,
) -> Iterator[tuple[Batch[Asked], Found]]:
    """Every batch of the data with everything that is asked, in order.

    Args:
        network: loaded; its thresholds and parameters in force go along, its budget does not.
        call: does the work; importable by name, its result too.
        dataset: labelled pictures.
        asked: of each batch in turn.
        batch: pictures at a time.
        spread: where.
        progress: told how many pictures are done, of how many, counted once for each thing asked.

    Raises:
        CalibrationError: a worker died, the cluster is out of reach, or the network cannot travel.
        DynrtError: of a batch, as it would be here.
        MissingExtraError: ray is not installed.
    """
    tasks = batches_of(dataset, asked, batch)
    total = len(dataset) * len(asked)
    running: Generator[tuple[Batch[Asked], Found | Failure], None, None]
    if spread.here:
        station = Station(network=network)
        running = ((task, call(station, task)) for task in tasks)
    else:
        work: Work[Parcel, Station, Batch[Asked], Found | Failure] = Work(
            shared=parcel_of(network), make=_unpacked, call=call
        )
        running = spread_over(work, tasks, spread, error=CalibrationError, what="the evaluation")
    yield from in_order(running, total, progress)


def in_order(
    running: Generator[tuple[Batch[Asked], Found | Failure], None, None],
    total: int,
    progress: Progress | None,
) -> Iterator[tuple[Batch[Asked], Found]]:
    """What is found, by the numbers of the batches; failures are raised.

    Raises:
        DynrtError: of a batch.
    """
    waiting: dict[int, tuple[Batch[Asked], Found]] = {}
    due = itertools.count()
    here, done = next(due), 0
    with contextlib.closing(running):
        for task, found in running:
            if isinstance(found, Failure):
                raise found.error(CalibrationError)
            done += len(task.labels)
            if progress is not None:
                progress(done, total)
            waiting[task.number] = (task, found)
            while here in waiting:
                yield waiting.pop(here)
                here = next(due)


def batches_of(dataset: Dataset, asked: Sequence[Asked], batch: int) -> Iterator[Batch[Asked]]:
    """Every part of the data with each thing asked of it, parts first."""
    numbers = itertools.count()
    for part, (pictures, labels) in enumerate(dataset.batches(batch)):
        for item in asked:
            yield Batch(
                number=next(numbers), part=part, pictures=pictures, labels=labels, asked=item
            )


def parcel_of(network: Network) -> Parcel:
    """A network as workers take it.

    Raises:
        CalibrationError: its bundle holds no models.
    """
    bundle, policy = bundle_of(network), network.policy
    return Parcel(
        archive=packed(bundle),
        sha256=bundle.sha256,
        mode=network.mode,
        thresholds=dict(policy.thresholds),
        params={name: value[0] for name, value in policy.params.items()},
    )


def packed(bundle: Bundle) -> bytes:
    """A bundle as the bytes of its file.

    Raises:
        CalibrationError: it holds no models: its nodes are functions of this process.
    """
    if not bundle.models:
        raise CalibrationError(f"{bundle.name} holds no models: it runs in this process only")
    _, members = encode_again(bundle, limits=DEFAULT_LIMITS)
    return b"".join(encode_archive(members))


def unpacked(archive: bytes, sha256: str) -> Bundle:
    """The bundle of :func:`packed`, under the hash of the one that it was made of.

    A bundle that was given other prices has the same models, and its hash finds their compiled
    form; what is read here was checked by the one who packed it, and is checked again.
    """
    members = ArchiveMembers(io.BytesIO(archive), len(archive), limits=DEFAULT_LIMITS)
    return replace(read_members(members, place="a worker's bundle"), sha256=sha256)


def _unpacked(parcel: Parcel) -> Station:
    from dynrt.runtime import load

    network = load(unpacked(parcel.archive, parcel.sha256), mode=parcel.mode)
    network.set(thresholds=parcel.thresholds, params=parcel.params)
    return Station(network=network)
