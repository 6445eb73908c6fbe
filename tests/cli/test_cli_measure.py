from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dynrt.bundle import write_bundle
from dynrt.cli.measure_live import LiveLine
from dynrt.fpga.manifest import Manifest
from dynrt.fpga.samples import Samples
from tests.cli.colours import colour_bundle
from tests.cli.conftest import Ask, Invoke
from tests.fpga.session import sim_bench
from tests.fpga.session.sim_bench import World, measure

MakeSession = Callable[..., Path]


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeSession:
    """Stores sessions of the colour network, whose bundle lies beside them."""
    bundle = tmp_path / "colours.dynrt"
    write_bundle(colour_bundle(), bundle)
    planned = sim_bench.plan

    def plan(*args: Any) -> Manifest:
        value = planned(*args).to_json()
        value["bundle"]["path"] = str(bundle)
        return Manifest.from_json(value)

    monkeypatch.setattr(sim_bench, "plan", plan)

    def make(name: str, **how: Any) -> Path:
        folder = tmp_path / "measurements" / name
        measure(folder, how.pop("world", World()), **how)
        return folder

    return make


def test_help_names_every_command(invoke: Invoke) -> None:
    text = invoke("measure", "--help").output
    for name in ("run", "check", "ports", "list", "replay", "fit"):
        assert f"  {name} " in text
        assert invoke("measure", name, "--help").exit_code == 0


def test_a_wrong_command_is_wrong_usage(invoke: Invoke) -> None:
    result = invoke("measure", "rum")
    assert result.exit_code == 2
    assert "there are run, check" in result.stderr


def test_ports_lists_meters(ask: Ask, invoke: Invoke) -> None:
    found = ask("measure", "ports")
    assert "ina-line" in [meter["name"] for meter in found["meters"]]
    assert {e["program"] for e in found["emulation"]} >= {"qemu-system-arm"}
    assert "emulated bench" in invoke("measure", "ports").output


def test_replay_prints_the_contract(session: MakeSession, ask: Ask) -> None:
    folder = session("a", cases=("late", "early"))
    found = ask("measure", "replay", folder)
    assert found["source"] == "emulated"
    assert found["valid"] is True
    assert found["decisions_equal"] is True
    assert found["inputs"] == 3
    assert found["session"] == str(folder)
    for name in ("gross_j", "idle_w", "dynamic_j", "clock_ratio"):
        assert found[name]["low"] <= found[name]["mean"] <= found[name]["high"]
        assert found[name]["source"] == "emulated"
    rows = found["modelled"]["rows"]
    late, early = rows
    assert late["macs_saved"] == 0
    assert early["macs_saved"] == pytest.approx(0.9, abs=0.02)
    assert early["measured_saved"]["mean"] == pytest.approx(early["macs_saved"], abs=0.02)
    assert 0 < early["modelled_saved"] < 1


def test_replay_for_people_says_emulated_with_every_joule(
    session: MakeSession, invoke: Invoke
) -> None:
    result = invoke("measure", "replay", session("a"))
    assert result.exit_code == 0
    for line in result.output.splitlines():
        if "J," in line:
            assert "J, emulated" in line
    assert "nothing was measured" in result.output
    assert "every decision and exit equal" in result.output


def test_replay_draws(session: MakeSession, invoke: Invoke, tmp_path: Path) -> None:
    folder, plot = session("a", cases=("late", "early")), tmp_path / "p.svg"
    assert invoke("measure", "replay", folder, "--plot", plot).exit_code == 0
    text = plot.read_text()
    assert "W (emulated)" in text
    assert "late" in text
    again = invoke("measure", "replay", folder, "--plot", plot)
    assert again.exit_code == 1
    assert "--force" in again.stderr


def test_replay_without_its_bundle_still_has_its_figures(
    session: MakeSession, invoke: Invoke, ask: Ask, tmp_path: Path
) -> None:
    folder = session("a")
    (tmp_path / "colours.dynrt").unlink()
    assert ask("measure", "replay", folder)["modelled"] is None
    assert "no model beside it" in invoke("measure", "replay", folder).output
    asked = invoke("measure", "replay", folder, "--table", "horowitz-45nm")
    assert asked.exit_code == 1


def test_what_is_no_session_is_one_line(invoke: Invoke, tmp_path: Path) -> None:
    result = invoke("measure", "replay", tmp_path)
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    assert "no session" in result.stderr


