"""The cache's folder: killed writers, full and read-only disks, races, other users, the size bound."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynrt.errors import CacheError
from dynrt.runtime import cache, cache_store
from dynrt.runtime.cache import DynrtWarning, clear, compiled_for, entries
from dynrt.runtime.cache_store import ABANDONED_SECONDS, Store
from tests import soak_cache
from tests.cli.colours import gated_bundle
from tests.runtime.cache_samples import (
    CountingCompile,
    entry_path,
    error_of,
    fill,
    made_up,
    refused_compile,
)

BUNDLE = gated_bundle()
KEYS = tuple(f"{i:064x}" for i in range(20))


@pytest.fixture(autouse=True)
def _fresh_warnings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "_warned", set())
    monkeypatch.delenv(cache.LIMIT_VARIABLE, raising=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a cache will be."""
    return tmp_path / "cache"


def _keys(folder: Path) -> list[str]:
    with Store(folder, create=False) as store:
        return [found.key for found in store.found()]


# ---- the size bound


def test_least_recently_used_goes_first(folder: Path) -> None:
    fill(folder, KEYS[:4], size=100)
    with Store(folder, create=False) as store, store.read(KEYS[0]):
        pass
    fill(folder, KEYS[4:5], size=100, limit_bytes=300)
    assert _keys(folder) == [KEYS[3], KEYS[0], KEYS[4]]


def test_what_was_just_written_never_goes(folder: Path) -> None:
    fill(folder, KEYS[:3], size=100)
    fill(folder, KEYS[3:4], size=300, limit_bytes=300)
    assert _keys(folder) == [KEYS[3]]
    with Store(folder, create=False) as store:
        ahead = time.time_ns() + 10**12
        for key in KEYS[:2]:
            store.write(key, [bytes(150)], limit_bytes=1000)
            os.utime(folder / f"{key}.dynrtc", ns=(ahead, ahead))  # another clock was ahead
        store.write(KEYS[4], [bytes(100)], limit_bytes=100)
    assert _keys(folder) == [KEYS[4]]


def test_replacing_an_entry_does_not_count_it_twice(folder: Path) -> None:
    fill(folder, [*KEYS[:3], *KEYS[:3]], size=100, limit_bytes=300)
    assert _keys(folder) == list(KEYS[:3])


@given(
    st.lists(st.tuples(st.sampled_from(KEYS), st.integers(0, 60), st.booleans()), max_size=30),
    st.integers(60, 200),
)
def test_the_bound_holds_and_order_is_that_of_use(
    uses: list[tuple[str, int, bool]], limit_bytes: int
) -> None:
    """Against a list in memory; the clock is set by hand, as file systems round times."""
    with tempfile.TemporaryDirectory() as name:
        model: list[tuple[str, int]] = []
        with Store(Path(name) / "c", create=True) as store:
            for tick, (key, size, read) in enumerate(uses):
                if read:
                    with store.read(key) as found:
                        assert (found is not None) == (key in dict(model))
                    model = [e for e in model if e[0] != key] + [e for e in model if e[0] == key]
                else:
                    store.write(key, [bytes(size)], limit_bytes=limit_bytes)
                    model = [e for e in model if e[0] != key]
                    while sum(n for _, n in model) + size > limit_bytes:
                        model.pop(0)
                    model.append((key, size))
                path = store.folder / f"{key}.dynrtc"
                if path.exists():
                    os.utime(path, ns=(tick, tick))
                held = [(e.key, e.size_bytes) for e in store.found()]
                assert held == model
                assert sum(n for _, n in held) <= limit_bytes


def test_evicting_what_another_process_reads_does_not_break_it(folder: Path) -> None:
    fill(folder, KEYS[:1], size=100_000)
    with Store(folder, create=False) as store, store.read(KEYS[0]) as found:
        assert found is not None
        file, size = found
        assert clear(folder) == (1, 100_000)
        assert file.read() == bytes(size)


def test_an_entry_that_cannot_be_removed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(folder, KEYS[:2], size=100)
    real = os.unlink

    def unlink(path: str, *, dir_fd: int | None = None) -> None:
        if KEYS[0] in path:
            raise PermissionError(errno.EPERM, "Operation not permitted")
        real(path, dir_fd=dir_fd)

    monkeypatch.setattr(os, "unlink", unlink)
    with pytest.raises(CacheError, match="cache: Operation not permitted"):
        clear(folder)
    assert _keys(folder) == [KEYS[0]]
    fill(folder, KEYS[2:3], size=100, limit_bytes=100)  # no error: the other stays too
    assert _keys(folder) == [KEYS[0], KEYS[2]]


