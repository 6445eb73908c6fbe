"""Records of sweeps: whole whatever happens, and never continued with something else."""

from __future__ import annotations

import errno
import io
import itertools
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dynrt.energy import sweep_workers
from dynrt.energy.hardware import load_hardware
from dynrt.energy.sweep import SweepPoint, Swept, points, read_points, sweep
from dynrt.energy.sweep_record import SweepRecord, layers_sha256, marked, table_sha256
from dynrt.energy.tables import load_table
from dynrt.errors import EnergyError
from dynrt.ir.graph import NodeId
from tests.energy.sweeping import CONV, NETWORK

EYERISS = load_hardware("eyeriss")
TABLE = load_table("eyeriss-normalised")
KEYS = points(["rows=3,4", "dataflow=ws,os"])


def swept(record: Path | None, **options: Any) -> list[SweepPoint]:
    return sweep(NETWORK, EYERISS, TABLE, KEYS, **({"workers": 1, "record": record} | options))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, list[SweepPoint]]:
    """The bytes of a finished record, and what the sweep gave."""
    path = tmp_path_factory.mktemp("whole") / "sweep.jsonl"
    found = swept(path)
    return path.read_bytes(), found


def test_a_record_says_what_was_swept_and_holds_every_point(
    whole: tuple[bytes, list[SweepPoint]], tmp_path: Path
) -> None:
    raw, found = whole
    path = tmp_path / "r"
    path.write_bytes(raw)
    what, read = read_points(path)
    assert read == found == swept(None)
    assert what == Swept(
        network=layers_sha256(NETWORK),
        table="eyeriss-normalised",
        table_sha256=table_sha256(TABLE),
        policy="corrected",
        backend=what.backend,
    )
    assert what.backend.startswith("analytic ")
    assert len(raw.splitlines()) == 1 + len(KEYS)
    assert all(json.loads(line) for line in raw.splitlines())


