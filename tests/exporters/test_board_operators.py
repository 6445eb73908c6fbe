"""Every operator of the board, alone: the op table's oracle and the agent against onnxruntime."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import numpy as np
import pytest

import dynrt.runtime
from dynrt.bundle.board_kinds import OpKind
from dynrt.exporters import cut_onnx
from dynrt.exporters.board import BoardProgram, lower_to_board
from dynrt.exporters.board_operators import RULES
from dynrt.fpga.board import Board
from dynrt.ir.graph import Array
from tests.board_host import host_board
from tests.board_oracle import Oracle
from tests.exporters.board_operators import CASES, model_of

SAMPLES = 3


@pytest.fixture(scope="module")
def agent() -> Iterator[Board]:
    with host_board() as board:
        yield board


@cache
def both(name: str) -> tuple[BoardProgram, list[dict[str, Array]], list[Array]]:
    """The lowered model, samples, and what onnxruntime makes of them."""
    bundle = cut_onnx(model_of(name), [], name="one")
    rng = np.random.default_rng(3)
    samples = [
        {
            n.name: rng.standard_normal(n.type.shape).astype(np.float32)
            for n in bundle.graph.inputs()
        }
        for _ in range(SAMPLES)
    ]
    network = dynrt.runtime.load(bundle)
    wanted = [network.run(sample).answer.reshape(-1) for sample in samples]
    return lower_to_board(bundle), samples, wanted


@pytest.mark.parametrize("name", CASES)
def test_the_oracle_computes_what_onnxruntime_does(name: str) -> None:
    program, samples, wanted = both(name)
    oracle = Oracle(program.table_bytes, program.weights)
    for sample, want in zip(samples, wanted, strict=True):
        got = oracle.run(program.pack(sample)).answer
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_the_agent_computes_what_onnxruntime_does(name: str, agent: Board) -> None:
    program, samples, wanted = both(name)
    agent.download(program.table_bytes, program.weights, [program.pack(s) for s in samples])
    agent.run()
    for record, want in zip(agent.records(), wanted, strict=True):
        np.testing.assert_allclose(record.answer, want, rtol=1e-4, atol=1e-5)


def test_the_cases_cover_what_is_said_to_be_on_the_board() -> None:
    seen = {op.op_type for nodes, _, _ in CASES.values() for op in nodes}
    assert RULES.keys() - seen == {"Dropout"}
    assert seen - RULES.keys() == {"Shape"}
    kinds = {op.kind for name in CASES for op in both(name)[0].table.ops}
    of_networks = {OpKind.QCONV, OpKind.QADD, OpKind.ARGMAX, OpKind.THRESHOLD}
    assert set(OpKind) - kinds == of_networks  # see test_board_networks


def kinds_of(name: str) -> list[str]:
    table = both(name)[0].table
    quiet = (OpKind.NODE, OpKind.ACCEPT, OpKind.COMBINE, OpKind.STOP)
    return [op.kind.name for op in table.ops if op.kind not in quiet]


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("conv add relu", ["CONV"]),
        ("conv relu add", ["CONV", "BINARY"]),
        ("two convs added", ["CONV", "CONV"]),
        ("conv twice itself", ["CONV", "BINARY"]),
        ("gemm", ["GEMM"]),
        ("matmul of rows", ["GEMM"]),
        ("matmul and more", ["GEMM", "BINARY"]),
        ("batch norm", ["AFFINE"]),
        ("Add of two", ["BINARY"]),
        ("slice of all", ["SELECT"]),
        ("shapes", ["SELECT"]),
        ("integer product", ["QUANTIZE", "QGEMM", "DEQUANTIZE"]),
        ("gather steps", ["COPY"]),
        ("mean of channels", ["COPY", "MEAN"]),
    ],
)
def test_what_is_done_together(name: str, kinds: list[str]) -> None:
    assert kinds_of(name) == kinds
