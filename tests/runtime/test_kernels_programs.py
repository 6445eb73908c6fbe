"""Kernel programs: the back ends agree, bytes come back, and hostile programs are refused."""

from __future__ import annotations

import dataclasses
import json
import math
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynrt.errors import BackendError, CacheError
from dynrt.ir.graph import Array
from dynrt.runtime.kernels import plain
from dynrt.runtime.kernels.program import Operation, Pool, Program, Region
from dynrt.runtime.kernels.program_bytes import HEADER, MAGIC
from tests.kernel_programs import SIMD, Builder, back_ends, lstm_gate, native_kernels, programs, run


def state(seed: int = 1, channels: int = 16) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    return {
        p: rng.normal(size=n).astype(np.float32) for p, n in (("x", channels), ("h", 10), ("c", 10))
    }


def test_lstm_gate_is_the_textbook_cell() -> None:
    program, given_ = lstm_gate(), state()
    constants = program.constant_values().astype(np.float64)

    def weights(operation: int, operand: int) -> Array:
        region = program.operations[operation].takes[operand]
        return constants[region.start : region.start + region.size]

    x = weights(0, 1).reshape(10, 16) @ given_["x"] + weights(0, 2)
    z = (
        weights(1, 3).reshape(40, 10) @ x
        + weights(1, 4).reshape(40, 10) @ given_["h"]
        + weights(1, 5)
    )
    i, o, f = (1 / (1 + np.exp(-z[10 * n : 10 * n + 10])) for n in range(3))
    cell = f * given_["c"] + i * np.tanh(z[30:])
    hidden = o * np.tanh(cell)
    score = weights(2, 1) @ hidden + weights(2, 2)
    for kernels in back_ends():
        got = run(kernels, program, given_)
        np.testing.assert_allclose(got["c2"], cell, atol=2e-6)
        np.testing.assert_allclose(got["h2"], hidden, atol=2e-6)
        np.testing.assert_allclose(got["score"], score, atol=2e-6)


@pytest.mark.parametrize("simd", SIMD)
@given(case=programs())
@settings(deadline=None, max_examples=60)
def test_native_agrees_with_plain(simd: str, case: tuple[Program, dict[str, Array]]) -> None:
    native = native_kernels()
    program, takes = case
    want = run(plain, program, takes)
    native.choose_simd(simd)
    try:
        got = run(native, program, takes, times=2)
    finally:
        native.choose_simd(None)
    for port, value in want.items():
        scale = max(1.0, float(np.abs(value[np.isfinite(value)]).max(initial=0.0)))
        np.testing.assert_allclose(got[port], value, rtol=2e-4, atol=2e-5 * scale)


@pytest.mark.parametrize("simd", SIMD)
@pytest.mark.parametrize(
    ("kind", "limit"), [("exp", 4e-7), ("sigmoid", 4e-7), ("tanh", 6e-7), ("softmax", 6e-6)]
)
def test_native_functions_are_accurate(simd: str, kind: str, limit: float) -> None:
    native = native_kernels()
    x = np.concatenate([np.linspace(-87, 88, 20_001), np.geomspace(1e-30, 1, 999), [0.0]])
    x = np.concatenate([x, -x[-1000:]]).astype(np.float32)
    builder = Builder()
    program = builder.program({"y": builder.add(kind, x.size, builder.load("x", x.size))})
    native.choose_simd(simd)
    got = run(native, program, {"x": x})["y"].astype(np.float64)
    native.choose_simd(None)
    wide = x.astype(np.float64)
    exact = {
        "exp": np.exp(wide),
        "sigmoid": 1 / (1 + np.exp(-wide)),
        "tanh": np.tanh(wide),
        "softmax": np.exp(wide - wide.max()) / np.exp(wide - wide.max()).sum(),
    }[kind]
    # below 1e-30 only the absolute error counts; softmax loses what a float difference of 88 does
    assert np.max(np.abs(got - exact) / np.maximum(np.abs(exact), 1e-30)) < limit


