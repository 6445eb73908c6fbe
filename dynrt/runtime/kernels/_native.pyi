from collections.abc import Callable

from dynrt.ir.graph import Array
from dynrt.runtime.kernels.hop import Hop as Hop

def follow(hop: Hop, left_macs: int, trail: list[Hop], /) -> tuple[int, Hop, int]: ...
def pool(
    source: Array,
    out: Array,
    channels: int,
    pixels: int,
    row: int,
    factor: float,
    offset: float,
    /,
) -> Callable[[], None]: ...
def program(
    floats: int,
    constants: bytes,
    code: bytes,
    values: bytes,
    loads: tuple[tuple[Array, int, int], ...],
    stores: tuple[tuple[Array, int, int], ...],
    /,
) -> Callable[[], None]: ...
def decision(
    rule: int,
    scores: Array,
    bounds: tuple[float, ...],
    tie: float,
    fallback: Callable[[], int],
    /,
) -> Callable[[], int]: ...
def copier(
    out: Array, shape: tuple[int, ...], fallback: Callable[[Array], bool], /
) -> Callable[[Array], bool]: ...
def answer_of(values: Array, /) -> tuple[int, float]: ...
def set_plain_answer(function: Callable[[Array], tuple[int, float]], /) -> None: ...
def choose_simd(name: str | None, /) -> str: ...
