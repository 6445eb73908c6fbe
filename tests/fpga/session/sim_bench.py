"""A board and a meter in one virtual time, for the logic of sessions: what is sent is real bytes.

The board answers by the host's interpreter; its DONE frames and the meter's lines go through the
recorder as those of a real bench do. What runs in QEMU is tested in ``test_emulated_session.py``.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np

from dynrt.bundle import Bundle
from dynrt.errors import LinkError
from dynrt.fpga.decoders.ina_line import encode_line
from dynrt.fpga.digest import Digest
from dynrt.fpga.manifest import FREE, Case, Manifest
from dynrt.fpga.meters import CrossCheck, MeterIdentity, MeterSettings
from dynrt.fpga.recorder import Recorder
from dynrt.fpga.records import SampleRecord
from dynrt.fpga.replay import read_session
from dynrt.fpga.rules import Rules
from dynrt.fpga.samples import DecodeCounts, Samples
from dynrt.fpga.session import Load, Session
from dynrt.fpga.store import Store
from dynrt.fpga.verify import Expected, expected
from dynrt.fpga.wire import DONE, BoardInfo, RunDone, State, encode_frame
from tests.cli.colours import IMAGE, colour_bundle

TICKS_PER_S = 1_000_000
DECISIONS = ("exit1", "final")
RULES = Rules(window_s=10.0, window_samples=200, edge_s=0.0)
INPUTS = 3


@dataclass
class World:
    """Time and power of the bench, and what goes wrong in it."""

    now_s: float = 0.0
    ticks: int = 0
    dynamic_w: float = 0.4
    noise_w: float = 0.01
    rate_hz: int = 50
    spoil: Callable[[int, list[bytes]], list[bytes]] = lambda window, lines: lines
    die_at: int = 10**9
    wrong_at: int | None = None
    sums: CrossCheck | None = None
    stops: int = 0
    windows: int = 0
    sequence: int = 0
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    def clock(self) -> float:
        self.now_s += 1e-4
        return self.now_s


class SimBoard:
    """What a session needs of a board."""

    def __init__(self, world: World, recorder: Recorder, load: Load, cases: Sequence[Case]) -> None:
        self.world, self.recorder, self.load, self.cases = world, recorder, load, cases
        self._case = 0
        self._run_id = 0
        self.forced: dict[int, int | None] = {}

    def hello(self) -> BoardInfo:
        return BoardInfo(
            protocol=1, table_version=1, midr=0, idcode=0, ticks_per_s=TICKS_PER_S, table_cap=1,
            weights_cap=1, arena_cap=1, inputs_cap=1, max_payload=4096, session=0, reset_reason=0,
            log_cap=100, build="simulated",
        )  # fmt: skip

    def download(self, table: bytes, weights: bytes, inputs: Sequence[bytes]) -> int:
        self._run_id = 0
        return 1

    def force(self, values: Mapping[int, int | None]) -> None:
        self.forced = dict(values)
        wanted = [
            {i: case.force.get(name) for i, name in enumerate(DECISIONS)} for case in self.cases
        ]
        self._case = wanted.index(self.forced)

    def run(
        self, first: int, count: int, passes: int, *, mark: bool = False, expect_s: float = 0.0
    ) -> RunDone:
        macs = sum(each.macs for each in self.load.expected[self._case])
        return self._window("run", passes * macs * 10, passes * count, mark)

    def idle(self, seconds: float, *, mark: bool = True, expect_s: float = 0.0) -> RunDone:
        return self._window("idle", round(seconds * TICKS_PER_S), 0, mark)

    def records(self, n: int) -> list[SampleRecord]:
        out = []
        for i, each in enumerate(self.load.expected[self._case]):
            answer = each.answer.reshape(-1).astype(np.float32)
            if self.world.wrong_at == i:
                answer = answer + 1
            out.append(
                SampleRecord(
                    input=i,
                    exit=DECISIONS.index(each.exit),
                    decisions=tuple(each.decisions.get(name) for name in DECISIONS),
                    ticks=1,
                    answer=answer,
                )
            )
        return out

    def ticks(self) -> int:
        return self.world.ticks

    def temperature_c(self) -> float | None:
        return 40.0 + self._run_id

    def _window(self, kind: str, ticks: int, samples: int, mark: bool) -> RunDone:
        world = self.world
        self._run_id += 1
        if mark:
            world.windows += 1
            if world.windows >= world.die_at:
                raise LinkError("the board's port: unplugged")
            self._meter(kind, ticks)
        start = world.ticks
        world.ticks += ticks
        done = RunDone(
            run_id=self._run_id, state=State.DONE, start_ticks=start, end_ticks=world.ticks,
            mac_ticks=0, samples=samples, crc=7, fault_op=None,
        )  # fmt: skip
        world.ticks += TICKS_PER_S // 10
        self.recorder.board_in(world.clock(), encode_frame(DONE, 1, done.pack()))
        return done

    def _meter(self, kind: str, ticks: int) -> None:
        world = self.world
        n = round(ticks / TICKS_PER_S * world.rate_hz)
        extra = world.dynamic_w if kind == "run" else 0.0
        lines = []
        for marker in itertools.chain([0] * 5, [1] * n, [0] * 5):
            watts = 2.5 + extra * marker + world.noise_w * world.rng.standard_normal()
            us = world.sequence * 1_000_000 // world.rate_hz
            lines.append(encode_line(world.sequence, us, 12.0, watts / 12, marker))
            world.sequence += 1
        sent = world.spoil(world.windows, lines)
        for at in range(0, len(sent), 40):
            self.recorder.meter_in(world.clock(), b"".join(sent[at : at + 40]))


class SimMeter:
    """What a session needs of a meter; its samples come with the board's windows."""

    def __init__(self, world: World) -> None:
        self.world = world

    def open(self) -> None:
        """Nothing."""

    def identify(self) -> MeterIdentity:
        return MeterIdentity(
            maker="dynrt", model="simulated", serial="", checksummed=True, source="emulated",
            rate_hz=self.world.rate_hz, has_marker=True, lag_s=0.0,
        )  # fmt: skip

    def configure(self, settings: MeterSettings) -> None:
        """Nothing."""

    def start(self) -> None:
        """Nothing."""

    def read(self, timeout_s: float) -> Samples:
        return Samples.empty()

    def stop(self) -> None:
        self.world.stops += 1

    def close(self) -> None:
        """Nothing."""

    @property
    def counts(self) -> DecodeCounts:
        return DecodeCounts()

    @property
    def cross_check(self) -> CrossCheck | None:
        return self.world.sums


