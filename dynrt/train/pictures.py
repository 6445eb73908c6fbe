"""Training pictures as tensors: normalised, shifted, mirrored, in an order that the seed decides."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dynrt.errors import RecipeError
from dynrt.train.recipe import PictureSpec


def epoch_generator(seed: int, epoch: int) -> torch.Generator:
    """The random numbers of one epoch; any epoch can be drawn again without the ones before it."""
    return torch.Generator().manual_seed(seed * 1_000_000 + 1000 + epoch)


class Pictures:
    """Labelled pictures of one size, kept as bytes.

    Args:
        pictures: ``(n, height, width, 3)``, uint8.
        labels: ``(n,)``, int64.
        spec: their treatment.
        place: what they are, for messages.

    Raises:
        RecipeError: they have not the three channels that the recipe normalises.
    """

    def __init__(
        self,
        pictures: npt.NDArray[np.uint8],
        labels: npt.NDArray[np.int64],
        spec: PictureSpec,
        *,
        place: str,
    ) -> None:
        if pictures.shape[3] != len(spec.mean):
            raise RecipeError(
                f"{place}: pictures have {pictures.shape[3]} channels; "
                f"the recipe's pictures.mean is for {len(spec.mean)}"
            )
        # A copy: torch warns about arrays that may not be written.
        self._bytes = torch.from_numpy(np.array(pictures))
        self.labels = torch.from_numpy(np.array(labels))
        self._spec = spec
        self._mean = torch.tensor(spec.mean).view(1, 3, 1, 1)
        self._std = torch.tensor(spec.std).view(1, 3, 1, 1)
        pad = spec.crop_padding
        self._padded = torch.nn.functional.pad(self._bytes, (0, 0, pad, pad, pad, pad))

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        height, width = self._bytes.shape[1:3]
        return int(height), int(width)

    def _normalised(self, pictures: Tensor) -> Tensor:
        """``(n, h, w, 3)`` bytes to ``(n, 3, h, w)`` float32, in channels-last memory layout."""
        return (pictures.permute(0, 3, 1, 2).float() / 255 - self._mean) / self._std

    def in_order(self, size: int, *, flipped: bool = False) -> Iterator[tuple[Tensor, Tensor]]:
        """All pictures unchanged, or all mirrored, with labels, ``size`` at a time."""
        for start in range(0, len(self), size):
            part = self._bytes[start : start + size]
            yield (
                self._normalised(part.flip(2) if flipped else part),
                self.labels[start : start + size],
            )

    def shuffled(
        self, *, seed: int, epoch: int, batch: int, first_step: int = 0
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """One epoch's batches, augmented; pictures that fill no whole batch are left out.

        A picture is put into a black frame of ``crop_padding`` pixels, cropped to its old size at
        a random place, and mirrored in half of the cases.

        Args:
            seed: of the recipe.
            epoch: from 0; each has its own random numbers.
            batch: pictures a step.
            first_step: steps to leave out; the rest are the same as without leaving any out.
        """
        generator = epoch_generator(seed, epoch)
        order = torch.randperm(len(self), generator=generator)
        for step in range(len(self) // batch):
            rows, columns = self._windows(batch, generator)
            if step < first_step:
                continue
            chosen = order[step * batch : (step + 1) * batch]
            cropped = self._padded[chosen[:, None, None], rows[:, :, None], columns[:, None, :]]
            yield self._normalised(cropped), self.labels[chosen]

    def _windows(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Rows ``(count, h)`` and columns ``(count, w)`` of the padded pictures to take."""
        height, width = self._bytes.shape[1:3]
        places = 2 * self._spec.crop_padding + 1
        left = torch.randint(0, places, (count,), generator=generator)
        top = torch.randint(0, places, (count,), generator=generator)
        mirrored = torch.rand(count, generator=generator) < 0.5
        rows = top[:, None] + torch.arange(height)
        columns = left[:, None] + torch.arange(width)
        if self._spec.flip:
            columns = torch.where(mirrored[:, None], columns.flip(1), columns)
        return rows, columns
