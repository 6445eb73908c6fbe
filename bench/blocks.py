"""Skipped blocks: ResNet-74 with LSTM gates, decisions forced, against one static graph."""

from __future__ import annotations

import numpy as np

from bench.files import bundle_of, path_of
from bench.forced import forced_bundle, forced_run, gated, half_patterns, loaded, noise
from bench.row import Measurement, Request, Row, derived_row, ratio_row, require
from bench.static import caller, session_of, static_macs, static_model
from bench.timing import Alternative, Seconds, interleaved
from dynrt.exporters.fused import fuse

NETWORK = "resnet74-lstm"
#: Largest difference of answers of two ways to run the same.
_TOLERANCE = 1e-3


def saving(half: float, static: float, *, share: float) -> float:
    """Time saved over multiplications saved."""
    return (1 - half / static) / (1 - share)


def _rows(request: Request) -> list[Row]:
    bundle = bundle_of(NETWORK)
    x = noise(3, 32, 32)
    network = loaded(path_of(NETWORK))
    macs = static_macs(bundle)
    session = session_of(static_model(bundle))
    blocks, patterns = gated(bundle.graph), half_patterns(bundle.graph)
    keep, kept = forced_run(network, x, ())
    skip, skipped = forced_run(network, x, blocks)
    alternatives = {
        "static": Alternative(call=caller(session, x[None])),
        "keep": keep,
        "skip": skip,
    }
    answer = caller(session, x[None])()[0][0]
    gap = float(np.abs(answer - kept.answer).max())
    require(gap <= _TOLERANCE, f"answers differ by {gap:.2g} from the static graph")
    halves = []
    for i, pattern in enumerate(patterns):
        alternatives[f"half{i}"], result = forced_run(network, x, pattern)
        halves.append(result.macs / macs)
        fused = session_of(fuse(forced_bundle(bundle, pattern)))
        alternatives[f"if{i}"] = Alternative(call=caller(fused, x[None]))
        other = alternatives[f"if{i}"].call()[0][0]
        gap = float(np.abs(other - result.answer).max())
        require(gap <= _TOLERANCE, f"answers differ by {gap:.2g} from the If graph")
    times = interleaved(alternatives, request.rounds)
    network.close()
    half = mean_of(times, "half")
    share = float(np.mean(halves))
    static_ms = 1e3 * float(np.median(times["static"]))
    of = f"{len(blocks)} LSTM gates; unsplit graph {static_ms:.3g} ms"
    return [
        derived_row(
            "half_skip_saving",
            lambda a, b: saving(a, b, share=share),
            half,
            times["static"],
            note=f"time saved / MACs saved; MACs {share:.3f}, {of}; {len(patterns)} patterns",
        ),
        ratio_row(
            "half_skip", half, times["static"], f"time against the unsplit; MACs {share:.3f}"
        ),
        ratio_row("all_keep", times["keep"], times["static"], f"MACs {kept.macs / macs:.3f}, {of}"),
        ratio_row(
            "all_skip_33", times["skip"], times["static"], f"MACs {skipped.macs / macs:.3f}, {of}"
        ),
        ratio_row("if_graph", mean_of(times, "if"), half, "ONNX If in one graph, over ours"),
    ]


def _all_skip(request: Request) -> list[Row]:
    """Everything skipped, with the first block gated too: the MACs that the bar was set at."""
    name = "resnet74-lstm34"
    bundle, x = bundle_of(name), noise(3, 32, 32)
    network = loaded(path_of(name))
    blocks, macs = gated(bundle.graph), static_macs(bundle)
    skip, skipped = forced_run(network, x, blocks)
    static = Alternative(call=caller(session_of(static_model(bundle)), x[None]))
    times = interleaved({"static": static, "skip": skip}, request.rounds)
    network.close()
    note = f"MACs {skipped.macs / macs:.3f}: {len(blocks)} gates, the first block has one too"
    return [ratio_row("all_skip", times["skip"], times["static"], note)]


def mean_of(times: dict[str, Seconds], stem: str) -> Seconds:
    """Mean over the patterns ``stem0``, ``stem1``, ... in each round."""
    return np.asarray(
        np.mean([s for name, s in times.items() if name.rstrip("0123456789") == stem], axis=0)
    )


MEASUREMENTS = (
    Measurement(
        names=("half_skip_saving", "half_skip", "all_keep", "all_skip_33", "if_graph"), rows=_rows
    ),
    Measurement(names=("all_skip",), rows=_all_skip),
)
