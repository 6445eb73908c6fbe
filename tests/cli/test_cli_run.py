"""``dynrt run``: results, budgets, thresholds, inputs, streams, traces."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dynrt.bundle import write_bundle
from tests.cli.colours import (
    BLOCK_MACS,
    CHEAPEST,
    FULL,
    HEAD_MACS,
    SIDE,
    STEM_MACS,
    colour_bundle,
    paint,
)
from tests.cli.conftest import Ask, Invoke

KEYS = [
    "input", "label", "index", "score", "exit", "accepted", "forced", "flops", "macs", "energy",
    "energy_unit", "energy_source", "seconds", "path", "skipped", "output",
]  # fmt: skip


def test_json_is_the_contract(ask: Ask, colours: Path, pictures: Path) -> None:
    answer = ask("run", colours, pictures, "--budget", "20K")
    assert list(answer) == ["bundle", "mode", "budget", "results"]
    assert answer["bundle"]["name"] == "colours"
    assert len(answer["bundle"]["sha256"]) == 64
    assert answer["mode"] == "compiled"
    assert answer["budget"] == {"flops": 20000, "joules": None, "seconds": None}
    assert [list(r) for r in answer["results"]] == [KEYS] * 3
    red, green, hard = answer["results"]
    assert (red["label"], green["label"], hard["label"]) == ("red", "green", "blue")
    assert red["input"] == str(pictures / "a_red.png")
    assert red["exit"] == "exit1"
    assert red["accepted"] is True
    assert red["forced"] is False
    assert red["macs"] == STEM_MACS + HEAD_MACS
    assert red["flops"] == 2 * red["macs"]
    assert red["path"] == ["stem", "exit1"]
    assert red["skipped"] == ["block1"]
    # logits 4, 0, 0
    assert red["output"] == pytest.approx([4, 0, 0], abs=1e-5)
    assert red["score"] == pytest.approx(np.exp(4) / (np.exp(4) + 2), abs=1e-6)
    assert red["energy"] is None
    assert red["energy_source"] is None
    assert red["seconds"] > 0
    assert hard["path"] == ["stem", "exit1", "block1", "final"]
    assert hard["macs"] == STEM_MACS + HEAD_MACS + BLOCK_MACS + HEAD_MACS


def test_energy_is_there_when_the_bundle_has_joules(ask: Ask, tmp_path: Path) -> None:
    path = tmp_path / "energy.dynrt"
    write_bundle(colour_bundle(energy=True), path)
    red = paint(tmp_path / "red.png", (255, 0, 0))
    result = ask("run", path, red)["results"][0]
    # one picojoule a MAC
    assert result["energy"] == pytest.approx((STEM_MACS + HEAD_MACS) * 1e-12)
    assert result["energy_unit"] == "J"
    assert result["energy_source"].startswith("modelled:")


def test_energy_column_shows_joules(invoke: Invoke, tmp_path: Path) -> None:
    path = tmp_path / "energy.dynrt"
    write_bundle(colour_bundle(energy=True), path)
    shown = invoke("run", path, paint(tmp_path / "red.png", (255, 0, 0)))
    assert "585 pJ" in shown.stdout
    assert "energy: modelled:unnamed table; modelled, not measured" in shown.stdout


@pytest.mark.parametrize("budget", [CHEAPEST, CHEAPEST + 2, FULL - 2, FULL, 10 * FULL])
@pytest.mark.parametrize("mode", ["compiled", "portable", "reference"])
def test_no_result_breaks_the_budget(
    ask: Ask, colours: Path, pictures: Path, budget: int, mode: str
) -> None:
    answer = ask("run", colours, pictures, "--budget", budget, "--mode", mode)
    assert answer["mode"] == mode
    assert answer["budget"]["flops"] == budget
    assert len(answer["results"]) == 3
    assert all(r["flops"] <= budget for r in answer["results"])
    hard = answer["results"][2]
    assert hard["exit"] == ("final" if budget >= FULL else "exit1")
    assert hard["accepted"] is (budget >= FULL)
    assert hard["forced"] is (budget < FULL)


def test_reference_mode_agrees(ask: Ask, colours: Path, pictures: Path) -> None:
    fast = ask("run", colours, pictures)["results"]
    slow = ask("run", colours, pictures, "--mode", "reference", "--batch", 2)["results"]
    for a, b in zip(fast, slow, strict=True):
        assert {k: v for k, v in a.items() if k != "seconds"} == {
            k: v for k, v in b.items() if k != "seconds"
        }


def test_budget_below_the_cheapest_answer_is_refused_with_the_figure(
    invoke: Invoke, colours: Path, pictures: Path
) -> None:
    for extra in ([], ["--json"], ["--batch", "3"]):
        result = invoke("run", colours, pictures, "--budget", CHEAPEST - 2, *extra)
        assert result.exit_code == 1
        assert result.stdout == ""
        assert f"{CHEAPEST} FLOPs" in result.stderr
        assert result.stderr.startswith("error: ")
        assert result.stderr.count("\n") == 1


def test_table_shows_what_a_person_needs(invoke: Invoke, colours: Path, pictures: Path) -> None:
    result = invoke("run", colours, pictures, "--budget", CHEAPEST)
    assert result.exit_code == 0
    assert result.stderr == ""
    lines = result.stdout.splitlines()
    assert lines[0] == "colours, compiled; hard budget for each input: 1.17K FLOPs"
    assert lines[1].split() == ["input", "label", "score", "exit", "MFLOPs", "ms", "path"]
    assert "red" in lines[2]
    assert "exit1 " in lines[2]
    assert "exit1*" in lines[4]
    assert lines[5].startswith("3 inputs: mean 0.0012, worst 0.0012 MFLOPs")
    assert lines[6] == "* stopped there by the budget (1 of 3)"
    assert max(map(len, lines)) <= 100
    # columns stand under their titles
    assert lines[2].index("stem exit1") == lines[1].index("path")


def test_threshold_changes_where_inputs_leave(ask: Ask, colours: Path, pictures: Path) -> None:
    exits = [
        [r["exit"] for r in ask("run", colours, pictures, "--threshold", f"exit1={t}")["results"]]
        for t in ("0", "0.8", "inf")
    ]
    assert exits == [["exit1"] * 3, ["exit1", "exit1", "final"], ["final"] * 3]


def test_parameter_reaches_the_gate(ask: Ask, gated: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", np.array([1.0, 2.0], np.float32))
    on = ask("run", gated, tmp_path / "v.npy")["results"][0]
    off = ask("run", gated, tmp_path / "v.npy", "--param", "k_cpt=0")["results"][0]
    assert on["output"] == [2.0, 4.0]
    assert off["output"] == [1.0, 2.0]
    assert off["skipped"] == ["block1"]
    assert on["label"] is None
    lower = ask("run", gated, tmp_path / "v.npy", "--param", "k_cpt=0", "--threshold", "keep=-1")
    assert lower["results"][0]["output"] == [2.0, 4.0]


@pytest.mark.parametrize("batch", [1, 2, 3, 7])
def test_batches_change_nothing_but_time(
    ask: Ask, colours: Path, pictures: Path, batch: int
) -> None:
    plain = ask("run", colours, pictures)["results"]
    batched = ask("run", colours, pictures, "--batch", batch)["results"]
    for a, b in zip(plain, batched, strict=True):
        assert a["output"] == pytest.approx(b["output"], abs=1e-6)
        assert {k: a[k] for k in ("input", "exit", "macs", "path")} == {
            k: b[k] for k in ("input", "exit", "macs", "path")
        }


def test_arrays_in_every_accepted_shape(ask: Ask, colours: Path, tmp_path: Path) -> None:
    green = np.zeros((3, SIDE, SIDE), np.float64)
    green[1] = 1
    np.save(tmp_path / "one.npy", green)
    np.save(tmp_path / "two.npy", np.stack([green, green[::-1]]))
    np.save(tmp_path / "bytes.npy", np.full((5, 9, 3), (0, 0, 255), np.uint8))
    np.savez(tmp_path / "named.npz", image=green.astype(np.float32), other=np.zeros(2))
    names = [tmp_path / n for n in ("one.npy", "two.npy", "bytes.npy", "named.npz")]
    results = ask("run", colours, *names)["results"]
    assert [r["label"] for r in results] == ["green", "green", "green", "blue", "green"]
    assert [Path(r["input"]).name for r in results] == [
        "one.npy", "two.npy[0]", "two.npy[1]", "bytes.npy", "named.npz",
    ]  # fmt: skip


def test_several_inputs_come_by_name(ask: Ask, pair: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", a=np.array([1.0, 2.0]), b=np.array([3.0, 5.0]))
    np.savez(tmp_path / "xs.npz", a=np.ones((2, 2)), b=np.array([[0.0, 1.0], [1.0, 0.0]]))
    results = ask("run", pair, tmp_path / "x.npz", tmp_path / "xs.npz", "--batch", 3)["results"]
    assert [r["output"] for r in results] == [[4.0, 7.0], [1.0, 2.0], [2.0, 1.0]]
    assert [r["label"] for r in results] == ["high", "high", "low"]


def test_stream_goes_on_after_a_bad_path(invoke: Invoke, colours: Path, pictures: Path) -> None:
    lines = f"{pictures / 'a_red.png'}\n\nnowhere.png\n{pictures / 'b_green.png'}\n"
    result = invoke("run", colours, "-", "--json", stdin=lines)
    assert result.exit_code == 1
    assert result.stderr == "error: nowhere.png: there is no such file\n"
    answer = json.loads(result.stdout)
    assert [r["label"] for r in answer["results"]] == ["red", "green"]


def test_no_path_in_a_stream_stops_it(
    invoke: Invoke, colours: Path, pictures: Path, tmp_path: Path
) -> None:
    good = pictures / "a_red.png"
    lines = [f"{tmp_path}/nul\0nul", "x" * 5000, str(pictures), "\x1b[31m.png", str(good)]
    result = invoke("run", colours, "-", stdin="\n".join(lines))
    assert result.exit_code == 1
    assert result.stdout.splitlines()[2].startswith("...")
    assert "red" in result.stdout.splitlines()[2]
    errors = result.stderr.splitlines()
    assert len(errors) == 4
    assert all(line.startswith("error: ") for line in errors)
    assert "\x1b" not in result.stderr
    assert "\0" not in result.stderr


def test_stream_answers_while_it_is_open(colours: Path, pictures: Path) -> None:
    command = [sys.executable, "-c", "from dynrt.cli import main; main()", "run", colours, "-"]
    process = subprocess.Popen(
        list(map(str, command)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        for name, label in (("a_red.png", "red"), ("b_green.png", "green")):
            process.stdin.write(f"{pictures / name}\n")
            process.stdin.flush()
            row = process.stdout.readline()
            while name not in row:
                assert row, "the stream ended"
                row = process.stdout.readline()
            assert label in row
        process.stdin.close()
        assert "2 inputs" in process.stdout.read()
    assert process.returncode == 0


def test_a_bad_sample_spoils_no_other_in_its_batch(
    invoke: Invoke, colours: Path, tmp_path: Path
) -> None:
    good = np.zeros((3, SIDE, SIDE), np.float32)
    good[2] = 1
    bad = good.copy()
    bad[0, 0, 0] = np.nan
    np.save(tmp_path / "x.npy", np.stack([good, bad, good]))
    result = invoke("run", colours, tmp_path / "x.npy", "--batch", "3", "--json")
    assert result.exit_code == 1
    assert [r["input"][-3:] for r in json.loads(result.stdout)["results"]] == ["[0]", "[2]"]
    assert f"error: {tmp_path / 'x.npy'}[1]: " in result.stderr
    assert "NaN" in result.stderr


def test_trace_tells_every_step(invoke: Invoke, colours: Path, pictures: Path) -> None:
    target = pictures.parent / "trace.jsonl"
    result = invoke("run", colours, pictures, "--trace", target)
    assert result.exit_code == 0
    records = [json.loads(line) for line in target.read_text().splitlines()]
    assert [Path(r["input"]).name for r in records] == ["a_red.png", "b_green.png", "c_hard.png"]
    for record in records:
        assert record["macs"] == sum(step["macs"] for step in record["steps"])
        for step in record["steps"]:
            assert step["ran"] or step["macs"] == 0
    steps = {step["node"]: step for step in records[0]["steps"]}
    assert steps["exit1"]["accepted"] is True
    assert steps["exit1"]["thresholds"] == pytest.approx([0.8])
    assert steps["block1"]["ran"] is False
    assert steps["block1"]["reason"] == "after the answer"


def test_bundle_as_folder_and_by_name(
    ask: Ask, packaged: Path, pictures: Path, tmp_path: Path
) -> None:
    write_bundle(colour_bundle(), tmp_path / "unpacked", folder=True)
    names = [
        r["bundle"]["sha256"]
        for r in (
            ask("run", tmp_path / "unpacked", pictures),
            ask("run", packaged.stem, pictures),
            ask("run", pictures / "a_red.png"),
        )
    ]
    assert len(set(names)) == 1


def test_demo_pictures_without_input(ask: Ask, packaged: Path) -> None:
    results = ask("run", "--budget", FULL)["results"]
    assert len(results) >= 12
    assert len({r["input"] for r in results}) == len(results)
    again = ask("run", "--budget", FULL)["results"]
    assert [r["output"] for r in results] == [r["output"] for r in again]
