"""Results on disk: believed only if every byte is as written; whole, whatever happens."""

from __future__ import annotations

import dataclasses
import json
import os
import stat
import sys
import time
from pathlib import Path, PurePath
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dynrt.energy import simulation_cache
from dynrt.energy.array import SimCounts, SimLayer, SystolicArray
from dynrt.energy.simulation_cache import SimulationCache, default_folder
from dynrt.errors import CacheError

LAYER = SimLayer(height=6, width=6, kernel_h=3, kernel_w=3, channels=2, filters=5)
ARRAY = SystolicArray(
    rows=4, cols=4, dataflow="ws", ifmap_words=1024, filter_words=1024, ofmap_words=1024
)
COUNTS = SimCounts(
    macs=1440,
    cycles=259,
    stall_cycles=0,
    ifmap_sram_reads=576,
    filter_sram_reads=90,
    ofmap_sram_writes=400,
    ifmap_dram_reads=72,
    filter_dram_reads=90,
    ofmap_dram_writes=2**62,
    utilisation=100 / 3,
    mapping_efficiency=56.25,
    compute_utilisation=0.0,
)
posix = pytest.mark.skipif(sys.platform == "win32", reason="owners and modes are of POSIX")


@pytest.fixture
def cache(tmp_path: Path) -> SimulationCache:
    return SimulationCache(tmp_path / "new" / "energy", simulator="scalesim 3.0.0")


@pytest.fixture
def entry(cache: SimulationCache) -> Path:
    cache.write(LAYER, ARRAY, COUNTS)
    return cache.path(LAYER, ARRAY)


def _counts() -> st.SearchStrategy[SimCounts]:
    whole = st.integers(0, 2**63 - 1)
    percent = st.floats(0, 1e6)
    kinds = {"int": whole, "float": percent}
    return st.builds(
        SimCounts, **{f.name: kinds[str(f.type)] for f in dataclasses.fields(SimCounts)}
    )


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(counts=_counts(), height=st.integers(3, 9))
def test_what_is_written_is_read(cache: SimulationCache, counts: SimCounts, height: int) -> None:
    layer = dataclasses.replace(LAYER, height=height)
    cache.write(layer, ARRAY, counts)
    assert cache.read(layer, ARRAY) == counts


def test_nothing_else_is_there(cache: SimulationCache, entry: Path) -> None:
    """Another value of any field, or another release, is another entry."""
    for field in dataclasses.fields(SimLayer):
        assert cache.read(dataclasses.replace(LAYER, **{field.name: 77}), ARRAY) is None
    for field in dataclasses.fields(SystolicArray):
        value: Any = "os" if field.name == "dataflow" else 77
        assert cache.read(LAYER, dataclasses.replace(ARRAY, **{field.name: value})) is None
    newer = SimulationCache(cache.folder, simulator="scalesim 3.0.1")
    assert newer.read(LAYER, ARRAY) is None
    assert newer.path(LAYER, ARRAY) != entry


def test_another_format_is_another_entry(
    cache: SimulationCache, entry: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(simulation_cache, "FORMAT_VERSION", 99)
    assert cache.path(LAYER, ARRAY) != entry
    assert cache.read(LAYER, ARRAY) is None


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_damage_makes_another_count(cache: SimulationCache, data: st.DataObject) -> None:
    cache.write(LAYER, ARRAY, COUNTS)
    path = cache.path(LAYER, ARRAY)
    raw = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(raw) - 1))
    kind = data.draw(st.sampled_from(("change", "cut", "insert", "double")))
    if kind == "change":
        raw[at] = data.draw(st.integers(0, 255).filter(lambda byte: byte != raw[at]))
    elif kind == "cut":
        del raw[at:]
    elif kind == "insert":
        raw[at:at] = data.draw(st.binary(min_size=1, max_size=5))
    else:
        raw = raw * 2
    path.write_bytes(bytes(raw))
    assert cache.read(LAYER, ARRAY) in (None, COUNTS)


@pytest.mark.parametrize(
    "changed",
    [
        {"macs": -1},
        {"macs": True},
        {"macs": 1.0},
        {"macs": None},
        {"cycles": 2**63},
        {"utilisation": 100},
        {"utilisation": float("nan")},
        {"utilisation": float("inf")},
        {"utilisation": "100.0"},
        {"more": 1},
    ],
)
def test_an_entry_of_the_right_digest_is_still_checked(
    cache: SimulationCache, entry: Path, changed: dict[str, Any]
) -> None:
    value = json.loads(entry.read_text())
    value["counts"] |= changed
    _sign(value, entry)
    assert cache.read(LAYER, ARRAY) is None


def test_a_missing_count_is_no_zero(cache: SimulationCache, entry: Path) -> None:
    value = json.loads(entry.read_text())
    del value["counts"]["stall_cycles"]
    _sign(value, entry)
    assert cache.read(LAYER, ARRAY) is None


@pytest.mark.parametrize("part", ["layer", "array"])
def test_an_entry_under_another_name_is_none(
    cache: SimulationCache, entry: Path, part: str
) -> None:
    value = json.loads(entry.read_text())
    value[part] |= {"height": 9, "rows": 9}
    _sign(value, entry)
    assert cache.read(LAYER, ARRAY) is None


@pytest.mark.parametrize("text", ["", "[]", "1", "null", "{}", "[" * 3000, "\xff", '{"counts":[]}'])
def test_what_is_no_entry_is_none(cache: SimulationCache, entry: Path, text: str) -> None:
    entry.write_bytes(text.encode("latin-1"))
    assert cache.read(LAYER, ARRAY) is None
    cache.write(LAYER, ARRAY, COUNTS)
    assert cache.read(LAYER, ARRAY) == COUNTS