@given(data=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_sweep_killed_at_any_byte_goes_on(
    whole: tuple[bytes, list[SweepPoint]], tmp_path: Path, data: st.DataObject
) -> None:
    raw, found = whole
    path = tmp_path / "r"
    path.write_bytes(raw[: data.draw(st.integers(0, len(raw)))])
    assert swept(path) == found
    assert path.read_bytes() == raw


def test_points_of_a_record_are_not_counted_again(
    whole: tuple[bytes, list[SweepPoint]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw, found = whole
    path = tmp_path / "r"
    path.write_bytes(b"".join(raw.splitlines(keepends=True)[:3]))
    counted: list[int] = []
    real = sweep_workers.count_task

    def noted(task: Any) -> Any:
        counted.append(task.hardware.rows)
        return real(task)

    monkeypatch.setattr(sweep_workers, "count_task", noted)
    seen: list[tuple[int, int]] = []
    assert swept(path, progress=lambda *p: seen.append(p)) == found
    assert seen == [(2, 4), (3, 4), (4, 4)]
    assert set(counted) == {4}
    counted.clear()
    assert swept(path) == found
    assert not counted


def test_a_sweep_that_is_stopped_keeps_what_is_done(tmp_path: Path) -> None:
    path = tmp_path / "r"

    def stop(done: int, _: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        swept(path, progress=stop)
    assert len(read_points(path)[1]) == 2
    assert swept(path) == swept(None)


def test_a_killed_process_leaves_a_record_that_is_gone_on_from(tmp_path: Path) -> None:
    path = tmp_path / "r"
    code = (
        "import sys, time; from pathlib import Path\n"
        "from tests.energy.test_sweep_record import swept\n"
        "swept(Path(sys.argv[1]), progress=lambda done, _: time.sleep(60 * (done == 3)))"
    )
    root = Path(__file__).parents[2]
    child = subprocess.Popen([sys.executable, "-c", code, str(path)], cwd=root)
    try:
        until = time.monotonic() + 30
        while not path.exists() or path.read_bytes().count(b"\n") < 4:
            assert time.monotonic() < until
            time.sleep(0.02)
        with pytest.raises(EnergyError, match="another sweep is writing it"):
            swept(path)
    finally:
        child.kill()
        child.wait()
    assert swept(path) == swept(None)
    assert path.read_bytes().count(b"\n") == 5


def test_a_larger_sweep_goes_on_from_a_smaller_one(tmp_path: Path) -> None:
    path = tmp_path / "r"
    swept(path)
    more = sweep(
        NETWORK, EYERISS, TABLE, points(["rows=4,5", "dataflow=os"]), workers=1, record=path
    )
    assert [p.hardware.rows for p in more] == [4, 5]
    assert len(read_points(path)[1]) == 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: sweep({NodeId("a"): (CONV,)}, EYERISS, TABLE, KEYS, record=p), "network"),
        (
            lambda p: sweep(NETWORK, EYERISS, load_table("horowitz-45nm"), KEYS, record=p),
            "it is of table 'eyeriss-normalised', not 'horowitz-45nm'",
        ),
        (
            lambda p: sweep(NETWORK, EYERISS, replace(TABLE, technology="x"), KEYS, record=p),
            "it is of a table 'eyeriss-normalised' with other values",
        ),
        (lambda p: swept(p, hops=True), r"not 'eyeriss-normalised\+hops'"),
        (lambda p: swept(p, policy="scalesim"), "it is of policy 'corrected', not 'scalesim'"),
        (lambda p: swept(p, backend="scalesim"), "it is of backend 'analytic .*not 'scalesim 3"),
    ],
)
def test_a_record_of_something_else_is_refused(
    whole: tuple[bytes, list[SweepPoint]],
    tmp_path: Path,
    change: Callable[[Path], object],
    message: str,
) -> None:
    path = tmp_path / "r"
    path.write_bytes(whole[0])
    with pytest.raises(EnergyError, match=message):
        change(path)
    assert path.read_bytes() == whole[0]


def broken(raw: bytes, line: int, **changes: object) -> bytes:
    lines = raw.splitlines(keepends=True)
    value = json.loads(lines[line]) | changes
    lines[line] = json.dumps({k: v for k, v in value.items() if v is not ...}).encode() + b"\n"
    return b"".join(lines)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"energy": 1.5}, ":3: energy is 1.5; a count is needed"),
        ({"energy": True}, ":3: energy is True"),
        ({"cycles": -1}, ":3: cycles is -1"),
        ({"macs": 1 << 200}, ":3: macs is "),
        ({"low": 10**60 - 1}, ":3: energy is not between low and high"),
        ({"unit": "cal"}, ":3: unit is 'cal'; J or MACeq"),
        ({"missing": "dram"}, ":3: missing is no list of levels"),
        ({"missing": [1]}, ":3: missing is no list of levels"),
        ({"extra": 1}, ":3: a point needs hardware, unit, .* and nothing else"),
        ({"energy": ...}, ":3: a point needs"),
        ({"hardware": []}, ":3: hardware"),
        ({"hardware": {"name": "x"}}, ":3: hardware: field rows is missing"),
    ],
)
def test_a_damaged_point_is_named_with_its_line(
    whole: tuple[bytes, list[SweepPoint]],
    tmp_path: Path,
    changes: dict[str, object],
    message: str,
) -> None:
    path = tmp_path / "r"
    path.write_bytes(broken(whole[0], 2, **changes))
    for read in (lambda: swept(path), lambda: read_points(path)):
        with pytest.raises(EnergyError, match=message) as caught:
            read()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"mine\n", ":1: this is no JSON"),
        (b"mine", ":1: this is no record of a sweep"),
        (b"[1]\n", ":1: an object is needed"),
        (b'{"format": "other"}\n', ":1: this is no record of a sweep"),
        (b'{"format": "dynrt energy sweep 1", "table": 3}\n', ":1: a record needs network"),
        (b"\xff\xfe\n", ":1: this is no JSON"),
        (b"[" * 100_000 + b"\n", ":1: this is no JSON"),
    ],
)
def test_other_files_are_left_alone(tmp_path: Path, raw: bytes, message: str) -> None:
    path = tmp_path / "r"
    path.write_bytes(raw)
    for read in (lambda: swept(path), lambda: read_points(path)):
        with pytest.raises(EnergyError, match=message):
            read()
    assert path.read_bytes() == raw