@pytest.mark.parametrize("kernels", back_ends())
def test_values_that_are_not_finite(kernels: ModuleType) -> None:
    x = np.array([math.nan, math.inf, -math.inf, 100.0, -100.0], np.float32)
    wanted = {
        "exp": [math.nan, math.inf, 0.0, math.inf, 0.0],
        "sigmoid": [math.nan, 1.0, 0.0, 1.0, 0.0],
        "tanh": [math.nan, 1.0, -1.0, 1.0, -1.0],
        "relu": [math.nan, math.inf, 0.0, 100.0, 0.0],
        "neg": [math.nan, -math.inf, math.inf, -100.0, 100.0],
    }
    for kind, want in wanted.items():
        builder = Builder()
        program = builder.program({"y": builder.add(kind, 5, builder.load("x", 5))})
        np.testing.assert_allclose(run(kernels, program, {"x": x})["y"], want, atol=1e-35)
    for kind in ("reduce_max", "reduce_sum", "reduce_mean"):
        builder = Builder()
        program = builder.program({"y": builder.add(kind, 1, builder.load("x", 5))})
        assert math.isnan(run(kernels, program, {"x": x})["y"][0])
    builder = Builder()
    clipped = builder.add("clip", 5, builder.load("x", 5), values=(-2.0, 3.0))
    got = run(kernels, builder.program({"y": clipped}), {"x": x})["y"]
    np.testing.assert_array_equal(got, np.array([math.nan, 3, -2, 3, -2], np.float32))


@pytest.mark.parametrize("kernels", back_ends())
def test_state_may_be_updated_in_place(kernels: ModuleType) -> None:
    program, apart, shared = lstm_gate(), state(), state()
    score = np.zeros(1, np.float32)
    gives = {"h2": shared["h"], "c2": shared["c"], "score": score}
    bound = kernels.bind_program(program, shared, gives)
    for _ in range(3):
        out = run(kernels, program, apart)
        apart["h"], apart["c"] = out["h2"], out["c2"]
        bound()
        np.testing.assert_array_equal(shared["h"], out["h2"])
        np.testing.assert_array_equal(shared["c"], out["c2"])
        np.testing.assert_array_equal(score, out["score"])


@pytest.mark.parametrize("kernels", back_ends())
def test_memory_outlives_its_names(kernels: ModuleType) -> None:
    program, takes = lstm_gate(), state()
    want = run(kernels, program, takes)["score"]
    score = np.zeros(1, np.float32)
    gives = {"h2": np.zeros(10, np.float32), "c2": np.zeros(10, np.float32), "score": score}
    bound = kernels.bind_program(program, takes, gives)
    takes.clear()
    gives.clear()
    trash = [np.full(10, 7, np.float32) for _ in range(1000)]
    bound()
    assert len(trash) == 1000
    np.testing.assert_array_equal(score, want)


@pytest.mark.parametrize("kernels", back_ends())
@pytest.mark.parametrize(
    ("port", "value", "says"),
    [
        ("x", None, "has no memory"),
        ("x", np.zeros(15, np.float32), "float32[16]"),
        ("x", np.zeros(16, np.float64), "float32[16]"),
        ("x", np.zeros((4, 4), np.float32), "float32[16]"),
        ("x", np.zeros(32, np.float32)[::2], "float32[16]"),
        ("score", None, "has no memory"),
        ("score", np.zeros(2, np.float32), "float32[1]"),
        ("score", np.frombuffer(bytes(4), np.float32), "read-only"),
    ],
)
def test_memory_that_does_not_fit(
    kernels: ModuleType, port: str, value: Array | None, says: str
) -> None:
    takes: dict[str, Any] = dict(state())
    gives: dict[str, Any] = {p: np.zeros(r.size, np.float32) for p, r in lstm_gate().stores.items()}
    side = gives if port == "score" else takes
    side[port] = value
    if value is None:
        del side[port]
    with pytest.raises(BackendError) as caught:
        kernels.bind_program(lstm_gate(), takes, gives)
    assert says in str(caught.value)


# --- bytes


@given(case=programs())
@settings(deadline=None, max_examples=40)
def test_bytes_round_trip(case: tuple[Program, dict[str, Array]]) -> None:
    program, _ = case
    raw = program.to_bytes()
    back = Program.from_bytes(raw)
    assert back == program
    assert back.to_bytes() == raw


def test_ports_and_macs() -> None:
    program = lstm_gate(32)
    assert program.takes == ("x", "h", "c")
    assert program.gives == ("h2", "c2", "score")
    assert set(program.pools) == {"x"}
    # 10 of 32, four gates of 10 from 10 and 10, one of 10
    assert program.macs == 10 * 32 + 4 * 10 * 20 + 10


@given(at=st.integers(0, 5000), value=st.integers(0, 255))
@settings(deadline=None, max_examples=300)
def test_a_changed_byte_is_refused_or_safe(at: int, value: int) -> None:
    raw = bytearray(lstm_gate().to_bytes())
    raw[at % len(raw)] = value
    try:
        program = Program.from_bytes(bytes(raw))
    except CacheError:
        return
    takes = {p: np.zeros(r.size, np.float32) for p, r in program.loads.items()}
    for kernels in back_ends():
        run(kernels, program, takes)


