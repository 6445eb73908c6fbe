"""``dynrt doctor``: what is installed, what works, and what to do about the rest."""

from __future__ import annotations

import importlib.metadata
import platform
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import click
import numpy as np

import dynrt
from dynrt.bundle import Bundle, packaged_models
from dynrt.cli import demo, one_line
from dynrt.cli.bundles import open_bundle
from dynrt.cli.options import json_option
from dynrt.cli.text import megaflops, table, to_json
from dynrt.energy.costing import count_bundle, priced
from dynrt.energy.hardware import Hardware
from dynrt.energy.tables import load_table
from dynrt.errors import BackendError, DynrtError, EnergyError
from dynrt.ir.graph import Array
from dynrt.runtime import Result
from dynrt.runtime.cache import (
    DynrtWarning,
    Entry,
    cache_folder,
    cache_limit_bytes,
    clear,
    entries,
)

#: Distribution, the extra that brings it ("" for the base), what it is for.
PACKAGES = (
    ("numpy", "", "tensors and decisions"),
    ("onnxruntime", "", "runs each node"),
    ("onnx", "", "compiles a network on a device"),
    ("click", "", "the command line"),
    ("pillow", "demo", "reads pictures"),
    ("scikit-image", "demo", "the demo photographs"),
    ("matplotlib", "report", "plots"),
    ("scalesim", "energy", "counts by the simulator itself"),
    ("ray", "ray", "sweeps on a cluster"),
    ("pyserial", "fpga", "ports of boards and meters"),
    ("scipy", "fpga", "intervals and fits of measurements"),
    ("torch", "export", "makes bundles"),
    ("safetensors", "train", "training, checkpoints"),
)


#: The compiled mode rounds otherwise than the nodes one by one: at most this, relative to the largest
#: value, as when it was verified on this device. The portable mode is exact.
COMPILED_TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """A package that dynrt can use.

    Attributes:
        name: as pip knows it.
        version: the installed one, or ``None``.
        extra: brings it; empty for what is always needed.
        purpose: what it is for.
    """

    name: str
    version: str | None
    extra: str
    purpose: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that was tried.

    Attributes:
        name: of what.
        ok: whether it works.
        needed: whether dynrt is of no use without it.
        detail: what came of it.
        mend: what to do, where it does not work.
    """

    name: str
    ok: bool
    needed: bool
    detail: str
    mend: str = ""


@click.command()
@click.option("--clear-cache", is_flag=True, help="Remove all compiled networks; no checks.")
@json_option
@click.pass_context
def command(ctx: click.Context, clear_cache: bool, as_json: bool) -> None:
    """Say what is installed, what works, and what to do about the rest.

    Exits with 1 if a network cannot be run.
    """
    if clear_cache:
        _clear(as_json)
        return
    packages = [_package(*row) for row in PACKAGES]
    checks = [
        _try("bundles", _bundles, needed=True, mend="install dynrt again"),
        _try("run", _run, needed=True, mend="pip install --force-reinstall onnxruntime"),
        _try("cache", _cache, needed=False, mend="set DYNRT_CACHE to a folder of your own"),
        _try("energy", _energy, needed=False, mend="install dynrt again"),
        _try("demo", _demo, needed=False, mend="pip install 'dynrt[demo]'"),
        _try("board", _board, needed=False, mend="only for dynrt measure run --emulated"),
    ]
    if as_json:
        report = {
            "dynrt": dynrt.__version__,
            "python": platform.python_version(),
            "platform": platform.platform(),
            "packages": [asdict(package) for package in packages],
            "checks": [asdict(check) for check in checks],
            "cache": _cache_record(),
        }
        click.echo(to_json(report))
    else:
        click.echo(_page(packages, checks))
    if not all(check.ok for check in checks if check.needed):
        ctx.exit(1)


def _package(name: str, extra: str, purpose: str) -> Package:
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        version = None
    return Package(name=name, version=version, extra=extra, purpose=purpose)


def _try(name: str, check: Callable[[], str], *, needed: bool, mend: str) -> Check:
    try:
        return Check(name=name, ok=True, needed=needed, detail=check())
    except DynrtError as exc:
        return Check(name=name, ok=False, needed=needed, detail=one_line(str(exc)), mend=mend)


def _bundles() -> str:
    """Reads every packaged bundle; reading checks its hashes and its certificate."""
    names = [open_bundle(model.name).name for model in packaged_models()]
    open_bundle(None)
    return f"{len(names)} packaged, all sound: {', '.join(names)}"


def _run() -> str:
    """Runs the default bundle from loading to the answer, and holds it to the reference."""
    from dynrt.cli.reference import ReferenceNetwork
    from dynrt.runtime.ort import OrtBackend

    began = time.perf_counter()
    bundle = open_bundle(None)
    inputs = ramp(bundle)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always", DynrtWarning)
        network = dynrt.load(bundle)
    mode = network.mode
    with network:
        loaded = time.perf_counter()
        result = network.run(inputs)
        answered = time.perf_counter()
    with dynrt.load(bundle, mode="portable") as portable:
        plain = portable.run(inputs)
    with ReferenceNetwork(bundle, OrtBackend(bundle.models)) as reference:
        wanted = reference.run(inputs)
    _require_same(plain, wanted, tolerance=0.0, mode="portable")
    tolerance = COMPILED_TOLERANCE if mode == "compiled" else 0.0
    _require_same(result, wanted, tolerance=tolerance, mode=mode)
    return (
        f"{bundle.name}: {mode}, loaded in {1e3 * (loaded - began):.0f} ms, answered in "
        f"{1e3 * (answered - loaded):.1f} ms with {megaflops(result.flops)} MFLOPs, as the reference"
        + "".join(f"; {one_line(str(w.message))}" for w in warned)
    )


def _require_same(result: Result, wanted: Result, *, tolerance: float, mode: str) -> None:
    """Holds a run to the reference: path, exit, and the answer relative to its largest value."""
    largest = float(np.abs(wanted.answer).max())
    far = float(np.abs(result.answer - wanted.answer).max())
    same = (result.path, result.exit) == (wanted.path, wanted.exit)
    if not (same and far <= tolerance * largest):  # a NaN is never near
        raise BackendError(
            f"the {mode} mode answers otherwise than the reference, at {result.exit} and "
            f"{wanted.exit}: {far:.2g} apart, {tolerance * largest:.2g} allowed"
        )


def ramp(bundle: Bundle) -> dict[str, Array]:
    """An input for any network: each real input counts from 0 to 1."""
    return {
        node.name: np.linspace(0, 1, int(np.prod(node.type.shape)))
        .reshape(node.type.shape)
        .astype(node.type.dtype)
        for node in bundle.graph.inputs()
        if node.param is None
    }


def _energy() -> str:
    """Counts and prices the default bundle again, and holds what it carries to that."""
    bundle = open_bundle(None)
    if bundle.counts is None or bundle.energy is None:
        raise EnergyError(f"{bundle.name} carries no access counts")
    hardware = Hardware.from_json(bundle.counts.hardware)
    counts = count_bundle(bundle, hardware, policy=bundle.counts.policy)
    if counts != bundle.counts:
        raise EnergyError(f"{bundle.name}: its counts are not those of its layers")
    if priced(bundle, counts, load_table(bundle.energy.table)).graph != bundle.graph:
        raise EnergyError(f"{bundle.name}: its energies are not its counts times its table")
    return f"{bundle.name}: counted and priced again, as the bundle says ({bundle.energy})"


def _demo() -> str:
    return f"{sum(1 for _ in demo.pictures())} demo pictures"


def _board() -> str:
    """Builds the board's agent, if that was not done before, and greets it in QEMU."""
    from dynrt.fpga.emulated.bench import EmulatedBench

    with EmulatedBench() as bench:
        return f"the agent ({bench.info.build}) answers in QEMU"


