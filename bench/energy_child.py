"""Counts one network in a process of its own: ``python -m bench.energy_child NETWORK HARDWARE DATAFLOW``.

One line of JSON: seconds from before dynrt is imported (numpy is there already) until every layer is
counted, the distinct layers once and with nothing in a cache; the most memory that was ever
resident; the cycles, so that nobody skips the work.
"""

from __future__ import annotations

import json
import sys
import time

import numpy as np

from bench.child import resident_mb


def counted(network: str, hardware: str, dataflow: str) -> dict[str, float]:
    """Time and memory of counting a network of ``NETWORKS`` once."""
    began = time.perf_counter()
    from bench.energy_networks import NETWORKS
    from dynrt.energy.counting import count_nodes
    from dynrt.energy.hardware import load_hardware

    table = count_nodes(NETWORKS[network](), load_hardware(hardware).with_(dataflow=dataflow))
    seconds = time.perf_counter() - began
    cycles = sum(item.counts.cycles for node in table.nodes.values() for item in node.typed)
    return {"seconds": seconds, "cycles": cycles, "peak_mb": resident_mb()["peak"]}


if __name__ == "__main__":
    np.zeros(1)  # numpy's own start is not part of the time
    print(json.dumps(counted(*sys.argv[1:])))
