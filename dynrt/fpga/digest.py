"""From the records of a session to its windows: the one way, live and in a replay.

A session adds a record to its journal and hands the same record to a digest; a replay reads the
journal and hands over the same records. So both come to the same figures, to the last bit.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from dynrt.errors import BoardError, SessionError
from dynrt.fpga.estimate import RunWindows
from dynrt.fpga.journal import Kind, Record, Source
from dynrt.fpga.manifest import Manifest
from dynrt.fpga.meters import MeterSettings, decoder_for
from dynrt.fpga.rules import Rules
from dynrt.fpga.samples import Decoder, Samples
from dynrt.fpga.windows import Cut, cut
from dynrt.fpga.wire import DONE, FrameReader, RunDone

#: Told of each window's samples when it is cut.
Keep = Callable[["Window", Samples], None]
#: Marker-less meters: samples older than this before a window are let go.
_KEPT_S = 5.0


@dataclass(slots=True, kw_only=True)
class Window:
    """One idle or run window of a session.

    Attributes:
        part: which part of the session, from 0.
        kind: ``idle`` or ``run``.
        case: index of the case that runs; -1 for idle.
        inferences: in it.
        run_id: the board's number of it, once it has started.
        done: what the board said at its end.
        done_host_s: when.
        cut: its power, once the meter has seen its end.
        troubles: what else spoils it.
    """

    part: int
    kind: str
    case: int
    inferences: int
    run_id: int | None = None
    done: RunDone | None = None
    done_host_s: float = float("nan")
    cut: Cut | None = None
    troubles: list[str] = field(default_factory=list)
    _edge: int = 0
    _at: int = 0

    @property
    def spoiled_cut(self) -> Cut | None:
        """The cut with the troubles among its faults."""
        if self.cut is None or not self.troubles:
            return self.cut
        return replace(self.cut, faults=(*self.cut.faults, *self.troubles))


class _Part:
    """One process's share of a session: its own decoder, clocks and run numbers."""

    def __init__(self, manifest: Manifest, event: dict[str, Any], number: int) -> None:
        self.number = number
        self.ticks_per_s = float(event["ticks_per_s"])
        self.has_marker = bool(event["has_marker"])
        self.rules: Rules = replace(
            manifest.rules, lag_s=max(manifest.rules.lag_s, 2 * float(event["lag_s"]))
        )
        self.dones: dict[int, RunDone] = {}
        self.windows: list[Window] = []
        self.waiting: deque[Window] = deque()
        self.blocks: list[Samples] = []
        self.offset = 0  # how many samples were let go
        self.count = 0  # how many samples came
        self.rises: list[int] = []
        self.falls: list[int] = []
        self.last_marker = 0


