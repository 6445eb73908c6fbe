"""Modelled energy of a gated network's parts, before it is trained: counted on its own bundle."""

from __future__ import annotations

from copy import deepcopy

from dynrt.bundle import Preprocessing
from dynrt.energy.costing import count_bundle
from dynrt.energy.hardware import load_hardware
from dynrt.energy.model import NodeReport, price
from dynrt.energy.tables import load_table
from dynrt.train.package_gated import gated_bundle
from dynrt.zoo import GatedNetwork
from dynrt.zoo.gate_costs import GatedCosts, UnitCost


def energy_costs(
    net: GatedNetwork, *, hardware: str, table: str, height: int, width: int
) -> GatedCosts:
    """Energy of each unit and gate, by the model that ``dynrt energy`` uses.

    The network is lowered to a bundle as it will be when it is trained; energies do not depend on
    its weights.

    Args:
        net: is not changed.
        hardware: name or file of an accelerator.
        table: name or file of what its accesses take.
        height: of the pictures.
        width: of the pictures.

    Raises:
        EnergyError: no such hardware or table, or a part that cannot be counted.
    """
    labels = tuple(f"class{i}" for i in range(net.chain.classes))
    pictures = Preprocessing(
        height=height, width=width, channels=3, mean=(0.0,) * 3, std=(1.0,) * 3
    )
    bundle = gated_bundle(
        deepcopy(net), name="energy", labels=labels, preprocessing=pictures, precision="float32"
    )
    report = price(count_bundle(bundle, load_hardware(hardware)), load_table(table))

    def of(node: NodeReport) -> float:
        return report.in_unit(node.amount.value)

    left = dict(report.nodes)
    units = {}
    for name in net.unit_names:
        node = left.pop(name)
        gate, mask = left.pop(f"{name}_gate", None), left.pop(f"{name}_mask", None)
        kept = tuple(report.in_unit(amount.value) for amount in node.kept)
        units[name] = UnitCost(
            kept=kept or (of(node),),
            layer_gate=0.0 if gate is None else of(gate),
            channel_gate=0.0 if mask is None else of(mask),
            gated=name in net.gated,
        )
    heads = {name: of(left.pop(name)) for name in net.exit_names[:-1]}
    ends = sum(of(node) for node in left.values())
    return GatedCosts(unit=report.unit, units=units, ends=ends, heads=heads)
