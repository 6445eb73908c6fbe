"""Whole networks on the board: answers within 1e-4, and every decision and exit as in the runtime."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dynrt.runtime
from dynrt.bundle import Bundle
from dynrt.bundle.board_kinds import Masks, OpKind
from dynrt.bundle.board_ops import NONE
from dynrt.bundle.board_table import decode
from dynrt.errors import InputError
from dynrt.exporters import lower
from dynrt.exporters.board import BoardProgram, lower_to_board
from dynrt.fpga.board import Board
from dynrt.ir.graph import Array, Exit
from dynrt.ir.reference import interpret
from dynrt.runtime import Result
from dynrt.runtime.ort import OrtBackend
from dynrt.zoo import MaskedBlock
from tests.board_host import host_board
from tests.board_oracle import Oracle
from tests.board_parity import Given, differences
from tests.exporters import masked_networks
from tests.exporters.board_networks import CASES, PACKAGED, packaged, waves
from tests.runtime.compiling import random_bundle


@cache
def case(name: str) -> tuple[Bundle, BoardProgram, list[Mapping[str, Array]], list[Result]]:
    make, samples, _ = CASES[name]
    bundle, given_ = make(), samples()
    runtime = dynrt.runtime.load(bundle)
    return bundle, lower_to_board(bundle), given_, [runtime.run(x, trace=True) for x in given_]


@pytest.fixture(scope="module")
def agent() -> Iterator[Board]:
    with host_board() as board:
        yield board


@pytest.mark.parametrize("name", CASES)
def test_the_op_table_means_what_the_runtime_does(name: str) -> None:
    bundle, program, samples, wanted = case(name)
    oracle = Oracle(program.table_bytes, program.weights)
    ways = set()
    for sample, want in zip(samples, wanted, strict=True):
        got = oracle.run(program.pack(sample))
        found = Given(decisions=got.decisions, exit=got.exit, answer=got.answer)
        assert differences(program, bundle, found, want) == []
        ways.add(tuple(got.decisions))
    assert len(ways) >= CASES[name][2]


@pytest.mark.parametrize("name", CASES)
def test_the_agent_does_what_the_runtime_does(name: str, agent: Board) -> None:
    bundle, program, samples, wanted = case(name)
    agent.download(program.table, program.weights, [program.pack(x) for x in samples])
    agent.run()
    for record, want in zip(agent.records(), wanted, strict=True):
        assert record.exit is not None
        decisions = [NONE if d is None else d for d in record.decisions]
        found = Given(decisions=decisions, exit=record.exit, answer=record.answer)
        assert differences(program, bundle, found, want) == []


@pytest.mark.parametrize("name", CASES)
def test_multiplications_are_those_of_the_graph(name: str) -> None:
    """Node by node: convolutions and products; a quantised node costs what it did before."""
    bundle, program, _, _ = case(name)
    found: dict[str, int] = {}
    for node, macs in zip(program.op_nodes, program.op_macs, strict=True):
        found[node] = found.get(node, 0) + macs
    for node_ in bundle.graph.nodes:
        if hasattr(node_, "cost"):
            assert found.get(node_.name, 0) == node_.cost.macs, node_.name


def test_the_packaged_network_answers_at_any_exit(agent: Board) -> None:
    """Its thresholds moved so that every exit accepts some sample."""
    bundle, program = packaged(), case(PACKAGED)[1]
    samples = waves(6)
    runtime = dynrt.runtime.load(bundle)
    agent.download(program.table, program.weights, [program.pack(x) for x in samples])
    exits = set()
    for accepting in program.decisions:
        thresholds = list(program.table.thresholds)
        changed = {}
        for node, (first, _) in program.thresholds.items():
            thresholds[first] = -1e9 if node == accepting else 1e9
            changed[node] = thresholds[first]
        runtime.set(thresholds=changed)
        agent.thresholds(thresholds)
        agent.run()
        for sample, record in zip(samples, agent.records(), strict=True):
            want = runtime.run(sample)
            assert record.exit is not None
            assert program.decisions[record.exit] == want.exit == accepting
            np.testing.assert_allclose(record.answer, want.answer, rtol=1e-4, atol=1e-4)
        exits.add(accepting)
    assert len(exits) == 7


@settings(max_examples=20)
@given(st.integers(0, 10_000))
def test_random_networks(seed: int) -> None:
    check_random(seed)


def check_random(seed: int) -> None:
    """A random network's table and the reference interpreter: all of what they decide and answer."""
    bundle = random_bundle(seed)
    program = lower_to_board(bundle)
    models = OrtBackend(bundle.models)
    functions = {n: (lambda taken, n=n: models.call(n, taken)) for n in bundle.models}
    oracle = Oracle(program.table_bytes, program.weights)
    rng = np.random.default_rng(seed + 7)
    for x in rng.standard_normal((2, 3)).astype(np.float32) * 2:
        want = interpret(bundle.graph, functions, {"x": x[None]})
        got = oracle.run(program.pack({"x": x}))
        decided = {
            name: tuple(a for a in range(32) if word >> a & 1)
            for word, name in zip(got.decisions, program.decisions, strict=True)
            if word != NONE and not isinstance(bundle.graph.by_name[name], Exit)
        }
        assert decided == dict(want.decisions)
        assert program.decisions[got.exit] == want.exit
        assert bool(got.decisions[got.exit]) == want.accepted
        np.testing.assert_allclose(got.answer, want.answer[0].reshape(-1), rtol=1e-4, atol=1e-4)