# ---- killed writers


def test_killed_while_writing(folder: Path) -> None:
    """Real processes, killed after any piece; the old entry, or the whole new one, is there."""
    stages = {soak_cache.killed_at(folder, BUNDLE, pieces=n, seed=n) for n in (0, 1, 3, 6, 99)}
    assert stages == {"old", "new"}
    left = [p for p in folder.iterdir() if p.suffix == ".tmp"]
    assert left, "no kill came in the middle of a write"
    fill(folder, KEYS[:1], size=1)
    assert all(p.exists() for p in left), "younger files may be somebody's who is writing"
    for path in left:
        os.utime(path, (0, 0))
    fill(folder, KEYS[:1], size=1)
    assert not [p for p in folder.iterdir() if p.suffix == ".tmp"]


def test_a_slow_writer_is_not_swept(folder: Path) -> None:
    fill(folder, KEYS[:1], size=1)
    seen = []

    def pieces() -> Iterator[bytes]:
        yield b"first"

    with Store(folder, create=True) as store:
        real = os.fsync

        def slow(handle: int) -> None:
            with Store(folder, create=True) as other:
                other.sweep(now=time.time() + 100 * ABANDONED_SECONDS)
            seen.append(sum(p.suffix == ".tmp" for p in folder.iterdir()))
            real(handle)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "fsync", slow)
            store.write(KEYS[1], pieces(), limit_bytes=100)
    assert seen == [1, 0]  # the file, then the folder
    assert KEYS[1] in _keys(folder)


@pytest.mark.parametrize("locking", ["missing", "refused"])
def test_without_locks_only_old_leftovers_go(
    folder: Path, locking: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if locking == "missing":
        monkeypatch.setitem(sys.modules, "fcntl", None)
    else:

        def flock(*_: object) -> None:
            raise OSError(errno.ENOLCK, "No locks available")

        monkeypatch.setattr("fcntl.flock", flock)
    folder.mkdir(mode=0o700)
    left = folder / f".{KEYS[0]}.{'0' * 12}.tmp"
    left.write_bytes(b"half")
    with Store(folder, create=False) as store:
        store.sweep(now=time.time() + 60)
        assert left.exists()
        store.sweep(now=time.time() + 7200)
    assert not left.exists()


def test_an_interrupt_leaves_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with Store(folder, create=True) as store, pytest.raises(KeyboardInterrupt):
        store.write(KEYS[0], [b"x"], limit_bytes=10)
    assert list(folder.iterdir()) == []


# ---- disks that do not take it


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EMFILE])
@pytest.mark.parametrize("call", ["fsync", "replace", "open"])
def test_a_disk_that_fails(
    folder: Path, call: str, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled_for(BUNDLE, threads=1, folder=folder, compile=CountingCompile(seed=1))
    path = entry_path(folder, BUNDLE)
    os.truncate(path, 1000)
    real = getattr(os, call)

    def fail(*args: object, **more: object) -> object:
        flags = args[1] if call == "open" else None
        if call == "open" and not (isinstance(flags, int) and flags & os.O_CREAT):
            return real(*args, **more)
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, call, fail)
    with pytest.warns(DynrtWarning, match=os.strerror(code)):
        got = compiled_for(BUNDLE, threads=1, folder=folder, compile=CountingCompile())
    assert got == made_up(BUNDLE)
    again = compiled_for(BUNDLE, threads=1, folder=folder, compile=CountingCompile())
    assert again == made_up(BUNDLE)  # and no second warning: it would be an error here
    monkeypatch.undo()
    assert [p.name for p in folder.iterdir()] == [path.name]
    compiled_for(BUNDLE, threads=1, folder=folder, compile=CountingCompile())
    compiled_for(BUNDLE, threads=1, folder=folder, compile=refused_compile)


