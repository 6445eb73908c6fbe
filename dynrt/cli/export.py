"""``dynrt export``: a bundle from torch, from a training run, or from an ONNX model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from dynrt.bundle import Bundle, Preprocessing, write_bundle
from dynrt.cli import options
from dynrt.cli.bundles import names_bundle, open_bundle
from dynrt.cli.text import megaflops, to_json
from dynrt.errors import DataError, ExportError, MissingExtraError, OutputExistsError
from dynrt.ir.graph import Array, InputNode, Port
from dynrt.units import macs_to_flops

if TYPE_CHECKING:
    from dynrt.calibrate.datasets import Dataset
    from dynrt.exporters import ParityReport
    from dynrt.exporters.int8_compare import Int8Report
    from dynrt.exporters.int8_emit import WeightBits

Weights = Literal["float32", "float16"]
GateRule = Literal["hinge", "softmax"]
_SEED = 0
_BATCH = 64


@click.command()
@click.argument("target")
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), metavar="BUNDLE", help="The bundle to write."
)
@click.option(
    "--cut",
    "cuts",
    multiple=True,
    metavar="TENSOR",
    help="Of an ONNX model: a tensor after which a node ends; may be given for several.",
)
@click.option(
    "--fused",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE.onnx",
    help="Also write one ONNX file with If, for runtimes other than dynrt (no budget).",
)
@click.option(
    "--weights",
    type=click.Choice(["float32", "float16"]),
    default="float32",
    show_default=True,
    help="How weights are stored.",
)
@click.option(
    "--data",
    metavar="DATA",
    help="Prove parity on these pictures (cifar10:DIR, ...) and not on random inputs; "
    "with --int8, find ranges on its training part and compare on its test part.",
)
@click.option(
    "--gates",
    type=click.Choice(["hinge", "softmax"]),
    help="Of a training run: which of its d-gates decide; softmax is the cross-entropy baseline.  "
    "[default: hinge]",
)
@click.option(
    "--name", help="Of a training run: what its bundle is called.  [default: as the recipe]"
)
@click.option(
    "--int8", is_flag=True, help="Quantise the compute nodes to 8-bit integers; needs --data."
)
@click.option(
    "--weight-bits",
    type=click.Choice(["7", "8"]),
    default="8",
    show_default=True,
    help="With --int8: 7 for x86 CPUs without VNNI, whose 8-bit products saturate.",
)
@click.option(
    "--calibration",
    type=click.IntRange(1, 100_000),
    default=512,
    show_default=True,
    help="With --int8: find ranges on so many pictures.",
)
@click.option(
    "--held-out",
    type=click.IntRange(1, 1_000_000),
    default=2000,
    show_default=True,
    help="With --int8: compare with the float network on so many other pictures.",
)
@click.option(
    "--samples",
    type=click.IntRange(1, 10_000),
    default=16,
    show_default=True,
    help="Prove parity on so many inputs.",
)
@options.force_option
@options.json_option
def command(
    target: str,
    out: Path | None,
    cuts: tuple[str, ...],
    fused: Path | None,
    weights: Weights,
    data: str | None,
    gates: GateRule | None,
    name: str | None,
    int8: bool,
    weight_bits: Literal["7", "8"],
    calibration: int,
    held_out: int,
    samples: int,
    force: bool,
    as_json: bool,
) -> None:
    """Write a bundle and prove that it computes what TARGET computes.

    TARGET is MODULE:OBJECT (a dynrt.exporters.NetworkSpec, or a function that gives one), the
    folder that `dynrt train` filled, an ONNX model (to be cut into nodes), or, with --fused
    alone or --int8, a bundle.
    """
    if out is None and fused is None:
        raise click.UsageError("nothing to write: give -o BUNDLE, or --fused FILE.onnx")
    for path in (out, fused):
        if path is not None and path.exists() and not force:  # before the work, not after it
            raise OutputExistsError(f"{path} exists; it is replaced only with --force")
    if cuts and not target.endswith(".onnx"):
        raise click.UsageError("--cut goes with an ONNX model")
    for option, value in (("--gates", gates), ("--name", name)):
        if value is not None and (names_bundle(target) or not Path(target).is_dir()):
            raise click.UsageError(f"{option} goes with the folder of a training run")
    if int8 and data is None:
        raise click.UsageError("--int8 finds ranges on pictures: give --data, such as cifar10:DIR")
    report: ParityReport | None = None
    if names_bundle(target):
        bundle = open_bundle(target)
    else:
        _require_torch()
        bundle, report = _made(
            target, cuts, weights, gates or "hinge", name, data=data, count=samples
        )
    compared: Int8Report | None = None
    if int8:
        _require_torch()
        bundle, compared = _quantised(
            bundle, str(data), calibration, held_out, 7 if weight_bits == "7" else 8
        )
    if out is not None:
        write_bundle(bundle, out, force=force)
    if fused is not None:
        _write_fused(bundle, fused, force=force)
    record = _record(bundle, report, out=out, fused=fused)
    if compared is not None:
        record["int8"] = asdict(compared)
    click.echo(to_json(record) if as_json else _page(record, bundle, report))
    if compared is not None:
        click.echo(f"int8: {compared}", err=True)


def _require_torch() -> None:
    """Say what to install before a deep import fails.

    Raises:
        MissingExtraError: torch is not there.
    """
    import importlib.util

    if importlib.util.find_spec("torch") is None:
        raise MissingExtraError("torch", "export")


def _made(
    target: str,
    cuts: Sequence[str],
    weights: Weights,
    gates: GateRule,
    name: str | None,
    *,
    data: str | None,
    count: int,
) -> tuple[Bundle, ParityReport | None]:
    """The bundle that ``target`` becomes, and the proof (an ONNX model is compared when it is cut).

    Raises:
        ExportError: there is no such target, or it cannot be lowered.
        ParityError: the bundle computes something else.
    """
    from dynrt.exporters import cut_onnx, export_network, load_target, read_onnx

    path = Path(target)
    if path.suffix == ".onnx":
        return cut_onnx(read_onnx(path), cuts, name=path.stem, weights=weights), None
    if path.is_dir():
        return _trained(path, weights, gates, name, data=data, count=count)
    if ":" not in target:
        raise ExportError(
            f"{target}: no folder, ONNX model or bundle of that name; write MODULE:OBJECT for torch"
        )
    spec = load_target(target)
    inputs = _samples(spec.inputs, spec.preprocessing, data=data, count=count)
    return export_network(spec, inputs, weights=weights)


def _trained(
    folder: Path,
    weights: Weights,
    gates: GateRule,
    name: str | None,
    *,
    data: str | None,
    count: int,
) -> tuple[Bundle, ParityReport]:
    """The bundle of a finished training run."""
    from dynrt.exporters import export_network
    from dynrt.train.package_run import run_spec

    spec, provenance = run_spec(folder, name=name, rule=gates)
    inputs = _samples(spec.inputs, spec.preprocessing, data=data, count=count)
    return export_network(spec, inputs, weights=weights, provenance=provenance)


def _samples(
    nodes: Sequence[InputNode], rule: Preprocessing | None, *, data: str | None, count: int
) -> list[dict[str, Array]]:
    """Inputs to prove parity on: real pictures if there are any, else small normal numbers."""
    from dynrt.calibrate.datasets import load_dataset
    from dynrt.calibrate.pictures import prepare
    from dynrt.exporters.onnx_node import probe_inputs

    real = [node for node in nodes if node.param is None]
    if data is None:
        ports = [Port(name=node.name, type=node.type) for node in real]
        made = probe_inputs(ports, batch=count, seed=_SEED)
        return [{name: rows[i] for name, rows in made.items()} for i in range(count)]
    if rule is None or len(real) != 1:
        raise ExportError("--data: this network takes no pictures (it has no preprocessing)")
    dataset = load_dataset(data, size=(rule.height, rule.width)).first(count)
    return [{real[0].name: row} for row in prepare(dataset.pictures, rule)]


def _quantised(
    bundle: Bundle, data: str, calibration: int, held_out: int, weight_bits: WeightBits
) -> tuple[Bundle, Int8Report]:
    """``bundle`` in 8-bit integers, and how it does on pictures that gave it no ranges."""
    from dynrt.calibrate.pictures import prepare
    from dynrt.exporters.int8 import quantise
    from dynrt.exporters.int8_compare import compare, with_report

    rule = bundle.preprocessing
    if rule is None:
        raise ExportError("--int8: this network takes no pictures (it has no preprocessing)")
    seen, others = _parts(data, (rule.height, rule.width), calibration, held_out)
    made = quantise(
        bundle,
        (prepare(p, rule) for p, _ in seen.batches(_BATCH)),
        weight_bits=weight_bits,
    )
    pairs = ((prepare(p, rule), labels) for p, labels in others.batches(_BATCH))
    report = compare(bundle, made, pairs, data=others.source)
    return with_report(made, report), report


def _parts(
    data: str, size: tuple[int, int], calibration: int, held_out: int
) -> tuple[Dataset, Dataset]:
    """Pictures for ranges and others to compare on; data without parts is shared out.

    Raises:
        DataError: there is only one picture.
    """
    from dynrt.calibrate.datasets import load_dataset

    train = load_dataset(data, split="train", size=size)
    test = load_dataset(data, split="test", size=size)
    if train.pictures.shape != test.pictures.shape or (train.pictures != test.pictures).any():
        return train.first(calibration), test.first(held_out)
    if len(train) < 2:
        raise DataError(f"--int8: {data} holds 1 picture; one for ranges and one other are needed")
    first = train.first(min(calibration, len(train) // 2))
    rest = replace(test, pictures=test.pictures[len(first) :], labels=test.labels[len(first) :])
    return first, rest.first(held_out)


def _write_fused(bundle: Bundle, path: Path, *, force: bool) -> None:
    from dynrt.calibrate.files import write_whole
    from dynrt.exporters import fuse

    model = fuse(bundle)
    write_whole(path, lambda stream: _write(stream, model), force=force)


def _write(stream: Any, data: bytes) -> None:
    stream.write(data)


def _record(
    bundle: Bundle, report: ParityReport | None, *, out: Path | None, fused: Path | None
) -> dict[str, Any]:
    return {
        "bundle": {"name": bundle.name, "sha256": bundle.sha256},
        "file": None if out is None else str(out),
        "fused": None if fused is None else str(fused),
        "full_flops": macs_to_flops(bundle.certificate.full_macs),
        "cheapest_flops": macs_to_flops(bundle.certificate.cheapest_macs),
        "nodes": len(bundle.graph.nodes),
        "parity": None if report is None else asdict(report),
    }


def _page(record: dict[str, Any], bundle: Bundle, report: ParityReport | None) -> str:
    lines = [
        f"{bundle.name}  sha256 {bundle.sha256}",
        f"{record['nodes']} nodes, {len(bundle.models)} of them ONNX; cheapest "
        f"{megaflops(record['cheapest_flops'])}, full {megaflops(record['full_flops'])} MFLOPs",
    ]
    if report is not None:
        lines.append(f"parity: {report}")
    lines += [f"wrote {record[key]}" for key in ("file", "fused") if record[key] is not None]
    return "\n".join(lines)
