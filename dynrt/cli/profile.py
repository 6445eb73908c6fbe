"""``dynrt profile``: where the time goes on this device, per part and per path."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np

import dynrt
from dynrt.bundle import Bundle
from dynrt.cli import demo, inputs, options
from dynrt.cli.bundles import open_bundle
from dynrt.cli.progress import bar
from dynrt.cli.text import megaflops, table, to_json
from dynrt.errors import BackendError, DynrtError
from dynrt.ir.cost import Budget
from dynrt.ir.graph import Array
from dynrt.runtime.profiling import (
    PartProfile,
    PathProfile,
    Times,
    profile_network,
    trace_events,
)
from dynrt.units import macs_to_flops

#: Inputs of noise that are profiled where no picture can be.
NOISE = 8


@click.command()
@click.argument("bundle", required=False)
@click.option(
    "--rounds",
    type=click.IntRange(5, 100_000),
    default=60,
    show_default=True,
    help="Calls of each part, and of each input.",
)
@click.option(
    "--budget",
    callback=options.budget,
    metavar="B",
    help="Profile the paths under this hard cap: 100M (FLOPs), 50MMAC, 2mJ.",
)
@options.threshold_option
@click.option(
    "--threads", type=click.IntRange(1, 64), default=1, show_default=True, help="Threads per call."
)
@click.option(
    "--trace",
    "trace_file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE.json",
    help="Write one run of each path for Perfetto (ui.perfetto.dev).",
)
@options.json_option
def command(
    bundle: str | None,
    rounds: int,
    budget: Budget | None,
    thresholds: dict[str, tuple[float, ...]],
    threads: int,
    trace_file: Path | None,
    as_json: bool,
) -> None:
    """Measure what BUNDLE takes on this device.

    Every part by itself; every path that the demo pictures take (noise, where the bundle takes no
    pictures), split into compute, decisions and dispatch, beside the whole network as one static
    graph. BUNDLE is a .dynrt file, a folder, or a name that `dynrt models` lists; left out, it is
    the default network.
    """
    found = open_bundle(bundle)
    with dynrt.load(found, threads=threads) as network:
        if network.mode != "compiled":
            raise BackendError("only a compiled network can be profiled; dynrt doctor says why")
        network.set(budget=budget, thresholds=options.bounds(thresholds))
        samples = samples_of(found)
        with bar("profiling") as tell:
            report = profile_network(network, samples, rounds=rounds, threads=threads, tell=tell)
    if trace_file is not None:
        events = [e for path in report.traces for e in trace_events(path)]
        trace_file.write_text(to_json({"traceEvents": events}, indent=None) + "\n", "utf-8")
    if as_json:
        click.echo(to_json(describe(found, report.parts, report.paths, threads)))
    else:
        click.echo(page(found, report.parts, report.paths))


def samples_of(bundle: Bundle) -> list[dict[str, Array]]:
    """The demo pictures as this bundle takes them; noise, if it takes none."""
    try:
        read = list(inputs.picture_samples(demo.pictures(), bundle))
    except DynrtError:
        read = []
    samples = [dict(r.values) for r in read]
    if samples:
        return samples
    rng = np.random.default_rng(0)
    nodes = [n for n in bundle.graph.inputs() if n.param is None]
    return [
        {n.name: rng.standard_normal(n.type.shape).astype(n.type.dtype) for n in nodes}
        for _ in range(NOISE)
    ]


def _us(ns: float) -> str:
    return f"{ns / 1e3:.1f}"


def page(bundle: Bundle, parts: list[PartProfile], paths: list[PathProfile]) -> str:
    """The two tables."""
    by_path = [
        [
            p.exit,
            str(len(p.path)),
            str(p.runs),
            megaflops(macs_to_flops(p.macs)),
            _us(p.times.median_ns),
            _us(p.times.p90_ns),
            _us(p.times.p99_ns),
            _percent(p.compute_ns, p.times),
            _percent(p.decisions_ns, p.times),
            _percent(p.dispatch_ns, p.times),
            "-" if p.unsplit_ns is None else f"{p.times.median_ns / p.unsplit_ns:.3f}",
        ]
        for p in paths
    ]
    by_part = [
        [
            p.kind,
            p.nodes[0] if len(p.nodes) == 1 else f"{p.nodes[0]} .. {p.nodes[-1]}",
            megaflops(macs_to_flops(p.macs)),
            _us(p.times.median_ns),
            _us(p.times.p90_ns),
            _us(p.times.p99_ns),
        ]
        for p in parts
    ]
    heads = ["exit", "nodes", "runs", "MFLOPs", "median us", "p90", "p99"]
    heads += ["compute", "decisions", "dispatch", "of unsplit"]
    return "\n".join(
        [
            f"{bundle.name} on this device, one input at a time",
            "",
            table(heads, by_path, right=tuple(range(1, len(heads)))),
            "",
            table(
                ["part", "runs", "MFLOPs", "median us", "p90", "p99"],
                by_part,
                right=(2, 3, 4, 5),
                elastic=1,
            ),
        ]
    )


def _percent(ns: float, times: Times) -> str:
    return f"{100 * ns / times.median_ns:.1f} %"


def describe(
    bundle: Bundle, parts: list[PartProfile], paths: list[PathProfile], threads: int
) -> dict[str, Any]:
    """The object of ``profile --json``; times in nanoseconds."""
    return {
        "bundle": {"name": bundle.name, "sha256": bundle.sha256},
        "threads": threads,
        "paths": [
            {
                "exit": p.exit,
                "path": list(p.path),
                "runs": p.runs,
                "flops": macs_to_flops(p.macs),
                **_times(p.times),
                "compute_ns": p.compute_ns,
                "decisions_ns": p.decisions_ns,
                "dispatch_ns": p.dispatch_ns,
                "unsplit_ns": p.unsplit_ns,
            }
            for p in paths
        ],
        "parts": [
            {
                "kind": p.kind,
                "nodes": list(p.nodes),
                "flops": macs_to_flops(p.macs),
                **_times(p.times),
            }
            for p in parts
        ],
    }


def _times(times: Times) -> dict[str, float]:
    return {"median_ns": times.median_ns, "p90_ns": times.p90_ns, "p99_ns": times.p99_ns}
