"""SCALE-Sim's layer tables: CSV files with one layer a line, convolutions or products.

The kind of a table is told by its header: ``Layer, M, N, K`` is a list of products of ``(M, K)``
with ``(K, N)``; anything else has the columns name, input height and width, filter height and
width, channels, filters, stride. The simulator's own rules hold: every line ends in a comma (a
last one that is missing is forgiven), a sparsity ``N:M`` may follow (only dense ones are taken),
and a convolution with ``DP`` in its name is depthwise: one layer for each channel, of one channel.
"""

from __future__ import annotations

from pathlib import Path

from dynrt.energy.array import SimLayer
from dynrt.errors import EnergyError

_MAX_BYTES = 4 << 20
_MAX_LAYERS = 100_000
_MAX_NUMBER = 2**31 - 1
_CONVOLUTION = ("height", "width", "filter height", "filter width", "channels", "filters", "stride")
_PRODUCT = ("M", "N", "K")


def read_topology(path: Path) -> tuple[tuple[str, SimLayer], ...]:
    """The layers of a table and their names, in order.

    Args:
        path: of the CSV file.

    Raises:
        EnergyError: it cannot be read, or a line is no layer; names file, line and column.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(_MAX_BYTES + 1)
    except OSError as exc:
        raise EnergyError(f"{path}: {exc.strerror or exc}") from None
    if len(raw) > _MAX_BYTES:
        raise EnergyError(f"{path}: more than {_MAX_BYTES} bytes; that is no table of layers")
    try:
        lines = raw.decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as exc:
        raise EnergyError(f"{path}: no UTF-8 text at byte {exc.start}") from None
    products = _is_product_list(lines[0])
    layers: list[tuple[str, SimLayer]] = []
    for number, line in enumerate(lines[1:], start=2):
        if line.strip():
            read = _products if products else _convolutions
            layers += read(_fields(line), f"{path}:{number}")
            if len(layers) > _MAX_LAYERS:
                raise EnergyError(f"{path}:{number}: more than {_MAX_LAYERS} layers")
    if not layers:
        raise EnergyError(f"{path}: a table without layers; line 1 is the header")
    return tuple(layers)


def _is_product_list(header: str) -> bool:
    names = [name.strip().upper() for name in header.split(",")]
    return names[1:4] == ["M", "N", "K"]


def _fields(line: str) -> list[str]:
    parts = [part.strip() for part in line.split(",")]
    return parts[:-1] if parts[-1] == "" else parts


def _products(parts: list[str], place: str) -> list[tuple[str, SimLayer]]:
    m, n, k = _numbers(parts, _PRODUCT, place)
    layer = SimLayer(height=m, width=k, kernel_h=1, kernel_w=k, channels=1, filters=n)
    return [(parts[0], layer)]


def _convolutions(parts: list[str], place: str) -> list[tuple[str, SimLayer]]:
    height, width, kernel_h, kernel_w, channels, filters, stride = _numbers(
        parts, _CONVOLUTION, place
    )
    if kernel_h > height or kernel_w > width:
        raise EnergyError(
            f"{place}: layer {parts[0]!r}: a filter of {kernel_h}x{kernel_w} is larger than the "
            f"input of {height}x{width}"
        )
    depthwise = "DP" in parts[0]
    layer = SimLayer(
        height=height,
        width=width,
        kernel_h=kernel_h,
        kernel_w=kernel_w,
        channels=1 if depthwise else channels,
        filters=filters,
        stride_h=stride,
        stride_w=stride,
    )
    if not depthwise:
        return [(parts[0], layer)]
    if channels > _MAX_LAYERS:
        raise EnergyError(f"{place}: layer {parts[0]!r}: more than {_MAX_LAYERS} layers")
    return [(f"{parts[0]}Channel_{index}", layer) for index in range(channels)]


def _numbers(parts: list[str], columns: tuple[str, ...], place: str) -> list[int]:
    """The positive numbers behind a name, and nothing but a dense sparsity behind them."""
    expected = 1 + len(columns)
    if len(parts) not in (expected, expected + 1):
        raise EnergyError(
            f"{place}: {len(parts)} columns; a layer has {expected}: name, {', '.join(columns)}"
        )
    if not parts[0]:
        raise EnergyError(f"{place}: a layer without a name")
    if len(parts) > expected:
        _require_dense(parts[expected], parts[0], place)
    return [
        _number(text, f"{place}: layer {parts[0]!r}: {column}")
        for text, column in zip(parts[1:expected], columns, strict=True)
    ]


def _require_dense(text: str, name: str, place: str) -> None:
    sides = text.split(":")
    if len(sides) != 2:
        raise EnergyError(f"{place}: layer {name!r}: {text!r} is no sparsity such as 1:1")
    kept, group = (_number(side, f"{place}: layer {name!r}: sparsity") for side in sides)
    if kept != group:
        raise EnergyError(f"{place}: layer {name!r}: sparsity {text}; only dense layers are taken")


def _number(text: str, place: str) -> int:
    if not (text.isascii() and text.isdecimal() and 0 < len(text) <= len(str(_MAX_NUMBER))):
        raise EnergyError(f"{place}: {text[:40]!r} is no whole number of at most {_MAX_NUMBER}")
    value = int(text)
    if not 1 <= value <= _MAX_NUMBER:
        raise EnergyError(f"{place}: {value} is not in 1..{_MAX_NUMBER}")
    return value
