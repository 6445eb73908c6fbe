"""The emulated bench: board, meter and marker line, from the cross compiler to the ports."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Self

from dynrt.errors import MeasureError
from dynrt.fpga.board import Board, Progress
from dynrt.fpga.emulated.damage import Damage, DamagedLink
from dynrt.fpga.emulated.qemu import Qemu
from dynrt.fpga.emulated.virtual_meter import VirtualMeter, VirtualPower
from dynrt.fpga.firmware_build import build
from dynrt.fpga.links import Link, open_serial
from dynrt.fpga.wire import BoardInfo

#: One instruction is 2**SHIFT ns by the board's clock; see ``EmulatedBench``.
SHIFT = 7
#: What QEMU's pseudo-terminals carry; its serial ports know no baud rate.
BYTES_PER_S = 100_000.0


class EmulatedBench:
    """Board and meter without hardware. A context manager.

    Nothing of it is ever called measured: its ticks are instructions, its power is a model.

    Args:
        firmware: the agent's ELF file; built with the cross compiler if not given.
        shift: one instruction is ``2 ** shift`` ns by the board's clock. A real Cortex-A9 takes
            about 1.5 ns; the default makes ten seconds of the board's clock cost the host a moment.
        power: the board's power, and how the meter errs.
    """

    def __init__(
        self,
        *,
        firmware: Path | None = None,
        shift: int = SHIFT,
        power: VirtualPower | None = None,
    ) -> None:
        self._given = firmware
        self._shift = shift
        self._power = power or VirtualPower()
        self._stack = ExitStack()
        self._qemu: Qemu | None = None
        self._meter: VirtualMeter | None = None

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            firmware = build("qemu") if self._given is None else self._given
            self._qemu = stack.enter_context(Qemu(firmware, shift=self._shift))
            with self.board() as board:
                info = board.hello()
            self._meter = VirtualMeter(self._qemu.marker_port, self._power, info.ticks_per_s)
            stack.callback(self._meter.close)
            self._info = info
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def qemu(self) -> Qemu:
        """The emulated board itself: kill it, reset it."""
        if self._qemu is None:
            raise MeasureError("the emulated bench is not running: enter it first")
        return self._qemu

    @property
    def meter(self) -> VirtualMeter:
        """The virtual meter."""
        if self._meter is None:
            raise MeasureError("the emulated bench is not running: enter it first")
        return self._meter

    @property
    def info(self) -> BoardInfo:
        """What the board said of itself when it started."""
        self.qemu  # noqa: B018 - refuses before the bench runs
        return self._info

    @property
    def board_port(self) -> str:
        """Path of the agent's port."""
        return self.qemu.board_port

    @property
    def meter_port(self) -> str:
        """Path of the meter's port."""
        return self.meter.port

    def board_link(self, damage: Damage | None = None) -> Link:
        """The agent's port, opened; through a bad line if ``damage`` says so.

        Raises:
            LinkError: another program has it, or the board has gone.
        """
        link = open_serial(self.board_port)
        return link if damage is None else DamagedLink(link, damage)

    def meter_link(self) -> Link:
        """The meter's port, opened. Raises ``LinkError`` as ``board_link``."""
        return open_serial(self.meter_port)

    def board(
        self,
        *,
        damage: Damage | None = None,
        timeout_s: float = 2.0,
        retries: int = 8,
        progress: Progress | None = None,
    ) -> Board:
        """A client at the agent's port, with this line's speed."""
        return Board(
            self.board_link(damage),
            timeout_s=timeout_s,
            retries=retries,
            progress=progress,
            bytes_per_s=BYTES_PER_S,
        )
