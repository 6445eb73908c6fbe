"""A measurement session: verify the network on the board, then meter it, by the method's rules.

The order in which things happen is the method: download and check; every output, decision and exit
against onnxruntime; then idle window, run, idle window, run, ... the cases in turn, until each has as
many good runs as its first stage asked for. All of it is journalled as it happens; the figures come
of the journal alone (``dynrt.fpga.digest``).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

from dynrt.errors import BoardError, LinkError, MeasureError, MeterError, SessionError
from dynrt.fpga.board import Board
from dynrt.fpga.digest import Digest, Window
from dynrt.fpga.estimate import runs_needed
from dynrt.fpga.journal import Source
from dynrt.fpga.manifest import Case, Manifest
from dynrt.fpga.meters import Meter, MeterIdentity
from dynrt.fpga.recorder import MeterThread, Recorder
from dynrt.fpga.rules import Rules
from dynrt.fpga.verify import Expected, Verified, compare
from dynrt.fpga.wire import BoardInfo, RunDone
from dynrt.ir.graph import Graph

#: A window is planned longer by this share, so that the clocks' difference does not shorten it.
_LONGER = 1.05
#: So many invalid runs of a case are made up for; more, and the session is invalid.
MOST_SPOILED = 5
#: The first run of a case is given up only when a board slower than this would be done.
_SLOW_MACS_PER_S = 5e6
#: A window's end reaches us by way of the meter: a meter that is silent for so long has lost it.
_EDGE_PATIENCE_S = 5.0


class Watch(Protocol):
    """Told how a session goes; all of it is optional to show."""

    def stage(self, text: str, done: int, total: int) -> None:
        """What is being done, and how far it is."""
        ...

    def window(self, case: str, kind: str) -> None:
        """A window begins."""
        ...


class Quiet:
    """Shows nothing."""

    def stage(self, text: str, done: int, total: int) -> None:
        """Nothing."""

    def window(self, case: str, kind: str) -> None:
        """Nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What is put on the board.

    Attributes:
        table: the encoded op table.
        weights: its weights.
        inputs: bytes of each input.
        graph: of the network.
        expected: by case, what onnxruntime makes of each input.
    """

    table: bytes
    weights: bytes
    inputs: tuple[bytes, ...]
    graph: Graph
    expected: tuple[tuple[Expected, ...], ...]


@dataclass(slots=True, kw_only=True)
class Session:
    """One part of a session, from the first greeting to its end.

    Attributes:
        recorder: the journal's way in.
        board, meter: with tapped links.
        load: what runs.
        watch: told how it goes.
        warm_up_s: the board runs unmetered so long first.
        settle_s: board and meter rest so long between windows.
        sleep: host waits.
    """

    recorder: Recorder
    board: Board
    meter: Meter
    load: Load
    watch: Watch = field(default_factory=Quiet)
    warm_up_s: float = 0.0
    settle_s: float = 0.0
    sleep: Callable[[float], None] = time.sleep
    _info: BoardInfo | None = None
    _identity: MeterIdentity | None = None
    _reader: MeterThread | None = None
    _passes: dict[int, int] = field(default_factory=dict)
    _host_s: dict[int, float] = field(default_factory=dict)

    @property
    def digest(self) -> Digest:
        """What the session came to so far."""
        return self.recorder.digest

    def run(self) -> None:
        """Do all of it; the journal then says how it ended.

        Raises:
            LinkError, MeterError, BoardError: something went away or refuses: the session can be
                resumed. It is noted in the journal.
        """
        try:
            self._begin()
            if self._verify():
                self._measure()
        except (LinkError, MeterError, BoardError) as exc:
            self.recorder.event("trouble", text=f"the session broke off: {exc}")
            raise
        finally:
            if self._reader is not None:  # it did not come to its end
                self._reader.stop()
                with suppress(MeasureError):
                    self.meter.stop()

    # --- before the first window

    def _begin(self) -> None:
        plan = self.digest.plan
        self.watch.stage("meter", 0, 1)
        self.recorder.event("listening")
        self.meter.open()
        identity = self._identity = self.meter.identify()
        from dynrt.fpga.meters import MeterSettings

        self.meter.configure(MeterSettings.from_json(plan.meter_settings))
        self.meter.start()
        self._reader = MeterThread(self.meter)
        self.watch.stage("download", 0, 1)
        info = self._info = self.board.hello()
        self.board.download(self.load.table, self.load.weights, self.load.inputs)
        self.recorder.event(
            "part",
            ticks_per_s=info.ticks_per_s,
            has_marker=identity.has_marker,
            lag_s=identity.lag_s,
            board=_board_json(info),
            meter=_meter_json(identity),
        )

    def _verify(self) -> bool:
        """Run each case once, unmetered; whether the board computes the same network."""
        plan, info = self.digest.plan, self._require_info()
        n = len(self.load.inputs)
        for index, case in enumerate(plan.cases):
            self.watch.stage("verify", index, len(plan.cases))
            self._force(case)
            began = time.monotonic()
            macs = sum(each.macs for each in self.load.expected[index])
            done = self.board.run(0, n, 1, expect_s=macs / _SLOW_MACS_PER_S)
            own_s, host_s = done.ticks / info.ticks_per_s, time.monotonic() - began
            wanted = self.load.expected[index]
            found = compare(self.load.graph, plan.decisions, wanted, self.board.records(n))
            self._note_verified(index, found, done)
            if not found.holds:
                self._end("invalid", [_why_not(case, found)])
                return False
            known = self.digest.planned.get(index)
            passes = _passes(own_s, self.digest.rules) if known is None else known // n
            self._passes[index] = passes
            self._host_s[index] = passes * host_s
            if known is None:
                self.recorder.event("planned", case=index, inferences=passes * n)
        return True

    def _note_verified(self, index: int, found: Verified, done: RunDone) -> None:
        wanted = self.load.expected[index]
        self.recorder.event(
            "verified",
            case=index,
            inputs=found.inputs,
            decisions_equal=found.decisions_equal,
            max_abs_error=found.max_abs_error if math.isfinite(found.max_abs_error) else None,
            differences=list(found.differences),
            ticks=done.ticks,
            crc=done.crc,
            exits=[each.exit for each in wanted],
            paths=[list(each.path) for each in wanted],
            macs=[each.macs for each in wanted],
        )

    # --- windows

    def _measure(self) -> None:
        plan = self.digest.plan
        if self.warm_up_s > 0:
            self._warm_up()
        self._idle()
        while True:
            wanting = [i for i in range(len(plan.cases)) if self._wants(i)]
            if not wanting:
                break
            for index in wanting:
                self._run(index)
                self._idle()
                if self._spoiled(index) > MOST_SPOILED:
                    bad = self.digest.runs_of(index)[-1].faults
                    told = f"{self._spoiled(index)} invalid runs of {plan.cases[index].name}"
                    self._end("invalid", [told, *bad])
                    return
        self._finish()

    def _finish(self) -> None:
        """Stop the meter, hold its own sums against what came, and end the session."""
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.stop()
            reader.check()
        self.meter.stop()
        own = self.meter.cross_check
        if own is not None:
            self.recorder.event("cross_check", agrees=own.agrees, text=own.text)
        if own is not None and not own.agrees:
            self._end("invalid", [f"the meter's own sums are others: {own.text}"])
        else:
            self._end("done", [])

    def _wants(self, index: int) -> bool:
        """Whether a case takes more runs."""
        good = [run for run in self.digest.runs_of(index) if not run.faults]
        values = [(run.gross_w - run.idle_w) * run.run.board_s for run in good]
        wanted = runs_needed(values, self.digest.rules)
        self.watch.stage(f"runs of {self.digest.plan.cases[index].name}", len(good), wanted)
        return len(good) < wanted

    def _spoiled(self, index: int) -> int:
        return sum(bool(run.faults) for run in self.digest.runs_of(index))

    def _warm_up(self) -> None:
        info, n = self._require_info(), len(self.load.inputs)
        end = self.board.ticks() + self.warm_up_s * info.ticks_per_s
        while (now := self.board.ticks()) < end:
            left = (end - now) / info.ticks_per_s
            self.watch.stage("warm-up", round(self.warm_up_s - left), round(self.warm_up_s))
            self._force(self.digest.plan.cases[0])
            self.board.run(0, n, 1, expect_s=self._host_s[0] / self._passes[0])

    def _run(self, index: int) -> None:
        case, n = self.digest.plan.cases[index], len(self.load.inputs)
        self._force(case)
        passes = self._passes[index]
        self._window(
            "run",
            index,
            lambda: self.board.run(0, n, passes, mark=True, expect_s=self._host_s[index]),
        )

    def _idle(self) -> None:
        duration_s = self.digest.rules.window_s * _LONGER + 2 * self.digest.rules.lag_s
        emulated = self.digest.source == "emulated"
        expect_s = 0.0 if emulated else duration_s
        self._window("idle", -1, lambda: self.board.idle(duration_s, mark=True, expect_s=expect_s))

    def _window(self, kind: str, case: int, work: Callable[[], RunDone]) -> None:
        """One window: announced, run, and seen by the meter to its end."""
        reader, identity = self._reader, self._identity
        if reader is None or identity is None:
            raise SessionError("a window before the session has begun")
        reader.check()
        if self.settle_s > 0:
            self.sleep(self.settle_s)
        plan, digest = self.digest.plan, self.digest
        self.watch.window(plan.cases[case].name if case >= 0 else "", kind)
        inferences = self._passes[case] * len(self.load.inputs) if case >= 0 else 0
        self.recorder.event("window", kind=kind, case=case, inferences=inferences)
        window = digest.windows[-1]
        done = work()
        self.recorder.event("done", run_id=done.run_id)
        if identity.has_marker:
            self._until_seen(window, reader)
        else:
            self.sleep(digest.rules.host_edge_s + 2 * digest.rules.lag_s + 0.2)
        reader.check()
        self.recorder.event("collected", run_id=done.run_id)
        celsius = self.board.temperature_c()
        if celsius is not None:
            self.recorder.event("temperature", celsius=celsius)

    def _until_seen(self, window: Window, reader: MeterThread) -> None:
        """Wait until the meter has shown the window's end, or has been silent for too long."""
        came = -1
        while came != self.digest.samples and not reader.failed and window.cut is None:
            came = self.digest.samples
            self.recorder.wait(lambda: window.cut is not None or reader.failed, _EDGE_PATIENCE_S)

    # --- parts

    def _force(self, case: Case) -> None:
        names = self.digest.plan.decisions
        self.board.force({i: case.force.get(name) for i, name in enumerate(names)})

    def _end(self, status: str, reasons: Sequence[str]) -> None:
        self.recorder.event("end", status=status, reasons=list(reasons))

    def _require_info(self) -> BoardInfo:
        if self._info is None:
            raise SessionError("the board was not asked who it is")
        return self._info