def _cache() -> str:
    """Where compiled networks are kept, and how many."""
    kept = entries()
    return f"{cache_folder()}: {_amount(kept)} of {cache_limit_bytes() / 1e6:.0f} MB"


def _cache_record() -> dict[str, object] | None:
    """The cache for programs; ``None`` if it is not to be used (the check says why)."""
    try:
        folder, kept = cache_folder(), entries()
    except DynrtError:
        return None
    return {
        "folder": str(folder),
        "limit_bytes": cache_limit_bytes(),
        "size_bytes": sum(entry.size_bytes for entry in kept),
        "entries": [asdict(entry) for entry in kept],
    }


def _amount(kept: Sequence[Entry]) -> str:
    """``2 compiled networks (resnet38, colours), 9.1 MB``; a damaged one has no name."""
    names = ", ".join(dict.fromkeys(entry.network or "damaged" for entry in kept))
    size = sum(entry.size_bytes for entry in kept)
    count = f"{len(kept)} compiled network{'' if len(kept) == 1 else 's'}"
    return f"{count}{f' ({one_line(names)})' if names else ''}, {size / 1e6:.1f} MB"


def _clear(as_json: bool) -> None:
    folder = cache_folder()
    removed, freed_bytes = clear(folder)
    if as_json:
        record = {"folder": str(folder), "removed": removed, "freed_bytes": freed_bytes}
        click.echo(to_json(record))
    else:
        what = f"{removed} compiled network{'' if removed == 1 else 's'}"
        click.echo(f"{folder}: removed {what}, {freed_bytes / 1e6:.1f} MB")


def _page(packages: list[Package], checks: list[Check]) -> str:
    rows = [
        [
            package.name,
            package.version or "missing",
            package.purpose,
            "" if package.version or not package.extra else f"pip install 'dynrt[{package.extra}]'",
        ]
        for package in packages
    ]
    parts = [
        f"dynrt {dynrt.__version__}, Python {platform.python_version()}, {platform.platform()}",
        "",
        table(["package", "version", "for", "if you need it"], rows, elastic=2),
        "",
    ]
    for check in checks:
        state = "works" if check.ok else ("FAILS" if check.needed else "not here")
        parts.append(f"{check.name}: {state}: {check.detail}")
        if check.mend:
            parts.append(f"  what to do: {check.mend}")
    return "\n".join(parts)
