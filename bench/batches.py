"""Batches whose samples are decided one by one, against the dense static batch."""

from __future__ import annotations

import numpy as np

from bench.files import bundle_of, path_of
from bench.forced import gated, loaded
from bench.row import Measurement, Request, Row, derived_row, require
from bench.static import caller, session_of, static_macs, static_model
from bench.timing import Alternative, interleaved
from dynrt.ir.graph import Array, NodeId
from dynrt.runtime import Network

BATCH = 32
_SEED = 32


def varied(count: int) -> Array:
    """Noise pictures ``(count, 3, 32, 32)`` of different brightness, contrast and grain."""
    rng = np.random.default_rng(_SEED)
    grain = np.repeat(np.repeat(rng.standard_normal((count, 3, 8, 8)), 4, 2), 4, 3)
    fine = rng.standard_normal((count, 3, 32, 32))
    contrast = rng.uniform(0.2, 3.0, (count, 3, 1, 1))
    mixed = rng.uniform(0, 1, (count, 1, 1, 1))
    brightness = rng.normal(0.0, 1.5, (count, 3, 1, 1))
    return (brightness + contrast * (mixed * grain + (1 - mixed) * fine)).astype(np.float32)


def halving_threshold(scores: Array) -> float:
    """A threshold in the widest gap near the middle of ``scores``, so that no score is near it."""
    ordered = np.sort(scores.astype(np.float64))
    middle, slack = len(ordered) // 2, len(ordered) // 8
    low = max(1, middle - slack)
    gaps = ordered[low : middle + slack + 1] - ordered[low - 1 : middle + slack]
    at = low + int(gaps.argmax())
    return float((ordered[at - 1] + ordered[at]) / 2)


def halve(network: Network, inputs: Array) -> dict[NodeId, float]:
    """Thresholds, gate after gate, under which each gated block is kept for half of ``inputs``."""
    bounds: dict[NodeId, float] = {}
    for block in gated(network.graph):
        gate = f"{block}_gate_control"
        traces = [r.trace for r in network.run_batch(inputs, trace=True)]
        scores = [s.scores[0] for t in traces if t for s in t.steps if s.node == gate]
        bounds[gate] = halving_threshold(np.asarray(scores))
        network.set(thresholds=bounds)
    return bounds


def _rows(request: Request) -> list[Row]:
    name = "resnet74-lstm"
    bundle, x = bundle_of(name), varied(BATCH)
    network = loaded(path_of(name))
    halve(network, x)
    results = network.run_batch(x)
    kept = [len(gated(network.graph)) - len(r.skipped) for r in results]
    share = sum(r.macs for r in results) / (BATCH * static_macs(bundle))
    require(0.4 < share < 0.65, f"{share:.2f} of the MACs are kept, not about half")
    times = interleaved(
        {
            "ours": Alternative(call=lambda: network.run_batch(x)),
            "dense": Alternative(call=caller(session_of(static_model(bundle, batch=BATCH)), x)),
        },
        request.rounds,
    )
    network.close()
    note = (
        f"time over MAC share times the dense batch; MACs {share:.3f}, "
        f"{len({r.path for r in results})} paths in {BATCH} samples, {min(kept)}-{max(kept)} kept"
    )
    return [
        derived_row(
            "batch32_half",
            lambda ours, dense: ours / (share * dense),
            times["ours"],
            times["dense"],
            note=note,
        )
    ]


MEASUREMENTS = (Measurement(names=("batch32_half",), rows=_rows),)
