"""Variants and overrides of recipes: what is put over what, and what is refused."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynrt.errors import RecipeError
from dynrt.train import load_recipe, recipe_names
from dynrt.train.recipe import GatedStage
from dynrt.train.recipe_variants import merged, overridden, resolve, to_toml, variant_names
from tests.train.tiny import gated_recipe

texts = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=8)
scalars = st.one_of(
    texts, st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False)
)


def tables(inner: st.SearchStrategy[object]) -> st.SearchStrategy[dict[str, object]]:
    return st.dictionaries(texts, inner, max_size=3)


values = st.recursive(
    scalars, lambda inner: st.one_of(st.lists(scalars, max_size=3), tables(inner)), max_leaves=8
)


@given(tables(values))
def test_what_is_written_reads_back(raw: dict[str, object]) -> None:
    assert tomllib.loads(to_toml(raw)) == raw


@given(tables(values), tables(values))
def test_merging_keeps_what_is_above_and_adds_what_is_below(
    below: dict[str, object], above: dict[str, object]
) -> None:
    out = merged(below, above)
    assert out.keys() == below.keys() | above.keys()
    for key, value in out.items():
        if not (isinstance(below.get(key), dict) and isinstance(above.get(key), dict)):
            assert value == (above[key] if key in above else below[key])
    assert merged(out, above) == out


def test_one_choice_of_each_group_is_merged_in_order() -> None:
    raw: dict[str, object] = {
        "name": "n",
        "a": {"x": 1, "y": 1},
        "variants": {
            "first": {"p": {"a": {"x": 2}}, "q": {}},
            "second": {"1": {"a": {"x": 3}}, "2": {"b": 4}},
        },
    }
    assert list(variant_names(raw, "f")) == ["p-1", "p-2", "q-1", "q-2"]
    assert resolve(raw, "p-1", "f") == {"name": "n-p-1", "a": {"x": 3, "y": 1}}
    assert resolve(raw, "p-2", "f") == {"name": "n-p-2", "a": {"x": 2, "y": 1}, "b": 4}
    assert resolve(raw, "q-2", "f") == {"name": "n-q-2", "a": {"x": 1, "y": 1}, "b": 4}
    with pytest.raises(RecipeError, match="f: no variant 'r'; the variants are p-1, p-2"):
        resolve(raw, "r", "f")
    with pytest.raises(RecipeError, match="f: no variant chosen; the variants are p-1"):
        resolve(raw, "", "f")


def test_a_recipe_without_variants_has_none() -> None:
    assert variant_names({}, "f") == {"": ()}
    with pytest.raises(RecipeError, match="the variants are none"):
        resolve({"name": "n"}, "x", "f")


@pytest.mark.parametrize("wrong", [3, {"g": 3}, {"g": {}}, {"g": {"v": 3}}, {"g": {"V!": {}}}])
def test_variants_are_groups_of_tables(wrong: object) -> None:
    with pytest.raises(RecipeError, match="f: variants: groups of tables"):
        variant_names({"variants": wrong}, "f")


def test_settings_are_toml_or_plain_words() -> None:
    raw: dict[str, object] = {"a": {"x": 1, "y": 2}}
    assert overridden(raw, ["a.x=3"]) == {"a": {"x": 3, "y": 2}}
    assert overridden(raw, ["b.c = 0.5", "b.d=[1, 2]"])["b"] == {"c": 0.5, "d": [1, 2]}
    assert overridden(raw, ["a.x=energy"]) == {"a": {"x": "energy", "y": 2}}
    assert overridden(raw, ['a.x="energy"']) == {"a": {"x": "energy", "y": 2}}
    assert raw == {"a": {"x": 1, "y": 2}}


@pytest.mark.parametrize("wrong", ["a", "=3", "a..b=3", "a b=3", "[a]=3"])
def test_settings_that_are_none_are_refused(wrong: str) -> None:
    with pytest.raises(RecipeError, match="KEY=VALUE is allowed"):
        overridden({}, [wrong])


def test_settings_cannot_smuggle_in_other_lines() -> None:
    assert overridden({}, ["a=1\nb=2"]) == {"a": "1\nb=2"}


def test_packaged_variants_are_whole_recipes() -> None:
    recipe = load_recipe("resnet38-iadi-both-65")
    stage = recipe.stages["iadi"]
    assert recipe.name == "resnet38-iadi-both-65"
    assert recipe.gates is not None
    assert (recipe.gates.layer, recipe.gates.channel) == (True, "output")
    assert isinstance(stage, GatedStage)
    assert (stage.target, stage.resource.kind) == (0.65, "computation")
    assert "resnet38-iadi" not in recipe_names()


def test_what_was_resolved_reads_back_as_the_same_recipe(tmp_path: Path) -> None:
    settings = ["stages.iadi.target=0.6"]
    recipe = load_recipe("resnet38-iadi-energy-45", schedule="paper", settings=settings)
    file = tmp_path / "recipe.toml"
    file.write_text(recipe.text)
    again = load_recipe(file, schedule="paper")
    assert again.stages == recipe.stages
    assert [again.stage_sha256(s) for s in again.stages] == [
        recipe.stage_sha256(s) for s in recipe.stages
    ]
    stage = again.stages["iadi"]
    assert isinstance(stage, GatedStage)
    assert stage.target == 0.6


def test_a_files_variant_is_named_behind_a_colon(tmp_path: Path) -> None:
    file = tmp_path / "r.toml"
    file.write_text(gated_recipe() + "\n[variants.t.low]\nstages.iadi.target = 0.1\n")
    stage = load_recipe(f"{file}:low").stages["iadi"]
    assert isinstance(stage, GatedStage)
    assert stage.target == 0.1
    with pytest.raises(RecipeError, match=r"r\.toml: no variant chosen; the variants are low"):
        load_recipe(file)
