"""Kill -9 at random moments, of the host's process or of the emulated board, in a small session.

After each kill the session is resumed. It must come to its end and be valid, or say that it never
began; what it came to before the kill is never called valid, and a replay gives the same figures.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dynrt.bundle import write_bundle
from dynrt.errors import SessionError
from dynrt.fpga.replay import replay
from tests.cli.colours import colour_bundle, paint

_CALL = "import sys; from dynrt.cli import main; main(sys.argv[1:])"
#: Most kills come within this time after the journal is there, some in the time before it.
_SPAN_S = 7.0
_START_S = 4.0
_PATIENCE_S = 300.0


@dataclass(slots=True, kw_only=True)
class Tally:
    """What became of the killed sessions."""

    kills: dict[str, int] = field(default_factory=dict)
    unbegun: int = 0
    resumed: int = 0
    finished: int = 0
    findings: list[str] = field(default_factory=list)

    @property
    def summary(self) -> str:
        killed = ", ".join(f"{n} of the {who}" for who, n in sorted(self.kills.items()))
        return (
            f"{sum(self.kills.values())} kills ({killed}): {self.resumed} resumed and valid, "
            f"{self.finished} had ended, {self.unbegun} had not begun, "
            f"{len(self.findings)} findings"
        )


def _start(*args: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", _CALL, "measure", "run", *map(str, args)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _children(pid: int) -> list[int]:
    """Processes whose parent is ``pid``."""
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(word) for word in path.read_text().split()] if path.exists() else []


def _kill(host: subprocess.Popen[str], who: str) -> None:
    if who == "host":
        host.kill()
        return
    for pid in _children(host.pid):
        os.kill(pid, signal.SIGKILL)


def one(
    seed: int, folder: Path, tally: Tally, *, words: Sequence[str] = (), span_s: float = _SPAN_S
) -> None:
    """One session with further ``words``, one kill within ``span_s``, one resume."""
    rng = random.Random(seed)  # noqa: S311 - when to kill is no secret
    who = rng.choice(["host", "board"])
    bundle = folder / "colours.dynrt"
    write_bundle(colour_bundle(), bundle)
    pictures = []
    for i, colour in enumerate([(255, 0, 0), (0, 255, 0), (120, 120, 140)]):
        pictures.append(paint(folder / f"{i}.png", colour))
    session = folder / "session"
    with _start(bundle, *pictures, "--emulated", "-o", session, *words) as host:
        if rng.random() < 0.15:
            time.sleep(rng.uniform(0.2, _START_S))
        else:
            while host.poll() is None and not any(session.glob("journal-*")):
                time.sleep(0.02)
            time.sleep(rng.uniform(0, span_s))
        _kill(host, who)
        _, said = host.communicate(timeout=_PATIENCE_S)
    tally.kills[who] = tally.kills.get(who, 0) + 1
    place = f"seed {seed}, {who}"
    if host.returncode not in (0, 1, -signal.SIGKILL) or "Traceback" in said:
        tally.findings.append(f"{place}: status {host.returncode}: {said[-300:]}")
    try:
        before = replay(session)
    except SessionError as exc:
        tally.unbegun += 1
        if "no session" not in str(exc) and "no plan" not in str(exc):
            tally.findings.append(f"{place}: {exc}")
        return
    if before.status == "done":
        tally.finished += 1
        if not before.valid:
            tally.findings.append(f"{place}: ended and is not valid: {before.reasons}")
        return
    if before.valid or before.status != "interrupted":
        tally.findings.append(f"{place}: half a session is {before.status}, valid {before.valid}")
    with _start("--resume", session, "--emulated", "--json") as again:
        out, said = again.communicate(timeout=_PATIENCE_S)
    if again.returncode:
        tally.findings.append(f"{place}: not resumed: {said[-300:]}")
        return
    told = json.loads(out)
    told.pop("modelled")
    same = told == replay(session).to_json(str(session))
    if not told["valid"] or not same or told["source"] != "emulated":
        tally.findings.append(f"{place}: after the resume valid {told['valid']}, replay {same}")
    tally.resumed += 1


def main(count: int, seed: int) -> Tally:
    """``count`` kills, one after another."""
    tally = Tally()
    for at in range(seed, seed + count):
        with tempfile.TemporaryDirectory() as folder:
            one(at, Path(folder), tally)
    return tally


def run(argv: list[str]) -> int:
    """Run the soak; 1 if there are findings."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak kills", description=__doc__)
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    tally = main(args.count, args.seed)
    print(f"kills: {tally.summary}")
    for line in tally.findings[:20]:
        print(line, file=sys.stderr)
    return 1 if tally.findings else 0
