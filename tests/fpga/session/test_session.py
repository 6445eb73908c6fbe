from __future__ import annotations

import json
from pathlib import Path

import pytest

from dynrt.errors import LinkError, SessionError
from dynrt.fpga.digest import Digest
from dynrt.fpga.journal import MAGIC
from dynrt.fpga.meters import CrossCheck
from dynrt.fpga.replay import outcome, read_session, replay
from dynrt.fpga.rules import Rules
from dynrt.fpga.session import require_resumable
from dynrt.fpga.store import Store, read_parts, sessions_in, torn_bytes
from tests.fpga.session.sim_bench import RULES, World, measure

# The board model of the bench: 2.5 W at rest and 0.4 W more while it runs.
TRUE_W = 0.4


def text_of(digest: Digest) -> str:
    return json.dumps(outcome(digest).to_json("here"), sort_keys=True)


def test_a_session_finds_the_power_that_was_put_in(tmp_path: Path) -> None:
    found = outcome(measure(tmp_path, World()))
    (case,) = found.cases
    own = case.estimate
    assert found.valid
    assert found.reasons == ()
    assert own.verdict == "resolved"
    assert own.runs >= 5
    assert own.invalid_runs == 0
    assert own.dynamic_j is not None
    assert own.idle_w is not None
    assert own.gross_j is not None
    assert own.seconds is not None
    assert own.dynamic_j.low <= TRUE_W * own.seconds <= own.dynamic_j.high
    assert own.idle_w.low <= 2.5 <= own.idle_w.high
    assert own.gross_j.mean == pytest.approx((2.5 + TRUE_W) * own.seconds, rel=2e-3)
    assert own.clock_ratio is not None
    assert own.clock_ratio.mean == pytest.approx(1, abs=2e-3)


def test_a_meter_whose_own_sums_are_others_makes_the_session_invalid(tmp_path: Path) -> None:
    agrees = World(sums=CrossCheck(agrees=True, text="10 J, and 10 J came"))
    assert outcome(measure(tmp_path / "a", agrees)).valid
    assert agrees.stops == 1
    differs = World(sums=CrossCheck(agrees=False, text="10 J, and 9 J came"))
    found = outcome(measure(tmp_path / "b", differs))
    assert not found.valid
    assert any("the meter's own sums are others: 10 J, and 9 J came" in r for r in found.reasons)
    assert not replay(tmp_path / "b").valid


def test_a_replay_gives_the_same_figures_to_the_last_bit(tmp_path: Path) -> None:
    live = measure(tmp_path, World(), cases=("late", "early"))
    assert text_of(live) == json.dumps(replay(tmp_path).to_json("here"), sort_keys=True)


def test_the_json_is_the_contract_of_the_command_line(tmp_path: Path) -> None:
    shown = outcome(measure(tmp_path, World())).to_json("DIR")
    assert shown["source"] == "emulated"
    assert shown["session"] == "DIR"
    assert shown["bundle"]["name"] == "colours"
    assert shown["inputs"] == 3
    assert shown["decisions_equal"] is True
    assert shown["max_abs_error"] <= 1e-6
    assert shown["runs"] >= 5
    assert shown["valid"] is True
    assert shown["reasons"] == []
    for name in ("gross_j", "idle_w", "dynamic_j", "clock_ratio"):
        own = shown[name]
        assert own["low"] <= own["mean"] <= own["high"]
        assert own["source"] == "emulated"


def test_cases_take_turns_and_cost_what_they_run(tmp_path: Path) -> None:
    digest = measure(tmp_path, World(noise_w=0.001), cases=("late", "early"))
    kinds = [(w.kind, w.case) for w in digest.windows][:5]
    assert kinds == [("idle", -1), ("run", 0), ("idle", -1), ("run", 1), ("idle", -1)]
    late, early = outcome(digest).cases
    assert set(late.exits) == {"final"}
    assert set(early.exits) == {"exit1"}
    assert late.estimate.dynamic_j is not None
    assert early.estimate.dynamic_j is not None
    ratio = early.estimate.dynamic_j.mean / late.estimate.dynamic_j.mean
    assert ratio == pytest.approx(early.macs / late.macs, rel=0.01)


def test_a_wrong_output_ends_the_session_before_metering(tmp_path: Path) -> None:
    found = outcome(measure(tmp_path, World(wrong_at=1)))
    assert found.status == "invalid"
    assert not found.valid
    assert "off by 1" in found.reasons[0]
    assert not read_session(tmp_path).windows


def test_no_effect_is_unresolved_and_never_clamped(tmp_path: Path) -> None:
    world = World(dynamic_w=0.0, noise_w=0.05)
    found = outcome(measure(tmp_path, world, rules=Rules(edge_s=0.0, most_runs=6)))
    own = found.cases[0].estimate
    assert own.verdict == "unresolved"
    assert "holds zero" in own.reasons[0]
    assert own.dynamic_j is not None
    assert own.dynamic_j.low < 0 < own.dynamic_j.high
    assert not found.valid


def test_a_slow_meter_is_unresolved(tmp_path: Path) -> None:
    own = outcome(measure(tmp_path, World(rate_hz=5))).cases[0].estimate
    assert own.verdict == "unresolved"
    assert "samples; it takes 200" in own.reasons[0]


def test_a_short_window_is_unresolved(tmp_path: Path) -> None:
    digest = measure(tmp_path, World(), rules=Rules(window_s=10.0, edge_s=0.0))
    plan = digest.plan
    short = Rules(window_s=60.0, edge_s=0.0)
    digest.parts[-1].rules = short
    assert plan.rules != short
    assert outcome(digest).cases[0].estimate.verdict == "resolved"  # cuts keep their own rules