def test_places_that_cannot_be_used_are_errors(
    whole: tuple[bytes, list[SweepPoint]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(EnergyError, match="it cannot be written"):
        swept(tmp_path)
    with pytest.raises(EnergyError, match="it cannot be written"):
        swept(tmp_path / "no" / "r")
    with pytest.raises(EnergyError, match="it cannot be read"):
        read_points(tmp_path / "r")
    with pytest.raises(EnergyError, match="a record is a plain file"):
        read_points(tmp_path)
    path = tmp_path / "torn"
    path.write_bytes(whole[0][:9])
    with pytest.raises(EnergyError, match="the first line is not whole"):
        read_points(path)
    path.write_bytes(whole[0])
    monkeypatch.setattr("dynrt.energy.sweep_record._LIMIT_BYTES", 99)
    for read in (lambda: swept(path), lambda: read_points(path)):
        with pytest.raises(EnergyError, match="over 99 bytes"):
            read()


def test_a_full_disk_is_an_error_and_what_was_written_is_cut_off(
    whole: tuple[bytes, list[SweepPoint]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "r"
    left = 1500

    class Disk(io.FileIO):
        def write(self, data: Any) -> int:
            nonlocal left
            if not left:
                raise OSError(errno.ENOSPC, "No space left on device")
            written = super().write(data[:left])
            left -= written
            return written

    with monkeypatch.context() as patch:
        patch.setattr("dynrt.energy.sweep_record.io.FileIO", Disk)
        with pytest.raises(EnergyError, match="it cannot be written"):
            swept(path)
    assert len(path.read_bytes()) == 1500
    assert swept(path) == whole[1]
    assert path.read_bytes() == whole[0]


def test_a_device_is_no_record() -> None:
    for use in (lambda: swept(Path("/dev/null")), lambda: read_points(Path("/dev/null"))):
        with pytest.raises(EnergyError, match="a record is a plain file"):
            use()


def test_a_closed_record_takes_nothing(tmp_path: Path) -> None:
    what = Swept(network="n", table="t", table_sha256="s", policy="p", backend="b")
    with SweepRecord(tmp_path / "r", what) as record:
        pass
    with pytest.raises(EnergyError, match="the record is closed"):
        record.add(point(1, 1))
    assert read_points(tmp_path / "r") == (what, [])


def point(energy: int, cycles: int) -> SweepPoint:
    return SweepPoint(
        hardware=EYERISS,
        energy=energy,
        low=energy,
        high=energy,
        unit="J",
        macs=1,
        cycles=cycles,
        pe_cycles=cycles,
    )


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9))))
def test_the_front_is_what_nothing_else_dominates(pairs: list[tuple[int, int]]) -> None:
    found = marked([point(*pair) for pair in pairs])
    assert [(p.energy, p.cycles) for p in found] == pairs
    for i, (e, c) in enumerate(pairs):
        others = [p for j, p in enumerate(pairs) if j != i]
        beaten = any(x <= e and y <= c and (x < e or y < c) for x, y in others)
        assert found[i].front is not beaten


def test_names_do_not_matter_to_utilisation_without_cycles() -> None:
    assert point(1, 0).utilisation is None
    assert point(1, 2).utilisation == 0.5


def test_the_hash_of_a_network_sees_every_field() -> None:
    tables = [
        NETWORK,
        dict(itertools.islice(NETWORK.items(), 2)),
        {**NETWORK, NodeId("a"): (replace(CONV, pad_top=0), NETWORK[NodeId("a")][1])},
        {**NETWORK, NodeId("a"): NETWORK[NodeId("a")][::-1]},
    ]
    assert len({layers_sha256(table) for table in tables}) == 4
