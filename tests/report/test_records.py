from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from dynrt.errors import DataError
from dynrt.report.records import parse_record, read_record
from tests.report.made import evaluation


def test_a_record_is_what_eval_prints(tmp_path: Path) -> None:
    path = tmp_path / "eval.json"
    path.write_text(json.dumps(evaluation()))
    record = read_record(path)
    assert (record.name, record.data, record.n) == ("tiny", "pixels test", 100)
    assert [p.budget_flops for p in record.points] == [50_000_000, 80_000_000, None]
    assert record.uncapped.budget_flops is None
    assert record.uncapped.accuracy == 0.9
    assert asdict(record.points[0])["exits"] == {"exit1": 60, "exit2": 40}


def test_the_evaluation_of_a_real_run_is_a_record() -> None:
    import numpy as np

    from dynrt.calibrate.evaluate import evaluate
    from dynrt.ir.cost import Budget
    from tests.calibrate.made import pixels
    from tests.calibrate.test_evaluate import network_of
    from tests.calibrate.test_simulate import two_exits

    found = evaluate(network_of(two_exits()), pixels(np.array([1, 0])), budgets=[Budget(macs=20)])
    record = parse_record(json.loads(json.dumps(found.to_json())))
    assert record.full_flops == 80
    assert record.points[0].budget_flops == 40
    assert record.points[0].max_flops == 26


def without(value: dict[str, Any], *path: str | int) -> Any:
    out: Any = json.loads(json.dumps(value))
    inner = out
    for name in path[:-1]:
        inner = inner[name]
    del inner[path[-1]]
    return out


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ([], "an evaluation record is an object"),
        (without(evaluation(), "points"), "points is not a list"),
        (without(evaluation(), "bundle"), r"bundle\.name or data"),
        (without(evaluation(), "data"), r"bundle\.name or data"),
        (without(evaluation(), "n"), "n is None"),
        (without(evaluation(), "full_flops"), "full_flops is None"),
        (evaluation() | {"points": [1]}, r"points\[0\] is not an object"),
        (without(evaluation(), "points", 1, "budget"), r"points\[1\]: budget\.flops"),
        (without(evaluation(), "points", 1, "budget", "flops"), r"points\[1\]: budget\.flops"),
        (without(evaluation(), "points", 0, "exits"), r"points\[0\]: exits"),
        (evaluation() | {"exits": {}}, "exits is no table"),
        (evaluation() | {"exits": {"a": 1.5}}, "exits is no table"),
        (evaluation() | {"accuracy": 90}, "accuracy is 90; a fraction"),
        (evaluation() | {"accuracy": True}, "accuracy is True"),
        (evaluation() | {"mean_flops": -1}, "mean_flops is -1"),
        (evaluation() | {"max_flops": "1"}, "max_flops is '1'"),
        (evaluation() | {"max_flops": 10**400}, "max_flops is 1000"),
    ],
)
def test_what_is_no_record_names_the_field(value: object, says: str, tmp_path: Path) -> None:
    path = tmp_path / "eval.json"
    path.write_text(json.dumps(value))
    with pytest.raises(DataError, match=says):
        read_record(path)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "eval.json"
    with pytest.raises(DataError, match="there is no such file"):
        read_record(path)
    with pytest.raises(DataError, match="cannot be read as text"):
        read_record(tmp_path)
    for raw, says in ((b"", "no JSON"), (b"\xff", "as text"), (b"[" * 100_000, "no JSON")):
        path.write_bytes(raw)
        with pytest.raises(DataError, match=says):
            read_record(path)
    with path.open("wb") as stream:
        stream.truncate((1 << 26) + 1)
    with pytest.raises(DataError, match="over 67108864 bytes"):
        read_record(path)
