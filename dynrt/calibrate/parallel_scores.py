"""Collects scores in this process, in several, or on a Ray cluster; the table is the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from dynrt.calibrate.datasets import Dataset
from dynrt.calibrate.parallel import Batch, Progress, batches_of, in_order, packed, unpacked
from dynrt.calibrate.scores import Call, Resource, ScoreTable, collect
from dynrt.errors import CalibrationError
from dynrt.workers import HERE, Spread, Work, spread_over

if TYPE_CHECKING:
    from dynrt.bundle import Bundle

#: Arrays with one row per input, and those that have one only where costs differ by input.
_PER_INPUT = ("scores", "predicted", "labels")
_SOMETIMES = ("step_macs", "step_ahead")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Order:
    """What a worker needs: the bundle, and what all parts of the data have in common."""

    archive: bytes
    sha256: str
    names: tuple[str, ...]
    source: str
    resource: Resource


@dataclass(frozen=True, slots=True, kw_only=True)
class _Desk:
    """A worker: one session per node, and the order that it works on."""

    bundle: Bundle
    call: Call
    order: _Order


def collect_scores(
    bundle: Bundle,
    dataset: Dataset,
    *,
    batch: int = 250,
    resource: Resource = "macs",
    spread: Spread = HERE,
    progress: Progress | None = None,
) -> ScoreTable:
    """:func:`~dynrt.calibrate.scores.collect` with onnxruntime, wherever ``spread`` says.

    Args:
        bundle: a chain with exits.
        dataset: labelled pictures.
        batch: pictures at a time.
        resource: what costs are counted in.
        spread: where; one thread per worker.
        progress: told how far it is.

    Raises:
        CalibrationError: the network is not such a chain, or has other classes than the data; a
            worker died, or the cluster is out of reach.
        BackendError: a node failed or gave NaN.
        MissingExtraError: ray is not installed.
    """
    if spread.here:
        return collect(
            bundle, dataset, _call_of(bundle), batch=batch, resource=resource, progress=progress
        )
    order = _Order(
        archive=packed(bundle),
        sha256=bundle.sha256,
        names=dataset.names,
        source=dataset.source,
        resource=resource,
    )
    running = spread_over(
        Work(shared=order, make=_seated, call=_collected),
        batches_of(dataset, (None,), batch),
        spread,
        error=CalibrationError,
        what="the calibration",
    )
    return join_tables([table for _, table in in_order(running, len(dataset), progress)])


def join_tables(tables: Sequence[ScoreTable]) -> ScoreTable:
    """One table of the inputs of several, in order.

    Raises:
        CalibrationError: there are none, or they are not of one network.
    """
    if not tables:
        raise CalibrationError("no score tables to join")
    first = tables[0]
    for other in tables:
        alike = ("exits", "kinds", "bundle_sha256", "costs_differ")
        if any(getattr(first, name) != getattr(other, name) for name in alike):
            raise CalibrationError(
                f"score tables of {first.bundle or 'a network'} and {other.bundle or 'another'} "
                "cannot be joined"
            )
    per_input = (*_PER_INPUT, *(_SOMETIMES if first.costs_differ else ()))
    joined: dict[str, Any] = {
        name: np.concatenate([getattr(table, name) for table in tables]) for name in per_input
    }
    return replace(first, **joined)


def _call_of(bundle: Bundle) -> Call:
    from dynrt.runtime.ort import OrtBackend

    return OrtBackend(bundle.models).call


def _seated(order: _Order) -> _Desk:
    bundle = unpacked(order.archive, order.sha256)
    return _Desk(bundle=bundle, call=_call_of(bundle), order=order)


def _collected(desk: _Desk, batch: Batch[Any]) -> ScoreTable:
    part = Dataset(
        pictures=batch.pictures,
        labels=batch.labels,
        names=desk.order.names,
        source=desk.order.source,
    )
    return collect(desk.bundle, part, desk.call, batch=len(part), resource=desk.order.resource)
