"""Recipes: the ones that come with dynrt are right, and every wrong field is named."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynrt.errors import RecipeError
from dynrt.train import load_recipe, recipe_names
from dynrt.train.recipe import GatedStage, GateStage, NetworkStage
from dynrt.train.recipe_file import _recipe
from tests.train.tiny import gated_recipe, tiny_recipe


def _load(folder: Path, text: str) -> None:
    file = folder / "r.toml"
    file.write_text(text)
    load_recipe(file)


def test_a_recipe_per_published_model() -> None:
    names = recipe_names()
    assert list(names) == sorted(names)
    assert {"resnet38-ddi", "resnet74-ddi", "resnet74-iadi-ddi"} <= set(names)
    for network in ("resnet38", "resnet74"):
        kinds = ("layer", "output", "both", "inner", "energy")
        assert {f"{network}-iadi-{k}-{t}" for k in kinds for t in (45, 65)} <= set(names)
    assert {f"densenet100-iadi-{k}-45" for k in ("layer", "output", "both")} <= set(names)
    assert {f"dgates-{n}-main" for n in ("resnet56", "resnet74", "densenet100")} <= set(names)


#: Stages by the beginning of a recipe's name.
STAGES = {
    "dgates": ["base", "gates"],
    "resnet74-iadi-ddi": ["base", "open", "iadi", "ddi", "gates"],
    "resnet38-ddi": ["base", "branches", "gates"],
    "resnet74-ddi": ["base", "branches", "gates"],
    "resnet38-iadi": ["base", "open", "iadi"],
    "resnet74-iadi": ["base", "open", "iadi"],
    "densenet100-iadi": ["base", "open", "iadi"],
}


@pytest.mark.parametrize("name", recipe_names())
@pytest.mark.parametrize("schedule", ["cpu", "paper"])
def test_recipes_that_come_with_dynrt_are_right(name: str, schedule: str) -> None:
    recipe = load_recipe(name, schedule=schedule)
    assert recipe.name == name
    assert recipe.schedule == schedule
    assert list(recipe.stages) == next(s for n, s in STAGES.items() if name.startswith(n))
    assert (recipe.gates is not None) == ("iadi" in recipe.stages)


@pytest.mark.parametrize("name", [n for n in recipe_names() if "iadi" in n])
def test_gates_are_trained_as_the_paper_says_on_its_schedule(name: str) -> None:
    stage = load_recipe(name, schedule="paper").stages["iadi"]
    assert isinstance(stage, GatedStage)
    descent = stage.descent
    assert (stage.alpha, stage.band, stage.gate_rate) == (2e-4, 0.0, 1.0)
    assert (descent.rate.peak, descent.momentum, descent.weight_decay) == (0.05, 0.9, 1e-4)
    # 50,000 steps of 351 an epoch
    assert descent.epochs == round(50_000 / (45_000 // 128))
    opening = load_recipe(name, schedule="paper").stages["open"]
    assert isinstance(opening, GatedStage)
    assert (opening.target, opening.resource.kind) == (0.0, "skipping")


def test_resnet38_cpu_is_what_made_the_published_weights() -> None:
    stages = load_recipe("resnet38-ddi").stages
    base, branches, gates = stages["base"], stages["branches"], stages["gates"]
    assert isinstance(base, NetworkStage)
    assert (base.descent.epochs, base.descent.batch, base.descent.rate.peak) == (30, 128, 0.25)
    assert base.descent.rate.warmup == 0.2
    assert base.teacher is None
    assert base.start is None
    assert isinstance(branches, NetworkStage)
    assert (branches.descent.epochs, branches.descent.rate.peak) == (24, 0.1)
    assert list(branches.exit_weights) == [0.25, 0.5, 0.75, 1, 1, 1, 1]
    assert branches.teacher is not None
    assert (branches.teacher.depth, branches.teacher.temperature) == (56, 3.0)
    assert isinstance(gates, GateStage)
    assert gates.flipped
    assert gates.baseline


def test_resnet74_goes_on_from_its_warm_start() -> None:
    base = load_recipe("resnet74-ddi").stages["base"]
    assert isinstance(base, NetworkStage)
    assert base.start is not None
    assert base.start.file == "resnet74_stage1_cifar10.safetensors"


def test_the_papers_schedule_is_equation_4() -> None:
    branches = load_recipe("resnet38-ddi", schedule="paper").stages["branches"]
    assert isinstance(branches, NetworkStage)
    assert branches.exit_weights == (1.0,) * 7
    assert branches.teacher is None
    # 50,000 steps of 351 an epoch
    assert branches.descent.epochs == round(50_000 / (45_000 // 128))
    assert (branches.descent.rate.peak, branches.descent.weight_decay) == (0.05, 1e-4)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("format = 1", "format = 2", "format = 2: a whole number from 1 to 1 is allowed"),
        ("format = 1", "format = true", "format = True: a whole number"),
        ('name = "tiny"', 'name = "Tiny!"', "name = 'Tiny!': small letters"),
        ('name = "tiny"', "name = 3", "name = 3: a text of 1 to 64"),
        ('name = "tiny"\n', "", "name is missing: a text"),
        ('summary = "a test"', 'summary = ""', "summary = '': a text"),
        ("seed = 0", "seed = -1", "seed = -1: a whole number from 0"),
        ("seed = 0", "seed = 1.5", "seed = 1.5: a whole number"),
        ("seed = 0", "seed = 0\nspeed = 1", "speed = 1: no such field"),
        ("depth = 8", "depth = 9", "network.depth = 9: 6k \\+ 2"),
        ("depth = 8", "depth = 2", "network.depth = 2: a whole number from 8"),
        ("width = 4", "width = 0", "network.width = 0: a whole number from 1"),
        ("classes = 3", "classes = 1", "network.classes = 1"),
        ("classes = 3", "classes = 3\nshape = 4", "network.shape = 4: no such field"),
        ("mean = [0.485, ", "mean = [", "pictures.mean = .*: a list of 3 to 64"),
        ("mean = [0.485, ", "mean = [0.5, 0.485, ", "mean = .*: one number for each of 3"),
        ("mean = [0.485", "mean = [nan", "pictures.mean = "),
        ("std = [0.229", "std = [0.0", "pictures.std = "),
        ("crop_padding = 1", "crop_padding = 65", "pictures.crop_padding = 65"),
        ("flip = true", "flip = 1", "pictures.flip = 1: true or false"),
        ("[network]", "[[network]]", "network = .*: a table"),
        ("[stages.base.cpu]", "[stages.base.fast]", "stages.base.cpu is missing: a table"),
        ("[stages.base.cpu]", "[stages.bass.cpu]", "stages.base.cpu is missing"),
        ("[stages.gates.paper]", "[stages.more.paper]", "stages.gates.paper is missing"),
        ("epochs = 2", "epochs = 0", "epochs = 0: a whole number from 1"),
        ("batch = 16", "batch = 0", "batch = 0"),
        ("momentum = 0.95", "momentum = 1.0", "momentum = 1.0: a number from 0"),
        ("weight_decay = 5e-4", "weight_decay = inf", "weight_decay = inf"),
        ("weight_decay = 5e-4", 'weight_decay = "no"', "weight_decay = 'no'"),
        ('precision = "float32"', 'precision = "float64"', "'float32' or 'bfloat16' is allowed"),
        ("channels_last = true", 'channels_last = "yes"', "channels_last = 'yes'"),
        ("exit_weights = [1.0]", "exit_weights = []", "exit_weights = \\[\\]: a list of 1"),
        ("exit_weights = [1.0]", "exit_weights = [0.0]", "not all zero"),
        ("exit_weights = [0.5, ", "exit_weights = [", "one number for each of 4 exits"),
        ('kind = "one-cycle"', 'kind = "cosine"', "rate.kind = 'cosine': 'one-cycle' or 'drops'"),
        ("peak = 0.1, warmup", "peak = 0.0, warmup", "rate.peak = 0.0"),
        ("warmup = 0.25", "warmup = 1.0", "rate.warmup = 1.0: a number from 0 to 0.9"),
        ("at = [0.5]", "at = [0.5, 0.5]", "rate.at = .*: a rising list"),
        ("norm_weight = 1e-3", "norm_weight = -1e-3", "norm_weight = -0.001"),
        ("baseline = true", "baseline = true\ncolour = 2", "gates.*colour = 2: no such field"),
    ],
)
def test_each_wrong_field_is_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    text = tiny_recipe()
    assert old in text
    with pytest.raises(RecipeError, match=f"^r.toml: .*{message}") as error:
        _load(tmp_path, text.replace(old, new, 1))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ("teacher = 3", "teacher = 3: a table"),
        ("start.file = 7", "start.file = 7: a text"),
        ('start.file = "a"\nstart.sha256 = "xyz"', "start.sha256 = 'xyz': 64 hexadecimal"),
        ('start.file = "a"\nstart.url = "b"', "start.url = 'b': no such field"),
        (
            "teacher = { depth = 9, width = 4 }",
            "teacher.depth = 9: 6k \\+ 2",
        ),
        (
            'teacher = { depth = 8, width = 4, weights.file = "t", share = 2, temperature = 1 }',
            "teacher.share = 2: a number from 0 to 1",
        ),
        (
            'teacher = { depth = 8, width = 4, weights.file = "t", share = 1, temperature = 0 }',
            "teacher.temperature = 0",
        ),
    ],
)
def test_wrong_weights_are_named(tmp_path: Path, extra: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        _load(tmp_path, tiny_recipe(stages=("base",), extra=extra))


def test_d_gates_stand_on_branches_or_on_the_bare_backbone(tmp_path: Path) -> None:
    _load(tmp_path, tiny_recipe(stages=("base", "gates")))
    _load(tmp_path, tiny_recipe())


def _without(text: str, stage: str) -> str:
    """A recipe without a stage, whose tables begin with its header."""
    start = text.index(f"[stages.{stage}]")
    end = text.find("[stages.", start + 1)
    return text[:start] + (text[end:] if end > 0 else "")


def test_stages_need_the_ones_before_them(tmp_path: Path) -> None:
    text = gated_recipe(d_gates=False)
    _load(tmp_path, text)
    with pytest.raises(RecipeError, match=r"stages\.iadi = \{\}: it only after a stage 'open'"):
        _load(tmp_path, _without(text, "open"))
    with pytest.raises(RecipeError, match=r"stages\.ddi = \{\}: it only after a stage 'iadi'"):
        _load(tmp_path, _without(text, "iadi"))
    gates = text.index("[gates]")
    with pytest.raises(RecipeError, match=r"open = \{\}: it only in a recipe with a table 'gates'"):
        _load(tmp_path, text[:gates] + text[text.index("[stages.base.paper]") :])


def test_branches_and_gates_do_not_go_together(tmp_path: Path) -> None:
    branches = tiny_recipe(stages=("base", "branches"))
    with pytest.raises(RecipeError, match=r"open = \{\}: it only without a stage 'branches'"):
        _load(tmp_path, gated_recipe() + branches[branches.index("[stages.branches.paper]") :])
    dense = gated_recipe(network=DENSE)
    dense = dense[: dense.index("[stages.open]")]
    with pytest.raises(RecipeError, match=r"branches = \{\}: it only for a ResNet"):
        _load(tmp_path, dense + branches[branches.index("[stages.branches.paper]") :])


DENSE = 'family = "densenet"\ndepth = 16\ngrowth = 4\nbottleneck = true\ncompression = 0.5'


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('family = "densenet"', 'family = "vgg"', "family = 'vgg': 'resnet' or 'densenet'"),
        ("depth = 16", "depth = 17", "depth = 17: 6n \\+ 4"),
        ("bottleneck = true", "bottleneck = 1", "bottleneck = 1: true or false"),
        ("compression = 0.5", "compression = 0.0", "compression = 0.0: a number from 0.05"),
        ("growth = 4", "width = 4", "growth is missing"),
        ("layer = true", 'layer = "yes"', "gates.layer = 'yes': true or false"),
        ('channel = "output"', 'channel = "all"', "gates.channel = 'all': 'none' or 'output'"),
        (
            'layer = true\nchannel = "output"',
            'layer = false\nchannel = "none"',
            "'output' or 'inner' without layer gates",
        ),
        ("group_channels = 1", "group_channels = 0", "group_channels = 0"),
        ("target = 0.3", "target = 1.5", "target = 1.5: a number from 0 to 1"),
        ("alpha = 0.2", "alpha = -1", "alpha = -1"),
        ("band = 0.05", "band = 2", "band = 2"),
        ("gate_rate = 0.5", "gate_rate = 0", "gate_rate = 0"),
        ("gate_rate = 0.5", "epoch_share = 0", "epoch_share = 0"),
        ("gate_rate = 0.5", "explored = 1.5", "explored = 1.5: a number from 0 to 1"),
        ("clip_norm = 1.0", "clip_norm = 0", "clip_norm = 0"),
        ('resource = "computation"', 'resource = "time"', "resource = 'time': 'skipping' or"),
        ('resource = "computation"', 'resource = "energy"', "hardware is missing"),
        ('resource = "computation"', 'resource = "skipping"\ntable = "t"', "table = 't': no such"),
        (
            "alpha = 0.2",
            "alpha = 0.2\ncpu.alpha = 0.3",
            r"cpu.alpha = 0.3: it here or in .*stages.open, not in both",
        ),
        ("seed = 0", 'seed = 0\nexit_points = "block1"', "exit_points = 'block1': a list of 1"),
        ("seed = 0", "seed = 0\nexit_points = [1]", "exit_points = .*: a list of 1 to 64 texts"),
    ],
)
def test_each_wrong_field_of_gates_is_named(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    text = gated_recipe(network=DENSE)
    assert old in text
    with pytest.raises(RecipeError, match=f"^r.toml: .*{message}"):
        _load(tmp_path, text.replace(old, new, 1))


def test_the_base_is_always_there(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"stages\.base is missing"):
        _load(tmp_path, tiny_recipe(stages=("branches",)))


def test_unknown_names_list_what_there_is() -> None:
    with pytest.raises(
        RecipeError, match=r"resnet99: no such recipe file; dynrt has .*resnet38-ddi"
    ):
        load_recipe("resnet99")


def test_unknown_schedules_are_refused() -> None:
    with pytest.raises(RecipeError, match="schedule 'gpu': 'cpu' or 'paper' is allowed"):
        load_recipe("resnet38-ddi", schedule="gpu")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe", "not UTF-8"),
        (b"a = ", "not TOML"),
        (b"#" * 70_000, "larger than 65536 bytes"),
        (b"a = " + b"[" * 5000, "not TOML"),
    ],
)
def test_files_that_are_no_recipe(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "r.toml"
    file.write_bytes(content)
    with pytest.raises(RecipeError, match=message):
        load_recipe(file)


def test_a_folder_is_no_recipe(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="cannot be read as a recipe"):
        load_recipe(tmp_path)


@given(st.text(max_size=200))
def test_any_text_is_a_recipe_or_an_error_of_ours(text: str) -> None:
    with pytest.raises(RecipeError):
        _recipe(text, Path("r.toml"), "cpu")


def test_the_hash_covers_what_decides_a_stage_and_nothing_else(tmp_path: Path) -> None:
    def sha(text: str, schedule: str = "cpu") -> str:
        file = tmp_path / "r.toml"
        file.write_text(text)
        return load_recipe(file, schedule=schedule).stage_sha256("base")

    text = tiny_recipe()
    assert sha(text) == sha("# a comment\n" + text.replace("a test", "another"))
    changes = ["seed = 0", "depth = 8", "flip = true", "crop_padding = 1"]
    news = ["seed = 1", "depth = 14", "flip = false", "crop_padding = 2"]
    hashes = {sha(text.replace(a, b)) for a, b in zip(changes, news, strict=True)}
    assert len(hashes | {sha(text)}) == 5
    assert sha(tiny_recipe(epochs=3)) != sha(text)
