"""``dynrt calibrate --average``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import dynrt
from dynrt.calibrate.average_file import read_average
from dynrt.calibrate.datasets import load_dataset
from dynrt.calibrate.pictures import prepare
from tests.cli.colours import CHEAPEST, FULL, SIDE
from tests.cli.conftest import Ask, Invoke
from tests.cli.test_cli_data import data as data

ON = ("--split", "test")


def test_the_policy_keeps_the_average_of_a_stream(
    ask: Ask, colours: Path, data: str, tmp_path: Path
) -> None:
    out = tmp_path / "average.json"
    average = (CHEAPEST + FULL) // 2
    told = ask(
        "calibrate", colours, "--data", data, *ON, "--average", average, "--cap", FULL, "-o", out
    )
    policy = read_average(out)
    assert told["average"] == policy.average == average // 2
    assert (policy.cap, policy.resource, policy.burst) == (FULL // 2, "macs", 100)
    assert policy.accuracy >= policy.fixed_accuracy
    with dynrt.load(colours) as network:
        source = policy.source(lambda thresholds: network.set(thresholds=thresholds))
        rule = network.bundle.preprocessing if network.bundle is not None else None
        assert rule is not None
        pictures = load_dataset(data, split="test", size=(SIDE, SIDE)).pictures
        spent = 0
        for n, result in enumerate(network.stream(prepare(pictures, rule), budget=source), 1):
            spent += result.macs
            assert spent <= n * policy.average
            assert result.macs <= FULL // 2


def test_the_page_shows_the_levels(
    invoke: Invoke, colours: Path, data: str, tmp_path: Path
) -> None:
    out = tmp_path / "average.json"
    result = invoke(
        "calibrate", colours, "--data", data, *ON, "--average", FULL, "--burst", 7, "-o", out
    )
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["mean", "accuracy", "thresholds"]
    assert len(lines) == 1 + len(read_average(out).levels) + 1
    assert "fixed thresholds" in lines[-1]
    assert read_average(out).burst == 7
    assert f"wrote {out}" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["--average", "5K", "--loss", "0"], 2, "give one of"),
        (["--cap", "5K", "--loss", "0"], 2, "--cap and --burst go with --average"),
        (["--burst", "5", "--loss", "0"], 2, "--cap and --burst go with --average"),
        (["--average", "5ms"], 2, "--average: one amount"),
        (["--average", "5K,1mJ"], 2, "--average: one amount"),
        (["--average", "5K", "--cap", "1mJ"], 2, "counted in what"),
        (["--average", "2"], 1, "below what one answer may take"),
        (["--average", "6K", "--cap", "5K"], 1, "below the average"),
        (["--average", "1mJ"], 1, "name a table"),
        (["--average", "5K", "--burst", "0"], 2, "--burst"),
    ],
)
def test_what_cannot_be_is_refused(
    invoke: Invoke,
    colours: Path,
    data: str,
    tmp_path: Path,
    arguments: list[str],
    status: int,
    says: str,
) -> None:
    out = tmp_path / "average.json"
    result = invoke("calibrate", colours, "--data", data, *ON, *arguments, "-o", out)
    assert result.exit_code == status, result.stderr
    assert says in result.stderr.replace("\n", " ")
    assert not out.exists()


@pytest.fixture
def stream_policy(ask: Ask, colours: Path, data: str, tmp_path: Path) -> Path:
    """Levels that keep an average halfway between the cheapest answer and the full network."""
    out = tmp_path / "stream.json"
    average = (CHEAPEST + FULL) // 2
    ask("calibrate", colours, "--data", data, *ON, "--average", average, "-o", out)
    return out


def test_run_keeps_the_average_at_every_moment(
    ask: Ask, colours: Path, data: str, stream_policy: Path, tmp_path: Path
) -> None:
    pictures = np.load(data.removeprefix("npz:"))["pictures"][:60]
    names = []
    for i, picture in enumerate(pictures):
        names.append(tmp_path / f"{i}.png")
        Image.fromarray(picture).save(names[-1])
    told = ask("run", colours, *names, "--policy", stream_policy)
    spent = 0
    for n, result in enumerate(told["results"], 1):
        spent += result["flops"]
        assert spent <= n * ((CHEAPEST + FULL) // 2)
    assert {r["exit"] for r in told["results"]} == {"exit1", "final"}


def test_eval_answers_the_data_as_a_stream(
    ask: Ask, colours: Path, data: str, stream_policy: Path
) -> None:
    told = ask("eval", colours, "--data", data, "--policy", stream_policy)
    policy = read_average(stream_policy)
    assert told["n"] == 240
    assert told["mean_flops"] <= 2 * policy.average
    assert abs(told["accuracy"] - policy.accuracy) < 0.05
    assert told["points"] == []


def test_run_takes_fixed_thresholds_too(ask: Ask, colours: Path, data: str, tmp_path: Path) -> None:
    out = tmp_path / "fixed.json"
    ask("calibrate", colours, "--data", data, *ON, "--loss", 0.1, "--policy", "-o", out)
    picture = tmp_path / "one.png"
    Image.fromarray(np.load(data.removeprefix("npz:"))["pictures"][0]).save(picture)
    free = ask("run", colours, picture, "--policy", out)["results"][0]
    held = ask("run", colours, picture, "--policy", out, "--threshold", "exit1=-1e9")["results"][0]
    assert held["exit"] == "exit1"  # what is typed goes over what the file says
    assert free["flops"] >= held["flops"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "--budget", "5K"),
        ("run", "--batch", "2"),
        ("run", "--threshold", "exit1=0"),
        ("run", "--mode", "reference"),
        ("eval", "--budgets", "5K"),
        ("eval", "--sweep", "3"),
        ("eval", "--threshold", "exit1=0"),
        ("eval", "--workers", "2"),
    ],
)
def test_a_stream_is_one_at_a_time_under_its_own_budgets(
    invoke: Invoke, colours: Path, data: str, stream_policy: Path, arguments: tuple[str, ...]
) -> None:
    command, *options = arguments
    where = ["--data", data] if command == "eval" else []
    result = invoke(command, colours, *where, "--policy", stream_policy, *options)
    assert result.exit_code == 2
    assert "sets budgets and thresholds itself" in " ".join(result.stderr.split())


def test_a_policy_of_another_network_is_refused(
    invoke: Invoke, gated: Path, stream_policy: Path
) -> None:
    result = invoke("run", gated, "--policy", stream_policy)
    assert result.exit_code == 1
    assert "was calibrated on" in result.stderr
