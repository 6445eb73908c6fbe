"""Makes the packaged default bundle from the weights in this folder.

Lowers the network, proves parity on real pictures, calibrates the thresholds on the validation
pictures, measures every exit on the test pictures for the model card, and writes
``dynrt/bundle/packaged/resnet38-ddi.dynrt``. Run it from the repository's root::

    python models/make_bundle.py cifar10:DIR
"""

from __future__ import annotations

import sys
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
from dynrt.exporters import export_network
from dynrt.runtime.ort import OrtBackend
from dynrt.train.package import CIFAR10_PREPROCESSING, network_spec

HERE = Path(__file__).parent
TARGET = HERE.parent / "dynrt" / "bundle" / "packaged" / "resnet38-ddi.dynrt"
#: The default thresholds: with 95 % confidence less than one point worse than in full.
RISK, CONFIDENCE = 0.01, 0.95
PARITY_PICTURES = 256
#: What its energies are modelled for; ``dynrt energy`` models others.
HARDWARE, TABLE = "eyeriss", "horowitz-45nm"


def exit_figures(table: ScoreTable, exits: tuple[str, ...]) -> dict[str, float]:
    """Accuracy of each exit if every picture were answered there."""
    return {
        name: round(float(correct), 4)
        for name, correct in zip(exits, table.correct.mean(axis=0), strict=True)
    }


def main(data: str) -> None:
    """Make the bundle from ``data``, such as ``cifar10:DIR``."""
    weights = load_file(HERE / "resnet38_ddi.safetensors")
    weights |= load_file(HERE / "resnet38_gates.safetensors")
    validation, test = (load_dataset(data, split=s) for s in ("validation", "test"))
    samples = prepare(validation.pictures[:PARITY_PICTURES], CIFAR10_PREPROCESSING)
    plain, parity = export_network(network_spec(weights), samples, weights="float16")
    print(parity, file=sys.stderr)
    call = OrtBackend(plain.models).call
    calibration = for_risk(collect(plain, validation, call), RISK, CONFIDENCE)
    on_test = collect(plain, test, call)
    outcome = simulate(on_test, calibration.thresholds)
    exits = plain.graph.exits
    card: dict[str, object] = {
        "summary": "CIFAR-10 ResNet-38 (166 MFLOPs) with six DDI branch exits and d-gates",
        "accuracy": round(outcome.accuracy, 4),
        "mean_flops": round(2 * outcome.mean_macs),
        "full_accuracy": round(on_test.full_accuracy, 4),
        "accuracy_per_exit": exit_figures(on_test, exits),
        "measured_on": "the 10,000 test pictures of CIFAR-10, thresholds as calibrated",
        "trained_on": "the first 45,000 training pictures of CIFAR-10",
        "calibrated_on": "the last 5,000 training pictures of CIFAR-10",
        "calibration": policy_json(calibration),
        "recipe": "dynrt train resnet38-ddi (models/README.md)",
        "teacher": "outputs of a CIFAR-10 ResNet-56, which had seen all 50,000 training pictures",
        "seed": 0,
        "weights": "float16, computed in float32",
        "licence": "Apache-2.0",
        "made_by": "python models/make_bundle.py cifar10:DIR",
        "limits": "32x32 pictures of ten classes; sure of itself on pictures of anything else too",
    }
    bundle = replace_parts(plain, graph=with_thresholds(plain.graph, calibration), card=card)
    counts = count_bundle(bundle, load_hardware(HARDWARE))
    bundle = priced(bundle, counts, load_table(TABLE))
    TARGET.parent.mkdir(exist_ok=True)
    write_bundle(bundle, TARGET, force=True)
    read_bundle(TARGET)
    print(f"wrote {TARGET} ({TARGET.stat().st_size} bytes)", file=sys.stderr)


if __name__ == "__main__":
    main(sys.argv[1])