def _passes(pass_s: float, rules: Rules) -> int:
    """How often the inputs are run over in a window."""
    lost_s = 2 * (rules.lag_s + max(rules.edge_s, rules.host_edge_s))
    return max(1, math.ceil((rules.window_s * _LONGER + lost_s) / pass_s))


def _why_not(case: Case, found: Verified) -> str:
    if not found.decisions_equal:
        return f"{case.name}: the board decides otherwise: {found.differences[0]}"
    return f"{case.name}: an output is off by {found.max_abs_error:.3g}"


def source_of(info: BoardInfo, *, emulated_links: bool) -> Source:
    """Hardware only if every link is a device and the part names itself the ZedBoard's."""
    return "hardware" if info.is_zynq_7020 and not emulated_links else "emulated"


def _board_json(info: BoardInfo) -> Mapping[str, object]:
    return {
        "protocol": info.protocol,
        "midr": info.midr,
        "idcode": info.idcode,
        "reset_reason": info.reset_reason,
        "build": info.build,
    }


def _meter_json(identity: MeterIdentity) -> Mapping[str, object]:
    return {
        "maker": identity.maker,
        "model": identity.model,
        "serial": identity.serial,
        "checksummed": identity.checksummed,
        "rate_hz": identity.rate_hz if math.isfinite(identity.rate_hz) else None,
        "source": identity.source,
    }


def require_resumable(digest: Digest) -> Manifest:
    """The plan of a session that may go on.

    Raises:
        SessionError: it has ended, or was killed before it had a plan.
    """
    plan = digest.plan
    if digest.end is not None:
        raise SessionError(f"this session has ended: {digest.end.get('status')}")
    return plan


__all__ = ["MOST_SPOILED", "Load", "MeasureError", "Quiet", "Session", "Watch", "source_of"]
