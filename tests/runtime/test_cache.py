"""``compiled_for``: kept once, read ever after, and compiled again whenever anything is not as it was."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from dynrt.bundle import Bundle
from dynrt.errors import CacheError, CompileError
from dynrt.runtime import cache, cache_key
from dynrt.runtime.cache import (
    DynrtWarning,
    cache_folder,
    cache_limit_bytes,
    clear,
    compiled_for,
    entries,
)
from dynrt.runtime.cache_key import key_facts, key_of
from dynrt.runtime.compiled import Compiled
from tests.bundle.samples import picture_bundle
from tests.cli.colours import gated_bundle
from tests.runtime.cache_samples import (
    CountingCompile,
    entry_path,
    made_up,
    refused_compile,
)

BUNDLE = gated_bundle()


@pytest.fixture(autouse=True)
def _fresh_warnings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "_warned", set())
    for name in (cache.FOLDER_VARIABLE, cache.LIMIT_VARIABLE):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a cache will be."""
    return tmp_path / "above" / "cache"


def test_compiled_once_then_read(folder: Path) -> None:
    compile = CountingCompile()
    first = compiled_for(BUNDLE, threads=1, folder=folder, compile=compile)
    again = compiled_for(BUNDLE, threads=1, folder=folder, compile=refused_compile)
    assert first == again == made_up(BUNDLE)
    assert compile.calls == 1
    assert folder.stat().st_mode & 0o777 == 0o700
    path = entry_path(folder, BUNDLE)
    assert [p.name for p in folder.iterdir()] == [path.name]
    assert path.stat().st_mode & 0o077 == 0


def test_each_bundle_and_thread_count_has_its_own(folder: Path) -> None:
    compile = CountingCompile()
    other = picture_bundle()
    for bundle, threads in ((BUNDLE, 1), (BUNDLE, 2), (other, 1)):
        compiled_for(bundle, threads=threads, folder=folder, compile=compile)
    assert compile.calls == 3
    assert [entry.network for entry in entries(folder)] == [BUNDLE.name, BUNDLE.name, other.name]
    got = compiled_for(other, threads=1, folder=folder, compile=refused_compile)
    assert got == made_up(other)


def test_every_fact_changes_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    import dynrt
    from dynrt.runtime import kernels

    facts = key_facts(BUNDLE.sha256, threads=1)
    keys = {key_of(facts)}
    keys |= {key_of(facts | {name: value + "x"}) for name, value in facts.items()}
    assert len(keys) == len(facts) + 1
    changed = {
        "bundle": key_facts("0" * 64, threads=1),
        "threads": key_facts(BUNDLE.sha256, threads=2),
    }
    monkeypatch.setattr(onnxruntime, "__version__", "0.0")
    changed["onnxruntime"] = key_facts(BUNDLE.sha256, threads=1)
    monkeypatch.undo()
    monkeypatch.setattr(dynrt, "__version__", "0.0")
    changed["dynrt"] = key_facts(BUNDLE.sha256, threads=1)
    monkeypatch.undo()
    monkeypatch.setattr(cache_key, "COMPILE_VERSION", 0)
    assert key_facts(BUNDLE.sha256, threads=1)["dynrt"] != facts["dynrt"]
    monkeypatch.undo()
    monkeypatch.setattr(cache_key, "BATCH_SIGNATURE", "1")
    changed["batch"] = key_facts(BUNDLE.sha256, threads=1)
    monkeypatch.undo()
    monkeypatch.setattr(cache_key, "processor", lambda: "another")
    changed["processor"] = key_facts(BUNDLE.sha256, threads=1)
    monkeypatch.undo()

    class Other:
        NAME = "another"

    monkeypatch.setattr(kernels, "KERNELS", Other)
    changed["kernels"] = key_facts(BUNDLE.sha256, threads=1)
    assert set(changed) == set(facts)
    for name, other in changed.items():
        assert [n for n in facts if facts[n] != other[n]] == [name]


def test_facts_cannot_run_into_one_another() -> None:
    assert key_of({"a": "bc", "d": "e"}) != key_of({"a": "b", "cd": "e"})


