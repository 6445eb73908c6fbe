"""The writer replaces all or nothing, whatever stops it."""

from __future__ import annotations

import errno
import itertools
import os
import random
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dynrt.bundle import Bundle, build_bundle, read_bundle, write_bundle
from dynrt.errors import BundleError, BundleWriteError, OutputExistsError
from tests.bundle.samples import models_of, picture_bundle, picture_graph, skip_bundle

ROOT = Path(__file__).parents[2]
FORMS = pytest.mark.parametrize("folder", [False, True], ids=["file", "folder"])


@FORMS
def test_existing_target_needs_force(tmp_path: Path, folder: bool) -> None:
    target = tmp_path / "a.dynrt"
    write_bundle(picture_bundle(), target, folder=folder)
    with pytest.raises(OutputExistsError, match="without force"):
        write_bundle(skip_bundle(), target, folder=folder)
    assert read_bundle(target) == picture_bundle()
    write_bundle(skip_bundle(), target, folder=folder, force=True)
    assert read_bundle(target) == skip_bundle()
    assert [p.name for p in tmp_path.iterdir()] == ["a.dynrt"]


@FORMS
def test_dangling_link_counts_as_existing(tmp_path: Path, folder: bool) -> None:
    (tmp_path / "a.dynrt").symlink_to("nowhere")
    with pytest.raises(OutputExistsError):
        write_bundle(picture_bundle(), tmp_path / "a.dynrt", folder=folder)


def test_forms_do_not_replace_each_other(tmp_path: Path) -> None:
    write_bundle(picture_bundle(), tmp_path / "file")
    write_bundle(picture_bundle(), tmp_path / "folder", folder=True)
    with pytest.raises(BundleWriteError, match="is no folder"):
        write_bundle(skip_bundle(), tmp_path / "file", folder=True, force=True)
    with pytest.raises(BundleWriteError, match="is a folder"):
        write_bundle(skip_bundle(), tmp_path / "folder", force=True)
    assert read_bundle(tmp_path / "file") == read_bundle(tmp_path / "folder") == picture_bundle()
    assert len(list(tmp_path.iterdir())) == 2


def test_force_replaces_no_other_folder(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "thesis.txt").write_text("years of work")
    with pytest.raises(BundleWriteError, match=r"it holds 'thesis\.txt'"):
        write_bundle(skip_bundle(), home, folder=True, force=True)
    assert (home / "thesis.txt").read_text() == "years of work"
    assert [p.name for p in tmp_path.iterdir()] == ["home"]


def test_permissions_follow_the_mask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_bundle(picture_bundle(), tmp_path / "a.dynrt")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.dynrt").stat().st_mode) == 0o640


@FORMS
@pytest.mark.parametrize("target", ["absent/a.dynrt", "file/a.dynrt", "a" * 300])
def test_places_that_cannot_be_written(tmp_path: Path, target: str, folder: bool) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(BundleWriteError, match="cannot be written: ") as caught:
        write_bundle(picture_bundle(), tmp_path / target, folder=folder)
    assert str(caught.value).isprintable()
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("target", ["a\0b", "", "..", "/"])
def test_names_that_are_no_files(target: str) -> None:
    with pytest.raises(BundleWriteError, match="no name for a file"):
        write_bundle(picture_bundle(), target)