def test_a_file_that_may_not_grow(folder: Path) -> None:
    """The system's own limit on a file's size, as a full disk stops a write in the middle."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.warns(DynrtWarning, match="File too large"):
            got = compiled_for(
                BUNDLE, threads=1, folder=folder, compile=CountingCompile(bytes_each=30_000)
            )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert got == made_up(BUNDLE, bytes_each=30_000)
    assert list(folder.iterdir()) == []


def test_a_disk_that_is_full(tmp_path: Path) -> None:
    """A real one, of 64 KiB, in a mount space of its own (where the system lets us have one)."""
    disk = tmp_path / "disk"
    disk.mkdir()
    done = soak_cache.on_a_tiny_disk(disk, kib=64)
    if done is None:
        pytest.skip("no right to mount a file system here")
    assert done.returncode == 0, done.stderr
    assert "No space left on device" in done.stderr
    assert done.stdout.split() == ["right", "0"]


def test_a_folder_that_may_only_be_read() -> None:
    """Read by a user who may not write: an entry is used, a missing one is one warning."""
    base = Path(tempfile.mkdtemp(prefix="dynrt-cache-"))
    try:
        base.chmod(0o755)
        done = soak_cache.in_a_read_only_folder(base)
        assert done.returncode == 0, done.stderr
        assert done.stdout.split() == ["kept", "compiled"]
        assert "Permission denied" in done.stderr
    finally:
        shutil.rmtree(base)


# ---- whose folder it is


def test_a_folder_of_another_user(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled_for(BUNDLE, threads=1, folder=folder, compile=CountingCompile(seed=1))
    me = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: me + 1)
    with pytest.warns(DynrtWarning, match=f"belongs to user {me} "):
        got = compiled_for(BUNDLE, threads=1, folder=folder, compile=CountingCompile())
    assert got == made_up(BUNDLE)
    for look in (entries, clear):
        with pytest.raises(CacheError, match="belongs to user"):
            look(folder)


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o702, 0o1777])
def test_a_folder_that_others_may_write(folder: Path, mode: int) -> None:
    folder.mkdir()
    folder.chmod(mode)
    assert f"with mode {mode:o}" in error_of(folder)
    folder.chmod(0o755)
    assert error_of(folder) == ""


def test_an_entry_of_another_user_is_not_there(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(folder, KEYS[:1], size=5)
    with Store(folder, create=False) as store:
        monkeypatch.setattr(os, "geteuid", lambda: 12345)
        with store.read(KEYS[0]) as found:
            assert found is None


def test_links_files_and_odd_places(folder: Path, tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.mkdir(mode=0o700)
    folder.symlink_to(real)
    assert "is a link or a file" in error_of(folder)
    folder.unlink()
    folder.write_text("a file")
    assert "is a link or a file" in error_of(folder)
    assert "Not a directory" in error_of(folder / "below") or "exists" in error_of(folder / "below")
    with pytest.warns(DynrtWarning, match="are not kept"):
        compiled_for(BUNDLE, threads=1, folder=folder / "below", compile=CountingCompile())
    assert folder.read_text() == "a file"
    assert list(real.iterdir()) == []


def test_a_folder_swapped_after_it_was_checked(folder: Path, tmp_path: Path) -> None:
    """What was checked is what is written to: the handle, not the name."""
    other = tmp_path / "other"
    other.mkdir()
    with Store(folder, create=True) as store:
        folder.rename(tmp_path / "moved")
        folder.symlink_to(other)
        store.write(KEYS[0], [b"x"], limit_bytes=10)
    assert list(other.iterdir()) == []
    assert [p.name for p in (tmp_path / "moved").iterdir()] == [f"{KEYS[0]}.dynrtc"]


def test_where_folders_cannot_be_held_by_handle(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on Windows."""
    monkeypatch.setattr(cache_store, "_BY_HANDLE", False)
    monkeypatch.delattr(os, "geteuid")
    compiled_for(BUNDLE, threads=1, folder=folder, compile=CountingCompile())
    got = compiled_for(BUNDLE, threads=1, folder=folder, compile=refused_compile)
    assert got == made_up(BUNDLE)
    fill(folder, KEYS[:3], size=100, limit_bytes=200)
    assert _keys(folder) == list(KEYS[1:3])
    assert clear(folder) == (2, 200)
    assert list(folder.iterdir()) == []


def test_nothing_else_in_the_folder_is_touched(folder: Path) -> None:
    folder.mkdir(mode=0o700)
    others = ["notes", "x.dynrtc", f"{KEYS[0]}.dynrtc.bak", f"{'G' * 64}.dynrtc", ".x.tmp"]
    for name in others:
        (folder / name).write_bytes(bytes(1000))
        os.utime(folder / name, (0, 0))
    fill(folder, KEYS[:3], size=100, limit_bytes=100)
    clear(folder)
    assert sorted(p.name for p in folder.iterdir()) == sorted(others)


# ---- races


def test_processes_race() -> None:
    """Real processes that load, damage, clear and are killed: every answer is right."""
    told = soak_cache.race(rounds=60, seed=3)
    assert told.findings == []
    assert told.loads > 60
    assert min(told.compiled, told.kept) > 10
    assert told.kills > 30


def test_a_wrong_answer_would_be_found() -> None:
    """The race itself can fail: a reader that does not check digests is caught."""
    assert soak_cache.WRONG in soak_cache.race(rounds=60, seed=4, trusting=True).findings
