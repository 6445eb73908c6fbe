"""Checkpoint files: whole or refused, whatever happens to them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from dynrt.errors import RecipeError
from dynrt.train.checkpoint import (
    TensorFile,
    read_tensor_file,
    read_tensors,
    require_same,
    tensors_sha256,
    write_atomically,
    write_tensor_file,
)

CONTENT = TensorFile(
    kind="checkpoint",
    identity={"recipe": "abc"},
    state={"epoch": 3, "loss_sum": 0.1 + 0.2, "records": []},
    tensors={"a": torch.arange(6.0).reshape(2, 3), "n": torch.tensor(7)},
)


def _written(folder: Path) -> Path:
    path = folder / "c.safetensors"
    write_tensor_file(path, CONTENT)
    return path


def test_a_file_comes_back_to_the_bit(tmp_path: Path) -> None:
    found = read_tensor_file(_written(tmp_path), kind="checkpoint")
    assert found.identity == CONTENT.identity
    assert found.state == CONTENT.state
    assert tensors_sha256(found.tensors) == tensors_sha256(CONTENT.tensors)
    assert [p.name for p in tmp_path.iterdir()] == ["c.safetensors"]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_damage_is_refused(tmp_path: Path, data: st.DataObject) -> None:
    raw = bytearray(_written(tmp_path).read_bytes())
    if data.draw(st.booleans(), label="cut short"):
        raw = raw[: data.draw(st.integers(0, len(raw) - 1))]
    else:
        raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path = tmp_path / "damaged.safetensors"
    path.write_bytes(bytes(raw))
    with pytest.raises(RecipeError, match=r"damaged|not written by dynrt|no safetensors"):
        read_tensor_file(path, kind="checkpoint")


def test_foreign_safetensors_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "foreign.safetensors"
    save_file({"a": torch.zeros(1)}, path, metadata={"source": "elsewhere"})
    with pytest.raises(RecipeError, match=r"foreign\.safetensors: not written by dynrt train"):
        read_tensor_file(path, kind="checkpoint")
    assert read_tensors(path)[1] == {"source": "elsewhere"}


def test_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"holds 'checkpoint' .* not 'weights'"):
        read_tensor_file(_written(tmp_path), kind="weights")


def test_a_pickle_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    torch.save({"a": torch.zeros(1)}, path)
    with pytest.raises(RecipeError, match="damaged, or no safetensors file"):
        read_tensor_file(path, kind="checkpoint")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="nowhere: there is no such file"):
        read_tensors(tmp_path / "nowhere")


def test_require_same_names_what_differs() -> None:
    require_same(Path("c"), {"a": "1"}, {"a": "1"})
    with pytest.raises(RecipeError, match=r"made with another data \(none, now 2\)"):
        require_same(Path("c"), {"a": "1"}, {"a": "1", "data": "2"})


def test_a_writer_that_dies_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _written(tmp_path)
    old = path.read_bytes()

    def die(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", die)
    with pytest.raises(RecipeError, match="cannot be written: No space left"):
        write_atomically(path, b"new")
    assert path.read_bytes() == old
    assert [p.name for p in tmp_path.iterdir()] == ["c.safetensors"]


def test_the_hash_sees_names_shapes_and_types() -> None:
    zero = torch.zeros(4)
    variants: list[dict[str, torch.Tensor]] = [
        {"a": zero},
        {"b": zero},
        {"a": zero.reshape(2, 2)},
        {"a": zero.to(torch.int32)},
        {"a": -zero},
        {"a": zero, "b": zero},
    ]
    assert len({tensors_sha256(v) for v in variants}) == len(variants)
