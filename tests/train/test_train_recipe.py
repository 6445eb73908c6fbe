"""Recipes: the ones that come with dynrt are right, and every wrong field is named."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynrt.errors import RecipeError
from dynrt.train import load_recipe, recipe_names
from dynrt.train.recipe import GateStage, NetworkStage
from dynrt.train.recipe_file import _recipe
from tests.train.tiny import tiny_recipe


def _load(folder: Path, text: str) -> None:
    file = folder / "r.toml"
    file.write_text(text)
    load_recipe(file)


def test_a_recipe_per_published_model() -> None:
    assert recipe_names() == ("resnet38-ddi", "resnet74-ddi")


@pytest.mark.parametrize("name", recipe_names())
@pytest.mark.parametrize("schedule", ["cpu", "paper"])
def test_recipes_that_come_with_dynrt_are_right(name: str, schedule: str) -> None:
    recipe = load_recipe(name, schedule=schedule)
    assert recipe.name == name
    assert recipe.schedule == schedule
    assert list(recipe.stages) == ["base", "branches", "gates"]


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
    assert base.start.file == "resnet74_start_cifar10.safetensors"


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


def test_gates_need_branches(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="it only after a stage 'branches'"):
        _load(tmp_path, tiny_recipe(stages=("base", "gates")))


def test_the_base_is_always_there(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"stages\.base is missing"):
        _load(tmp_path, tiny_recipe(stages=("branches",)))


def test_unknown_names_list_what_there_is() -> None:
    with pytest.raises(RecipeError, match="resnet99: no such recipe file; dynrt has resnet38-ddi"):
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
