"""``dynrt train`` of gated networks: settings, finished stages, and what it says of savings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dynrt.bundle import read_bundle
from dynrt.ir.graph import Exit
from tests.cli.conftest import Ask, Invoke
from tests.train.tiny import gated_recipe, tiny_pictures


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With pictures in ``d.npz`` and a recipe in ``tiny.toml``; the working directory."""
    monkeypatch.chdir(tmp_path)
    tiny_pictures(tmp_path / "d.npz", side=16)
    (tmp_path / "tiny.toml").write_text(gated_recipe(epochs=1, d_gates=False))
    return tmp_path


TRAIN = ("train", "tiny.toml", "--data", "npz:d.npz", "--threads", 1)


def test_from_pictures_to_a_network_that_skips(invoke: Invoke, ask: Ask, folder: Path) -> None:
    first = invoke(*TRAIN, "-o", "run", "--set", "stages.iadi.target=0.2")
    assert first.exit_code == 0, first.stderr
    assert "iadi epoch 1/1 step 3/3" in first.stderr
    assert " saved " in first.stderr
    assert ", saved " in first.stdout
    again = ask(*TRAIN, "-o", "run", "--set", "stages.iadi.target=0.2")
    assert sorted(again["measures"]) == ["ddi", "iadi", "open"]
    assert again["measures"]["iadi"].keys() == {"saved", "skipped"}
    assert "target = 0.2" in (folder / "run" / "recipe.toml").read_text()
    ask("export", "run", "-o", "net.dynrt", "--data", "npz:d.npz", "--samples", 4)
    graph = read_bundle(folder / "net.dynrt").graph
    assert {"block2_gate", "block2_mask", "exit1", "final"} <= {node.name for node in graph.nodes}


def test_either_kind_of_d_gates_decides(ask: Ask, folder: Path) -> None:
    (folder / "tiny.toml").write_text(gated_recipe(epochs=1, d_gates=True))
    ask(*TRAIN, "-o", "run")
    for kind, port in (("hinge", "distances"), ("softmax", "softmax")):
        called = ("--name", f"mine-{kind}")
        ask("export", "run", "-o", f"{kind}.dynrt", "--gates", kind, *called, "--samples", 4)
        bundle = read_bundle(folder / f"{kind}.dynrt")
        assert bundle.name == f"mine-{kind}"
        early = bundle.graph.by_name["exit1"]
        assert isinstance(early, Exit)
        assert early.accept.port == port


def test_another_setting_is_another_run(invoke: Invoke, folder: Path) -> None:
    only = ("--set", "stages.open.cpu.epochs=2")
    assert invoke(*TRAIN, "-o", "run", *only).exit_code == 0
    other = invoke(*TRAIN, "-o", "run")
    assert other.exit_code == 1
    assert "made with another recipe" in other.stderr


def test_finished_stages_are_not_trained(invoke: Invoke, ask: Ask, folder: Path) -> None:
    assert invoke(*TRAIN, "-o", "run").exit_code == 0
    told = ask(*TRAIN, "-o", "next", "--finished", "iadi=run/iadi.safetensors")
    assert sorted(told["weights"]) == ["ddi", "iadi"]
    lines = Path(told["records"]).read_text().splitlines()
    assert [json.loads(line)["stage"] for line in lines] == ["iadi", "ddi"]


def test_branches_go_on_to_another_target(invoke: Invoke, folder: Path) -> None:
    assert invoke(*TRAIN, "-o", "run").exit_code == 0
    first = load_file(folder / "run" / "ddi.safetensors")
    barely = ("--set", "stages.ddi.target=0.5", "--set", "stages.ddi.rate.peak=1e-9")
    words = ("-o", "next", "--finished", "iadi=run/ddi.safetensors", *barely)
    result = invoke(*TRAIN, *words)
    assert result.exit_code == 0, result.stderr
    second = load_file(folder / "next" / "ddi.safetensors")
    head = "branches.0.classifier.weight"
    assert second.keys() == first.keys()
    assert torch.allclose(second[head], first[head], atol=1e-5)


def test_a_sweep_is_one_run_for_each_value(invoke: Invoke, ask: Ask, folder: Path) -> None:
    # `open` is trained for the first point only; its records stand in the second too
    told = ask(*TRAIN, "-o", "all", "--sweep", "stages.iadi.target=0.2,0.6")
    assert list(told["points"]) == ["0.2", "0.6"]
    stages = {
        value: [
            json.loads(line)["stage"] for line in Path(point["records"]).read_text().splitlines()
        ]
        for value, point in told["points"].items()
    }
    assert stages == {"0.2": ["base", "open", "iadi", "ddi"], "0.6": ["open", "iadi", "ddi"]}
    alone = ask(
        *TRAIN, "-o", "alone", "--set", "stages.iadi.target=0.6",
        "--finished", "open=all/target=0.2/open.safetensors",
    )  # fmt: skip
    assert alone["accuracy"]["ddi"] == told["points"]["0.6"]["accuracy"]["ddi"]
    page = invoke(*TRAIN, "-o", "all", "--sweep", "stages.iadi.target=0.2,0.6")
    assert "all/target=0.6" in page.stdout
    assert "stages.iadi.target = 0.6: all/target=0.6" in page.stderr


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["--set", "stages.iadi.target"], 1, "--set stages.iadi.target: KEY=VALUE"),
        (["--set", "stages.iadi.target=2"], 1, "target = 2: a number from 0 to 1"),
        (["--set", "stages.iadi.aim=0.5"], 1, "aim = 0.5: no such field"),
        (["--finished", "iadi"], 2, "'iadi': STAGE=FILE is allowed"),
        (["--finished", "iadi=no.safetensors"], 1, "there is no file no.safetensors"),
        (["--finished", "end=d.npz"], 1, "finished stage 'end'"),
        (["--threads", "0"], 2, "--threads"),
        (["--sweep", "stages.iadi.target"], 2, "KEY=V,V,... is allowed"),
        (["--sweep", "stages.iadi.target=0.2,0.2"], 1, "values differ"),
        (["--sweep", "stages.iadi.target=0.2,2"], 1, "target = 2: a number from 0 to 1"),
    ],
)
def test_wrong_options_are_one_line(
    invoke: Invoke, folder: Path, arguments: list[str], status: int, says: str
) -> None:
    result = invoke(*TRAIN, "-o", "run", *arguments)
    assert result.exit_code == status
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert says in result.stderr
    assert not (folder / "run").exists()
