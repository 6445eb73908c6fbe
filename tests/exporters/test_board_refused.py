"""What the board has not, or has no room for: refused with the operator and the bytes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from dynrt.bundle import Bundle
from dynrt.bundle.board_ops import BoardOp
from dynrt.bundle.board_table import BoardLimits, BoardTable, decode, encode
from dynrt.bundle.board_validate import validate
from dynrt.errors import BoardError, BoardFitError, BundleError
from dynrt.exporters import cut_onnx
from dynrt.exporters.board import lower_to_board
from dynrt.fpga.board import Board
from tests.board_host import host_board
from tests.exporters.board_networks import CASES, packaged
from tests.exporters.onnx_models import model, op

B = "batch"
IMAGE = {"x": (B, 4, 6, 6)}


def ints(*values: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.array(values, np.int64)


def number(value: float) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.array(value, np.float32)


def bundle_of(nodes: list[onnx.NodeProto], constants: Mapping[str, Any], **more: Any) -> Bundle:
    inputs = more.pop("inputs", IMAGE)
    return cut_onnx(model(nodes, inputs, "y", constants, **more), [], name="one")


W = np.ones((4, 4, 3, 3), np.float32)
REFUSED: Mapping[str, tuple[list[onnx.NodeProto], Mapping[str, Any], str]] = {
    "erf": ([op("Erf", "x", "y")], {}, r"node 'final': Erf 'Erf_0': this operator is not on"),
    "moving kernel": (
        [op("MatMul", "x x", "y")], {}, "MatMul 'MatMul_0': the second operand must be constant",
    ),
    "stack of products": (
        [op("MatMul", "x w", "y")], {"w": np.ones((4, 6, 6), np.float32)}, "a product of stacks",
    ),
    "cube": ([op("Pow", "x c", "y")], {"c": number(3)}, "only squares and roots"),
    "mirror": (
        [op("Pad", "x p", "y", mode="reflect")], {"p": ints(0, 0, 1, 1, 0, 0, 1, 1)}, "only pads",
    ),
    "softmax of channels": ([op("Softmax", "x", "y", axis=1)], {}, "only along the last axis"),
    "whole numbers": (
        [op("Cast", "x", "i", to=7), op("Cast", "i", "y", to=1)],
        {},
        "Cast 'Cast_0': float32 to int64 is not on the board",
    ),
    "half numbers": (
        [op("Cast", "x", "i", to=10), op("Cast", "i", "y", to=1)], {}, "float32 to float16",
    ),
    "counted pads over the end": (
        [
            op("AveragePool", "x", "y", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1,
               count_include_pad=1)
        ],
        {},
        "ceil_mode over counted pads",
    ),
    "scales by channel": (
        [op("QuantizeLinear", "x s z", "q"), op("DequantizeLinear", "q s z", "y")],
        {"s": np.ones(4, np.float32), "z": np.zeros(4, np.uint8)},
        "QuantizeLinear 'QuantizeLinear_0': scales by channel of what is no constant",
    ),
    "lstm without a state": (
        [
            op("Flatten", "x", "f"), op("Unsqueeze", "f a", "u"),
            op("LSTM", "u w r", "s y0 c", hidden_size=2), op("Squeeze", "y0 a", "y"),
        ],
        {"a": ints(0), "w": np.full((1, 8, 144), 0.01, np.float32),
         "r": np.ones((1, 8, 2), np.float32)},
        "only one step with a state, on the board",
    ),
    "places in no order": (
        [op("Reshape", "x s", "f"), op("Gather", "f i", "y", axis=1)],
        {"s": ints(0, 144), "i": np.random.default_rng(0).permutation(144)},
        "144 places in no order",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_the_board_has_not(name: str) -> None:
    nodes, constants, message = REFUSED[name]
    with pytest.raises(BoardFitError, match=message) as caught:
        lower_to_board(bundle_of(nodes, constants))
    assert "\n" not in str(caught.value)


def test_a_transposition_of_many_axes() -> None:
    order = [0, *range(12, 0, -1)]
    nodes = [
        op("Reshape", "x s", "f"),
        op("Transpose", "f", "g", perm=order),
        op("Flatten", "g", "y"),
    ]
    bundle = bundle_of(nodes, {"s": ints(0, *[2] * 12)}, inputs={"x": (B, 4096)})
    with pytest.raises(BoardFitError, match="moves over 12 axes"):
        lower_to_board(bundle)


def test_a_kernel_over_three_axes() -> None:
    nodes = [op("Conv", "x w", "y")]
    bundle = bundle_of(
        nodes, {"w": np.ones((2, 3, 2, 2, 2), np.float32)}, inputs={"x": (B, 3, 4, 4, 4)}
    )
    with pytest.raises(BoardFitError, match="windows over 3 axes"):
        lower_to_board(bundle)


def test_a_kernel_that_is_too_wide() -> None:
    nodes = [op("Conv", "x w", "y")]
    inputs = {"x": (B, 1, 200, 200)}
    bundle = bundle_of(nodes, {"w": np.ones((1, 1, 150, 150), np.float32)}, inputs=inputs)
    with pytest.raises(BoardFitError, match="CONV: sizes, indices or pointers are out of bounds"):
        lower_to_board(bundle)


def test_inputs_and_answers_of_other_types() -> None:
    bundle = bundle_of([op("Cast", "x", "y", to=1)], {}, dtypes={"x": TensorProto.INT64})
    with pytest.raises(BoardFitError, match="input 'x': int64 is not on the board"):
        lower_to_board(bundle)
    bundle = bundle_of([op("Cast", "x", "y", to=6)], {}, dtypes={"y": TensorProto.INT32})
    with pytest.raises(BoardFitError, match="float32 to int32"):
        lower_to_board(bundle)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (
            {"arena_bytes": 190_000},
            r"tensors need 196736 bytes and the board has 190000; 196[0-9]+ of them at node "
            r"'block\d': Conv",
        ),
        (
            {"weights_bytes": 2_000_000},
            r"weights need 2607464 bytes and the board has 2000000; 147456 of them are of node "
            r"'block1\d': Conv",
        ),
        ({"table_bytes": 9_000}, "13304 bytes of the op table, and the board takes 9000"),
        ({"inputs_bytes": 12_000}, "12288 bytes of one sample, and the board takes 12000"),
    ],
)
def test_what_the_board_has_no_room_for(limits: dict[str, int], message: str) -> None:
    with pytest.raises(BoardFitError, match=message):
        lower_to_board(packaged(), limits=BoardLimits(**limits))


def test_answers_that_are_too_large() -> None:
    bundle = bundle_of([op("Relu", "x", "y")], {}, inputs={"x": (B, 4100)})
    with pytest.raises(BoardFitError, match="16400 bytes of one answer, and the board takes 16384"):
        lower_to_board(bundle)


# --- the same verdicts in C


@pytest.fixture(scope="module")
def agent() -> Iterator[Board]:
    with host_board() as board:
        yield board


def mutated(table: BoardTable, rng: np.random.Generator) -> BoardTable:
    """A table with one word of an operator, a slot or a list changed, mostly a little."""
    values = (0, 1, 2, 3, 0xFFFFFFFF, 1 << 30, 1 << 31, int(rng.integers(1 << 32)))
    which = rng.random()
    if which < 0.7:
        at, word = int(rng.integers(len(table.ops))), int(rng.integers(24))
        words = list(table.ops[at].words)
        small = int(rng.integers(-3, 4)) + words[word]
        words[word] = small % (1 << 32) if rng.random() < 0.6 else int(rng.choice(values))
        ops = (*table.ops[:at], BoardOp(tuple(words)), *table.ops[at + 1 :])
        return replace(table, ops=ops)
    if which < 0.9:
        at = int(rng.integers(len(table.slots)))
        slot = table.slots[at]
        home = (slot.home + 8 * int(rng.integers(-9, 10))) % (1 << 32)
        size = max(0, slot.size_bytes + int(rng.integers(-4, 5)))
        flags = int(rng.integers(4))
        change: dict[str, int] = [{"home": home}, {"size_bytes": size}, {"flags": flags}][
            int(rng.integers(3))
        ]
        slots = (*table.slots[:at], replace(slot, **change), *table.slots[at + 1 :])  # type: ignore[arg-type]
        return replace(table, slots=slots)
    lists = list(table.lists)
    lists[int(rng.integers(len(lists)))] = int(rng.choice(values))
    return replace(table, lists=tuple(lists))


def refused_here(data: bytes, limits: BoardLimits) -> bool:
    try:
        validate(decode(data), limits=limits)
    except BundleError:
        return True
    return False


def refused_there(agent: Board, data: bytes, weights: bytes, sample: bytes) -> bool:
    try:
        agent.download(data, weights, [sample])
    except BoardError as exc:
        if "7" in str(exc) or "invalid" in str(exc) or "table" in str(exc):
            return True
        raise
    return False


@pytest.mark.parametrize("name", ["recurrent gates", "chain int8", "dense masked"])
def test_the_agent_refuses_the_same_tables(name: str, agent: Board) -> None:
    program = lower_to_board(CASES[name][0]())
    info = agent.hello()
    limits = BoardLimits(
        table_bytes=info.table_cap,
        weights_bytes=info.weights_cap,
        arena_bytes=info.arena_cap,
        inputs_bytes=info.inputs_cap,
    )
    rng = np.random.default_rng(11)
    sample, verdicts = bytes(program.input_bytes), [0, 0]
    for _ in range(120):
        data = encode(mutated(program.table, rng))
        here = refused_here(data, limits)
        assert refused_there(agent, data, program.weights, sample) == here
        verdicts[here] += 1
    assert min(verdicts) >= 10
