"""A run from end to end: what it leaves, what it tells, what it refuses."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from dynrt.errors import DataError, RecipeError
from dynrt.train import Progress, load_recipe, train
from dynrt.train.checkpoint import read_tensor_file
from dynrt.train.networks import new_backbone, new_branched
from dynrt.train.recipe import NetworkSpec
from tests.train.tiny import Bench, StopAfter, same_tensors, tiny_pictures, tiny_recipe

TEACHER = """
[stages.base.cpu.teacher]
depth = 8
width = 4
weights.file = "teacher.safetensors"
share = 0.5
temperature = 3.0
"""


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Tiny data and a finished training, ``whole``."""
    made = Bench(tmp_path_factory.mktemp("run"), tiny_recipe(epochs=4))
    assert made.train("whole").finished
    return made


def test_a_run_learns_and_leaves_its_stages(bench: Bench) -> None:
    result = bench.train("whole")
    out = bench.folder / "whole"
    assert {p.name for p in out.iterdir()} == {
        "base.safetensors",
        "branches.safetensors",
        "gates.safetensors",
        "records.jsonl",
        "recipe.toml",
        "run.json",
    }
    assert result.weights == {s: out / f"{s}.safetensors" for s in ("base", "branches", "gates")}
    assert result.accuracy["branches"]["final"] > 0.9  # three colours; chance is 1/3
    assert result.accuracy["gates"]["exit3.distances"] > 0.9
    assert (out / "recipe.toml").read_text() == bench.recipe.read_text()
    about = json.loads((out / "run.json").read_text())
    assert about["labels"] == ["0", "1", "2"]
    assert about["picture_size"] == [8, 8]


def test_weights_have_plain_keys(bench: Bench) -> None:
    spec = load_recipe(bench.recipe).network
    assert isinstance(spec, NetworkSpec)
    out = bench.folder / "whole"
    base, branches = (load_file(out / f"{s}.safetensors") for s in ("base", "branches"))
    assert base.keys() == new_backbone(spec, seed=0).state_dict().keys()
    assert branches.keys() == new_branched(spec, seed=0).state_dict().keys()
    gates = load_file(out / "gates.safetensors")
    assert gates.keys() == {
        f"{kind}.{i}.{name}"
        for kind in ("gates", "softmax_gates")
        for i in range(3)
        for name in ("weight", "bias")
    }


def test_branches_start_from_the_base(tmp_path: Path) -> None:
    # at a learning rate of nearly nothing they stay there
    still = Bench(tmp_path, tiny_recipe(epochs=1, peak=1e-9))
    still.train("out")
    base = load_file(tmp_path / "out" / "base.safetensors")
    branches = load_file(tmp_path / "out" / "branches.safetensors")
    for name in ("conv1.weight", "layer3.0.conv2.weight", "linear.bias"):
        torch.testing.assert_close(branches[f"backbone.{name}"], base[name], rtol=1e-4, atol=1e-7)


def test_records_are_one_json_line_per_epoch(bench: Bench) -> None:
    lines = (bench.folder / "whole" / "records.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert [(r["stage"], r["epoch"]) for r in records] == [
        (stage, epoch) for stage in ("base", "branches", "gates") for epoch in (1, 2, 3, 4)
    ]
    for record in records:
        assert record.keys() == {"stage", "epoch", "loss", "accuracy", "seconds"}
        assert record["loss"] > 0
        assert record["seconds"] >= 0
        assert all(0 <= a <= 1 for a in record["accuracy"].values())
    assert records[0]["accuracy"].keys() == {"final"}
    assert records[4]["accuracy"].keys() == {"exit1", "exit2", "exit3", "final"}


def test_progress_tells_stage_loss_accuracy_and_time_left(bench: Bench) -> None:
    ticks = iter(range(10**6))
    seen: list[Progress] = []
    bench.train("told", progress=seen.append, clock=lambda: float(next(ticks)))
    stages = list(dict.fromkeys(p.stage for p in seen))
    assert stages == ["base", "branches", "features", "gates"]
    base = [p for p in seen if p.stage == "base"]
    assert [(p.epoch, p.step) for p in base] == [(e, s) for e in range(1, 5) for s in (1, 2, 3)]
    assert all((p.epochs, p.steps) == (4, 3) for p in base)
    assert [p.accuracy is not None for p in base] == [False, False, True] * 4
    assert base[-1].eta_s == 0
    estimates = [p.eta_s for p in base if p.eta_s is not None]
    assert len(estimates) == 12
    assert estimates[0] > estimates[-2] > 0
    assert [p.seconds for p in seen] == sorted(p.seconds for p in seen)
    features = [p for p in seen if p.stage == "features"]
    assert features[-1].step == features[-1].steps == 2  # 48 pictures, and mirrored
    assert features[0].loss is None


