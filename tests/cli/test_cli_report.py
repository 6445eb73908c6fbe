"""``dynrt report``, and ``--workers`` of the commands that run data sets."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from dynrt.bundle import write_bundle
from dynrt.errors import RecipeError
from tests.calibrate.spreading import colour_data
from tests.cli.colours import CHEAPEST, FULL, colour_bundle
from tests.cli.conftest import Ask, Invoke

QUICK = ("--timed", 4, "--rounds", 2)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    found = colour_data(90)
    path = tmp_path_factory.mktemp("data") / "d.npz"
    np.savez(path, pictures=found.pictures, labels=found.labels)
    return f"npz:{path}"


def test_workers_change_no_figure(ask: Ask, colours: Path, data: str, tmp_path: Path) -> None:
    command = ("eval", colours, "--data", data, "--budgets", f"{CHEAPEST},{FULL}")
    here, there = dict(ask(*command)), dict(ask(*command, "--workers", 2))
    for record in (here, *here["points"], there, *there["points"]):
        record.pop("seconds")
    assert here == there
    goal = ("calibrate", colours, "--data", data, "--budget", 5000, "--policy")
    one = ask(*goal, "-o", tmp_path / "one.json")
    two = ask(*goal, "-o", tmp_path / "two.json", "--workers", 2)
    assert one == two


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_an_interrupted_evaluation_leaves_no_process(tmp_path: Path) -> None:
    bundle, pictures = tmp_path / "c.dynrt", colour_data(60_000)
    write_bundle(colour_bundle(), bundle)
    np.savez(tmp_path / "d.npz", pictures=pictures.pictures, labels=pictures.labels)
    root = Path(__file__).parents[2]
    # Whoever starts the tests in the background of a shell has them ignore interrupts.
    heed = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    program = f"{heed}; import sys; from dynrt.cli import main; main(sys.argv[1:])"
    data = f"npz:{tmp_path / 'd.npz'}"
    budgets = ",".join(f"{flops}" for flops in range(2000, 12_000, 200))
    asked = ["eval", str(bundle), "--workers", "2", "--data", data, "--budgets", budgets]
    running = subprocess.Popen(
        [sys.executable, "-c", program, *asked],
        env=os.environ | {"PYTHONPATH": str(root)},
        stderr=subprocess.PIPE,
        text=True,
    )
    children: list[int] = []
    until = time.monotonic() + 60
    while len(children) < 3 and time.monotonic() < until:  # two workers and their tracker
        time.sleep(0.1)
        listed = Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split()
        children = [int(c) for c in listed]
    time.sleep(0.5)
    running.send_signal(signal.SIGINT)
    try:
        _, said = running.communicate(timeout=60)
    finally:
        running.kill()
    assert running.returncode == 130, said
    assert said.strip().splitlines()[-1] == "error: interrupted"
    assert "Traceback" not in said
    until = time.monotonic() + 20
    while any(Path(f"/proc/{c}").exists() for c in children) and time.monotonic() < until:
        time.sleep(0.1)
    assert not any(Path(f"/proc/{c}").exists() for c in children)


def test_a_table_is_printed_recorded_and_drawn(
    invoke: Invoke, colours: Path, data: str, tmp_path: Path
) -> None:
    record, plot, readme = (tmp_path / name for name in ("t.json", "t.svg", "t.md"))
    command = ["report", "ddi-table-2", "--bundle", colours, "--static", f"still={colours}"]
    command += ["--data", data, "--budgets", "2K,12K", *QUICK, "--workers", 2]
    outputs = ["--json", record, "--plot", plot, "--markdown", readme]
    result = invoke(*command, *outputs)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith("DDI, table II: colours under hard budgets")
    value = json.loads(record.read_text())
    assert [row["budget_flops"] for row in value["rows"]] == [2000, 12000]
    assert value["rows"][0]["static"] == "still"
    assert value["command"] == (
        "dynrt report ddi-table-2 --bundle colours.dynrt --static still=colours.dynrt "
        "--budgets 2000,12000 --data npz:DIR --timed 4 --rounds 2"
    )
    assert str(tmp_path) not in record.read_text()  # no folder of this machine
    assert "<svg" in plot.read_text()
    assert readme.read_text().startswith("| hard budget, MFLOPs |")
    again = invoke(*command, *outputs)
    assert again.exit_code == 1
    assert "replaced only with --force" in again.stderr
    page, other = tmp_path / "page.html", tmp_path / "again.svg"
    for out in (page, other):
        drawn = invoke("report", record, "-o", out)
        assert drawn.exit_code == 0, drawn.stderr
        assert "<svg" in out.read_text()


def test_every_table_has_a_command(
    invoke: Invoke, colours: Path, data: str, tmp_path: Path
) -> None:
    tables = {
        "iadi": ["--bundle", colours, "--base", colours],
        "dgate-table-1": ["--bundle", colours, "--thresholds", "0.8", "--thresholds", "never"],
        "dgate-figure-4": ["--gates", f"a={colours}", "--gates", f"b={colours}", "--points", 3],
        "dgate-figure-7": ["--bundle", colours],
        "easy-hard": ["--bundle", colours, "--count", 2, "--plot", tmp_path / "p.png"],
        "exits-used": ["--bundle", colours, "--budgets", "2K"],
        "averages": ["--bundle", colours, "--averages", "4K,8K", "--cap", "12K"],
    }
    for name, options in tables.items():
        record = tmp_path / f"{name}.json"
        result = invoke("report", name, *options, "--data", data, *QUICK, "--json", record)
        assert result.exit_code == 0, result.stderr
        value = json.loads(record.read_text())
        assert value["table"] == name
        assert value["n"] == 90
        assert value["rows"]
    assert (tmp_path / "p.png").stat().st_size > 1000
    chosen = invoke("report", "dgate-table-1", "--bundle", colours, "--data", data, "--timed", 0)
    assert chosen.exit_code == 0, chosen.stderr
    assert "loss <= 2.72 points" in chosen.stdout


def test_evaluations_are_drawn_together(
    invoke: Invoke, colours: Path, data: str, tmp_path: Path
) -> None:
    source, out = tmp_path / "e.json", tmp_path / "e.svg"
    result = invoke("eval", colours, "--data", data, "--budgets", "2K,12K", "--json")
    source.write_text(result.stdout)
    drawn = invoke("report", source, source, "-o", out)
    assert drawn.exit_code == 0, drawn.stderr
    assert "<svg" in out.read_text()


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["averages", "--averages", "2mJ", "--data", "{d}"], 2, "counted in FLOPs here"),
        (["no-such-table"], 2, "no-such-table"),
        (["{t}/no.json", "-o", "{t}/x.svg"], 1, "there is no such file"),
        (["{t}/there.json", "-o", "{t}/x.svg"], 1, "this is no JSON"),
        (["{t}/there.json", "-o", "{t}/x.doc"], 1, "x.doc"),
        (["{t}/there.json", "-o", "{t}/there.json"], 1, "--force"),
        (["ddi-table-2"], 2, "--data"),
        (
            ["ddi-table-2", "--data", "{d}", "--bundle", "{c}", "--budgets", "1mJ"],
            2,
            "FLOPs or MACs",
        ),
        (
            ["ddi-table-2", "--data", "{d}", "--bundle", "{c}", "--static", "x.safetensors"],
            2,
            "resnetN",
        ),
        (
            [
                "ddi-table-2",
                "--data",
                "{d}",
                "--bundle",
                "{c}",
                "--static",
                "resnet20={t}/x.safetensors",
            ],
            1,
            "x.safetensors",
        ),
        (["iadi", "--data", "{d}"], 2, "--bundle"),
        (["dgate-table-1", "--data", "{d}", "--bundle", "{c}", "--thresholds", "1,2"], 2, "exit1"),
        (
            ["dgate-table-1", "--data", "{d}", "--bundle", "{c}", "--thresholds", "x"],
            2,
            "no numbers",
        ),
        (["dgate-figure-4", "--data", "{d}", "--gates", "{c}"], 2, "NAME=BUNDLE"),
        (["dgate-figure-4", "--data", "{d}", "--gates", "a={c}"], 1, "two of each"),
        (["dgate-figure-5", "--data", "{d}", "--bundle", "{c}"], 1, "two gates"),
        (["skipping", "--data", "{d}", "--bundle", "{c}"], 1, "nothing to skip"),
        (["skipping", "--data", "{d}", "--bundle", "{g}"], 1, "takes no pictures"),
        (["exits-used", "--data", "{d}", "--bundle", "{c}", "--budgets", "10"], 1, "10 FLOPs"),
        (["exits-used", "--data", "{d}", "--bundle", "{c}", "--ray", "127.0.0.1:1"], 1, "ray"),
        (["exits-used", "--data", "{d}", "--bundle", "{c}", "--plot", "{t}/x.doc"], 1, "x.doc"),
        (
            ["exits-used", "--data", "{d}", "--bundle", "{c}", "--json", "{t}/there.json"],
            1,
            "--force",
        ),
    ],
)
def test_wrong_use_is_one_line(
    invoke: Invoke,
    colours: Path,
    gated: Path,
    data: str,
    tmp_path: Path,
    arguments: list[str],
    status: int,
    says: str,
) -> None:
    (tmp_path / "there.json").write_text("mine")
    filled = [a.format(c=colours, g=gated, d=data, t=tmp_path) for a in arguments]
    result = invoke("report", *filled)
    assert result.exit_code == status, result.stderr
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert says in result.stderr
    assert "internal error" not in result.stderr
    assert (tmp_path / "there.json").read_text() == "mine"


def test_static_weights_become_a_bundle(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    from dynrt.train.package_static import static_resnet
    from dynrt.zoo import ResNet

    path = tmp_path / "w.safetensors"
    save_file(ResNet(8).state_dict(), path)
    bundle = static_resnet("resnet8", path)
    assert bundle.graph.exits == ("final",)
    assert bundle.name == "resnet8"
    # stem 16 * 27 * 32^2, three blocks, 64 -> 10
    blocks = 2 * 16 * 144 * 1024 + (144 * 32 + 288 * 32) * 256 + (288 * 64 + 576 * 64) * 64
    assert bundle.certificate.full_macs == 16 * 27 * 1024 + blocks + 640
    for name in ("resnet9", "vgg", "resnet"):
        with pytest.raises(RecipeError, match="is no CIFAR ResNet"):
            static_resnet(name, path)
    with pytest.raises(RecipeError):
        static_resnet("resnet14", path)