def test_the_processor_is_its_kind_not_its_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def told(text: str | None) -> str:
        path = tmp_path / "cpuinfo"
        path.unlink(missing_ok=True)
        if text is not None:
            path.write_text(text)
        monkeypatch.setattr(cache_key, "_CPUINFO", path)
        return cache_key.processor.__wrapped__()

    first = "processor\t: 0\nmodel name\t: A 1\ncpu MHz\t: 800\nflags\t: sse avx2\n\n"
    base = told(first)
    assert "model name=A 1" in base
    assert told(first.replace("800", "3200") + "processor : 1\nmodel name : B\n") == base
    assert told(first.replace("avx2", "avx2 avx512f")) != base
    assert told("CPU implementer : 0x41\nFeatures : fp asimd\nBogoMIPS : 1\n") != told(None)
    assert "0x41" in told("CPU implementer : 0x41\n")


Damage = Callable[[Path], object]


def _replace(path: Path, at: int, byte: int) -> None:
    raw = bytearray(path.read_bytes())
    raw[at] ^= byte
    path.write_bytes(bytes(raw))


def _as_link(path: Path) -> None:
    path.rename(path.parent.parent / "moved")
    path.symlink_to(path.parent.parent / "moved")


def _as_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


def _as_another(path: Path) -> None:
    """The entry of the same bundle for two threads, copied over."""
    compiled_for(BUNDLE, threads=2, folder=path.parent, compile=CountingCompile(seed=7))
    other = entry_path(path.parent, BUNDLE, threads=2)
    path.write_bytes(other.read_bytes())
    other.unlink()


