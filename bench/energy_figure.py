"""``python -m bench.energy_figure OUT``: ResNet-74, block by block: energy against equal FLOPs."""

from __future__ import annotations

import argparse
from pathlib import Path

from bench.energy import DATAFLOWS, HARDWARE
from bench.energy_networks import resnet74
from dynrt.energy.counting import count_nodes
from dynrt.energy.hardware import load_hardware
from dynrt.energy.model import price
from dynrt.energy.tables import load_table
from dynrt.report.energy_plots import plot_block_energy
from dynrt.report.energy_records import EnergyRecord, NodeEnergy

TABLE = "eyeriss-normalised"


def record(hardware: str, dataflow: str, table: str = TABLE) -> EnergyRecord:
    """ResNet-74 on one hardware, priced."""
    layers = resnet74()
    counts = count_nodes(layers, load_hardware(hardware).with_(dataflow=dataflow))
    report = price(counts, load_table(table))
    return EnergyRecord(
        network="ResNet-74",
        hardware=hardware,
        dataflow=dataflow,
        table=table,
        policy=counts.policy,
        backend=counts.backend,
        unit=report.unit,
        nodes=tuple(
            NodeEnergy(
                name=name,
                macs=sum(layer.macs for layer in layers[name]),
                energy=report.in_unit(node.amount.value),
                low=report.in_unit(node.amount.low),
                high=report.in_unit(node.amount.high),
                levels={level: report.in_unit(a.value) for level, a in node.by_level.items()},
            )
            for name, node in report.nodes.items()
        ),
    )


def main(arguments: list[str] | None = None) -> int:
    """Count, price and draw."""
    parser = argparse.ArgumentParser(prog="python -m bench.energy_figure", description=__doc__)
    parser.add_argument("out", type=Path, help="svg, png or pdf; replaced if it is there")
    out: Path = parser.parse_args(arguments).out
    records = [record(hardware, dataflow) for hardware in HARDWARE for dataflow in DATAFLOWS]
    plot_block_energy(records, out, prefix="block", force=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
