"""Opens board and meter, tells emulated from hardware, and runs a session or goes on with one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from dynrt.errors import SessionError
from dynrt.fpga.board import Board
from dynrt.fpga.digest import Digest
from dynrt.fpga.emulated.bench import BYTES_PER_S, EmulatedBench
from dynrt.fpga.emulated.virtual_meter import VirtualPower
from dynrt.fpga.journal import Source
from dynrt.fpga.links import Link, TapLink, open_serial
from dynrt.fpga.manifest import Manifest
from dynrt.fpga.meters import Meter, MeterSettings, meter, open_meter_link
from dynrt.fpga.recorder import Recorder
from dynrt.fpga.replay import Outcome, outcome, read_session
from dynrt.fpga.samples import Samples
from dynrt.fpga.session import Load, Quiet, Session, Watch, require_resumable, source_of
from dynrt.fpga.store import Store
from dynrt.fpga.wire import BoardInfo

#: The emulated bench's meter.
EMULATED_METER = "ina-line"
_EMULATED_HZ = 100.0
_BAUD = 115_200
_BITS_PER_BYTE = 10
_ANSWER_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """Both links, opened.

    Attributes:
        board, meter: the links.
        meter_name: kind of the meter.
        settings: of the meter.
        bytes_per_s: speed of the board's line.
    """

    board: Link
    meter: Link
    meter_name: str
    settings: MeterSettings
    bytes_per_s: float

    def greet(self) -> tuple[BoardInfo, Source]:
        """Who the board is, and whether all of this is hardware.

        Raises:
            BoardError, LinkError: it does not answer.
        """
        info = self.agent(self.board).hello()
        emulated = self.board.emulated or self.meter.emulated
        return info, source_of(info, emulated_links=emulated)

    def agent(self, link: Link) -> Board:
        """A client on a link to the board."""
        return Board(link, timeout_s=_ANSWER_S, bytes_per_s=self.bytes_per_s)


@contextmanager
def hardware_ports(
    board: str, meter_name: str, meter_port: str, settings: MeterSettings
) -> Iterator[Ports]:
    """The ports of a real bench; whatever is not real shows in the source.

    Raises:
        LinkError, MeterError: a port is missing or taken, or there is no such meter.
    """
    with ExitStack() as stack:
        board_link = stack.enter_context(closing(open_serial(board, baud=_BAUD)))
        meter_link = stack.enter_context(closing(open_meter_link(meter_name, meter_port, settings)))
        yield Ports(
            board=board_link,
            meter=meter_link,
            meter_name=meter_name,
            settings=settings,
            bytes_per_s=_BAUD / _BITS_PER_BYTE,
        )


@contextmanager
def emulated_ports(bench: EmulatedBench | None = None) -> Iterator[Ports]:
    """A bench of its own in QEMU, or one that runs.

    Raises:
        MeasureError: QEMU or the cross compiler is missing; names the package.
    """
    with ExitStack() as stack:
        own = stack.enter_context(_bench()) if bench is None else bench
        yield Ports(
            board=stack.enter_context(closing(own.board_link())),
            meter=stack.enter_context(closing(own.meter_link())),
            meter_name=EMULATED_METER,
            settings=MeterSettings(),
            bytes_per_s=BYTES_PER_S,
        )


def _bench() -> EmulatedBench:
    """The usual emulated bench; its windows last minutes of the board's clock, so it samples slowly."""
    return EmulatedBench(power=VirtualPower(rate_hz=_EMULATED_HZ))


#: Handed what gives the meter's last block, for a live line.
Listen = Callable[[Callable[[], Samples], Source], None]


def conduct(
    folder: Path,
    ports: Ports,
    load: Load,
    *,
    plan: Manifest | None = None,
    watch: Watch | None = None,
    listen: Listen | None = None,
    warm_up_s: float = 0.0,
    settle_s: float = 0.0,
) -> Outcome:
    """Run a session into ``folder``; without a plan, go on with the one that is there.

    Args:
        folder: of the session.
        ports: open.
        load: what runs; its cases are the plan's.
        plan: of a new session.
        watch: told how it goes.
        listen: given the meter's latest samples.
        warm_up_s: see ``Session``.
        settle_s: see ``Session``.

    Returns:
        The figures, as a replay gives them.

    Raises:
        LinkError, MeterError, BoardError: it broke off, and can be resumed.
        SessionError: there is nothing to go on with, or the folder is in use.
    """
    _, source = ports.greet()
    digest = Digest()
    if plan is None:
        digest = read_session(folder)
        known = require_resumable(digest)
        if known.meter != ports.meter_name:
            raise SessionError(f"{folder}: metered by {known.meter}, not by {ports.meter_name}")
    opened = Store.create if plan is not None else Store.resume
    with opened(folder, source=source) as store:
        digest.begin_part()
        recorder = Recorder(store.journal, digest)
        if plan is not None:
            recorder.event("session", plan=plan.to_json())
        if listen is not None:
            listen(recorder.latest, source)
        session = Session(
            recorder=recorder,
            board=ports.agent(TapLink(ports.board, recorder.board_in, recorder.board_out)),
            meter=tapped_meter(ports, recorder),
            load=load,
            watch=watch or Quiet(),
            warm_up_s=warm_up_s,
            settle_s=settle_s,
        )
        session.run()
        found = outcome(digest)
        store.write_report(found.to_json(str(folder)))
    return found


def tapped_meter(ports: Ports, recorder: Recorder) -> Meter:
    """The meter, every byte of it journalled before it is decoded."""
    link = TapLink(ports.meter, recorder.meter_in, recorder.meter_out)
    return meter(ports.meter_name, link, ports.settings)