class Digest:
    """Takes records in order and makes windows of them.

    Args:
        keep: told of each window's samples; for plots.
    """

    def __init__(self, *, keep: Keep | None = None) -> None:
        self._keep = keep
        self._part: _Part | None = None
        self._frames = FrameReader()
        self._decoder: Decoder | None = None
        self._early: list[Samples] = []
        self.parts: list[_Part] = []
        self.manifest: Manifest | None = None
        self.source: Source | None = None
        self.verified: dict[int, dict[str, Any]] = {}
        self.planned: dict[int, int] = {}
        self.faults: list[str] = []
        self.temperatures_c: list[float] = []
        self.end: dict[str, Any] | None = None
        self.latest: Samples = Samples.empty()
        self.samples = 0

    def feed(self, record: Record) -> None:
        """Take one record.

        Raises:
            SessionError: it does not belong here.
        """
        if self.source is None:
            self.source = record.source
        elif self.source != record.source:
            raise SessionError(f"a record is {record.source} in a session that is {self.source}")
        if record.kind is Kind.EVENT:
            self._event(record.event, record.host_s)
        elif record.kind is Kind.METER_IN and self._decoder is not None:
            block = self._decoder.feed(record.payload, record.host_s)
            if len(block):
                self.latest = block
                self.samples += len(block)
                self._samples(block)
        elif record.kind is Kind.BOARD_IN:
            self._board(record.payload)

    def begin_part(self) -> None:
        """The next record is the first of another process: new decoder, new run numbers."""
        self._part, self._frames, self._early = None, FrameReader(), []
        self._decoder = None

    @property
    def windows(self) -> list[Window]:
        """All windows so far, in order."""
        return [window for part in self.parts for window in part.windows]

    def runs_of(self, case: int) -> list[RunWindows]:
        """The runs of a case that came to their end, with the idle windows around them."""
        out = []
        for part in self.parts:
            for i, window in enumerate(part.windows):
                own = window.spoiled_cut
                if window.kind != "run" or window.case != case or own is None:
                    continue
                before, before_s = _neighbour(part, i, -1)
                after, after_s = _neighbour(part, i, +1)
                if after is None and window is part.windows[-1]:
                    continue  # the session has not come to the idle window after it
                out.append(
                    RunWindows(
                        before=before,
                        run=own,
                        after=after,
                        before_end_s=before_s,
                        after_start_s=after_s,
                    )
                )
        return out

    def inferences_of(self, case: int) -> int | None:
        """Inferences in each run of a case; ``None`` before it is planned."""
        return self.planned.get(case)

    @property
    def rules(self) -> Rules:
        """Those of the last part; the lag is the meter's own where that is longer."""
        if self.parts:
            return self.parts[-1].rules
        return self.plan.rules

    @property
    def plan(self) -> Manifest:
        """The session's plan.

        Raises:
            SessionError: it was killed before it had one.
        """
        if self.manifest is None:
            raise SessionError("the session has no plan: it was killed at its very start")
        return self.manifest

    # --- records

    def _event(self, event: dict[str, Any], host_s: float) -> None:
        name = event["event"]
        try:
            if name == "session":
                self.manifest = Manifest.from_json(event["plan"])
            elif name == "listening":
                self._decoder = decoder_for(
                    self.plan.meter, MeterSettings.from_json(self.plan.meter_settings)
                )
            elif name == "part":
                self._part = _Part(self.plan, event, len(self.parts))
                self.parts.append(self._part)
                for block in self._early:
                    self._samples(block)
                self._early = []
            elif name == "verified":
                self.verified[int(event["case"])] = event
            elif name == "planned":
                self.planned[int(event["case"])] = int(event["inferences"])
            elif name == "window":
                self._open(event)
            elif name == "done":
                self._done(int(event["run_id"]), host_s)
            elif name == "collected":
                self._collected()
            elif name == "trouble":
                self._trouble(str(event["text"]))
            elif name == "temperature":
                self.temperatures_c.append(float(event["celsius"]))
            elif name == "end":
                self.end = event
        except (KeyError, TypeError, ValueError) as exc:
            raise SessionError(f"event {name!r} lacks or mistypes {exc}") from exc

    def _board(self, data: bytes) -> None:
        for frame in self._frames.feed(data):
            if frame.kind == DONE and self._part is not None:
                try:
                    done = RunDone.unpack(frame.payload)
                except BoardError:
                    continue
                self._part.dones[done.run_id] = done

    def _running(self) -> _Part:
        if self._part is None:
            raise SessionError("a window outside of a part")
        return self._part

    def _open(self, event: dict[str, Any]) -> None:
        part = self._running()
        if part.windows and (last := part.windows[-1]).cut is None and not last.troubles:
            last.troubles.append("the meter saw no end of the window")
        window = Window(
            part=part.number,
            kind=str(event["kind"]),
            case=int(event["case"]),
            inferences=int(event["inferences"]),
            _edge=len(part.rises),
            _at=part.count,
        )
        part.windows.append(window)
        part.waiting.append(window)

    def _done(self, run_id: int, host_s: float) -> None:
        """The session heard of an end; what counts is the frame in the raw bytes."""
        part = self._running()
        if not part.waiting:
            raise SessionError(f"run {run_id} ended, and no window is open")
        found = part.dones.get(run_id)
        if found is None:
            raise SessionError(f"run {run_id} ended, and the board's bytes do not say so")
        window = part.waiting[-1]
        window.run_id, window.done, window.done_host_s = run_id, found, host_s
        self._cut(part)

    def _collected(self) -> None:
        part = self._running()
        if not part.has_marker and part.waiting and part.waiting[-1].done is not None:
            self._cut_by_host(part, part.waiting.popleft())
        elif part.waiting:
            window = part.waiting[-1]
            seen = len(part.rises) - window._edge
            if seen != 1:
                window.troubles.append(f"the meter saw {seen} marked stretches instead of 1")

    def _trouble(self, text: str) -> None:
        self.faults.append(text)
        if self._part is not None and self._part.windows:
            self._part.windows[-1].troubles.append(text)

    # --- samples

    def _samples(self, block: Samples) -> None:
        part = self._part
        if part is None:
            self._early.append(block)
            return
        part.blocks.append(block)
        marker = (block.marker == 1).astype(np.int8)
        steps = np.diff(np.concatenate(([np.int8(part.last_marker)], marker)))
        part.rises += [part.count + int(i) for i in np.flatnonzero(steps == 1)]
        falls = [part.count + int(i) for i in np.flatnonzero(steps == -1)]
        part.falls += falls
        part.last_marker = int(marker[-1])
        part.count += len(block)
        if part.has_marker:
            if falls:
                self._cut(part)
            elif not part.waiting and part.last_marker == 0:
                self._let_go(part, part.count - 1)
        elif not part.waiting:
            self._let_go_old(part)

    def _cut(self, part: _Part) -> None:
        """Cut the windows whose both edges and whose board time are known."""
        while part.has_marker and part.waiting:
            window = part.waiting[0]
            done, edge = window.done, window._edge
            if done is None:
                return
            if edge >= len(part.rises) or len(part.falls) <= edge:
                if len(part.waiting) == 1:
                    return
                part.waiting.popleft()  # its end never came, and the next window has begun
                continue
            end = part.falls[edge] + 1
            # From the end of the window before it on: what spoils the meter in between counts too.
            first = part.falls[edge - 1] if edge else min(window._at, part.rises[0] - 1)
            first = max(part.offset, first)
            joined = Samples.join(part.blocks)
            part.blocks = [joined]
            samples = joined.take(slice(first - part.offset, end - part.offset))
            self._finish(part, part.waiting.popleft(), samples)
            self._let_go(part, end - 1)

    def _cut_by_host(self, part: _Part, window: Window) -> None:
        self._finish(part, window, Samples.join(part.blocks))
        self._let_go_old(part)

    def _finish(self, part: _Part, window: Window, samples: Samples) -> None:
        done = window.done
        if done is None:
            raise SessionError("a window without an end was cut")
        window.cut = cut(
            samples,
            board_s=done.ticks / part.ticks_per_s,
            end_host_s=window.done_host_s,
            rules=part.rules,
        )
        if self._keep is not None:
            self._keep(window, samples)

    def _let_go(self, part: _Part, first: int) -> None:
        """Forget samples before the absolute index ``first``."""
        drop = first - part.offset
        if drop <= 0:
            return
        joined = Samples.join(part.blocks)
        part.blocks = [joined.take(slice(drop, None))]
        part.offset = first

    def _let_go_old(self, part: _Part) -> None:
        joined = Samples.join(part.blocks)
        if len(joined):
            old = int(np.searchsorted(joined.host_s, joined.host_s[-1] - _KEPT_S))
            part.blocks = [joined]
            self._let_go(part, part.offset + old)


def _neighbour(part: _Part, index: int, step: int) -> tuple[Cut | None, float]:
    """The idle window before or after a run, and the board seconds between them."""
    at = index + step
    if not 0 <= at < len(part.windows):
        return None, 0.0
    run, idle = part.windows[index].done, part.windows[at]
    if idle.kind != "idle" or idle.done is None or run is None or idle.spoiled_cut is None:
        return None, 0.0
    early, late = (idle.done, run) if step < 0 else (run, idle.done)
    return idle.spoiled_cut, (late.start_ticks - early.end_ticks) / part.ticks_per_s
