"""``dynrt energy`` on one hardware: figures worked out by hand, what is stored, what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dynrt.bundle import read_bundle, replace_parts, write_bundle
from dynrt.cli import energy_runs
from dynrt.cli.energy_page import digits, scale_of
from dynrt.ir.layers import Layer, PassLayer, UnmodelledLayer
from tests.cli.colours import BLOCK_MACS, HEAD_MACS, STEM_MACS, colour_bundle
from tests.cli.conftest import Ask, Invoke

ON = ("--hardware", "eyeriss", "--table", "eyeriss-normalised")

# Eyeriss is 12 x 14, ws. The stem is a 1 x 1 convolution, 3 -> 3 channels at 8 x 8: P = 64 pixels,
# K = 3 taps, N = 3 filters, so one fold, 2 * 12 + 14 + 64 - 2 lines, minus 1. Each input word and
# weight is read once, each output written once, in buffer and DRAM.
STEM_WORDS = 64 * 3 + 3 * 3 + 64 * 3
STEM = STEM_MACS + 4 * STEM_MACS + 6 * STEM_WORDS + 200 * STEM_WORDS
# The block is 3 x 3 with padding 1: K = 27 taps need 3 folds of 12 rows. Without the padding's zeros
# each channel is read (3 * 8 - 2) ** 2 times. The sums of 2 folds, 64 * 3 words, are written to the
# output buffer and read again. DRAM sees each word once.
BLOCK_BUFFER = 3 * 22**2 + 27 * 3 + 64 * 3 + 2 * 2 * 64 * 3
BLOCK_DRAM = 64 * 3 + 27 * 3 + 64 * 3
BLOCK = 5 * BLOCK_MACS + 6 * BLOCK_BUFFER + 200 * BLOCK_DRAM


@pytest.fixture(scope="module")
def counted(tmp_path_factory: pytest.TempPathFactory, colours: Path) -> Path:
    """The colour network with a layer table, counts and energies in MAC-equivalents."""
    path = tmp_path_factory.mktemp("energy") / "counted.dynrt"
    found = read_bundle(colours)
    asked = energy_runs.Asked(hardware=("eyeriss",), table="eyeriss-normalised")
    write_bundle(energy_runs.run(found, asked).priced(), path)
    return path


def _node(record: Any, name: str) -> Any:
    return next(n for n in record["nodes"] if n["name"] == name)


def test_figures_by_hand(ask: Ask, colours: Path) -> None:
    record = ask("energy", colours, *ON)
    stem, block = _node(record, "stem"), _node(record, "block1")
    assert stem["levels"] == {
        "mac": STEM_MACS,
        "register_file": 4 * STEM_MACS,
        "buffer": 6 * STEM_WORDS,
        "dram": 200 * STEM_WORDS,
    }
    assert (stem["energy"], block["energy"]) == (STEM, BLOCK)
    assert stem["cycles"] == 2 * 12 + 14 + 64 - 2 - 1
    assert block["cycles"] == 3 * (2 * 12 + 14 + 64 - 2) - 1
    assert stem["utilisation"] == STEM_MACS / (99 * 12 * 14)
    assert stem["counts"]["buffer"] == {
        "ifmap": {"read": 192},
        "filter": {"read": 9},
        "ofmap": {"read": 0, "write": 192},
    }
    assert block["counts"]["buffer"]["ofmap"] == {"read": 384, "write": 192 + 384}
    assert stem["formats"] == ["float32"]
    assert record["total"]["seconds"] == record["total"]["cycles"] / 200e6


def test_json_is_the_contract(ask: Ask, colours: Path) -> None:
    record = ask("energy", colours, *ON)
    assert record["bundle"] == {"name": "colours", "sha256": read_bundle(colours).sha256}
    assert record["hardware"] == "eyeriss"
    assert record["table"] == "eyeriss-normalised"
    assert record["policy"] == "corrected"
    assert record["backend"].startswith("analytic ")
    assert record["unit"] == "MACeq"
    assert record["source"] == "modelled:eyeriss-normalised@eyeriss/corrected/analytic"
    assert record["counts_from"] == "now"
    assert record["details"]["hardware"]["rows"] == 12
    assert [n["name"] for n in record["nodes"]] == ["stem", "exit1", "block1", "final"]
    assert [n["kind"] for n in record["nodes"]] == ["compute", "exit", "compute", "exit"]
    assert [n["macs"] for n in record["nodes"]] == [STEM_MACS, HEAD_MACS, BLOCK_MACS, HEAD_MACS]
    assert all(n["low"] <= n["energy"] <= n["high"] for n in record["nodes"])
    assert record["unmodelled"] == {
        "operators": [],
        "count": 0,
        "macs": 0,
        "macs_share": 0.0,
        "bytes": 0,
    }


def test_sums_are_exact(ask: Ask, colours: Path) -> None:
    for table, exact in (
        ("eyeriss-normalised", "milli_mac_equivalents"),
        ("horowitz-45nm", "femtojoules"),
    ):
        record = ask("energy", colours, "--table", table)
        for node in record["nodes"]:
            assert node[exact] == sum(part[exact] for part in node["parts"])
        assert record["total"][exact] == sum(node[exact] for node in record["nodes"])
        assert record["total"]["macs"] == STEM_MACS + BLOCK_MACS + 2 * HEAD_MACS


def test_paths_of_exits(ask: Ask, colours: Path) -> None:
    record = ask("energy", colours, *ON)
    exact = {n["name"]: n["milli_mac_equivalents"] for n in record["nodes"]}
    first, last = record["exits"]
    assert (first["name"], last["name"]) == ("exit1", "final")
    to_first = exact["stem"] + exact["exit1"]
    assert first["cheapest"]["milli_mac_equivalents"] == to_first
    assert first["full"]["milli_mac_equivalents"] == to_first
    cheapest = exact["stem"] + exact["block1"] + exact["final"]
    assert last["cheapest"]["milli_mac_equivalents"] == cheapest
    assert last["full"]["milli_mac_equivalents"] == cheapest + exact["exit1"]
    assert last["cheapest"]["low"] < last["cheapest"]["energy"] < last["cheapest"]["high"]


def test_skipping_a_block_saves_exactly_that_block(ask: Ask, gated: Path) -> None:
    record = ask("energy", gated)
    (end,) = record["exits"]
    saved = end["full"]["milli_mac_equivalents"] - end["cheapest"]["milli_mac_equivalents"]
    gate = _node(record, "gate")["milli_mac_equivalents"]  # settled beforehand, it does not run
    assert saved - gate == _node(record, "block1")["milli_mac_equivalents"] > 0


def test_page_names_every_source(invoke: Invoke, colours: Path) -> None:
    shown = invoke("energy", colours, *ON).stdout
    for text in (
        "colours on eyeriss: 12x14 ws, buffers 36/36/36 kB",
        "all nodes",
        "kMACeq",
        "every operator is modelled",
        "counts: analytic 1, policy corrected",
        "prices: eyeriss-normalised (65 nm",
        "Chen et al., Eyeriss",
        "source: modelled:eyeriss-normalised@eyeriss/corrected/analytic",
        "left out, priced only on request: hop",
    ):
        assert text in shown
    row = next(line for line in shown.splitlines() if line.startswith("stem"))
    assert row.split()[3:9] == ["3.5", "%", "0.58", "2.30", "2.36", "78.6"]


def test_hops_only_on_request(ask: Ask, colours: Path) -> None:
    with_hops = ask("energy", colours, *ON, "--hops")
    assert with_hops["left_out"] == []
    assert with_hops["table"] == "eyeriss-normalised+hops"
    stem = _node(with_hops, "stem")
    # 3 columns hand each of 192 inputs on twice, 3 rows each of 192 sums; a weight of row r takes r
    # hops on its way in, so 3 * (0 + 1 + 2); a hop is 2 multiply-accumulates in this table
    hops = stem["counts"]["hop"]
    assert hops == {"ifmap": 2 * 192, "filter": 9, "ofmap": 2 * 192}
    assert stem["levels"]["hop"] == 2 * sum(hops.values())
    assert stem["energy"] == STEM + stem["levels"]["hop"]


def test_the_default_is_the_packaged_bundle(ask: Ask, packaged: Path) -> None:
    record = ask("energy")
    assert record["bundle"]["name"] == "colours"
    assert (record["hardware"], record["table"]) == ("eyeriss", "eyeriss-normalised")


def test_changed_hardware_shows_in_its_name(ask: Ask, colours: Path) -> None:
    record = ask("energy", colours, "--rows", "4", "--cols", "2", "--sram", "1", "--dataflow", "os")
    assert record["hardware"] == "eyeriss[rows=4,cols=2,dataflow=os,sram=1kB]"
    assert record["dataflow"] == "os"
    details = record["details"]["hardware"]
    assert (details["rows"], details["cols"], details["ofmap_sram_bytes"]) == (4, 2, 1024)


# --- what is stored


def test_written_bundle_carries_counts_and_energies(
    ask: Ask, invoke: Invoke, colours: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.dynrt"
    done = invoke("energy", colours, *ON, "--write", out)
    assert done.exit_code == 0, done.stderr
    assert f"wrote {out}" in done.stderr
    found = read_bundle(out)
    assert found.layers is not None
    assert found.counts is not None
    assert found.counts.policy == "corrected"
    assert str(found.energy) == "modelled:eyeriss-normalised@eyeriss/corrected/analytic"
    costs = {n.name: n.cost for n in found.graph.nodes if hasattr(n, "cost")}
    assert costs["stem"].milli_mac_equivalents == 1000 * STEM
    assert costs["block1"].milli_mac_equivalents == 1000 * BLOCK
    shown = ask("energy", out)
    assert shown["counts_from"] == "bundle"
    fresh = ask("energy", colours, *ON)
    assert shown["nodes"] == fresh["nodes"]
    assert shown["exits"] == fresh["exits"]


def test_another_table_counts_nothing_again(
    ask: Ask, counted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("counted again")

    monkeypatch.setattr(energy_runs, "count_bundle", refuse)
    joules = ask("energy", counted, "--table", "horowitz-45nm")
    assert joules["unit"] == "J"
    assert joules["counts_from"] == "bundle"
    assert _node(joules, "stem")["counts"] == _node(ask("energy", counted), "stem")["counts"]
    assert ask("energy", counted, "--backend", "analytic")["counts_from"] == "bundle"


@pytest.mark.parametrize(
    "other",
    [("--hardware", "square8"), ("--rows", "8"), ("--policy", "corrected-dram")],
)
def test_other_hardware_or_policy_is_counted_anew(
    ask: Ask, counted: Path, other: tuple[str, ...]
) -> None:
    assert ask("energy", counted, *other)["counts_from"] == "now"


def test_a_budget_in_the_written_unit_is_kept(ask: Ask, counted: Path, pictures: Path) -> None:
    record = ask("energy", counted)
    cheapest = record["exits"][0]["cheapest"]["energy"]
    ran = ask("run", counted, pictures, "--budget", f"{cheapest}MACeq")
    assert [r["exit"] for r in ran["results"]] == ["exit1"] * 3
    assert all(r["energy"] == cheapest for r in ran["results"])
    assert all(r["energy_source"] == record["source"] for r in ran["results"])


def test_an_existing_file_is_replaced_only_with_force(
    invoke: Invoke, counted: Path, tmp_path: Path
) -> None:
    mine = tmp_path / "mine.dynrt"
    mine.write_bytes(counted.read_bytes())
    refused = invoke("energy", mine, "--table", "horowitz-45nm", "--write", mine)
    assert refused.exit_code == 1
    assert "replaced only with --force" in refused.stderr
    assert mine.read_bytes() == counted.read_bytes()
    assert (
        invoke("energy", mine, "--table", "horowitz-45nm", "--write", mine, "--force").exit_code
        == 0
    )
    assert read_bundle(mine).certificate.full_femtojoules is not None


def test_no_layer_table_and_no_exporters(
    invoke: Invoke, colours: Path, counted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [m for m in sys.modules if m.startswith("dynrt.exporters")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)
    failed = invoke("energy", colours)
    assert failed.exit_code == 1
    assert "colours has no layer table: export it again" in failed.stderr
    assert "dynrt[export]" in failed.stderr
    assert invoke("energy", counted, "--rows", "8").exit_code == 0  # its table is enough


def test_a_stored_layer_table_needs_nothing_heavy(counted: Path) -> None:
    program = (
        "import sys; from dynrt.cli import main\n"
        f"sys.argv[1:] = ['energy', {str(counted)!r}, '--rows', '8']\n"
        "try: main()\nexcept SystemExit: pass\n"
        "print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert "every operator is modelled" in done.stdout
    loaded = {name.partition(".")[0] for name in done.stderr.split()}
    heavy = {"torch", "onnx", "onnxruntime", "matplotlib", "scalesim", "pandas", "ray"}
    assert heavy.isdisjoint(loaded)


# --- gaps


def test_what_has_no_model_is_listed_with_its_share(
    ask: Ask, invoke: Invoke, tmp_path: Path
) -> None:
    streamed = PassLayer(name="r", op="Relu", dtype="float32", reads_words=9, writes_words=9)
    odd = UnmodelledLayer(
        name="n", op="NonZero", macs=BLOCK_MACS, bytes_moved=64, reason="its size"
    )
    unknown = UnmodelledLayer(name="m", op="Magic", macs=0, bytes_moved=None, reason="not ONNX")
    layers: dict[str, tuple[Layer, ...]] = {
        "stem": (streamed,),
        "exit1": (streamed,),
        "block1": (odd,),
        "final": (unknown,),
    }
    path = tmp_path / "odd.dynrt"
    write_bundle(replace_parts(colour_bundle(), layers=layers), path)
    record = ask("energy", path)
    gaps = record["unmodelled"]
    assert (gaps["count"], gaps["macs"], gaps["bytes"]) == (2, BLOCK_MACS, None)
    assert gaps["macs_share"] == BLOCK_MACS / (STEM_MACS + BLOCK_MACS + 2 * HEAD_MACS)
    assert [(g["node"], g["op"], g["bytes"]) for g in gaps["operators"]] == [
        ("block1", "NonZero", 64),
        ("final", "Magic", None),
    ]
    shown = invoke("energy", path).stdout
    assert "NOT modelled: 2 operators, 89.7 % of the MACs, an unknown amount moved" in shown
    assert "its size" in shown


def test_levels_that_a_table_lacks_are_named(ask: Ask, colours: Path, tmp_path: Path) -> None:
    table = tmp_path / "mine.toml"
    table.write_text(
        'format = 1\nname = "mine"\nunit = "MACeq"\ntechnology = "none"\nsummary = "a test"\n'
        "[[mac]]\nvalue = 1\nlow = 1\nhigh = 1\n"
        'basis = "assumed"\nsource = "here"\n'
        "[[dram]]\nvalue = 100\nlow = 50\nhigh = 200\n"
        'basis = "assumed"\nsource = "here"\n'
    )
    record = ask("energy", colours, "--table", table)
    assert "buffer" in record["missing"]
    assert "register_file" in record["missing"]
    stem = _node(record, "stem")
    assert stem["energy"] == STEM_MACS + 100 * STEM_WORDS
    assert (stem["low"], stem["high"]) == (
        STEM_MACS + 50 * STEM_WORDS,
        STEM_MACS + 200 * STEM_WORDS,
    )


# --- the simulator


def test_the_simulator_counts_the_same(
    ask: Ask, counted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DYNRT_CACHE", str(tmp_path))
    for policy, gaps in (("corrected", 0), ("scalesim", 2)):  # raw: it has no unit for poolings
        asked = ("energy", counted, "--hardware", "square8", "--policy", policy)
        ours = ask(*asked)
        theirs = ask(*asked, "--backend", "scalesim", "--workers", "1")
        assert theirs["backend"] == "scalesim 3.0.0"
        assert ours["backend"] == "analytic 1"
        assert theirs["nodes"] == ours["nodes"]
        assert ours["unmodelled"]["count"] == gaps


def test_lists(ask: Ask, invoke: Invoke) -> None:
    lists = ask("energy", "--list")
    assert {"eyeriss", "tpu-like", "zedboard"} <= {h["name"] for h in lists["hardware"]}
    assert {"eyeriss-normalised", "horowitz-45nm"} <= {t["name"] for t in lists["tables"]}
    assert [p["name"] for p in lists["policies"] if p["default"]] == ["corrected"]
    shown = invoke("energy", "--list").stdout
    assert "12x14" in shown
    assert "corrected (default)" in shown


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (0, "0"),
        (0.00004, "4e-05"),
        (0.0123, "0.012"),
        (1.234, "1.23"),
        (56.78, "56.8"),
        (1234.5, "1234"),
    ],
)
def test_digits(amount: float, text: str) -> None:
    assert digits(amount) == text


def test_scales() -> None:
    assert scale_of("J", [0.002, 0.5]) == ("mJ", 1e-3)
    assert scale_of("MACeq", [2e6]) == ("MMACeq", 1e6)
    assert scale_of("J", []) == ("pJ", 1e-12)


def test_json_is_strict(invoke: Invoke, colours: Path) -> None:
    text = invoke("energy", colours, "--json").stdout
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
