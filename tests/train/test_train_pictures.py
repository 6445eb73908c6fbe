"""Augmentation: seeded per epoch, resumable within it, pixel for pixel what is stated."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dynrt.errors import RecipeError
from dynrt.train.pictures import Pictures, epoch_generator
from dynrt.train.recipe import PictureSpec

PLAIN = PictureSpec(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), crop_padding=0, flip=False)
CIFAR = PictureSpec(
    mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), crop_padding=4, flip=True
)


def _pictures(spec: PictureSpec, *, count: int = 10, height: int = 6, width: int = 5) -> Pictures:
    rng = np.random.default_rng(0)
    pixels = rng.integers(1, 256, (count, height, width, 3), dtype=np.uint8)
    return Pictures(pixels, np.arange(count, dtype=np.int64), spec, place="test")


def _epoch(pictures: Pictures, epoch: int, *, first_step: int = 0, seed: int = 0) -> torch.Tensor:
    batches = pictures.shuffled(seed=seed, epoch=epoch, batch=3, first_step=first_step)
    return torch.cat([x.reshape(len(x), -1) for x, _ in batches])


def test_pixels_are_normalised_and_channels_come_first() -> None:
    pixels = np.full((1, 8, 8, 3), 51, np.uint8)  # 0.2
    made = Pictures(pixels, np.zeros(1, np.int64), CIFAR, place="test")
    ((x, labels),) = made.in_order(4)
    assert x.shape == (1, 3, 8, 8)
    assert x.dtype == torch.float32
    wanted = [(0.2 - m) / s for m, s in zip(CIFAR.mean, CIFAR.std, strict=True)]
    assert x[0, :, 3, 3].tolist() == pytest.approx(wanted, abs=1e-6)
    assert labels.tolist() == [0]


def test_in_order_gives_everything_once_and_mirrored() -> None:
    pictures = _pictures(PLAIN)
    plain = torch.cat([x for x, _ in pictures.in_order(4)])
    mirrored = torch.cat([x for x, _ in pictures.in_order(4, flipped=True)])
    assert len(plain) == len(pictures) == 10
    assert torch.equal(mirrored, plain.flip(3))
    assert not torch.equal(mirrored, plain)


def test_an_epoch_without_augmentation_is_a_permutation_without_the_rest() -> None:
    pictures = _pictures(PLAIN)
    labels = torch.cat([y for _, y in pictures.shuffled(seed=0, epoch=0, batch=3)])
    assert len(set(labels.tolist())) == len(labels) == 9
    ((all_pictures, _),) = pictures.in_order(10)
    for x, y in pictures.shuffled(seed=0, epoch=0, batch=3):
        assert torch.equal(x, all_pictures[y])


@settings(max_examples=20)
@given(seed=st.integers(0, 1000), epoch=st.integers(0, 50), first=st.integers(0, 3))
def test_leaving_steps_out_changes_no_other_step(seed: int, epoch: int, first: int) -> None:
    pictures = _pictures(CIFAR)
    whole = _epoch(pictures, epoch, seed=seed)
    if first < 3:
        assert torch.equal(_epoch(pictures, epoch, seed=seed, first_step=first), whole[3 * first :])
    else:
        assert list(pictures.shuffled(seed=seed, epoch=epoch, batch=3, first_step=3)) == []


def test_epochs_and_seeds_differ_and_repeat() -> None:
    pictures = _pictures(CIFAR)
    assert torch.equal(_epoch(pictures, 1), _epoch(pictures, 1))
    assert not torch.equal(_epoch(pictures, 1), _epoch(pictures, 2))
    assert not torch.equal(_epoch(pictures, 1), _epoch(pictures, 1, seed=1))


def test_seed_zero_draws_what_made_the_published_weights() -> None:
    assert epoch_generator(0, 3).initial_seed() == 1003


def test_crops_are_windows_of_the_picture_in_a_black_frame() -> None:
    spec = PictureSpec(mean=(0, 0, 0), std=(1, 1, 1), crop_padding=2, flip=True)
    pictures = _pictures(spec, count=40)
    ((plain, _),) = pictures.in_order(40)
    framed = torch.nn.functional.pad(plain, (2, 2, 2, 2))
    seen: set[tuple[int, int, bool]] = set()
    for x, labels in pictures.shuffled(seed=0, epoch=0, batch=20):
        for picture, label in zip(x, labels, strict=True):
            places = [
                (top, left, flip)
                for top in range(5)
                for left in range(5)
                for flip in (False, True)
                if torch.equal(
                    picture.flip(2) if flip else picture,
                    framed[label, :, top : top + 6, left : left + 5],
                )
            ]
            assert len(places) == 1
            seen.add(places[0])
    assert len({top for top, _, _ in seen}) == 5
    assert len({left for _, left, _ in seen}) == 5
    assert {flip for _, _, flip in seen} == {False, True}


def test_gray_pictures_are_refused() -> None:
    with pytest.raises(RecipeError, match=r"1 channels; the recipe's pictures\.mean is for 3"):
        Pictures(np.zeros((2, 8, 8, 1), np.uint8), np.zeros(2, np.int64), CIFAR, place="t")
