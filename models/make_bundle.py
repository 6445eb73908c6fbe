"""Makes a packaged bundle from the weights in this folder.

Lowers the network, proves parity on real pictures, calibrates the thresholds on the validation
pictures, measures every exit on the test pictures for the model card, and writes
``dynrt/bundle/packaged/NAME.dynrt``. Run it from the repository's root::

    python models/make_bundle.py resnet38-ddi cifar10:DIR
    python models/make_bundle.py resnet74-ddi cifar10:DIR
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load_file

from dynrt.bundle import read_bundle, replace_parts, write_bundle
from dynrt.calibrate.datasets import load_dataset
from dynrt.calibrate.pictures import prepare
from dynrt.calibrate.policy_file import policy_json, with_thresholds
from dynrt.calibrate.risk import for_risk
from dynrt.calibrate.scores import ScoreTable, collect
from dynrt.calibrate.simulate import simulate
from dynrt.energy.costing import count_bundle, priced
from dynrt.energy.hardware import load_hardware
from dynrt.energy.tables import load_table
from dynrt.exporters import NetworkSpec, export_network
from dynrt.runtime.ort import OrtBackend
from dynrt.train.gated_stages import gated_network
from dynrt.train.package import CIFAR10_PREPROCESSING, network_spec
from dynrt.train.package_gated import gated_spec
from dynrt.train.package_run import branch_gates
from dynrt.train.recipe_file import load_recipe

HERE = Path(__file__).parent
PACKAGED = HERE.parent / "dynrt" / "bundle" / "packaged"
#: The default thresholds: with 95 % confidence less than one point worse than in full.
RISK, CONFIDENCE = 0.01, 0.95
PARITY_PICTURES = 256
#: What its energies are modelled for; ``dynrt energy`` models others.
HARDWARE, TABLE = "eyeriss", "horowitz-45nm"


@dataclass(frozen=True, slots=True)
class Model:
    """A network to package.

    Attributes:
        spec: makes it from its weights.
        summary: the card's first line.
        recipe: how its weights were made.
    """

    spec: Callable[[], NetworkSpec]
    summary: str
    recipe: str


def _resnet38() -> NetworkSpec:
    weights = load_file(HERE / "resnet38_ddi.safetensors")
    return network_spec(weights | load_file(HERE / "resnet38_gates.safetensors"))


def _resnet74() -> NetworkSpec:
    recipe = load_recipe("resnet74-iadi-ddi")
    weights = load_file(HERE / "resnet74_ddi.safetensors")
    net = gated_network(recipe, "ddi", weights, before_stage="ddi").eval()
    gates = branch_gates(net, load_file(HERE / "resnet74_gates.safetensors"))
    return gated_spec(net, gates, name="resnet74-ddi")


MODELS: Mapping[str, Model] = {
    "resnet38-ddi": Model(
        _resnet38,
        "CIFAR-10 ResNet-38 (166 MFLOPs) with six DDI branch exits and d-gates",
        "dynrt train resnet38-ddi (models/README.md)",
    ),
    "resnet74-ddi": Model(
        _resnet74,
        "CIFAR-10 ResNet-74 whose layer gates skip four fifths of its 336 MFLOPs, with six DDI "
        "branch exits and d-gates",
        "dynrt train resnet74-iadi-ddi (models/README.md)",
    ),
}


def exit_figures(table: ScoreTable, exits: tuple[str, ...]) -> dict[str, float]:
    """Accuracy of each exit if every picture were answered there."""
    return {
        name: round(float(correct), 4)
        for name, correct in zip(exits, table.correct.mean(axis=0), strict=True)
    }


def main(name: str, data: str) -> None:
    """Make the bundle ``name`` from ``data``, such as ``cifar10:DIR``."""
    model = MODELS[name]
    validation, test = (load_dataset(data, split=s) for s in ("validation", "test"))
    samples = prepare(validation.pictures[:PARITY_PICTURES], CIFAR10_PREPROCESSING)
    plain, parity = export_network(model.spec(), samples, weights="float16")
    print(parity, file=sys.stderr)
    call = OrtBackend(plain.models).call
    calibration = for_risk(collect(plain, validation, call), RISK, CONFIDENCE)
    on_test = collect(plain, test, call)
    outcome = simulate(on_test, calibration.thresholds)
    card: dict[str, object] = {
        "summary": model.summary,
        "accuracy": round(outcome.accuracy, 4),
        "mean_flops": round(2 * outcome.mean_macs),
        "full_accuracy": round(on_test.full_accuracy, 4),
        "accuracy_per_exit": exit_figures(on_test, plain.graph.exits),
        "measured_on": "the 10,000 test pictures of CIFAR-10, thresholds as calibrated",
        "trained_on": "the first 45,000 training pictures of CIFAR-10",
        "calibrated_on": "the last 5,000 training pictures of CIFAR-10",
        "calibration": policy_json(calibration),
        "recipe": model.recipe,
        "teacher": "outputs of a CIFAR-10 ResNet-56, which had seen all 50,000 training pictures",
        "seed": 0,
        "weights": "float16, computed in float32",
        "licence": "Apache-2.0",
        "made_by": f"python models/make_bundle.py {name} cifar10:DIR",
        "limits": "32x32 pictures of ten classes; sure of itself on pictures of anything else too",
    }
    bundle = replace_parts(plain, graph=with_thresholds(plain.graph, calibration), card=card)
    counts = count_bundle(bundle, load_hardware(HARDWARE))
    bundle = priced(bundle, counts, load_table(TABLE))
    target = PACKAGED / f"{name}.dynrt"
    target.parent.mkdir(exist_ok=True)
    write_bundle(bundle, target, force=True)
    read_bundle(target)
    print(f"wrote {target} ({target.stat().st_size} bytes)", file=sys.stderr)


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in MODELS:
        raise SystemExit(f"usage: python models/make_bundle.py {{{','.join(MODELS)}}} cifar10:DIR")
    main(sys.argv[1], sys.argv[2])
