"""IADI and DDI stages end to end on tiny pictures: resumable, frozen where they should be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dynrt.errors import HardwareError, RecipeError
from dynrt.train.checkpoint import read_tensors
from dynrt.train.gated_stages import gated_network
from dynrt.train.recipe_file import load_recipe
from dynrt.zoo import DenseNet, ResNet
from tests.train.tiny import Bench, Interrupted, StopAfter, gated_recipe, same_tensors

STAGES = ("base", "open", "iadi", "ddi", "gates")
DENSE = 'family = "densenet"\ndepth = 16\ngrowth = 4\nbottleneck = true\ncompression = 0.5'


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Tiny data, and ``whole``: a training of all five stages that nothing interrupted."""
    made = Bench(tmp_path_factory.mktemp("iadi"), gated_recipe())
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


@pytest.mark.parametrize("step", [1, 7, 9, 11, 14, 17, 19, 23, 26, 29])
def test_a_kill_at_any_step_changes_nothing(bench: Bench, step: int) -> None:
    out = f"killed{step}"
    with pytest.raises(Interrupted):
        bench.train(out, progress=StopAfter(step), save_every_s=0.0)
    assert bench.train(out).finished
    assert same_tensors(_weights(bench, "whole"), _weights(bench, out))
    assert _records(bench, out) == _records(bench, "whole")


def test_records_say_what_gates_save(bench: Bench) -> None:
    result = bench.train("whole")
    assert result.measures.keys() == {"open", "iadi", "ddi"}
    for stage, measures in result.measures.items():
        assert measures.keys() == {"saved", "skipped"}, stage
        assert -0.5 < measures["saved"] <= 1
        assert 0 <= measures["skipped"] <= 1
    by_stage = {record["stage"]: record for record in _records(bench, "whole")}
    assert by_stage["iadi"]["measures"] == result.measures["iadi"]
    assert "measures" not in by_stage["base"]
    assert result.accuracy["ddi"].keys() == {"exit1", "exit2", "exit3", "final"}
    assert "exit3.distances" in result.accuracy["gates"]


def test_opening_leaves_the_backbone_as_it_is(bench: Bench) -> None:
    base = load_file(bench.folder / "whole" / "base.safetensors")
    opened = load_file(bench.folder / "whole" / "open.safetensors")
    own = {k.removeprefix("backbone."): t for k, t in opened.items() if k.startswith("backbone.")}
    assert same_tensors(base, own)
    seeds = gated_network(load_recipe(bench.recipe), "open", {}, before_stage="base").state_dict()
    learnt = {k for k, t in opened.items() if not torch.equal(t, seeds[k])}
    assert {"layer_gates.score.bias", "channel_gates.0.conv.weight"} <= learnt


def test_opening_ends_with_little_skipped(tmp_path: Path) -> None:
    bench = Bench(tmp_path, gated_recipe(ddi=False))
    result = bench.train("out", settings=["stages.open.cpu.epochs=12", "stages.open.alpha=1.0"])
    assert result.measures["open"]["skipped"] == 0.0


def test_an_epoch_may_be_a_share_of_the_batches(bench: Bench) -> None:
    half = ["stages.iadi.epoch_share=0.67"]
    result = bench.train("share", settings=half)
    assert result.finished
    seen: list[tuple[int, int, int]] = []
    with pytest.raises(Interrupted):
        bench.train("share2", progress=StopAfter(13), save_every_s=0.0, settings=half)
    bench.train(
        "share2",
        settings=half,
        progress=lambda p: seen.append((p.epoch, p.step, p.steps)) if p.stage == "iadi" else None,
    )
    assert seen == [(2, 1, 2), (2, 2, 2)]
    a, b = (load_file(bench.folder / o / "iadi.safetensors") for o in ("share", "share2"))
    assert same_tensors(a, b)


@pytest.mark.parametrize(("target", "explored"), [(0.1, 1.0), (0.6, 1.0), (0.6, 0.2)])
def test_joint_training_goes_to_its_target(tmp_path: Path, target: float, explored: float) -> None:
    recipe = gated_recipe(ddi=False, gates='layer = true\nchannel = "none"\ngroup_channels = 1')
    bench = Bench(tmp_path, recipe)
    settings = [
        "stages.open.cpu.epochs=8",
        "stages.iadi.cpu.epochs=25",
        "stages.iadi.resource=skipping",
        f"stages.iadi.target={target}",
        f"stages.iadi.explored={explored}",
    ]
    result = bench.train("out", settings=settings)
    assert result.measures["open"]["skipped"] == pytest.approx(0, abs=0.05)
    # three gated units: a batch that agrees can only skip whole thirds
    assert result.measures["iadi"]["skipped"] == pytest.approx(target, abs=0.24)


