"""The board's agent: its C tests under sanitizers, its builds, and board and PC bit for bit."""

from __future__ import annotations

import math
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from dynrt.bundle.board_kinds import OpKind
from dynrt.bundle.board_ops import make_op, pack_pair
from dynrt.bundle.board_table import (
    BoardNode,
    BoardSlot,
    BoardTable,
    NodeKind,
    Region,
    SlotFlag,
    pointer,
)
from dynrt.errors import MeasureError
from dynrt.fpga import firmware_build
from dynrt.fpga.board import Board
from dynrt.fpga.decoders.ina_line import InaLineDecoder
from dynrt.fpga.emulated.bench import EmulatedBench
from dynrt.fpga.firmware_build import SOURCES, build
from dynrt.fpga.samples import Flag
from tests.board_host import host_board
from tests.firmware_programs import build_test, compiler, run_test

ROUNDS = {"test_ops": "100", "test_int8": "200", "test_decide": "20000", "test_agent": "20000"}


def _must(there: bool, what: str) -> None:
    if not there:
        if os.environ.get("CI"):
            pytest.fail(f"{what} is missing (it must be there in CI)")
        pytest.skip(f"{what} is missing")


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the C tests are built; they share their object files."""
    _must(compiler() is not None, "a C compiler")
    return tmp_path_factory.mktemp("programs")


@pytest.mark.parametrize("name", ROUNDS)
def test_c(name: str, programs: Path) -> None:
    said = run_test(build_test(name, programs), ROUNDS[name])
    assert ROUNDS[name] in said  # it went all the way


def test_reference_meter_speaks_our_line(programs: Path) -> None:
    decoder = InaLineDecoder()
    text = run_test(build_test("test_meter", programs))
    samples = decoder.feed(text.encode(), 0.0)
    assert decoder.counts.accepted == 5
    assert decoder.counts.damaged == 0
    np.testing.assert_allclose(samples.volts[[0, 1, 2, 4]], [12.0, 12.0013, 0.0013, 0.0])
    np.testing.assert_allclose(samples.amperes[[0, 1, 4]], [0.21325, -0.00075, 0.00025])
    assert samples.flags[2] & Flag.OVERLOAD
    assert math.isnan(samples.amperes[3])
    assert samples.marker.tolist() == [0, 1, 1, 1, 0]
    assert samples.sequence.tolist() == [0, 1, 2, 3, 4]


def test_cppcheck_has_nothing_to_say() -> None:
    _must(shutil.which("cppcheck") is not None, "cppcheck")
    checks = "--enable=warning,performance,portability,style"
    defines = ["-DDYNRT_BARE", "-DDDR_BYTES=0x8000000u", "-DTICKS_PER_S=1000u"]
    for more in ([], ["-DDYNRT_EMULATED"]):
        done = subprocess.run(
            [
                *("cppcheck", "--quiet", "--std=c99", checks, "--error-exitcode=1"),
                *("--suppress=missingIncludeSystem", *defines, *more, str(SOURCES)),
            ],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr


def test_a_build_is_kept_until_its_sources_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _must(compiler() is not None, "a C compiler")
    sources = tmp_path / "firmware"
    shutil.copytree(SOURCES, sources)
    monkeypatch.setattr(firmware_build, "SOURCES", sources)
    first = build("host", tmp_path / "out")
    made = first.stat().st_mtime_ns
    assert build("host", tmp_path / "out") == first
    assert first.stat().st_mtime_ns == made
    with (sources / "wire.h").open("a") as file:
        file.write("/* changed */\n")
    assert build("host", tmp_path / "out") != first
    with (sources / "wire.h").open("a") as file:
        file.write("int\n")
    with pytest.raises(MeasureError, match=r"cannot build the agent: .*error"):
        build("host", tmp_path / "out")


@pytest.mark.parametrize(
    ("target", "package"), [("qemu", "gcc-12-arm-linux-gnueabihf"), ("host", "apt-get install gcc")]
)
def test_a_missing_compiler_is_named_with_its_package(
    target: firmware_build.Target, package: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MeasureError, match=package):
        build(target, tmp_path)


def test_the_agent_for_a_real_board_builds(agent_elf: Path, tmp_path: Path) -> None:
    made = build("zedboard", tmp_path)
    assert made.read_bytes()[:4] == b"\x7fELF"
    assert made.name != agent_elf.name


def _network() -> tuple[BoardTable, bytes]:
    """A strided, grouped convolution, an LSTM step's worth of functions, a softmax, an exit."""
    rng = np.random.default_rng(5)
    weights = rng.normal(size=(12, 2, 3, 3)).astype("<f4").tobytes()
    window = {
        "in_channels": 4,
        "in_height": 15,
        "in_width": 17,
        "out_channels": 12,
        "kernel_height": 3,
        "kernel_width": 3,
        "strides": pack_pair(2, 1),
        "pads_begin": pack_pair(1, 1),
        "pads_end": pack_pair(1, 1),
        "out_height": 8,
        "out_width": 17,
        "groups": 2,
        "dilations": pack_pair(1, 1),
        "weights": pointer(Region.WEIGHTS, 0),
    }
    pixels = 12 * 8 * 17 * 4
    homes = [0, 6592, 13184, 19776]
    sizes = [pixels, pixels, 48, 48]
    slots = (
        BoardSlot(
            home=pointer(Region.INPUT, 0), size_bytes=4 * 15 * 17 * 4, flags=SlotFlag.IS_INPUT
        ),
        *(
            BoardSlot(home=pointer(Region.ARENA, h), size_bytes=s)
            for h, s in zip(homes, sizes, strict=True)
        ),
    )
    ops = (
        make_op(OpKind.CONV, 0, dst=1, a=0, **window),
        make_op(OpKind.UNARY, 0, dst=2, a=1, function=3, n=pixels // 4),
        make_op(OpKind.MEAN, 0, dst=3, a=2, outer=12, inner=8 * 17),
        make_op(OpKind.SOFTMAX, 0, dst=4, a=3, outer=1, n=12),
        make_op(OpKind.ACCEPT, 0, a=3, b=4, rule=4, decision=0, threshold=0, n=12),
        make_op(OpKind.ACCEPT, 0, b=3, rule=0, decision=1),
        make_op(OpKind.STOP, 0),
    )
    table = BoardTable(
        nodes=(BoardNode(kind=NodeKind.EXIT, first=0, count=len(ops), decision=1),),
        slots=slots,
        lists=(),
        thresholds=(0.002,),
        ops=ops,
        weights_bytes=len(weights),
        arena_bytes=19840,
        input_bytes=4 * 15 * 17 * 4,
        answer_bytes=48,
        n_decisions=2,
    )
    return table, weights


def _run(board: Board) -> tuple[int, list[bytes], list[int | None]]:
    table, weights = _network()
    rng = np.random.default_rng(6)
    inputs = [rng.normal(size=(4, 15, 17)).astype("<f4").tobytes() for _ in range(4)]
    board.hello()
    board.download(table, weights, inputs)
    done = board.run(0, len(inputs), 1)
    records = board.records(len(inputs))
    return done.crc, [np.asarray(r.answer).tobytes() for r in records], [r.exit for r in records]


def test_board_and_pc_give_the_same_bits(bench: EmulatedBench) -> None:
    with bench.board() as board:
        emulated = _run(board)
    with host_board() as board:
        here = _run(board)
    assert emulated == here
    assert len(set(here[1])) == 4  # four inputs, four answers


def test_build_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _must(compiler() is not None, "a C compiler")
    assert firmware_build._main(["host", str(tmp_path)]) == 0
    assert Path(capsys.readouterr().out.strip()).is_file()
    assert firmware_build._main(["abacus"]) == 2
    assert "usage" in capsys.readouterr().err


def test_a_failed_build_from_the_command_line_says_why(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert firmware_build._main(["zedboard", str(tmp_path)]) == 1
    assert "gcc-12-arm-linux-gnueabihf" in capsys.readouterr().err
