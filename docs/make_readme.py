"""Makes what the README shows of real runs: the demo's table and picture, figures, a plot.

Run it from the repository's root after the packaged network has changed; the data is the folder
that holds CIFAR-10::

    python docs/make_readme.py cifar10:DIR

Without the data, only the demo is made anew, and the table of the benchmarks from their records
(``python -m bench dispatch --json bench/records/dispatch.json --data cifar10:DIR``; ``peers`` and
``energy`` likewise).
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from bench import energy_figure
from bench.bars import BARS
from dynrt.cli.bundles import DEFAULT
from dynrt.cli.demo import pictures
from dynrt.report.gallery import Shown, plot_gallery
from dynrt.report.plots import DDI_TABLE_II

ROOT = Path(__file__).parent.parent
IMAGES = ROOT / "docs" / "images"
RECORDS = ROOT / "bench" / "records"
DEMO_BUDGET = "100M"
JOULES = "2mJ,6mJ,9mJ,10mJ,11mJ,12mJ"
#: Hardware of the energy table, each with three dataflows.
GRID = ("eyeriss", "tpu-like", "zedboard", "square16")
BUDGETS = "41M,58M,74M,100M,117M,144M,170M"


def dynrt(*arguments: str) -> str:
    """What a command prints."""
    command = [sys.executable, "-c", "from dynrt.cli import main; main()", *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT)  # noqa: S603
    return done.stdout


def draw_demo(path: Path) -> None:
    """Every demo picture with its answer, its exit, and a bar of what it cost."""
    told = json.loads(dynrt("run", "--budget", DEMO_BUDGET, "--json"))
    shown = [
        Shown(
            picture=pixels,
            name=name,
            label=result["label"],
            score=result["score"],
            exit=result["exit"],
            flops=result["flops"],
            stopped=not result["accepted"],
        )
        for (name, pixels), result in zip(pictures(), told["results"], strict=True)
    ]
    subjects = {item.name.split(",")[0] for item in shown}
    plot_gallery(
        shown,
        path,
        columns=len(shown) // len(subjects),
        budget_flops=told["budget"]["flops"],
        force=True,
    )


def figures(told: dict[str, Any]) -> str:
    """The table of accuracy and cost per budget, the paper's figures in a column of their own."""
    paper = dict(DDI_TABLE_II[0].flops_accuracy)
    rows = [
        "| hard budget, MFLOPs | accuracy | mean MFLOPs | max MFLOPs | mean energy, mJ | "
        "DDI's ResNet-74 (paper) |",
        "|---:|---:|---:|---:|---:|---:|",
    ]
    for point in [*told["points"], told | {"budget": {"flops": None}}]:
        budget = point["budget"]["flops"]
        there = f"{100 * paper[budget]:.2f} %" if budget in paper else ""
        rows.append(
            f"| {'none' if budget is None else f'{budget / 1e6:.0f}'} "
            f"| {100 * point['accuracy']:.2f} % | {point['mean_flops'] / 1e6:.1f} "
            f"| {point['max_flops'] / 1e6:.1f} | {1e3 * point['mean_energy']:.2f} | {there} |"
        )
    return "\n".join(rows) + "\n"


def energy_figures(told: dict[str, Any]) -> str:
    """The table of accuracy under budgets in joules."""
    rows = [
        "| hard budget | accuracy | mean energy, mJ | max energy, mJ | mean MFLOPs |",
        "|---:|---:|---:|---:|---:|",
    ]
    rows += [
        f"| {1e3 * point['budget']['joules']:g} mJ | {100 * point['accuracy']:.2f} % "
        f"| {1e3 * point['mean_energy']:.2f} | {1e3 * point['max_energy']:.2f} "
        f"| {point['mean_flops'] / 1e6:.1f} |"
        for point in told["points"]
    ]
    return "\n".join(rows) + "\n"


def bench_table() -> str:
    """The rows of the stored records that have a bar, or compare with a peer."""
    lines = ["| row | value | quartiles | bar | |", "|---|---:|---:|---:|---|"]
    for name in ("dispatch", "peers", "energy"):
        record = json.loads((RECORDS / f"{name}.json").read_text("utf-8"))
        for row in record["rows"]:
            bar = BARS.get(row["name"])
            if bar is None and name == "dispatch":
                continue
            goal = "" if bar is None else f"{'≥' if bar.at_least else '≤'} {bar.bar:g}"
            quartiles = f"{row['low']:.3g} - {row['high']:.3g}"
            value = f"{row['value']:.3g} {row['unit'].replace('ratio', '')}".strip()
            lines.append(f"| `{row['name']}` | {value} | {quartiles} | {goal} | {row['note']} |")
        lines += [f"| `{n}` | not measured | | | {why} |" for n, why in record["missing"].items()]
    return "\n".join(lines) + "\n"


def put(marker: str, text: str) -> None:
    """Replace what stands between a marker and its end in the README."""
    readme = ROOT / "README.md"
    new, count = re.subn(
        rf"(<!-- {marker} -->\n).*?(<!-- end -->)",
        lambda found: found[1] + text + found[2],
        readme.read_text("utf-8"),
        flags=re.DOTALL,
    )
    if count != 1:
        sys.exit(f"README.md: no one block marked {marker}")
    readme.write_text(new, "utf-8")


def main() -> None:
    """Write the pictures and put the figures into the README."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    draw_demo(IMAGES / "demo.png")
    (IMAGES / "network.svg").write_text(dynrt("inspect", DEFAULT, "--graph", "svg"), "utf-8")
    put("demo-output", f"```text\n{dynrt('run', '--budget', DEMO_BUDGET)}```\n")
    put("bench", bench_table())
    grid = [word for name in GRID for word in ("--hardware", name)]
    shown = dynrt("energy", *grid, "--dataflow", "ws,os,is")
    put("energy-grid", f"```text\n{shown}```\n")
    energy_figure.main([str(IMAGES / "energy-blocks.svg")])
    if len(sys.argv) == 2:
        plot = str(IMAGES / "accuracy.svg")
        arguments = ["--budgets", BUDGETS, "--plot", plot, "--beside", "ddi", "--force", "--json"]
        told = json.loads(dynrt("eval", DEFAULT, "--data", sys.argv[1], *arguments))
        put("figures", figures(told))
        arguments = ["--data", sys.argv[1], "--budgets", JOULES, "--json"]
        put("joules", energy_figures(json.loads(dynrt("eval", DEFAULT, *arguments))))


if __name__ == "__main__":
    main()