def test_finished_weights_can_be_brought_along(bench: Bench) -> None:
    base = bench.folder / "whole" / "base.safetensors"
    seen: list[str] = []
    result = bench.train(
        "imported", finished={"base": base}, progress=lambda p: seen.append(p.stage)
    )
    assert "base" not in seen
    whole, imported = (bench.folder / o / "gates.safetensors" for o in ("whole", "imported"))
    assert same_tensors(load_file(whole), load_file(imported))
    assert result.accuracy["base"] == bench.train("whole").accuracy["base"]
    # and later calls know it
    assert bench.train("imported", progress=StopAfter(0)).finished


def test_branches_brought_along_need_no_base(bench: Bench) -> None:
    branches = bench.folder / "whole" / "branches.safetensors"
    result = bench.train("late", finished={"branches": branches})
    assert result.finished
    assert list(result.weights) == ["branches", "gates"]
    assert not (bench.folder / "late" / "base.safetensors").exists()
    assert same_tensors(
        load_file(bench.folder / "whole" / "gates.safetensors"), load_file(result.weights["gates"])
    )
    assert bench.train("late", progress=StopAfter(0)).finished


def test_gates_brought_along_still_need_their_branches(bench: Bench) -> None:
    files = {s: bench.folder / "whole" / f"{s}.safetensors" for s in ("branches", "gates")}
    result = bench.train("gates", finished=files)
    assert result.finished
    assert result.accuracy["gates"] == bench.train("whole").accuracy["gates"]
    assert same_tensors(load_file(files["gates"]), load_file(result.weights["gates"]))
    assert bench.train("gates", progress=StopAfter(0)).finished


def test_other_weights_brought_along_later_are_refused(bench: Bench) -> None:
    with pytest.raises(RecipeError, match="made with another"):
        bench.train("whole", finished={"base": bench.folder / "whole" / "branches.safetensors"})


