"""What ``dynrt energy`` refuses, in one line each."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Invoke


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a.dynrt", "b.dynrt"], "one bundle at a time: a.dynrt and b.dynrt"),
        (["--dataflow", "ws,rs"], "'rs' is not one of ws, os, is"),
        (["--rows", "0"], "0 is not in the range"),
        (["--policy", "hope"], "'hope' is not one of"),
        (["--backend", "guess"], "'guess' is not one of"),
        (["--record", "x"], "--record and --ray go with --sweep"),
        (["--ray", "auto"], "--record and --ray go with --sweep"),
        (["--workers", "2"], "--workers goes with --sweep or --backend scalesim"),
        (["--sweep", "rows=8", "--write", "x"], "--write and --sweep exclude each other"),
        (["--sweep", "rows=8", "--compare", "x"], "--compare and --sweep exclude each other"),
        (["--sweep", "rows=8", "--dataflow", "ws,os"], "--sweep takes one hardware"),
        (["--dataflow", "ws,os", "--write", "x"], "--write takes one hardware and one dataflow"),
        (
            ["--hardware", "eyeriss", "--hardware", "square8", "--compare", "x"],
            "--compare takes one",
        ),
        (["--nodes", "block", "--plot", "x.svg"], "--nodes goes with --plot of several"),
        (["--list", "--published"], "--list and --published exclude each other"),
        (["--list", "a.dynrt"], "--list and --published take no bundle"),
    ],
)
def test_wrong_usage(invoke: Invoke, packaged: Path, arguments: list[str], message: str) -> None:
    done = invoke("energy", *arguments)
    assert done.exit_code == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--hardware", "abacus"], "abacus"),
        (["--hardware", "eyeriss", "--hardware", "eyeriss"], "hardware eyeriss is given twice"),
        (["--table", "free-lunch"], "free-lunch"),
        (["--rows", "5000"], "rows = 5000: a whole number from 1 to 4096"),
        (["--sweep", "colour=red"], "colour"),
        (["--sweep", "rows=8:"], "rows=8:"),
        (["--plot", "x.bmp"], "x.bmp: a plot is written as"),
        (["--compare", "nowhere.json"], "nowhere.json: there is no such file"),
        (["nowhere.dynrt"], "nowhere.dynrt"),
    ],
)
def test_wrong_names_are_one_line(
    invoke: Invoke, packaged: Path, arguments: list[str], message: str
) -> None:
    done = invoke("energy", *arguments)
    assert done.exit_code == 1
    assert message in done.stderr
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1


def test_a_wrong_hardware_file_names_file_and_line(
    invoke: Invoke, colours: Path, tmp_path: Path
) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(
        'format = 1\nname = "mine"\nsource = "here"\nnotes = "none"\n'
        '[array]\nrows = "many"\ncols = 8\ndataflow = "ws"\n'
        '[sram]\nifmap = "8 kB"\nfilter = "8 kB"\nofmap = "8 kB"\n'
    )
    done = invoke("energy", colours, "--hardware", path)
    assert done.exit_code == 1
    assert "mine.toml:6:" in done.stderr
    assert "rows" in done.stderr