@FORMS
def test_no_write_permission(tmp_path: Path, folder: bool) -> None:
    """As a user that may not write there (root may, so a child gives its rights up)."""
    closed = tmp_path / "closed"
    closed.mkdir()
    write_bundle(picture_bundle(), closed / "a.dynrt", folder=folder)
    tmp_path.chmod(0o755)
    for path in (closed, *closed.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    code = (
        "import os, sys\n"
        "from tests.bundle.samples import skip_bundle\n"
        "from dynrt.bundle import write_bundle\n"
        "from dynrt.errors import BundleWriteError\n"
        "bundle = skip_bundle()\n"
        "if os.geteuid() == 0: os.setgroups([]), os.setgid(65534), os.setuid(65534)\n"
        "try: write_bundle(bundle, sys.argv[1], folder=sys.argv[2] == 'True', force=True)\n"
        "except BundleWriteError as exc: print(exc)\n"
    )
    # The path leads through folders that only we may enter: go there first, then give rights up.
    done = subprocess.run(
        [sys.executable, "-c", code, "a.dynrt", str(folder)],
        cwd=closed,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "a.dynrt: cannot be written: Permission denied\n"
    assert read_bundle(closed / "a.dynrt") == picture_bundle()
    assert len(list(closed.iterdir())) == 1


def test_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    """The kernel refuses more than 4 kB per file, as a full disk would."""
    target = tmp_path / "a.dynrt"
    write_bundle(picture_bundle(), target)
    code = (
        "import resource, signal, sys\n"
        "from tests.bundle.samples import skip_bundle\n"
        "from dynrt.bundle import write_bundle\n"
        "from dynrt.errors import BundleWriteError\n"
        "bundle = skip_bundle()\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "try: write_bundle(bundle, sys.argv[1], force=True)\n"
        "except BundleWriteError as exc: print(exc)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(target)],
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"{target}: cannot be written: File too large\n"
    assert read_bundle(target) == picture_bundle()
    assert [p.name for p in tmp_path.iterdir()] == ["a.dynrt"]


STEPS: list[tuple[Any, str]] = [(os, "fsync"), (os, "link"), (Path, "replace"), (Path, "rename")]


@FORMS
@pytest.mark.parametrize("force", [False, True], ids=["new", "force"])
@pytest.mark.parametrize("kind", [OSError, KeyboardInterrupt], ids=["error", "interrupt"])
def test_every_step_may_fail(
    tmp_path: Path, folder: bool, force: bool, kind: type[BaseException]
) -> None:
    """Fail at the first call of a step, the second, ...: the old bundle or the new one, nothing else."""
    target = tmp_path / "a.dynrt"
    failures = 0
    for owner, step in STEPS:
        for nth in itertools.count():
            if force:
                write_bundle(picture_bundle(), target, folder=folder, force=target.exists())
            with pytest.MonkeyPatch.context() as patch:
                calls = _fail_nth(patch, owner, step, nth, kind)
                try:
                    write_bundle(skip_bundle(), target, folder=folder, force=force)
                except (BundleWriteError, OutputExistsError, KeyboardInterrupt):
                    failures += 1
            left = {p.name for p in tmp_path.iterdir()}
            assert left <= {"a.dynrt"}
            assert left or not force
            if left:
                assert read_bundle(target) in (picture_bundle(), skip_bundle())
            for path in tmp_path.iterdir():
                _remove(path)
            if len(calls) <= nth:
                break
    assert failures


def _fail_nth(
    patch: pytest.MonkeyPatch, owner: Any, step: str, nth: int, kind: type[BaseException]
) -> list[int]:
    real: Callable[..., Any] = getattr(owner, step)
    calls: list[int] = []

    def fake(*args: Any) -> Any:
        calls.append(1)
        if len(calls) == nth + 1:
            raise kind(errno.EIO, "Input/output error") if kind is OSError else kind
        return real(*args)

    patch.setattr(owner, step, fake)
    return calls


def _remove(path: Path) -> None:
    for inner in sorted(path.rglob("*"), reverse=True):
        inner.rmdir() if inner.is_dir() else inner.unlink()
    path.rmdir() if path.is_dir() else path.unlink()


def test_file_systems_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    write_bundle(picture_bundle(), tmp_path / "a.dynrt")
    assert read_bundle(tmp_path / "a.dynrt") == picture_bundle()
    assert len(list(tmp_path.iterdir())) == 1


@FORMS
def test_a_target_that_appears_meanwhile_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: bool
) -> None:
    target, real = tmp_path / "a.dynrt", os.fsync

    def fsync(handle: int) -> None:
        if not target.exists():
            target.mkdir() if folder else target.write_text("theirs")
            (target / "theirs").write_text("x") if folder else None
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OutputExistsError):
        write_bundle(picture_bundle(), target, folder=folder)
    assert [p.name for p in tmp_path.iterdir()] == ["a.dynrt"]
    assert [p.name for p in target.iterdir()] == ["theirs"] if folder else target.read_text()


def _heavy(name: str) -> Bundle:
    """A bundle that takes a few milliseconds to write."""
    graph = picture_graph()
    card = {f"text{i}": "a" * 60_000 for i in range(4)}
    return build_bundle(name=name, graph=graph, models=models_of(graph), card=card)


#: Checks and encodes once, then does nothing but write, so that it is killed within a write.
WRITER = """
import sys, itertools
from dynrt.bundle import read_bundle, writer
target, folder = sys.argv[1], sys.argv[2] == "True"
both = [read_bundle(p) for p in sys.argv[3:5]]
encoded = {b.name: writer.encode_again(b, limits=writer.DEFAULT_LIMITS) for b in both}
writer.encode_again = lambda b, **_: encoded[b.name]
print("ready", flush=True)
for i in itertools.count():
    writer.write_bundle(both[i % 2], target, force=True, folder=folder)
"""


@FORMS
def test_a_killed_writer_leaves_a_whole_bundle(tmp_path: Path, folder: bool) -> None:
    bundles = [_heavy("one"), _heavy("two")]
    for bundle in bundles:
        write_bundle(bundle, tmp_path / bundle.name)
    work = tmp_path / "work"
    work.mkdir()
    target = work / "a.dynrt"
    write_bundle(bundles[0], target, folder=folder)
    waits, leftovers = random.Random(1), 0  # noqa: S311 - moments, not secrets
    for _ in range(8):
        child = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(target), str(folder), *map(str, _pair(tmp_path))],
            env={"PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
        )
        assert child.stdout is not None
        with child.stdout as out:
            assert out.readline() == b"ready\n"
            deadline_s = time.monotonic() + 5
            while time.monotonic() < deadline_s and not any(work.glob(".a.dynrt.*.tmp")):
                pass
            time.sleep(waits.choice((0, 0, 0.001, 0.02)))
            child.send_signal(signal.SIGKILL)
            assert child.wait() == -signal.SIGKILL
        if not target.exists():  # between the two renames of a folder: the old one is beside it
            assert folder
            olds = list(work.glob(".a.dynrt.*.old"))
            assert any(_whole(p, bundles) for p in olds)
            write_bundle(bundles[0], target, folder=folder)
        assert read_bundle(target) in bundles
        for path in work.iterdir():
            if path != target:
                leftovers += 1
                assert path.name.startswith(".a.dynrt.")
                _remove(path)
    assert leftovers  # some were killed within a write


def _pair(root: Path) -> tuple[Path, Path]:
    return root / "one", root / "two"


def _whole(path: Path, bundles: list[Bundle]) -> bool:
    try:
        return read_bundle(path) in bundles
    except BundleError:
        return False
