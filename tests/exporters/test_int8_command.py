"""``dynrt export BUNDLE --int8 --data D``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from torch import nn

from dynrt.bundle import Preprocessing, read_bundle, write_bundle
from dynrt.cli import main
from dynrt.exporters.chains import Head, sequential_exits
from dynrt.exporters.lower import lower
from dynrt.ir.graph import Accept, TensorType
from tests.exporters.networks import pooled_head, seeded


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments])


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that takes pictures, as a file."""
    torch.manual_seed(0)
    rule = Preprocessing(height=8, width=8, channels=3, mean=(0.5,) * 3, std=(0.25,) * 3)
    first = seeded(nn.Sequential(nn.Conv2d(3, 32, 3, 1, 1), nn.ReLU()))
    second = seeded(nn.Sequential(nn.Conv2d(32, 32, 3, 1, 1), nn.ReLU()))
    accept = Accept(kind="max_softmax", port="logits", threshold=0.25)
    exits: dict[str, Head | nn.Module] = {
        "a": Head(module=pooled_head(32), accept=accept),
        "b": pooled_head(32),
    }
    kind = TensorType(dtype="float32", shape=(3, 8, 8))
    net = sequential_exits("small", kind, [("a", first), ("b", second)], exits)
    path = tmp_path_factory.mktemp("int8") / "small.dynrt"
    write_bundle(lower(net.build(labels=tuple("vwxyz"), preprocessing=rule)), path)
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 pictures of noise with labels, no parts."""
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("data") / "noise.npz"
    pictures = rng.integers(0, 256, (48, 8, 8, 3), dtype=np.uint8)
    np.savez(path, pictures=pictures, labels=np.arange(48) % 5)
    return path


def test_it_writes_a_smaller_bundle_and_says_how_it_does(
    source: Path, data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "small-int8.dynrt"
    done = invoke("export", source, "--int8", "--data", f"npz:{data}", "-o", out, "--json")
    assert done.exit_code == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    report = told["int8"]
    # Without parts the pictures are shared out: half give ranges, the others are compared on.
    assert report["inputs"] == 24
    assert [e["name"] for e in report["exits"]] == ["exit1", "final"]
    assert 0.8 <= report["same_paths"] <= 1
    assert 0 <= report["int8_accuracy"] <= 1
    assert report["int8_bytes"] < report["float_bytes"]
    assert out.stat().st_size < source.stat().st_size
    assert done.stderr.startswith("int8: on 24 inputs of noise.npz")
    bundle = read_bundle(out)
    assert bundle.name == "small-int8"
    assert bundle.sha256 == told["bundle"]["sha256"]
    assert bundle.card["accuracy"] == report["int8_accuracy"]
    assert bundle.provenance["quantised_from"] == read_bundle(source).sha256
    again = invoke("export", out, "--int8", "--data", f"npz:{data}", "-o", tmp_path / "again.dynrt")
    assert again.exit_code == 1
    assert "is quantised already" in again.stderr


def test_how_many_pictures_can_be_said(source: Path, data: Path, tmp_path: Path) -> None:
    done = invoke(
        "export", source, "--int8", "--data", f"npz:{data}", "-o", tmp_path / "x.dynrt",
        "--calibration", 8, "--held-out", 5, "--json",
    )  # fmt: skip
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["int8"]["inputs"] == 5
    run = invoke("eval", tmp_path / "x.dynrt", "--data", f"npz:{data}", "--json")
    assert run.exit_code == 0, run.stderr
    assert json.loads(run.stdout)["n"] == 48


def test_without_data_it_says_what_to_give(source: Path, tmp_path: Path) -> None:
    done = invoke("export", source, "--int8", "-o", tmp_path / "x.dynrt")
    assert done.exit_code == 2
    assert "--int8 finds ranges on pictures: give --data" in done.stderr
    assert not (tmp_path / "x.dynrt").exists()


def test_one_picture_is_too_few(source: Path, tmp_path: Path) -> None:
    np.savez(
        tmp_path / "one.npz", pictures=np.zeros((1, 8, 8, 3), np.uint8), labels=np.zeros(1, int)
    )
    done = invoke(
        "export", source, "--int8", "--data", f"npz:{tmp_path / 'one.npz'}", "-o", tmp_path / "x.dynrt"
    )  # fmt: skip
    assert done.exit_code == 1
    assert "holds 1 picture; one for ranges and one other are needed" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_network_that_takes_no_pictures_is_refused(data: Path, tmp_path: Path) -> None:
    kind = TensorType(dtype="float32", shape=(4,))
    net = sequential_exits("bare", kind, [("a", nn.Linear(4, 4))], {"a": nn.Linear(4, 2)})
    write_bundle(lower(net.build()), tmp_path / "bare.dynrt")
    done = invoke(
        "export", tmp_path / "bare.dynrt", "--int8", "--data", f"npz:{data}", "-o", tmp_path / "x.dynrt"
    )  # fmt: skip
    assert done.exit_code == 1
    assert done.stderr == (
        "error: --int8: this network takes no pictures (it has no preprocessing)\n"
    )