@given(st.binary(max_size=200))
def test_noise_is_refused(raw: bytes) -> None:
    for given_ in (raw, MAGIC + raw, HEADER.pack(MAGIC, len(raw)) + raw):
        with pytest.raises(CacheError):
            Program.from_bytes(given_)


@pytest.mark.parametrize("end", [0, 5, 12, 40, -4, -1])
def test_what_is_cut_off_is_refused(end: int) -> None:
    with pytest.raises(CacheError):
        Program.from_bytes(lstm_gate().to_bytes()[:end])


def text_of(program: Program) -> tuple[dict[str, Any], bytes]:
    raw = program.to_bytes()
    _, length = HEADER.unpack_from(raw)
    return json.loads(raw[HEADER.size : HEADER.size + length]), raw[HEADER.size + length :]


HOSTILE: dict[str, tuple[tuple[Any, ...], Any]] = {
    "negative offset": (("operations", 0, 1, 0), -16),
    "beyond the memory": (("operations", 0, 1, 0), 1 << 20),
    "into the constants": (("operations", 0, 1, 0), 0),
    "onto an input": (("operations", 0, 1, 0), 1200),
    "unwritten operand": (("operations", 0, 2, 0, 0), 1900),
    "weights that are computed": (("operations", 1, 2, 3, 0), 1248),
    "operand too long": (("operations", 0, 2, 0, 1), 17),
    "huge operand": (("operations", 0, 2, 0, 1), 1 << 62),
    "empty result": (("operations", 0, 1, 1), 0),
    "float offset": (("operations", 0, 1, 0), 1.0),
    "bool offset": (("operations", 0, 1, 0), True),
    "text offset": (("operations", 0, 1, 0), "1"),
    "three numbers": (("operations", 0, 1), [1, 2, 3]),
    "unknown kind": (("operations", 0, 0), "call"),
    "kind of another type": (("operations", 0, 0), 7),
    "values of a linear": (("operations", 0, 3), [1.0]),
    "too few operands": (("operations", 1, 2), [[0, 10]]),
    "operations are no list": (("operations",), {}),
    "no floats": (("floats",), 0),
    "too many floats": (("floats",), 1 << 40),
    "floats are text": (("floats",), "9"),
    "a store of nothing": (("stores", "score", 0), 1 << 21),
    "no stores": (("stores",), {}),
    "stores are a list": (("stores",), []),
    "pool without a port": (("pools", "y"), [16, 8, 8, "float32"]),
    "pool of other channels": (("pools", "x", 0), 15),
    "pool of no pixels": (("pools", "x", 1), 0),
    "pool of too many": (("pools", "x", 1), 1 << 30),
    "pool of a dtype": (("pools", "x", 3), "float16"),
    "pool of no text": (("pools", "x", 3), 3),
    "another field": (("more",), 1),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_text_is_refused(what: str) -> None:
    text, constants = text_of(lstm_gate())
    (*way, last), value = HOSTILE[what]
    place: Any = text
    for key in way:
        place = place[key]
    place[last] = value
    encoded = json.dumps(text).encode()
    with pytest.raises(CacheError) as caught:
        Program.from_bytes(HEADER.pack(MAGIC, len(encoded)) + encoded + constants)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ['{"floats":1,"floats":2}', "[" * 100_000, "NaN", "{}", '"x"'])
def test_hostile_json_is_refused(text: str) -> None:
    with pytest.raises(CacheError):
        Program.from_bytes(HEADER.pack(MAGIC, len(text)) + text.encode())


def test_clip_without_bounds_is_refused() -> None:
    for values in ((), (1.0,), (math.nan, 1.0), (0, 1)):
        builder = Builder()
        clipped = builder.add("clip", 3, builder.load("x", 3), values=values)
        with pytest.raises(CacheError, match="bounds"):
            builder.program({"y": clipped})


def test_native_checks_offsets_itself() -> None:
    native = native_kernels()
    program = lstm_gate()
    takes = state()
    gives = {p: np.zeros(r.size, np.float32) for p, r in program.stores.items()}
    for far in (Region(-64, 10), Region(1 << 21, 10), Region(0, 1 << 30), Region(0, -1)):
        first = dataclasses.replace(program.operations[0])
        object.__setattr__(first, "out", far)
        forged = lstm_gate()
        object.__setattr__(forged, "operations", (first, *program.operations[1:]))
        with pytest.raises(ValueError, match="does not fit"):
            native.bind_program(forged, takes, gives)


def test_dataclasses_are_frozen() -> None:
    operation = Operation(kind="copy", out=Region(0, 1), takes=(Region(16, 1),))
    with pytest.raises(dataclasses.FrozenInstanceError):
        operation.kind = "neg"  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        Pool(shape=(1, 1, 1)).dtype = "int8"  # type: ignore[misc]