@pytest.mark.parametrize("window", [1, 2, 3])
def test_lost_samples_spoil_the_runs_beside_them(tmp_path: Path, window: int) -> None:
    def lose(now: int, lines: list[bytes]) -> list[bytes]:
        return lines[:100] + lines[102:] if now == window else lines

    own = outcome(measure(tmp_path, World(spoil=lose))).cases[0].estimate
    # windows: 1 idle, 2 run, 3 idle, 4 run: the idle window between two runs spoils both
    assert own.invalid_runs == (2 if window == 3 else 1)
    assert own.verdict == "resolved"
    assert own.runs >= 5


def test_a_meter_reset_spoils_a_run(tmp_path: Path) -> None:
    world = World()

    def reset(now: int, lines: list[bytes]) -> list[bytes]:
        if now == 4:
            return lines[:200] + boot(lines)
        return lines

    def boot(lines: list[bytes]) -> list[bytes]:
        import binascii

        out = []
        for i, line in enumerate(lines[200:]):
            rest = line.rpartition(b"*")[0].split(b",", 2)[2]
            body = b"%d,%d,%s" % (i, i * 20_000, rest)
            out.append(body + b"*%04X\r\n" % binascii.crc_hqx(body, 0xFFFF))
        world.sequence = len(out)
        return out

    world.spoil = reset
    digest = measure(tmp_path, world)
    faults = {fault for run in digest.runs_of(0) for fault in run.faults}
    assert any("reset" in fault for fault in faults)
    assert outcome(digest).cases[0].estimate.invalid_runs == 1


def test_too_many_spoiled_runs_end_the_session(tmp_path: Path) -> None:
    found = outcome(measure(tmp_path, World(spoil=lambda now, lines: lines[:60] + lines[70:])))
    assert found.status == "invalid"
    assert not found.valid
    assert "invalid runs" in found.reasons[0]
    assert "missing" in " ".join(found.reasons)


@pytest.mark.parametrize("die_at", [1, 2, 3, 6])
def test_an_unplugged_board_leaves_a_session_that_goes_on(tmp_path: Path, die_at: int) -> None:
    with pytest.raises(LinkError, match="unplugged"):
        measure(tmp_path, World(die_at=die_at))
    broken = replay(tmp_path)
    assert broken.status == "interrupted"
    assert not broken.valid
    assert "unplugged" in broken.reasons[0]
    live = measure(tmp_path, World(), resume=True)
    whole = replay(tmp_path)
    assert whole.valid
    assert whole.parts == 2
    assert text_of(live) == json.dumps(whole.to_json("here"), sort_keys=True)
    # a run without the idle window after it does not count
    early = broken.cases[0].estimate.runs if broken.cases else 0
    assert early == max(0, (die_at - 2) // 2)


def test_an_ended_session_does_not_go_on(tmp_path: Path) -> None:
    measure(tmp_path, World())
    with pytest.raises(SessionError, match="has ended: done"):
        require_resumable(read_session(tmp_path))


def test_every_prefix_of_the_journal_is_a_session_or_none(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    measure(whole, World())
    data = (whole / "journal-0001.drj").read_bytes()
    cut = tmp_path / "cut"
    cut.mkdir()
    for at in sorted({0, 5, len(MAGIC), *range(len(MAGIC), len(data), len(data) // 40), len(data)}):
        (cut / "journal-0001.drj").write_bytes(data[:at])
        digest = read_session(cut)
        if digest.manifest is None:
            assert at < 5000
            continue
        found = outcome(digest)
        assert found.status == ("done" if at == len(data) else "interrupted")
        assert found.valid == (at == len(data))
    (cut / "journal-0001.drj").write_bytes(data[:-3])
    assert torn_bytes(cut) > 0


def test_two_processes_do_not_share_a_session(tmp_path: Path) -> None:
    with (
        Store.create(tmp_path, source="emulated"),
        pytest.raises(SessionError, match="another process"),
    ):
        Store.resume(tmp_path, source="emulated")


def test_a_session_keeps_its_source(tmp_path: Path) -> None:
    measure(tmp_path, World())
    with pytest.raises(SessionError, match="is emulated"):
        Store.resume(tmp_path, source="hardware")


def test_a_folder_with_other_things_is_no_place_for_a_session(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(SessionError, match="not empty"):
        Store.create(tmp_path, source="emulated")
    with pytest.raises(SessionError, match="no session"):
        replay(tmp_path)


def test_a_missing_part_is_noticed(tmp_path: Path) -> None:
    measure(tmp_path, World())
    (tmp_path / "journal-0001.drj").rename(tmp_path / "journal-0002.drj")
    with pytest.raises(SessionError, match="a part is missing"):
        read_parts(tmp_path)


def test_sessions_are_found(tmp_path: Path) -> None:
    measure(tmp_path / "a", World(wrong_at=0))
    measure(tmp_path / "b", World(wrong_at=0))
    (tmp_path / "other").mkdir()
    assert sessions_in(tmp_path) == [tmp_path / "a", tmp_path / "b"]
    assert sessions_in(tmp_path / "a") == [tmp_path / "a"]
    assert sessions_in(tmp_path / "none") == []


def test_the_rules_travel(tmp_path: Path) -> None:
    assert Rules.from_json(RULES.to_json()) == RULES
    with pytest.raises(SessionError, match="missing or unknown"):
        Rules.from_json({"window_s": 3})
    with pytest.raises(SessionError, match="no number"):
        Rules.from_json({**RULES.to_json(), "aim": "much"})
    with pytest.raises(SessionError, match="aim is -1"):
        Rules(aim=-1.0)
    with pytest.raises(SessionError, match="at least 2"):
        Rules(first_runs=1)
