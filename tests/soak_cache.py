"""Real processes that race on one cache, damage it, and are killed: ``python -m tests.soak_cache``.

Several starters each fork one child after the other. A child loads networks through the cache as fast
as it can, each time comparing what it got with what compiling gives; in between it flips bytes, cuts
files, clears the cache, and shrinks its limit. After some milliseconds its starter kills it.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

from dynrt.bundle import Bundle
from dynrt.runtime import cache, cache_file
from dynrt.runtime.cache import clear, compiled_for, entries
from dynrt.runtime.cache_key import key_facts, key_of
from dynrt.runtime.cache_store import Store
from dynrt.runtime.compiled import Compiled
from tests.cli.colours import colour_bundle, gated_bundle
from tests.runtime.cache_samples import CountingCompile, made_up, refused_compile

ROOT = Path(__file__).parents[1]
#: Of each segment: within the limit, some of the networks fit at once, never all.
BYTES_EACH = 20_000
LIMIT_BYTES = 200_000
#: Longest life of a child, in seconds.
LIFE_SECONDS = 0.15
OLD, NEW = 100, 200


WRONG = "a wrong answer"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Case:
    """A bundle, and what compiling it gives."""

    bundle: Bundle
    threads: int
    right: Compiled

    def compile(self, bundle: Bundle, *, threads: int) -> Compiled:
        """The right answer."""
        return self.right


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What came of a race.

    Attributes:
        loads: answers that were compared.
        kept, compiled: how many of them came from the cache, and how many not.
        kills: children killed at work.
        findings: wrong answers, errors, warnings and leftovers.
    """

    loads: int
    kept: int
    compiled: int
    kills: int
    findings: list[str]


def race(*, rounds: int, seed: int, processes: int = 2, trusting: bool = False) -> Told:
    """Race until ``rounds`` children lived and died.

    Args:
        rounds: children, over all starters.
        seed: of what they do and when they die; the system's timing is not repeatable.
        processes: starters at work at once.
        trusting: leave the digests unchecked, to see that the race finds it.
    """
    with tempfile.TemporaryDirectory(prefix="dynrt-soak-") as name:
        folder = Path(name) / "cache"
        starters = [
            _start(
                "starter", folder, f"--rounds={-(-rounds // processes)}", f"--seed={seed + 1000 * i}",
                *(["--trusting"] if trusting else []),
            )
            for i in range(processes)
        ]  # fmt: skip
        kept = compiled = kills = 0
        findings: list[str] = []
        for starter in starters:
            out, err = starter.communicate()
            if starter.returncode != 0:
                findings.append(f"a starter ended with {starter.returncode}: {err[-300:]}")
                continue
            told = json.loads(out)
            kept, compiled = kept + told["kept"], compiled + told["compiled"]
            kills, findings = kills + told["kills"], findings + told["findings"]
        findings += _leftovers(folder)
    return Told(loads=kept + compiled, kept=kept, compiled=compiled, kills=kills, findings=findings)


def _leftovers(folder: Path) -> list[str]:
    """What a last store does not tidy up: files of killed writers, more than the limit."""
    for path in folder.glob(".*.tmp"):
        os.utime(path, (0, 0))
    with Store(folder, create=True) as store:
        store.write("0" * 64, [b"last"], limit_bytes=LIMIT_BYTES)
        held = sum(found.size_bytes for found in store.found())
    left = [p.name for p in folder.iterdir() if p.suffix != ".dynrtc"]
    found = [f"left behind: {name}" for name in left]
    return found + ([f"{held} bytes held"] if held > LIMIT_BYTES else [])