@cache
def load(cases: tuple[str, ...]) -> tuple[Bundle, Load, tuple[Case, ...]]:
    """The colour network, three pictures, and what onnxruntime makes of them."""
    bundle = colour_bundle()
    rng = np.random.default_rng(1)
    inputs = [{"image": rng.random(IMAGE.shape, np.float32)} for _ in range(INPUTS)]
    known = {
        "free": FREE,
        "early": Case(name="early", force={"exit1": 1}, skipping=0.8),
        "late": Case(name="late", force={"exit1": 0}, skipping=0.0),
    }
    own = tuple(known[name] for name in cases)
    wanted: list[tuple[Expected, ...]] = [expected(bundle, case, inputs) for case in own]
    made = Load(
        table=b"t",
        weights=b"w",
        inputs=(b"i",) * INPUTS,
        graph=bundle.graph,
        expected=tuple(wanted),
    )
    return bundle, made, own


def plan(cases: tuple[str, ...], rules: Rules = RULES) -> Manifest:
    """What a session of those cases sets out to do."""
    bundle, _, own = load(cases)
    return Manifest(
        bundle=bundle.name,
        sha256=bundle.sha256,
        bundle_path="colours",
        inputs=tuple(f"picture {i}" for i in range(INPUTS)),
        cases=own,
        meter="ina-line",
        meter_settings=MeterSettings().as_json(),
        rules=rules,
        dynrt="test",
        created="2026-11-21T11:00:00Z",
        decisions=DECISIONS,
    )


def measure(
    folder: Path,
    world: World,
    *,
    cases: tuple[str, ...] = ("free",),
    rules: Rules = RULES,
    resume: bool = False,
) -> Digest:
    """One part of a session; the digest that it went by."""
    _, made, own = load(cases)
    digest = read_session(folder) if resume else Digest()
    digest.begin_part()
    opened = Store.resume if resume else Store.create
    with opened(folder, source="emulated") as store:
        recorder = Recorder(store.journal, digest, clock=world.clock)
        if not resume:
            recorder.event("session", plan=plan(cases, rules).to_json())
        Session(
            recorder=recorder,
            board=SimBoard(world, recorder, made, own),  # type: ignore[arg-type]
            meter=SimMeter(world),
            load=made,
            sleep=lambda seconds: None,
        ).run()
    return digest
