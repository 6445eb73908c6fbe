from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynrt.calibrate.files import write_text
from dynrt.calibrate.policy_file import policy_json, read_policy, with_thresholds, write_policy
from dynrt.calibrate.thresholds import Calibration, calibrated
from dynrt.errors import DataError, OutputExistsError
from dynrt.ir.certificate import certify
from dynrt.ir.check import require_valid
from dynrt.ir.graph import Exit
from dynrt.runtime import CallableBackend, Network
from tests.calibrate.made import chain, functions, random_table
from tests.calibrate.test_simulate import two_exits


def made(**thresholds: float) -> Calibration:
    table = random_table(np.random.default_rng(0), n=20, exits=4)
    bounds = {"exit1": 0.25, "exit2": float("inf"), "exit3": float("-inf")} | thresholds
    return calibrated(table, bounds, goal="risk", target=0.01, confidence=0.9, method="by hand")


@given(
    bound=st.floats(allow_nan=False, allow_infinity=True, width=64).filter(
        lambda v: abs(v) < 1e300 or abs(v) == float("inf")
    )
)
def test_what_was_written_is_read(bound: float, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("policy") / "policy.json"
    calibration = made(exit1=bound)
    write_policy(path, calibration)
    assert read_policy(path) == calibration


def test_the_file_is_plain_json_for_people(tmp_path: Path) -> None:
    path = tmp_path / "policy.json"
    write_policy(path, made())
    value = json.loads(path.read_text("utf-8"))
    assert value["thresholds"] == {"exit1": 0.25, "exit2": "never", "exit3": "always"}
    assert value["bundle"] == {"name": "made", "sha256": "00"}
    assert value["goal"] == {"kind": "risk", "target": 0.01, "confidence": 0.9, "method": "by hand"}
    assert value["data"] == {"name": "made up", "n": 20}
    assert value["figures"]["full_flops"] == 2 * made().full_macs
    with pytest.raises(OutputExistsError, match=r"policy\.json exists"):
        write_policy(path, made())
    write_policy(path, made(exit1=0.5), force=True)
    assert read_policy(path).thresholds["exit1"] == 0.5


def changed(value: dict[str, Any], where: str, to: Any) -> dict[str, Any]:
    *path, last = where.split(".")
    out: dict[str, Any] = json.loads(json.dumps(value))
    inner = out
    for name in path:
        inner = inner[name]
    if to is None:
        del inner[last]
    else:
        inner[last] = to
    return out


@pytest.mark.parametrize(
    ("where", "to", "says"),
    [
        ("format", "other", "format 'other' version 1"),
        ("version", 2, "version 2"),
        ("version", True, "version True"),
        ("goal", None, "missing or unknown: goal"),
        ("extra", 1, "missing or unknown: extra"),
        ("bundle", [], "bundle is not an object"),
        ("bundle.name", 3, "bundle.name is 3"),
        ("thresholds", [], "thresholds and figures.exits are objects"),
        ("thresholds.exit1", "high", "thresholds.exit1 is 'high'"),
        ("thresholds.exit1", True, "thresholds.exit1 is True"),
        ("thresholds.exit1", [1], r"thresholds.exit1 is \[1\]"),
        ("thresholds.exit1", 10**400, "thresholds.exit1"),
        ("goal.kind", "luck", "goal.kind is 'luck'"),
        ("goal.kind", ["risk"], "goal.kind is"),
        ("goal.confidence", 2, "goal.confidence is 2"),
        ("goal.target", "x", "goal.target is 'x'"),
        ("data.n", 1.5, "data.n is 1.5"),
        ("data.n", -1, "data.n is -1"),
        ("figures.accuracy", 1.5, "figures.accuracy is 1.5"),
        ("figures.max_flops", "1", "figures.max_flops is '1'"),
        ("figures.exits", {"a": "b"}, "figures.exits.a is 'b'"),
    ],
)
def test_a_policy_with_a_wrong_field_is_refused(
    where: str, to: object, says: str, tmp_path: Path
) -> None:
    path = tmp_path / "policy.json"
    path.write_text(json.dumps(changed(policy_json(made()), where, to)))
    with pytest.raises(DataError, match=says) as caught:
        read_policy(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"", "this is no policy file"),
        (b"\xff\xfe", "cannot be read as text"),
        (b"[]", "the policy is not an object"),
        (b"{", "this is no policy file"),
        (b'{"format": "a", "format": "b"}', "a field stands there twice"),
        (b'{"format": NaN}', "NaN is no JSON number"),
        (b"[" * 100_000, "this is no policy file"),
        (b" " * (1 << 20) + b"{}", "over 1048576 bytes"),
        (b"1" * 5000, "this is no policy file|not an object"),
    ],
)
def test_what_is_no_policy_file(raw: bytes, says: str, tmp_path: Path) -> None:
    path = tmp_path / "policy.json"
    path.write_bytes(raw)
    with pytest.raises(DataError, match=says):
        read_policy(path)


def test_missing_files_and_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no such file"):
        read_policy(tmp_path / "no.json")
    with pytest.raises(DataError, match="cannot be read as text"):
        read_policy(tmp_path)
    with pytest.raises(DataError, match="cannot be written"):
        write_policy(tmp_path / "no" / "policy.json", made())
    with pytest.raises(DataError, match="this is a folder"):
        write_policy(tmp_path, made(), force=True)


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(DataError, match="No space left on device"):
        write_text(path, "new", force=True)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_network_takes_the_thresholds_as_they_are_read(tmp_path: Path) -> None:
    case = two_exits()
    network = Network(case.graph, CallableBackend(functions(case.graph, case.values)))
    for bound, exits in ((float("inf"), "exit2"), (0.5, "exit1"), (float("-inf"), "exit1")):
        path = tmp_path / f"{bound}.json"
        write_policy(path, replace(made(), thresholds={"exit1": bound}))
        network.set(thresholds=dict(read_policy(path).thresholds))
        result = network.run(np.full((1, 1, 1), 1 / 255, np.float32))
        assert result.exit == exits


def test_a_graph_with_the_thresholds_is_valid_and_keeps_its_rules() -> None:
    graph = chain(
        kinds=("hinge", "max_softmax", "margin", "always"),
        thresholds=(1.0, 0.5, 0.5, 0.0),
        segments=((1,), (1,), (1,), (1,)),
        heads=(1, 2, 4, 8),
    )
    found = with_thresholds(graph, made())
    require_valid(found)
    rules = [n.accept for n in found.nodes if isinstance(n, Exit)]
    assert [r.kind for r in rules] == ["hinge", "max_softmax", "margin", "always"]
    assert [r.threshold for r in rules[:3]] == [0.25, float("inf"), float("-inf")]
    assert certify(found) == certify(graph)
    assert with_thresholds(graph, replace(made(), thresholds={})) == graph