def _start(what: str, folder: Path, *more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.soak_cache", "--do", what, "--folder", str(folder), *more],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _starter(folder: Path, rounds: int, seed: int) -> None:
    """Fork children one by one, kill most of them, and print what they told."""
    cache.cache_limit_bytes = lambda: LIMIT_BYTES
    rng = random.Random(seed)  # noqa: S311 - no secret
    cases = [
        _Case(bundle=bundle, threads=n, right=made_up(bundle, seed=n, bytes_each=BYTES_EACH))
        for bundle in (gated_bundle(), colour_bundle())
        for n in (1, 2)
    ]
    key_facts(cases[0].bundle.sha256, threads=1)  # all imports are done before the first fork
    told, findings = {"kept": 0, "compiled": 0, "kills": 0}, list[str]()
    for _ in range(rounds):
        spared = rng.random() < 0.1
        life = rng.uniform(0.001, LIFE_SECONDS)
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            _live(folder, cases, rng.getrandbits(32), writer, life if spared else 60.0)
        os.close(writer)
        if not spared:
            time.sleep(life)
            os.kill(child, signal.SIGKILL)
        with os.fdopen(reader, errors="replace") as stream:
            lines = stream.read().splitlines()
        _, status = os.waitpid(child, 0)
        told["kills"] += os.WIFSIGNALED(status)
        if os.waitstatus_to_exitcode(status) not in (0, -signal.SIGKILL):
            findings.append(f"a child ended with status {status}")
        for line in lines:
            if line in ("kept", "compiled"):
                told[line] += 1
            else:
                findings.append(line)
    print(json.dumps(told | {"findings": findings}))


def _live(folder: Path, cases: list[_Case], seed: int, report: int, seconds: float) -> None:
    """A child's life; never returns."""
    try:
        warnings.simplefilter("error")
        rng = random.Random(seed)  # noqa: S311 - no secret
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            case = rng.choice(cases)
            got = compiled_for(
                case.bundle, threads=case.threads, folder=folder, compile=case.compile
            )
            line = ("compiled" if got is case.right else "kept") if got == case.right else WRONG
            os.write(report, f"{line}\n".encode())
            if rng.random() < 0.3:
                _harm(folder, rng)
    except BaseException as exc:  # noqa: BLE001 - told to the starter
        os.write(report, f"{type(exc).__name__}: {exc}\n".encode()[:500])
    os._exit(0)


def _harm(folder: Path, rng: random.Random) -> None:
    """What a broken disk or another program may do to the cache at any time."""
    kind = rng.random()
    if kind < 0.1:
        clear(folder)
        return
    if kind < 0.2:
        entries(folder)
        return
    paths = sorted(folder.glob("*.dynrtc")) if folder.is_dir() else []
    if not paths:
        return
    path = rng.choice(paths)
    try:
        size = path.stat().st_size
        if kind < 0.4:
            os.truncate(path, rng.randrange(size + 100))
        elif kind < 0.5:
            path.unlink()
        else:
            with path.open("r+b") as file:
                file.seek(rng.randrange(size))
                file.write(rng.randbytes(1 + rng.randrange(64)))
    except (FileNotFoundError, ValueError):
        return  # another child was quicker


def _trust() -> None:
    """Make every digest the right one."""
    digest = SimpleNamespace(digest=lambda: bytes(32), hexdigest=lambda: "00" * 32)
    vars(cache_file)["hashlib"] = SimpleNamespace(sha256=lambda _=b"": digest)


# ---- one process, one trouble


def killed_at(folder: Path, bundle: Bundle, *, pieces: int, seed: int) -> str:
    """Kill a process that replaces an entry, after ``pieces`` of it (or just after it is in place).

    Returns:
        What is there then: the ``old`` entry, the ``new`` one, or ``none`` that can be read.
    """
    with Store(folder, create=True) as store:
        store.empty()
    old = CountingCompile(seed=OLD + seed, bytes_each=BYTES_EACH)
    compiled_for(bundle, threads=1, folder=folder, compile=old)
    child = _start("killed", folder, f"--rounds={pieces}", f"--seed={NEW + seed}")
    _, err = child.communicate()
    if child.returncode != -signal.SIGKILL:
        raise AssertionError(f"was not killed: {child.returncode} {err}")
    try:
        got = compiled_for(bundle, threads=1, folder=folder, compile=refused_compile)
    except AssertionError:
        return "none"
    if got == made_up(bundle, seed=OLD + seed, bytes_each=BYTES_EACH):
        return "old"
    if got == made_up(bundle, seed=NEW + seed, bytes_each=BYTES_EACH):
        return "new"
    raise AssertionError("an entry that nobody wrote")


class _KilledStore(Store):
    """Kills its own process in the middle of a write."""

    pieces = 0

    def _write(self, temporary: str, parts: Iterable[bytes], name: str) -> None:
        super()._write(temporary, self._until(tuple(parts)), name)

    def _until(self, parts: tuple[bytes, ...]) -> Iterable[bytes]:
        for i, part in enumerate(parts):
            if i == self.pieces:
                os.kill(os.getpid(), signal.SIGKILL)
            yield part

    def _sync(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


def _be_killed(folder: Path, pieces: int, seed: int) -> None:
    bundle = gated_bundle()
    facts = key_facts(bundle.sha256, threads=1)
    key = key_of(facts)
    fresh = made_up(bundle, seed=seed, bytes_each=BYTES_EACH)
    written = cache_file.write_entry(fresh, key=key, network=bundle.name, facts=facts)
    _KilledStore.pieces = pieces
    with _KilledStore(folder, create=True) as store:
        store.write(key.hex(), written, limit_bytes=1 << 30)


def on_a_tiny_disk(disk: Path, *, kib: int) -> subprocess.CompletedProcess[str] | None:
    """Load through a cache on a file system of ``kib`` KiB, in a mount space of its own.

    Returns:
        What the process told; ``None`` where the system gives no such space.
    """
    unshare = shutil.which("unshare")
    if unshare is None:
        return None
    inside = f'mount -t tmpfs -o size={kib}k tmpfs "$1" || exit 77; shift; exec "$@"'
    done = subprocess.run(
        [
            unshare, "--user", "--map-root-user", "--mount", "sh", "-c", inside, "sh", str(disk),
            sys.executable, "-m", "tests.soak_cache", "--do", "tiny", "--folder", str(disk / "cache"),
        ],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return None if done.returncode == 77 or done.stderr.startswith("unshare:") else done


def _tiny(folder: Path) -> None:
    bundle = gated_bundle()
    compile = CountingCompile(bytes_each=5 * BYTES_EACH)
    got = compiled_for(bundle, threads=1, folder=folder, compile=compile)
    print("right" if got == made_up(bundle, bytes_each=5 * BYTES_EACH) else "wrong")
    print(len(list(folder.iterdir())))


def in_a_read_only_folder(base: Path) -> subprocess.CompletedProcess[str]:
    """Load twice in a folder that this user may not write: what is kept, and what is not."""
    child = _start("read-only", base / "cache")
    out, err = child.communicate()
    return subprocess.CompletedProcess(child.args, child.returncode, out, err)


def _read_only(folder: Path) -> None:
    bundle = gated_bundle()
    key_facts(bundle.sha256, threads=1)  # imports what it needs while it may
    made_up(bundle)
    if os.geteuid() == 0:  # permissions do not hold root back
        os.chown(folder.parent, 65534, 65534)
        os.seteuid(65534)
    compiled_for(bundle, threads=1, folder=folder, compile=CountingCompile())
    folder.chmod(0o500)
    for threads in (1, 2):
        compile = CountingCompile()
        got = compiled_for(bundle, threads=threads, folder=folder, compile=compile)
        right = got == made_up(bundle)
        print(("compiled" if compile.calls else "kept") if right else "wrong")


def main() -> int:
    """Run a soak, or be one of its processes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--do", choices=["starter", "killed", "tiny", "read-only"])
    parser.add_argument("--folder", type=Path, default=Path())
    parser.add_argument("--trusting", action="store_true")
    args = parser.parse_args()
    if args.trusting:
        _trust()
    if args.do == "starter":
        _starter(args.folder, args.rounds, args.seed)
    elif args.do == "killed":
        _be_killed(args.folder, args.rounds, args.seed)
    elif args.do == "tiny":
        _tiny(args.folder)
    elif args.do == "read-only":
        _read_only(args.folder)
    else:
        began = time.monotonic()
        told = race(rounds=args.rounds, seed=args.seed, processes=os.cpu_count() or 2)
        for line in told.findings[:20]:
            print(line, file=sys.stderr)
        print(
            f"cache: {told.loads} loads, {told.kept} kept, {told.compiled} compiled, {told.kills} "
            f"kills, {len(told.findings)} findings, {time.monotonic() - began:.0f} s"
        )
        return 1 if told.findings else 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
