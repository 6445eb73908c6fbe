"""A data set as a stream: one picture after the other, under what a budget source says then."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from dynrt.calibrate.evaluate import Evaluation, Tally
from dynrt.calibrate.parallel import bundle_of, require_classes
from dynrt.calibrate.pictures import prepare
from dynrt.errors import CalibrationError
from dynrt.units import FLOPS_PER_MAC

if TYPE_CHECKING:
    from dynrt.calibrate.datasets import Dataset
    from dynrt.runtime import BudgetSource, Network


def evaluate_stream(
    network: Network,
    dataset: Dataset,
    source: BudgetSource,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Run the pictures in their order; each answer changes what the next may spend.

    A stream cannot be spread over processes.

    Args:
        network: loaded from a bundle with preprocessing.
        dataset: labelled pictures.
        source: says what each may spend, such as ``AveragePolicy.source``.
        progress: told how many are done, of how many.

    Returns:
        An evaluation without points: its figures are the stream's.

    Raises:
        CalibrationError: the network takes no pictures, or has too few classes.
        BudgetError: the source has nothing left for an answer.
        BackendError: a node failed.
    """
    bundle = bundle_of(network)
    require_classes(bundle, dataset)
    rule = bundle.preprocessing
    if rule is None:
        raise CalibrationError(f"{bundle.name} takes no pictures (its bundle has no preprocessing)")
    tally = Tally(exits=dict.fromkeys(network.graph.exits, 0))
    pictures = (prepare(dataset.pictures[i : i + 1], rule)[0] for i in range(len(dataset.labels)))
    began = time.perf_counter()
    results = network.stream(pictures, budget=source)
    for done, (result, label) in enumerate(zip(results, dataset.labels.tolist(), strict=True), 1):
        tally.add(result, label)
        if progress is not None:
            progress(done, len(dataset.labels))
    tally.seconds = time.perf_counter() - began
    return Evaluation(
        bundle=bundle.name,
        bundle_sha256=bundle.sha256,
        full_flops=FLOPS_PER_MAC * bundle.certificate.full_macs,
        data=dataset.source,
        energy_source=None if bundle.energy is None else str(bundle.energy),
        uncapped=tally.point(),
        points=(),
    )