@pytest.mark.parametrize(
    ("stage", "file", "message"),
    [
        ("heads", "whole/base.safetensors", "'heads': recipe 'tiny' has base, branches, gates"),
        ("base", "nowhere", "'base': there is no file"),
        ("base", "whole/gates.safetensors", r"gates\.safetensors: lacks 'conv1\.weight'"),
        ("base", "whole/records.jsonl", "damaged, or no safetensors file"),
    ],
)
def test_wrong_finished_stages(bench: Bench, stage: str, file: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        bench.train("wrong", finished={stage: bench.folder / file})


def test_weights_of_another_width_are_refused(bench: Bench, tmp_path: Path) -> None:
    wide = load_file(bench.folder / "whole" / "base.safetensors")
    wide["linear.bias"] = torch.zeros(4)
    save_file(wide, tmp_path / "wide.safetensors")
    with pytest.raises(RecipeError, match=r"linear\.bias has the shape \(4,\); .* is \(3,\)"):
        bench.train("wide", finished={"base": tmp_path / "wide.safetensors"})


def _taught(folder: Path, extra: str = TEACHER) -> Bench:
    folder.mkdir(exist_ok=True)
    return Bench(folder, tiny_recipe(stages=("base",), extra=extra))


def test_a_teacher_is_found_used_and_pinned(bench: Bench, tmp_path: Path) -> None:
    taught = _taught(tmp_path / "a")
    with pytest.raises(RecipeError, match=r"needs the weights 'teacher\.safetensors'; looked in"):
        taught.train("out")
    assert not (tmp_path / "a" / "out" / "base.safetensors").exists()
    source = bench.folder / "whole" / "base.safetensors"
    shutil.copy(source, tmp_path / "a" / "teacher.safetensors")
    taught.train("out")
    alone = _taught(tmp_path / "b", "")
    alone.train("out")
    made = [load_file(tmp_path / f / "out" / "base.safetensors") for f in ("a", "b")]
    assert not same_tensors(made[0], made[1])
    # another teacher under the same name is another run
    changed = load_file(source)
    changed["linear.bias"] = changed["linear.bias"] + 1
    save_file(changed, tmp_path / "a" / "teacher.safetensors")
    with pytest.raises(RecipeError, match="made with another teacher"):
        taught.train("out")


def test_weights_are_looked_for_beside_the_data_too(bench: Bench, tmp_path: Path) -> None:
    taught = _taught(tmp_path / "a")
    (tmp_path / "data" / "weights").mkdir(parents=True)
    taught.data = tiny_pictures(tmp_path / "data" / "p.npz")
    source = bench.folder / "whole" / "base.safetensors"
    shutil.copy(source, tmp_path / "data" / "weights" / "teacher.safetensors")
    assert taught.train("out").finished
    other = tmp_path / "elsewhere"
    other.mkdir()
    (tmp_path / "data" / "weights" / "teacher.safetensors").rename(other / "teacher.safetensors")
    assert taught.train("again", weight_folders=[other]).finished


def test_a_pinned_hash_is_checked(bench: Bench, tmp_path: Path) -> None:
    source = bench.folder / "whole" / "base.safetensors"
    sha256 = hashlib.sha256(source.read_bytes()).hexdigest()
    for i, (digest, fits) in enumerate([(sha256, True), ("0" * 64, False)]):
        text = tiny_recipe(stages=("base",))
        text += f"[stages.base.cpu.start]\nfile = 's.safetensors'\nsha256 = '{digest}'\n"
        started = Bench(tmp_path, text)
        shutil.copy(source, tmp_path / "s.safetensors")
        if fits:
            assert started.train(f"out{i}").finished
        else:
            with pytest.raises(RecipeError, match=r"SHA-256 .* is not the recipe's 000000000000"):
                started.train(f"out{i}")


def test_a_start_is_where_it_goes_on_from(bench: Bench, tmp_path: Path) -> None:
    source = bench.folder / "whole" / "base.safetensors"
    shutil.copy(source, tmp_path / "s.safetensors")
    text = tiny_recipe(stages=("base",), epochs=1, peak=1e-9)
    started = Bench(tmp_path, text + "[stages.base.cpu.start]\nfile = 's.safetensors'\n")
    started.train("out")
    made, before = load_file(tmp_path / "out" / "base.safetensors"), load_file(source)
    for name in ("conv1.weight", "layer2.0.conv1.weight", "linear.weight"):
        torch.testing.assert_close(made[name], before[name], rtol=1e-4, atol=1e-7)


def test_bfloat16_trains_too(tmp_path: Path) -> None:
    text = tiny_recipe(stages=("base", "branches"), epochs=4)
    half = Bench(tmp_path, text.replace('precision = "float32"', 'precision = "bfloat16"'))
    result = half.train("out")
    assert result.accuracy["branches"]["final"] > 0.8
    assert all(
        t.dtype in (torch.float32, torch.int64)
        for t in load_file(result.weights["branches"]).values()
    )


def test_a_diverging_loss_is_named(tmp_path: Path) -> None:
    wild = Bench(tmp_path, tiny_recipe(stages=("base",), epochs=30, peak=1000.0))
    with pytest.raises(RecipeError, match=r"stage 'base': the loss is (nan|inf) in epoch \d+ at"):
        wild.train("out")


def test_schedules_are_different_runs(bench: Bench, tmp_path: Path) -> None:
    text = tiny_recipe(stages=("base",))
    both = Bench(tmp_path, text.replace("epochs = 2", "epochs = 1", 1))  # paper comes first
    assert both.train("out", schedule="paper").finished
    assert len((tmp_path / "out" / "records.jsonl").read_text().splitlines()) == 1
    with pytest.raises(RecipeError, match="made with another recipe"):
        both.train("out", schedule="cpu")


def test_data_that_does_not_fit_the_recipe(bench: Bench, tmp_path: Path) -> None:
    small = tiny_pictures(tmp_path / "small.npz", side=7)
    few = tiny_pictures(tmp_path / "few.npz", count=15)
    with pytest.raises(RecipeError, match=r"pictures of 7x7; .* at least 8x8"):
        train(bench.recipe, small, tmp_path / "o")
    with pytest.raises(RecipeError, match=r"stages\.base\.cpu\.batch = 16, but .* has 15 pictures"):
        train(bench.recipe, few, tmp_path / "o")
    np.savez(
        tmp_path / "two.npz",
        pictures=np.zeros((32, 8, 8, 3), np.uint8),
        labels=np.arange(32) % 2,
    )
    with pytest.raises(RecipeError, match=r"network\.classes = 3, but .* has 2"):
        train(bench.recipe, f"npz:{tmp_path / 'two.npz'}", tmp_path / "o")
    with pytest.raises(DataError, match="nowhere"):
        train(bench.recipe, "cifar10:/nowhere", tmp_path / "o")
    assert not (tmp_path / "o").exists()


def test_a_file_in_the_way_of_the_folder(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "o").write_text("")
    with pytest.raises(RecipeError, match="no folder can be made"):
        train(bench.recipe, bench.data, tmp_path / "o")


def test_threads_and_random_numbers_of_the_caller_stay(bench: Bench) -> None:
    before = torch.get_num_threads()
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    bench.train("polite")
    assert torch.equal(torch.rand(3), wanted)
    assert torch.get_num_threads() == before


def test_a_finished_stage_says_what_it_belongs_to(bench: Bench) -> None:
    content = read_tensor_file(bench.folder / "whole" / "gates.safetensors", kind="weights")
    assert content.identity.keys() == {"recipe", "data", "stage before it"}
    assert content.identity["recipe"] == load_recipe(bench.recipe).stage_sha256("gates")