def _sign(value: dict[str, Any], path: Path) -> None:
    value.pop("sha256")
    value["sha256"] = simulation_cache._digest(value)
    path.write_text(json.dumps(value))


def test_a_signed_entry_is_read(cache: SimulationCache, entry: Path) -> None:
    """The tests above fail for the reason they name, not for a wrong signature."""
    _sign(json.loads(entry.read_text()), entry)
    assert cache.read(LAYER, ARRAY) == COUNTS


def test_a_large_file_is_not_read(cache: SimulationCache, entry: Path) -> None:
    entry.write_bytes(entry.read_bytes() + b" " * 5000)
    assert cache.read(LAYER, ARRAY) is None


@posix
@pytest.mark.parametrize("mode", [0o620, 0o602])
def test_a_file_that_others_may_write_is_not_believed(
    cache: SimulationCache, entry: Path, mode: int
) -> None:
    entry.chmod(mode)
    assert cache.read(LAYER, ARRAY) is None


@posix
def test_links_and_folders_are_no_entries(
    cache: SimulationCache, entry: Path, tmp_path: Path
) -> None:
    entry.rename(tmp_path / "elsewhere")
    entry.symlink_to(tmp_path / "elsewhere")
    assert cache.read(LAYER, ARRAY) is None
    entry.unlink()
    entry.mkdir()
    assert cache.read(LAYER, ARRAY) is None
    with pytest.raises(CacheError, match="directory"):
        cache.write(LAYER, ARRAY, COUNTS)
    assert [path.name for path in cache.folder.iterdir()] == [entry.name]


@posix
def test_files_are_for_their_user_alone(tmp_path: Path) -> None:
    """Whatever the user's mask; the folder above, too: it is that of compiled networks."""
    mask = os.umask(0o002)
    try:
        cache = SimulationCache(tmp_path / "dynrt" / "energy", simulator="scalesim 3.0.0")
        cache.write(LAYER, ARRAY, COUNTS)
    finally:
        os.umask(mask)
    paths = (cache.path(LAYER, ARRAY), cache.folder, cache.folder.parent)
    assert [stat.S_IMODE(path.stat().st_mode) for path in paths] == [0o600, 0o700, 0o700]


def test_a_write_that_fails_leaves_what_was_there(
    cache: SimulationCache, entry: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    before = entry.read_bytes()
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CacheError, match="No space left"):
        cache.write(LAYER, ARRAY, dataclasses.replace(COUNTS, macs=1))
    assert entry.read_bytes() == before
    assert list(cache.folder.iterdir()) == [entry]


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "energy").write_text("")
    with pytest.raises(CacheError, match="energy: "):
        SimulationCache(tmp_path / "energy", simulator="s")
    with pytest.raises(CacheError, match="below"):
        SimulationCache(tmp_path / "energy" / "below", simulator="s")


@posix
def test_a_folder_that_is_a_link_or_open_to_others(tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.mkdir()
    (tmp_path / "link").symlink_to(real)
    with pytest.raises(CacheError, match="is a link or a file"):
        SimulationCache(tmp_path / "link", simulator="s")
    real.chmod(0o777)
    with pytest.raises(CacheError, match=r"mode 777; a cache belongs to its user"):
        SimulationCache(real, simulator="s")


def test_what_killed_writers_left_is_removed(cache: SimulationCache, entry: Path) -> None:
    old, young = (cache.folder / f".{entry.stem}.{n * 6}.tmp" for n in ("ab", "cd"))
    for path in (old, young):
        path.write_text("")
    hours_ago = time.time() - 7300
    os.utime(old, (hours_ago, hours_ago))
    SimulationCache(cache.folder, simulator="scalesim 3.0.0")
    assert sorted(cache.folder.iterdir()) == sorted([entry, young])


def test_of_very_many_the_oldest_go(
    cache: SimulationCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(simulation_cache, "MAX_ENTRIES", 20)
    layers = [dataclasses.replace(LAYER, height=height) for height in range(3, 25)]
    for age, layer in enumerate(layers):
        cache.write(layer, ARRAY, COUNTS)
        os.utime(cache.path(layer, ARRAY), (1e9 - age, 1e9 - age))
    SimulationCache(cache.folder, simulator="scalesim 3.0.0")
    kept = [cache.read(layer, ARRAY) is not None for layer in layers]
    assert kept == [True] * 18 + [False] * 4


def test_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DYNRT_CACHE_MB", raising=False)
    monkeypatch.setenv("DYNRT_CACHE", str(tmp_path))
    assert default_folder() == tmp_path / "energy"
    monkeypatch.setenv("DYNRT_CACHE_MB", "0")
    assert default_folder() is None
    monkeypatch.setenv("DYNRT_CACHE_MB", "10")
    monkeypatch.delenv("DYNRT_CACHE")
    monkeypatch.setattr(simulation_cache, "_platform_folder", _homeless)
    assert default_folder() is None


def _homeless(*args: object) -> Path:
    raise RuntimeError("Could not determine home directory.")


@pytest.mark.parametrize(
    ("system", "variables", "folder"),
    [
        ("linux", {}, "/h/.cache/dynrt"),
        ("linux", {"XDG_CACHE_HOME": "/x"}, "/x/dynrt"),
        ("linux", {"XDG_CACHE_HOME": "x"}, "/h/.cache/dynrt"),
        ("darwin", {}, "/h/Library/Caches/dynrt"),
        ("win32", {}, "/h/AppData/Local/dynrt/cache"),
        ("win32", {"LOCALAPPDATA": "/l"}, "/l/dynrt/cache"),
    ],
)
def test_the_platforms_place(
    system: str, variables: dict[str, str], folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    found = simulation_cache._platform_folder(system, lambda: Path("/h"))
    assert PurePath(found).as_posix() == folder