@pytest.mark.parametrize(
    "damage",
    [
        lambda p: _replace(p, 0, 1),
        lambda p: _replace(p, 20, 255),
        lambda p: _replace(p, 60, 8),
        lambda p: _replace(p, 200, 1),
        lambda p: _replace(p, -1, 128),
        lambda p: os.truncate(p, 0),
        lambda p: os.truncate(p, p.stat().st_size // 2),
        lambda p: os.truncate(p, p.stat().st_size + 5),
        lambda p: p.write_bytes(b"PK\x03\x04 not ours"),
        lambda p: p.chmod(0o620),
        _as_link,
        _as_pipe,
        _as_another,
        Path.unlink,
    ],
    ids=[
        "magic", "key", "digest", "text", "blob", "empty", "half", "longer", "foreign",
        "writable by others", "link", "pipe", "of another key", "gone",
    ],
)  # fmt: skip
def test_what_is_damaged_is_rebuilt_silently(folder: Path, damage: Damage) -> None:
    compiled_for(BUNDLE, threads=1, folder=folder, compile=CountingCompile(seed=1))
    path = entry_path(folder, BUNDLE)
    damage(path)
    compile = CountingCompile()
    assert compiled_for(BUNDLE, threads=1, folder=folder, compile=compile) == made_up(BUNDLE)
    assert compile.calls == 1
    assert path.is_file()
    assert not path.is_symlink()
    got = compiled_for(BUNDLE, threads=1, folder=folder, compile=refused_compile)
    assert got == made_up(BUNDLE)
    assert len(list(folder.iterdir())) == 1


def test_a_link_is_replaced_not_followed(folder: Path, tmp_path: Path) -> None:
    folder.mkdir(parents=True, mode=0o700)
    victim = tmp_path / "victim"
    victim.write_text("precious")
    entry_path(folder, BUNDLE).symlink_to(victim)
    compiled_for(BUNDLE, threads=1, folder=folder, compile=CountingCompile())
    assert victim.read_text() == "precious"


def test_a_folder_in_the_place_of_an_entry(folder: Path) -> None:
    path = entry_path(folder, BUNDLE)
    path.mkdir(parents=True)
    folder.chmod(0o700)
    with pytest.warns(DynrtWarning, match="are not kept"):
        got = compiled_for(BUNDLE, threads=1, folder=folder, compile=CountingCompile())
    assert got == made_up(BUNDLE)
    assert [p.name for p in folder.iterdir()] == [path.name]


def _fails(bundle: Bundle, *, threads: int) -> Compiled:
    raise CompileError("operator Foo cannot be cut")


def test_what_cannot_be_compiled_is_one_warning(folder: Path) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(3):
            assert compiled_for(BUNDLE, threads=1, folder=folder, compile=_fails) is None
    assert [w.category for w in caught] == [DynrtWarning]
    assert "portable mode: operator Foo" in str(caught[0].message)
    assert not folder.exists()


def test_a_missing_compiler_is_a_warning(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "dynrt.runtime.compile", None)
    with pytest.warns(DynrtWarning, match="is missing"):
        assert compiled_for(BUNDLE, threads=1, folder=folder) is None


def test_other_errors_of_compiling_are_not_hidden(folder: Path) -> None:
    def broken(bundle: Bundle, *, threads: int) -> Compiled:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        compiled_for(BUNDLE, threads=1, folder=folder, compile=broken)


def test_nothing_is_kept_with_a_limit_of_zero(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(cache.LIMIT_VARIABLE, "0")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert compiled_for(BUNDLE, threads=1, folder=folder, compile=CountingCompile())
    assert not folder.exists()


def test_an_entry_larger_than_the_limit_is_a_warning(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(cache.LIMIT_VARIABLE, "1")
    with pytest.warns(DynrtWarning, match="the limit is 1000000"):
        got = compiled_for(
            BUNDLE, threads=1, folder=folder, compile=CountingCompile(bytes_each=600_000)
        )
    assert got is not None
    assert entries(folder) == ()


@pytest.mark.parametrize("text", ["many", "-1", "1.5", "1e3", "9" * 30, "٣"])
def test_a_limit_that_is_no_number(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cache.LIMIT_VARIABLE, text)
    with pytest.warns(DynrtWarning, match="no number of megabytes"):
        assert cache_limit_bytes() == cache.DEFAULT_LIMIT_BYTES
    monkeypatch.setenv(cache.LIMIT_VARIABLE, " 64 ")
    assert cache_limit_bytes() == 64_000_000


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def home() -> Path:
        return Path("/home/me")

    place = cache._platform_folder
    monkeypatch.setenv("XDG_CACHE_HOME", "/x/y")
    assert place("linux", home) == Path("/x/y/dynrt")
    monkeypatch.setenv("XDG_CACHE_HOME", "not/absolute")
    assert place("linux", home) == Path("/home/me/.cache/dynrt")
    assert place("darwin", home) == Path("/home/me/Library/Caches/dynrt")
    monkeypatch.delenv("LOCALAPPDATA", raising=False)
    assert place("win32", home) == Path("/home/me/AppData/Local/dynrt/cache")
    monkeypatch.setenv("LOCALAPPDATA", "/local")
    assert place("win32", home) == Path("/local/dynrt/cache")
    monkeypatch.setenv(cache.FOLDER_VARIABLE, str(tmp_path))
    assert cache_folder() == tmp_path


def test_nobody_without_a_home_loses_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def home() -> Path:
        raise RuntimeError("no home")

    monkeypatch.setattr(Path, "home", home)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    with pytest.raises(CacheError, match="set DYNRT_CACHE"):
        cache_folder()
    with pytest.warns(DynrtWarning, match="no home"):
        assert compiled_for(BUNDLE, threads=1, compile=CountingCompile()) == made_up(BUNDLE)


def test_entries_and_clear(folder: Path) -> None:
    assert entries(folder) == ()
    assert clear(folder) == (0, 0)
    assert not folder.exists()
    compiled_for(BUNDLE, threads=1, folder=folder, compile=CountingCompile())
    compiled_for(BUNDLE, threads=2, folder=folder, compile=CountingCompile())
    first, second = sorted(p for p in folder.iterdir())
    assert [entry.key for entry in entries(folder)] == [
        entry_path(folder, BUNDLE, threads=n).stem for n in (1, 2)
    ]
    (folder / "notes.txt").write_text("not the cache's")
    _replace(first, 150, 1)
    listed = {entry.key: entry for entry in entries(folder)}
    assert listed[first.stem].network is None
    assert listed[second.stem].network == BUNDLE.name
    size = first.stat().st_size + second.stat().st_size
    assert clear(folder) == (2, size)
    assert [p.name for p in folder.iterdir()] == ["notes.txt"]


def test_looking_is_not_using(folder: Path) -> None:
    compiled_for(BUNDLE, threads=1, folder=folder, compile=CountingCompile())
    before = entries(folder)
    assert entries(folder) == before
    began = time.time_ns()
    compiled_for(BUNDLE, threads=1, folder=folder, compile=refused_compile)
    assert entries(folder)[0].used_ns >= began > before[0].used_ns


def test_the_warning_points_at_the_caller(folder: Path) -> None:
    def load() -> Compiled | None:
        return compiled_for(BUNDLE, threads=1, folder=folder, compile=_fails)

    with pytest.warns(DynrtWarning) as caught:
        load()
    assert caught[0].filename == __file__
