"""The interface that both back ends of the kernels have."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from dynrt.ir.graph import Array, ScoreKind
from dynrt.runtime.kernels.program import Program

if TYPE_CHECKING:  # compiled imports this package for its programs
    from dynrt.runtime.compiled import Layout


class Kernels(Protocol):
    """A back end; ``plain`` documents each function."""

    @property
    def NAME(self) -> str:  # noqa: N802 - a module's constant
        """``native`` or ``plain``."""
        ...

    def bind_pool(
        self,
        source: Array,
        *,
        shape: tuple[int, int, int],
        layout: Layout,
        scale: float = 1.0,
        zero: int = 0,
        out: Array,
    ) -> Callable[[], None]:
        """The mean over height and width of one stored sample."""
        ...

    def bind_program(
        self, program: Program, takes: Mapping[str, Array], gives: Mapping[str, Array]
    ) -> Callable[[], None]:
        """A small node on fixed memory."""
        ...

    def bind_threshold(
        self, scores: Array, bounds: Sequence[float], tie: float
    ) -> Callable[[], int]:
        """Reads a mask of active actions."""
        ...

    def bind_argmax(self, scores: Array, tie: float) -> Callable[[], int]:
        """Reads the index of the highest score."""
        ...

    def bind_accept(
        self, kind: ScoreKind, values: Array, bound: float, tie: float
    ) -> Callable[[], int]:
        """Whether an exit accepts."""
        ...

    def bind_finite_copy(
        self, source_shape: tuple[int, ...], out: Array
    ) -> Callable[[Array], bool]:
        """Copies what is finite."""
        ...

    def answer_of(self, values: Array) -> tuple[int, float]:
        """Index of the highest value, and its softmax probability."""
        ...
