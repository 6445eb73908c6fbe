"""Wrong use and bad input: one clear line on stderr, status 1 or 2, nothing foreign."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import pytest

from dynrt.cli import COMMANDS, describe, main, one_line
from dynrt.errors import BundleError
from tests.cli.colours import SIDE, paint
from tests.cli.conftest import Invoke


def _save(path: Path, array: np.ndarray) -> Path:
    np.save(path, array)
    return path


def _write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


#: Makes the input in a folder; then what the error line must say.
BAD_INPUTS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "missing": (lambda d: d / "no.png", "no such file"),
    "text as picture": (lambda d: _write(d / "t.png", b"hello, I am text"), "no picture"),
    "empty picture": (lambda d: _write(d / "e.png", b""), "0 bytes"),
    "cut picture": (
        lambda d: _write(d / "cut.png", paint(d / "whole.png", (1, 2, 3)).read_bytes()[:50]),
        "",
    ),
    "wrong shape": (lambda d: _save(d / "x.npy", np.zeros((4, 4), np.float32)), "(4, 4)"),
    "wrong dtype": (lambda d: _save(d / "x.npy", np.zeros((3, SIDE, SIDE), complex)), "complex128"),
    "no samples": (lambda d: _save(d / "x.npy", np.zeros((0, 3, SIDE, SIDE))), "no samples"),
    "NaN": (lambda d: _save(d / "x.npy", np.full((3, SIDE, SIDE), np.nan)), "NaN"),
    "bytes of no picture": (lambda d: _save(d / "x.npy", np.zeros(7, np.uint8)), "no picture"),
    "damaged array": (lambda d: _write(d / "x.npy", b"\x93NUMPY\x01\x00"), "damaged"),
    "python objects": (lambda d: _save(d / "x.npy", np.array([{}, {}], object)), "objects"),
    "empty folder": (lambda d: _folder(d / "none"), "no pictures"),
}


@pytest.mark.parametrize("kind", BAD_INPUTS)
def test_bad_input_is_one_line(invoke: Invoke, colours: Path, tmp_path: Path, kind: str) -> None:
    make, says = BAD_INPUTS[kind]
    path = make(tmp_path)
    result = invoke("run", colours, path)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith(f"error: {path}")
    assert says in result.stderr
    assert result.stderr.count("\n") == 1
    assert "internal error" not in result.stderr


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"a": np.zeros(2)}, "no array named 'b'"),
        ({"q": np.zeros(2), "r": np.zeros(2)}, "the network takes a, b, the file holds q, r"),
        ({"a": np.zeros((3, 2)), "b": np.zeros((4, 2))}, "[3, 4] samples"),
        ({"a": np.zeros(2), "b": np.zeros(3)}, "(3,)"),
    ],
)
def test_bad_arrays_for_several_inputs(
    invoke: Invoke, pair: Path, tmp_path: Path, arrays: dict[str, np.ndarray], says: str
) -> None:
    np.savez(tmp_path / "x.npz", **arrays)  # type: ignore[arg-type]
    result = invoke("run", pair, tmp_path / "x.npz")
    _one_line(result, 1)
    assert says in result.stderr


def test_a_picture_for_a_network_that_takes_none(
    invoke: Invoke, gated: Path, tmp_path: Path
) -> None:
    result = invoke("run", gated, paint(tmp_path / "x.png", (1, 2, 3)))
    _one_line(result, 1)
    assert "give arrays" in result.stderr


def test_a_folder_that_cannot_be_read(
    invoke: Invoke, colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(_self: Path) -> object:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", denied)
    result = invoke("run", colours, tmp_path)
    _one_line(result, 1)
    assert "Permission denied" in result.stderr


@pytest.mark.parametrize("budget", ["abc", "-5M", "0", "", "5 apples", "1e9999", "100M,50M"])
def test_bad_budget_is_wrong_usage(invoke: Invoke, colours: Path, budget: str) -> None:
    result = invoke("run", colours, "--budget", budget)
    _one_line(result, 2)
    assert "--budget" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["run", "{colours}", "--threshold", "exit9=1"], 1, "exit9"),
        (["run", "{colours}", "--threshold", "exit1"], 2, "NAME=NUMBER"),
        (["run", "{colours}", "--threshold", "exit1=x"], 2, "'x'"),
        (["run", "{colours}", "--threshold", "exit1=nan"], 2, "NaN"),
        (["run", "{colours}", "--threshold", "exit1=1", "--threshold", "exit1=2"], 2, "twice"),
        (["run", "{colours}", "--threshold", "exit1=1,2"], 1, "2 values"),
        (["run", "{colours}", "--param", "k=1"], 1, "no parameter 'k'"),
        (["run", "{colours}", "--mode", "fast"], 2, "fast"),
        (["run", "{colours}", "--batch", "0"], 2, "--batch"),
        (["run", "{colours}", "--trace", "{tmp}/no/such/t.jsonl"], 1, "no/such/t.jsonl"),
        (["run", "{colours}", "--trace", "{tmp}/t.jsonl", "--mode", "reference"], 2, "--trace"),
        (["run", "{colours}", "--budget", "1ms", "--mode", "reference"], 1, "time"),
        (["run", "{colours}", "--budget", "1mJ"], 1, "energy table"),
        (["run", "{colours}", "--budget", "1mJ", "--mode", "reference"], 1, "energy table"),
        (["run", "nosuchbundle", "--budget", "100M"], 1, "nosuchbundle"),
        (["run", "{tmp}/no.dynrt"], 1, "no.dynrt"),
        (["run", "{tmp}/cut.dynrt"], 1, "cut.dynrt"),
        (["run", "{tmp}/text.dynrt"], 1, "text.dynrt"),
        (["run", "--nonsense"], 2, "--nonsense"),
        (["export"], 2, "TARGET"),
        (["inspect", "{tmp}/no.dynrt"], 1, "no.dynrt"),
        (["inspect", "{colours}", "--json", "--graph", "svg"], 2, "exclude"),
        (["inspect", "{colours}", "--graph", "png"], 2, "png"),
        (["nonsense"], 2, "nonsense"),
    ],
)
def test_wrong_use_is_one_line(
    invoke: Invoke,
    colours: Path,
    packaged: Path,
    tmp_path: Path,
    arguments: list[str],
    status: int,
    says: str,
) -> None:
    whole = colours.read_bytes()
    (tmp_path / "cut.dynrt").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.dynrt").write_text("this is no bundle")
    result = invoke(*(a.format(colours=colours, tmp=tmp_path) for a in arguments))
    _one_line(result, status)
    assert says in result.stderr


def _one_line(result: object, status: int) -> None:
    stderr = getattr(result, "stderr", "")
    assert getattr(result, "exit_code", None) == status, stderr
    assert getattr(result, "stdout", None) == ""
    assert stderr.startswith("error: ")
    assert stderr.count("\n") == 1
    assert "Traceback" not in stderr
    assert "internal error" not in stderr


@pytest.mark.parametrize("place", ["before", "after"])
def test_debug_shows_the_traceback(invoke: Invoke, tmp_path: Path, place: str) -> None:
    arguments = ["inspect", str(tmp_path / "no.dynrt")]
    arguments = ["--debug", *arguments] if place == "before" else [*arguments, "--debug"]
    result = invoke(*arguments)
    assert result.exit_code == 1
    assert "Traceback" in result.stderr
    assert "BundleNotFoundError" in result.stderr
    assert result.stderr.splitlines()[-1].startswith("error: ")


def test_interrupt_is_130(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> object:
        raise KeyboardInterrupt

    monkeypatch.setattr("dynrt.cli.models.packaged_models", interrupted)
    result = invoke("models")
    assert result.exit_code == 130
    assert result.stderr.strip().endswith("error: interrupted")


def test_an_unforeseen_error_is_one_line_too(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> object:
        raise ZeroDivisionError("what\nnow")

    monkeypatch.setattr("dynrt.cli.models.packaged_models", broken)
    result = invoke("models")
    assert result.exit_code == 1
    assert result.stderr == (
        "error: internal error, ZeroDivisionError: what now; --debug shows where\n"
    )


def test_messages_cannot_spoil_the_terminal() -> None:
    assert one_line("a\x1b[31m\nb\tc") == "a [31m b c"
    assert describe(BundleError("x\ny")) == (1, "x y")


def _run(*args: object, **extra: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from dynrt.cli import main; main()", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, check=False, **extra)  # type: ignore[call-overload,no-any-return]


def test_process_exits_with_one_line(tmp_path: Path) -> None:
    done = _run("run", tmp_path / "no.dynrt")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


def test_closed_stdout_is_no_traceback(colours: Path, pictures: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        command = [sys.executable, "-c", "from dynrt.cli import main; main()", "run", colours]
        done = subprocess.run(
            [*map(str, command), str(pictures)],
            stdout=write,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    finally:
        os.close(write)
    assert done.returncode == 1
    assert done.stderr == "error: standard output was closed before everything was written\n"


def test_a_pipe_that_closes_under_a_command(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    def closed() -> object:
        raise BrokenPipeError(32, "Broken pipe")

    pointed: list[int] = []
    monkeypatch.setattr("dynrt.cli.models.packaged_models", closed)
    monkeypatch.setattr("dynrt.cli.os.dup2", lambda old, new: pointed.append(new))
    result = invoke("models")
    _one_line(result, 1)
    assert "standard output was closed" in result.stderr
    assert pointed == [1]


def test_help_lists_every_command_and_what_each_does(invoke: Invoke) -> None:
    shown = invoke("--help")
    assert shown.exit_code == 0
    assert main.list_commands(click.Context(main)) == list(COMMANDS)
    for name, text in COMMANDS.items():
        assert name in shown.stdout
        assert " ".join(text.split()) in " ".join(shown.stdout.split())


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_help(invoke: Invoke, name: str) -> None:
    shown = invoke(name, "--help")
    assert shown.exit_code == 0
    assert shown.stdout.startswith(f"Usage: dynrt {name}")
    assert "--debug" in shown.stdout


def test_no_command_is_wrong_usage_with_help(invoke: Invoke) -> None:
    result = invoke()
    assert result.exit_code == 2
    assert result.stderr.startswith("error: a command is needed")


def test_version(invoke: Invoke) -> None:
    result = invoke("--version")
    assert result.exit_code == 0
    assert result.stdout.startswith("dynrt 0.")
