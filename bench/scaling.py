"""What a decision costs in a graph of 2,000 nodes, against one of 100."""

from __future__ import annotations

import numpy as np

from bench.files import path_of
from bench.forced import forced_run, gated, loaded, noise
from bench.row import Measurement, Request, Row, derived_row
from bench.timing import interleaved

#: Nodes of the chains; the smallest has one decision, and shows what a run costs anyway.
SIZES = (3, 100, 2000)


def _rows(request: Request) -> list[Row]:
    networks = {size: loaded(path_of(f"chain{size}")) for size in SIZES}
    x = noise(8)
    alternatives, decisions = {}, {}
    for size, network in networks.items():
        blocks = gated(network.graph)
        decisions[size] = len(blocks)
        alternatives[str(size)], _ = forced_run(network, x, blocks[::2])
    times = interleaved(alternatives, request.rounds)
    for network in networks.values():
        network.close()
    base, small, large = (times[str(size)] for size in SIZES)
    more = [decisions[size] - decisions[SIZES[0]] for size in SIZES[1:]]
    costs = [
        1e6 * float(np.median(t) - np.median(base)) / n
        for t, n in zip((small, large), more, strict=True)
    ]
    return [
        derived_row(
            "nodes_2000_over_100",
            lambda t0, t1, t2: (t2 - t0) / more[1] / ((t1 - t0) / more[0]),
            base,
            small,
            large,
            note=(
                f"time per decision ({costs[1]:.2f} over {costs[0]:.2f} us), less that of a run "
                "with one decision; every second block skipped"
            ),
        )
    ]


MEASUREMENTS = (Measurement(names=("nodes_2000_over_100",), rows=_rows),)