# --- what it becomes


def count(name: str) -> dict[str, int]:
    kinds = [op.kind.name for op in case(name)[1].table.ops]
    return {kind: kinds.count(kind) for kind in kinds}


def test_the_packaged_network_is_fused() -> None:
    found = count(PACKAGED)
    # 37 convolutions of the backbone and 7 of branches; every ReLU and addition is in one of them
    assert found["CONV"] == 43 + 1
    assert not {"UNARY", "BINARY", "AFFINE"} & found.keys()
    assert found["ACCEPT"] == 7


def test_gates_of_recurrent_networks_are_one_operator() -> None:
    found = count("recurrent gates")
    assert found["LSTM"] == 4
    assert found["THRESHOLD"] == 4
    assert "COPY" not in found


def test_quantised_networks_multiply_integers() -> None:
    found = count("chain int8")
    assert (found["QCONV"], found["QADD"], found["QUANTIZE"]) == (5, 2, 1)
    assert "CONV" not in found


@pytest.mark.parametrize(
    ("name", "modes"),
    [
        ("masked by an input", [Masks.NONE, Masks.OUT, Masks.IN, Masks.OUT, Masks.IN]),
        ("dense masked", [Masks.NONE, Masks.NONE, *[Masks.OUT] * 4]),
    ],
)
def test_convolutions_leave_out_what_a_mask_drops(name: str, modes: list[Masks]) -> None:
    table = case(name)[1].table
    assert [op["mask_mode"] for op in table.ops if op.kind is OpKind.CONV] == modes


def test_an_inner_mask_is_not_multiplied_by() -> None:
    assert "BINARY" not in count("masked by an input")


def test_memory_is_shared() -> None:
    bundle, program, _, _ = case(PACKAGED)
    every = sum(slot.size_bytes for slot in program.table.slots if not slot.flags)
    largest = bundle.certificate.peak_tensor_bytes
    assert largest <= program.arena_bytes <= every / 8


# --- the program


def test_what_is_downloaded() -> None:
    _, program, _, _ = case(PACKAGED)
    assert decode(program.table_bytes) == program.table
    assert len(program.weights) == program.table.weights_bytes
    assert program.decisions == ("exit1", "exit2", "exit3", "exit4", "exit5", "exit6", "final")
    assert len(program.op_names) == len(program.op_nodes) == len(program.table.ops)
    assert program.op_names[1] == "node 'stem': Conv 'Conv_0'"
    assert program.op_nodes[1] == "stem"


def test_samples_are_packed() -> None:
    program = lower_to_board(case("masked by an input")[0])
    x, keep = np.ones((3, 8, 8), np.float32), np.zeros(4, np.float32)
    sample = program.pack({"x": x, "keep": keep})
    assert len(sample) == program.input_bytes == 3 * 8 * 8 * 4 + 16
    assert sample[program.inputs["keep"].offset :] == keep.tobytes()
    with pytest.raises(InputError, match="'keep' is missing"):
        program.pack({"x": x})
    with pytest.raises(InputError, match=r"float32\[8, 8\], not float32\[3x8x8\]"):
        program.pack({"x": x[0], "keep": keep})


def test_parameters_are_written_where_they_are() -> None:
    bundle = lower(masked_networks.one_block(MaskedBlock(8, 8, groups=4).eval(), 4, (8, 8, 8), 8))
    program = lower_to_board(bundle)
    runtime = dynrt.runtime.load(bundle)
    x = np.random.default_rng(0).standard_normal((8, 8, 8)).astype(np.float32)
    answers = []
    for keep in (np.ones(4, np.float32), np.array([0, 1, 0.4, 0.5], np.float32)):
        offset, raw = program.packed_param("keep", keep)
        weights = program.weights[:offset] + raw + program.weights[offset + len(raw) :]
        got = Oracle(program.table_bytes, weights).run(program.pack({"x": x}))
        want = runtime.run({"x": x, "keep": keep}).answer
        np.testing.assert_allclose(got.answer, want, rtol=1e-5, atol=1e-5)
        answers.append(got.answer)
    assert not np.allclose(answers[0], answers[1])
    with pytest.raises(InputError, match="'k' is no parameter; there are keep"):
        program.packed_param("k", np.ones(4, np.float32))
