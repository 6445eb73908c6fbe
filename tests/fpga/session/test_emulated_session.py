"""Whole sessions on the board in QEMU, with the virtual meter: nothing here is a stand-in."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from dynrt.bundle import write_bundle
from dynrt.bundle.board_table import BoardLimits
from dynrt.cli import main
from dynrt.errors import LinkError, MeasureError
from dynrt.exporters.board import lower_to_board
from dynrt.fpga.cases import path_cases
from dynrt.fpga.conduct import Ports, conduct, emulated_ports
from dynrt.fpga.emulated.bench import EmulatedBench
from dynrt.fpga.emulated.virtual_meter import VirtualPower
from dynrt.fpga.manifest import FREE, Case, Manifest
from dynrt.fpga.meters import MeterSettings
from dynrt.fpga.replay import replay
from dynrt.fpga.rules import Rules
from dynrt.fpga.session import Load
from dynrt.fpga.verify import expected
from tests import soak_kills
from tests.cli.colours import IMAGE, colour_bundle, paint

RULES = Rules(first_runs=2, most_runs=3)
#: The virtual board: 0.24 W while it runs, 0.25 W more while it multiplies.
LEAST_W, MOST_W = 0.24, 0.49


@pytest.fixture
def slow_bench(agent_elf: Path) -> EmulatedBench:
    """A bench whose meter gives few samples, not yet started."""
    return EmulatedBench(firmware=agent_elf, power=VirtualPower(rate_hz=50.0, noise_w=0.002))


def load(cases: tuple[Case, ...]) -> tuple[Load, Manifest]:
    bundle = colour_bundle()
    rng = np.random.default_rng(0)
    inputs = [{"image": rng.random(IMAGE.shape, np.float32)} for _ in range(3)]
    program = lower_to_board(bundle, limits=BoardLimits())
    made = Load(
        table=program.table_bytes,
        weights=program.weights,
        inputs=tuple(program.pack(each) for each in inputs),
        graph=bundle.graph,
        expected=tuple(expected(bundle, case, inputs) for case in cases),
    )
    plan = Manifest(
        bundle=bundle.name,
        sha256=bundle.sha256,
        bundle_path="colours",
        inputs=("a", "b", "c"),
        cases=cases,
        meter="ina-line",
        meter_settings=MeterSettings().as_json(),
        rules=RULES,
        dynrt="test",
        created="2026-11-21T11:00:00Z",
        decisions=program.decisions,
    )
    return made, plan


def test_a_session_on_the_emulated_board(tmp_path: Path, slow_bench: EmulatedBench) -> None:
    cases = (FREE, *path_cases(colour_bundle().graph))
    made, plan = load(cases)
    with slow_bench as bench, emulated_ports(bench) as ports:
        found = conduct(tmp_path / "s", ports, made, plan=plan)
    assert found.status == "done"
    assert found.source == "emulated"
    assert found.decisions_equal
    assert found.max_abs_error is not None
    assert found.max_abs_error < 1e-4
    for case in found.cases:
        own = case.estimate
        assert own.dynamic_j is not None
        assert own.seconds is not None
        assert LEAST_W < own.dynamic_j.mean / own.seconds < MOST_W
        assert own.idle_w is not None
        assert own.idle_w.mean == pytest.approx(2.56, abs=0.001)
        assert own.clock_ratio is not None
        assert own.clock_ratio.mean == pytest.approx(1, abs=2e-3)
    again = replay(tmp_path / "s").to_json("here")
    assert again == found.to_json("here")
    assert json.loads((tmp_path / "s" / "report.json").read_text())["cases"] == again["cases"]


def test_a_killed_board_leaves_a_session_that_goes_on(tmp_path: Path, agent_elf: Path) -> None:
    made, plan = load((FREE,))
    power = VirtualPower(rate_hz=50.0, noise_w=0.002)

    class Killer:
        """Pulls the plug when the second window begins."""

        def __init__(self, bench: EmulatedBench) -> None:
            self.bench, self.windows = bench, 0

        def stage(self, text: str, done: int, total: int) -> None:
            """Nothing."""

        def window(self, case: str, kind: str) -> None:
            self.windows += 1
            if self.windows == 3:
                self.bench.qemu.kill()

    def part(ports: Ports, plan: Manifest | None, watch: Killer | None) -> None:
        conduct(tmp_path / "s", ports, made, plan=plan, watch=watch)

    with (
        EmulatedBench(firmware=agent_elf, power=power) as bench,
        emulated_ports(bench) as ports,
        pytest.raises((LinkError, MeasureError)),
    ):
        part(ports, plan, Killer(bench))
    broken = replay(tmp_path / "s")
    assert broken.status == "interrupted"
    assert not broken.valid
    with EmulatedBench(firmware=agent_elf, power=power) as bench, emulated_ports(bench) as ports:
        part(ports, None, None)
    whole = replay(tmp_path / "s")
    assert whole.status == "done"
    assert whole.parts == 2


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs kill -9")
@pytest.mark.usefixtures("agent_elf")
def test_a_killed_host_leaves_a_session_that_goes_on(tmp_path: Path) -> None:
    tally = soak_kills.Tally()
    soak_kills.one(3, tmp_path, tally, words=("--first", "2", "--most", "2"), span_s=3.0)
    assert tally.findings == []
    assert sum(tally.kills.values()) == 1


@pytest.mark.usefixtures("agent_elf")
def test_a_board_that_is_taken_is_told_clearly(slow_bench: EmulatedBench, tmp_path: Path) -> None:
    bundle = tmp_path / "colours.dynrt"
    write_bundle(colour_bundle(), bundle)
    call = "import sys; from dynrt.cli import main; main(sys.argv[1:])"
    with slow_bench as bench, emulated_ports(bench):
        second = subprocess.run(
            [
                sys.executable,
                "-c",
                call,
                "measure",
                "check",
                "--board",
                bench.board_port,
                "--meter",
                "ina-line",
                "--meter-port",
                bench.meter_port,
            ],
            capture_output=True,
            text=True,
            check=False,
        )
    assert second.returncode == 1
    assert second.stderr.startswith("error: ")
    assert "taken by another program" in second.stderr


@pytest.mark.usefixtures("agent_elf")
def test_the_command_line_measures_and_draws(tmp_path: Path) -> None:
    bundle, plot, session = tmp_path / "c.dynrt", tmp_path / "p.svg", tmp_path / "s"
    write_bundle(colour_bundle(), bundle)
    picture = paint(tmp_path / "red.png", (255, 0, 0))
    words = ["measure", "run", bundle, picture, "--emulated", "--first", "2", "--most", "2"]
    words += ["-o", session, "--plot", plot, "--json"]
    result = CliRunner().invoke(main, [str(word) for word in words])
    told = json.loads(result.stdout)
    assert told["source"] == "emulated"
    assert told["status"] == "done"
    assert told["decisions_equal"] is True
    assert told["runs"] == 2
    assert told["modelled"]["source"] == "emulated"
    assert result.exit_code == (0 if told["valid"] else 1)
    assert "W (emulated)" in plot.read_text()
    told.pop("modelled")
    assert told == replay(session).to_json(str(session))


@pytest.mark.usefixtures("agent_elf")
def test_check_greets_both() -> None:
    result = CliRunner().invoke(main, ["measure", "check", "--emulated", "--seconds", "0.5"])
    assert result.exit_code == 0, result.stderr
    assert "source: emulated" in result.stdout
    assert "with marker" in result.stdout