@pytest.mark.parametrize(
    ("network", "gates"),
    [
        (DENSE, 'layer = true\nchannel = "output"\ngroup_channels = 1'),
        (DENSE, 'layer = false\nchannel = "inner"\ngroup_channels = 8'),
        ("depth = 14\nwidth = 4", 'layer = false\nchannel = "output"\ngroup_channels = 2'),
        ("depth = 14\nwidth = 4", 'layer = true\nchannel = "inner"\ngroup_channels = 4'),
    ],
)
def test_every_kind_of_network_trains_to_the_end(tmp_path: Path, network: str, gates: str) -> None:
    bench = Bench(tmp_path, gated_recipe(network=network, gates=gates, epochs=1))
    assert bench.train("out").finished
    net = gated_network(
        load_recipe(bench.recipe),
        "ddi",
        read_tensors(bench.folder / "out/ddi.safetensors")[0],
        before_stage="ddi",
    )
    assert isinstance(net.backbone, DenseNet if "dense" in network else ResNet)


def test_energy_is_a_resource(tmp_path: Path) -> None:
    extra = 'hardware = "eyeriss"\ntable = "horowitz-45nm"\n'
    recipe = gated_recipe(resource="energy", ddi=False, epochs=1, extra=extra)
    result = Bench(tmp_path, recipe).train("out")
    assert result.measures["iadi"].keys() == {"saved", "skipped", "energy"}
    # gates cost too, and nothing costs less than nothing
    assert -0.5 < result.measures["iadi"]["energy"] < 1


def test_unknown_hardware_is_named(tmp_path: Path) -> None:
    extra = 'hardware = "abacus"\ntable = "horowitz-45nm"\n'
    recipe = gated_recipe(resource="energy", ddi=False, epochs=1, extra=extra)
    with pytest.raises(HardwareError, match="abacus"):
        Bench(tmp_path, recipe).train("out")


def test_a_base_can_be_taken_from_a_file(bench: Bench, tmp_path: Path) -> None:
    text = gated_recipe(ddi=False)
    start, end = text.index("[stages.base.paper]"), text.index("[stages.open]")
    text = text[:start] + '[stages.base.weights]\nfile = "given.safetensors"\n' + text[end:]
    taken = Bench(tmp_path, text)
    given = tmp_path / "given.safetensors"
    with pytest.raises(RecipeError, match=r"needs the weights 'given\.safetensors'"):
        taken.train("out")
    given.write_bytes((bench.folder / "whole" / "base.safetensors").read_bytes())
    result = taken.train("out")
    assert result.accuracy["base"] == bench.train("whole").accuracy["base"]
    mine, theirs = (
        load_file(p / "base.safetensors") for p in (tmp_path / "out", bench.folder / "whole")
    )
    assert same_tensors(mine, theirs)
    opened = (load_file(p / "open.safetensors") for p in (tmp_path / "out", bench.folder / "whole"))
    assert same_tensors(*opened)
    given.write_bytes((bench.folder / "whole" / "open.safetensors").read_bytes())
    with pytest.raises(RecipeError, match="made with another weights"):
        taken.train("out")


def test_finished_stages_stand_in(bench: Bench) -> None:
    done = {"iadi": bench.folder / "whole" / "iadi.safetensors"}
    result = bench.train("standing", finished=done)
    assert list(result.weights) == ["iadi", "ddi", "gates"]
    whole = bench.folder / "whole"
    mine, theirs = (load_file(p / "ddi.safetensors") for p in (bench.folder / "standing", whole))
    assert same_tensors(mine, theirs)


def test_d_gates_stand_on_a_bare_backbone_too(bench: Bench, tmp_path: Path) -> None:
    text = gated_recipe(epochs=1)
    start, end = text.index("[stages.open]"), text.index("[stages.gates.paper]")
    text = text[:start] + text[end:]
    gates, pictures = text.index("[gates]"), text.index("[stages.base")
    text = text[:gates] + text[pictures:]
    plain = Bench(
        tmp_path, text.replace("seed = 0", 'seed = 0\nexit_points = ["block2", "block3"]')
    )
    result = plain.train("out")
    assert result.accuracy["gates"].keys() == {
        f"exit{i}.{kind}" for i in (1, 2) for kind in ("distances", "softmax")
    }
    weights = load_file(tmp_path / "out" / "gates.safetensors")
    assert weights["gates.1.weight"].shape == (3, 8)
    (tmp_path / "default").mkdir()
    default = Bench(tmp_path / "default", text)
    default.train("out")
    weights = load_file(default.folder / "out" / "gates.safetensors")
    assert [tuple(weights[f"gates.{i}.weight"].shape) for i in range(2)] == [(3, 4), (3, 8)]


def test_weights_of_another_network_are_refused(bench: Bench, tmp_path: Path) -> None:
    other = Bench(
        tmp_path, gated_recipe(gates='layer = true\nchannel = "none"\ngroup_channels = 1')
    )
    done = {"iadi": bench.folder / "whole" / "iadi.safetensors"}
    with pytest.raises(RecipeError, match="holds the unknown 'channel_gates"):
        other.train("out", finished=done)
