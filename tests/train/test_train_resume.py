"""An interrupted training ends in the same weights, to the bit, as one never interrupted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from dynrt.errors import OutputExistsError, RecipeError
from tests.train.tiny import (
    Bench,
    Interrupted,
    StopAfter,
    same_tensors,
    tiny_pictures,
    tiny_recipe,
)

STAGES = ("base", "branches", "gates")


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Tiny data, and ``whole``: a training that nothing interrupted."""
    made = Bench(tmp_path_factory.mktemp("resume"))
    assert made.train("whole").finished
    return made


def _weights(bench: Bench, out: str) -> dict[str, torch.Tensor]:
    return {
        f"{stage}/{name}": tensor
        for stage in STAGES
        for name, tensor in load_file(bench.folder / out / f"{stage}.safetensors").items()
    }


def _records(bench: Bench, out: str) -> list[dict[str, object]]:
    lines = (bench.folder / out / "records.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in lines]


def test_training_twice_is_the_same_to_the_bit(bench: Bench) -> None:
    bench.train("again")
    assert same_tensors(_weights(bench, "whole"), _weights(bench, "again"))


def test_another_seed_is_another_network(bench: Bench, tmp_path: Path) -> None:
    other = Bench(tmp_path, tiny_recipe(seed=1))
    other.train("whole")
    assert not same_tensors(_weights(bench, "whole"), _weights(other, "whole"))


@pytest.mark.parametrize("step", range(1, 14))
def test_a_kill_at_any_step_changes_nothing(bench: Bench, step: int) -> None:
    # 3 steps an epoch, 2 epochs a stage; features of 2 epochs' pictures lie in between
    out = f"killed{step}"
    with pytest.raises(Interrupted):
        bench.train(out, progress=StopAfter(step), save_every_s=0.0)
    result = bench.train(out)
    assert result.finished
    assert same_tensors(_weights(bench, "whole"), _weights(bench, out))
    assert _records(bench, out) == _records(bench, "whole")


def test_resuming_goes_on_where_it_stood(bench: Bench) -> None:
    with pytest.raises(Interrupted):
        bench.train("position", progress=StopAfter(4), save_every_s=0.0)
    seen: list[tuple[str, int, int]] = []
    bench.train("position", progress=lambda p: seen.append((p.stage, p.epoch, p.step)))
    assert seen[0] == ("base", 2, 2)  # the fifth of 2 * 3 steps
    assert seen[1] == ("base", 2, 3)


def test_without_saves_within_an_epoch_the_epoch_starts_again(bench: Bench) -> None:
    with pytest.raises(Interrupted):
        bench.train("coarse", progress=StopAfter(4))
    seen: list[tuple[int, int]] = []
    bench.train("coarse", progress=lambda p: seen.append((p.epoch, p.step)))
    assert seen[0] == (2, 1)
    assert same_tensors(_weights(bench, "whole"), _weights(bench, "coarse"))


def test_many_short_calls_are_one_long_one(bench: Bench) -> None:
    calls = 0
    while not (result := bench.train("slices", seconds=0.0)).finished:
        assert result.seconds >= 0
        calls += 1
        assert calls < 60
    assert calls > 12
    assert same_tensors(_weights(bench, "whole"), _weights(bench, "slices"))
    assert _records(bench, "slices") == _records(bench, "whole")


def test_sigkill_while_it_writes_changes_nothing(bench: Bench) -> None:
    out = bench.folder / "sigkill"
    code = (
        "import sys; from pathlib import Path; from dynrt.train import train\n"
        "train(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), threads=1, save_every_s=0.0)\n"
    )
    arguments = [sys.executable, "-c", code, str(bench.recipe), bench.data, str(out)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen(arguments, env=environment)
    try:
        deadline = time.monotonic() + 300
        while not list(out.glob("*.safetensors")):
            assert time.monotonic() < deadline
            assert process.poll() in (None, 0)
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        process.wait()
    assert bench.train("sigkill").finished
    assert same_tensors(_weights(bench, "whole"), _weights(bench, "sigkill"))


def _unfinished(bench: Bench, out: str) -> Path:
    with pytest.raises(Interrupted):
        bench.train(out, progress=StopAfter(2), save_every_s=0.0)
    path = bench.folder / out / "base.checkpoint.safetensors"
    assert path.exists()
    return path


def test_a_damaged_checkpoint_is_refused(bench: Bench) -> None:
    path = _unfinished(bench, "damaged")
    raw = path.read_bytes()
    path.write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))
    with pytest.raises(RecipeError, match=r"base\.checkpoint\.safetensors: damaged"):
        bench.train("damaged")
    path.write_bytes(raw[: len(raw) // 2])
    with pytest.raises(RecipeError, match="damaged"):
        bench.train("damaged")


def test_a_checkpoint_of_another_recipe_is_refused(bench: Bench) -> None:
    path = _unfinished(bench, "foreign")
    before = path.read_bytes()
    told = (bench.folder / "foreign" / "recipe.toml").read_bytes()
    other = bench.folder / "other.toml"
    other.write_text(tiny_recipe(epochs=3))
    mine, bench.recipe = bench.recipe, other
    try:
        with pytest.raises(RecipeError, match="made with another recipe"):
            bench.train("foreign")
        with pytest.raises(RecipeError, match="made with another recipe"):
            bench.train("whole")
    finally:
        bench.recipe = mine
    assert path.read_bytes() == before
    assert (bench.folder / "foreign" / "recipe.toml").read_bytes() == told


def test_a_checkpoint_of_other_data_is_refused(bench: Bench) -> None:
    _unfinished(bench, "data")
    mine = bench.data
    bench.data = tiny_pictures(bench.folder / "others.npz", seed=1)
    try:
        with pytest.raises(RecipeError, match="made with another data"):
            bench.train("data")
    finally:
        bench.data = mine


def test_the_same_data_elsewhere_is_the_same(bench: Bench) -> None:
    _unfinished(bench, "moved")
    mine = bench.data
    bench.data = tiny_pictures(bench.folder / "copy.npz")
    try:
        assert bench.train("moved").finished
    finally:
        bench.data = mine


def test_later_stages_belong_to_the_earlier_ones(bench: Bench) -> None:
    bench.train("swapped")
    folder = bench.folder / "swapped"
    (folder / "base.safetensors").unlink()
    imported = folder / "foreign_base.safetensors"
    changed = load_file(bench.folder / "whole" / "base.safetensors")
    changed["linear.bias"] = changed["linear.bias"] + 1
    save_file(changed, imported)
    with pytest.raises(RecipeError, match="made with another stage before it"):
        bench.train("swapped", finished={"base": imported})


def test_resume_off_refuses_a_folder_in_use(bench: Bench) -> None:
    with pytest.raises(OutputExistsError, match="holds a run"):
        bench.train("whole", resume=False)
    assert bench.train("fresh", resume=False).finished


def test_finished_runs_are_not_trained_again(bench: Bench) -> None:
    before = _weights(bench, "whole")
    result = bench.train("whole", progress=StopAfter(0))
    assert result.finished
    assert result.accuracy["branches"].keys() == {"exit1", "exit2", "exit3", "final"}
    assert same_tensors(before, _weights(bench, "whole"))
