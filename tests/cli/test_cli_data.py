"""``dynrt eval`` and ``dynrt calibrate`` on a small labelled set."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from dynrt.bundle import read_bundle, write_bundle
from tests.cli.colours import CHEAPEST, FULL, SIDE, colour_bundle
from tests.cli.conftest import Ask, Invoke

N = 240


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Pictures of one colour on gray, from clear to faint, with noise: 240, three classes."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, N)
    pixels = np.full((N, SIDE, SIDE, 3), 60.0)
    pixels[np.arange(N), :, :, labels] = rng.uniform(55, 255, N)[:, None, None]
    pixels += rng.normal(0, 30, pixels.shape)
    path = tmp_path_factory.mktemp("data") / "d.npz"
    np.savez(path, pictures=pixels.clip(0, 255).astype(np.uint8), labels=labels)
    return f"npz:{path}"


def test_eval_json_is_the_contract(ask: Ask, colours: Path, data: str) -> None:
    budgets = [CHEAPEST, FULL - 2, FULL]
    got = ask("eval", colours, "--data", data, "--budgets", ",".join(map(str, budgets)))
    assert got["n"] == N
    assert 0.8 < got["accuracy"] <= 1
    assert got["max_flops"] == FULL
    assert CHEAPEST < got["mean_flops"] < FULL
    assert sum(got["exits"].values()) == N
    assert [p["budget"]["flops"] for p in got["points"]] == budgets
    for point, budget in zip(got["points"], budgets, strict=True):
        assert point["max_flops"] <= budget
        assert point["mean_flops"] <= budget
        assert point["n"] == N
    # exit1 alone takes faint blue for green
    assert got["points"][0]["accuracy"] < got["accuracy"] - 0.1
    assert got["points"][2]["accuracy"] == got["accuracy"]


def test_eval_sweep_csv_and_table(invoke: Invoke, colours: Path, data: str, tmp_path: Path) -> None:
    out = tmp_path / "points.csv"
    result = invoke("eval", colours, "--data", data, "--sweep", 3, "--csv", out, "--limit", 50)
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0].startswith("colours on 50 pictures of")
    assert len(lines) == 2 + 4
    assert max(map(len, lines)) <= 100
    rows = list(csv.DictReader(out.read_text().splitlines()))
    assert [r["budget_flops"] for r in rows] == ["", str(CHEAPEST), "6362", str(FULL)]
    assert rows[0]["mean_energy"] == ""


def test_eval_draws_a_plot(
    invoke: Invoke, ask: Ask, colours: Path, data: str, tmp_path: Path
) -> None:
    plain, beside = tmp_path / "plain.svg", tmp_path / "beside.svg"
    ask("eval", colours, "--data", data, "--budgets", "2K,12K", "--plot", plain)
    ask("eval", colours, "--data", data, "--budgets", "2K", "--plot", beside, "--beside", "ddi")
    assert "<svg" in plain.read_text()
    assert "DDI" not in plain.read_text()
    assert "DDI" in beside.read_text()


def test_eval_without_matplotlib_says_so_before_the_work(
    invoke: Invoke, colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    result = invoke("eval", colours, "--data", "npz:never-read", "--plot", tmp_path / "x.svg")
    assert result.exit_code == 1
    assert result.stderr == "error: matplotlib is missing: pip install 'dynrt[report]'\n"


def test_eval_table_of_a_network_with_energy(invoke: Invoke, data: str, tmp_path: Path) -> None:
    path = tmp_path / "energy.dynrt"
    write_bundle(colour_bundle(energy=True), path)
    result = invoke("eval", path, "--data", data, "--budgets", "0.7nJ")
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert "mean energy" in lines[1]
    # every input stops at the first exit: 585 MACs of a picojoule each
    assert "585 pJ" in lines[3]


def test_eval_takes_thresholds(ask: Ask, colours: Path, data: str) -> None:
    never = ask("eval", colours, "--data", data, "--threshold", "exit1=inf")
    assert never["exits"] == {"exit1": 0, "final": N}


def test_calibrate_writes_a_bundle_with_the_thresholds(
    ask: Ask, colours: Path, data: str, tmp_path: Path
) -> None:
    out = tmp_path / "new.dynrt"
    told = ask("calibrate", colours, "--data", data, "--budget", 5000, "-o", out)
    assert told["goal"]["kind"] == "budget"
    assert told["figures"]["mean_flops"] <= 5000
    bundle = read_bundle(out)
    exit1 = bundle.graph.by_name["exit1"]
    assert exit1.accept.threshold == told["thresholds"]["exit1"]  # type: ignore[union-attr]
    assert bundle.card["calibration"] == told
    assert bundle.card["accuracy"] == 0.875
    assert bundle.provenance["calibrated_from"] == read_bundle(colours).sha256
    # the runtime spends what the calibration promised
    seen = ask("eval", out, "--data", data)
    assert seen["mean_flops"] == pytest.approx(told["figures"]["mean_flops"])
    assert seen["accuracy"] == told["figures"]["accuracy"]


def test_calibrate_policy_file_goes_into_eval(
    ask: Ask, invoke: Invoke, colours: Path, data: str, tmp_path: Path
) -> None:
    out = tmp_path / "policy.json"
    result = invoke("calibrate", colours, "--data", data, "--loss", "0.01", "-o", out, "--policy")
    assert result.exit_code == 0, result.stderr
    assert "saved" in result.stdout
    assert result.stderr == f"wrote {out}\n"
    policy = json.loads(out.read_text())
    seen = ask("eval", colours, "--data", data, "--policy", out)
    assert seen["accuracy"] == policy["figures"]["accuracy"]
    assert seen["exits"] == policy["figures"]["exits"]


@pytest.mark.parametrize(
    ("goal", "says"),
    [
        (["--target-accuracy", "0.8"], "accuracy"),
        (["--risk", "0.1"], "saved"),
        (["--risk", "0.1", "--confidence", "0.9"], "saved"),
    ],
)
def test_other_goals(
    invoke: Invoke, colours: Path, data: str, tmp_path: Path, goal: list[str], says: str
) -> None:
    result = invoke("calibrate", colours, "--data", data, *goal, "-o", tmp_path / "n.dynrt")
    assert result.exit_code == 0, result.stderr
    assert says in result.stdout
    assert (tmp_path / "n.dynrt").is_file()


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["calibrate", "{c}", "--data", "{d}", "-o", "{t}/x"], 2, "give one of"),
        (
            ["calibrate", "{c}", "--data", "{d}", "-o", "{t}/x", "--loss", "0", "--budget", "5K"],
            2,
            "give one of",
        ),
        (
            [
                "calibrate",
                "{c}",
                "--data",
                "{d}",
                "-o",
                "{t}/x",
                "--loss",
                "0",
                "--confidence",
                ".9",
            ],
            2,
            "--risk",
        ),
        (["calibrate", "{c}", "--data", "{d}", "-o", "{t}/x", "--budget", "1mJ"], 2, "--budget"),
        (["calibrate", "{c}", "--data", "{d}", "-o", "{t}/x", "--budget", "5K,1ms"], 2, "--budget"),
        (["calibrate", "{c}", "--data", "{d}", "-o", "{t}/x", "--target-accuracy", "2"], 1, "2.0"),
        (["calibrate", "{c}", "--data", "{d}", "-o", "{t}/there", "--loss", "0"], 1, "--force"),
        (["calibrate", "{g}", "--data", "{d}", "-o", "{t}/x", "--loss", "0"], 1, "pictures"),
        (["calibrate", "{c}", "--data", "npz:{t}/no", "-o", "{t}/x", "--loss", "0"], 1, "no such"),
        (["calibrate", "{c}", "-o", "{t}/x", "--loss", "0"], 2, "--data"),
        (["eval", "{c}", "--data", "nonsense"], 1, "nonsense"),
        (["eval", "{c}", "--data", "cifar10:{t}"], 1, "no such file"),
        (["eval", "{g}", "--data", "{d}"], 1, "pictures"),
        (["eval", "{c}", "--data", "{d}", "--budgets", "1M,x"], 2, "'x'"),
        (["eval", "{c}", "--data", "{d}", "--budgets", "10"], 1, "10 FLOPs"),
        (["eval", "{c}", "--data", "{d}", "--csv", "{t}/there"], 1, "--force"),
        (["eval", "{c}", "--data", "{d}", "--csv", "{t}/no/such/x.csv"], 1, "no/such"),
        (["eval", "{c}", "--data", "{d}", "--policy", "{t}/there"], 1, "policy"),
        (["eval", "{c}", "--data", "{d}", "--sweep", "1"], 2, "--sweep"),
        (["eval", "{c}", "--data", "{d}", "--plot", "{t}/x.doc"], 1, "x.doc"),
        (["eval", "{c}", "--data", "{d}", "--plot", "{t}/no/such/x.svg"], 1, "no/such"),
        (["eval", "{c}", "--data", "{d}", "--beside", "us"], 2, "--beside"),
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
    (tmp_path / "there").write_text("mine")
    filled = [a.format(c=colours, g=gated, d=data, t=tmp_path) for a in arguments]
    result = invoke(*filled)
    assert result.exit_code == status, result.stderr
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert says in result.stderr
    assert "internal error" not in result.stderr
    assert (tmp_path / "there").read_text() == "mine"
    assert not (tmp_path / "x").exists()