def test_list_tells_all_and_survives_a_damaged_one(
    session: MakeSession, ask: Ask, invoke: Invoke, tmp_path: Path
) -> None:
    session("a")
    session("b", world=World(wrong_at=0))
    damaged = session("c") / "journal-0001.drj"
    data = bytearray(damaged.read_bytes())
    data[len(data) // 2] ^= 1
    damaged.write_bytes(bytes(data))
    root = tmp_path / "measurements"
    found = ask("measure", "list", root)["sessions"]
    assert [(s["status"], s["valid"]) for s in found] == [
        ("done", True),
        ("invalid", False),
        ("damaged", False),
    ]
    assert "damaged at byte" in found[2]["reasons"][0]
    assert "emulated" in invoke("measure", "list", root).output
    assert "no sessions" in invoke("measure", "list", tmp_path / "none").output


def test_fit_writes_a_table_that_energy_reads(
    session: MakeSession, invoke: Invoke, ask: Ask, tmp_path: Path
) -> None:
    folder = session("a", cases=("late", "early"), world=World(noise_w=0.001))
    out = tmp_path / "fitted.toml"
    record = ask("measure", "fit", folder, "-o", out)
    assert record["source"] == "emulated"
    assert len(record["values"]) == 2
    bundle = tmp_path / "colours.dynrt"
    priced = ask("energy", bundle, "--table", out)
    assert priced["table"] == "fitted-emulated-colours"
    assert priced["unit"] == "J"
    # two cases, two values: the model now says what was measured
    measured = ask("measure", "replay", folder, "--table", out)["modelled"]["rows"]
    for row in measured:
        assert row["ratio"] == pytest.approx(1, rel=0.02)
    assert "no measured energies" in invoke("measure", "fit", folder).output
    assert invoke("measure", "fit", folder, "-o", out).exit_code == 1


def test_fit_refuses_what_cannot_be_fitted(session: MakeSession, invoke: Invoke) -> None:
    one = session("a")
    result = invoke("measure", "fit", one)
    assert result.exit_code == 1
    assert "a fit takes 2" in result.stderr
    bad = invoke("measure", "fit", session("b", world=World(wrong_at=0)))
    assert bad.exit_code == 1
    assert "nothing is fitted to it" in bad.stderr


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("run",), "give --emulated"),
        (("run", "--emulated", "--board", "x"), "brings its own"),
        (("run", "--board", "x", "--meter", "ina-line"), "needs --meter-port"),
        (("run", "--emulated", "--first", "9", "--most", "3"), "is more than"),
        (("run", "--emulated", "--skip", "10,200"), "from 0 to 100"),
        (("run", "--emulated", "--skip", "much"), "no list of per cents"),
        (("run", "--emulated", "--data", "npz:x", "a.png"), "exclude each other"),
        (("check",), "give --emulated"),
        (("fit",), "Missing argument"),
    ],
)
def test_wrong_usage(invoke: Invoke, words: tuple[str, ...], text: str) -> None:
    result = invoke("measure", *words)
    assert result.exit_code == 2
    assert text in result.stderr


def test_a_missing_port_is_one_line(invoke: Invoke) -> None:
    result = invoke(
        *("measure", "check", "--board", "/dev/no-such-port"),
        *("--meter", "ina-line", "--meter-port", "/dev/no-other"),
    )
    assert result.exit_code == 1
    assert result.stderr.startswith("error: /dev/no-such-port: no such port")


def test_an_ended_session_is_not_resumed(session: MakeSession, invoke: Invoke) -> None:
    result = invoke("measure", "run", "--emulated", "--resume", session("a"))
    assert result.exit_code == 1
    assert "has ended: done" in result.stderr
    both = invoke("measure", "run", "--emulated", "--paths", "--resume", session("b"))
    assert both.exit_code == 2


def test_the_live_line_says_power_and_source() -> None:
    line = LiveLine()
    line.stage("runs of x", 2, 5)
    line.window("x", "run")
    assert "runs of x 2/5  run window of x" in line.text()
    line.listen(lambda: Samples.of(host_s=[0.0, 1.0], watts=[2.0, 3.0]), "hardware")
    assert line.text().endswith("2.500 W hardware")
    line.listen(lambda: Samples.of(host_s=[0.0], watts=[float("nan")]), "hardware")
    assert "W" not in line.text()


def test_the_report_is_the_replay(session: MakeSession, ask: Ask) -> None:
    folder = session("a")
    found = dict(ask("measure", "replay", folder))
    found.pop("modelled")
    assert json.loads(json.dumps(found)) == found
