"""QEMU's Zynq, with instructions counted: the same program takes the same ticks every time.

Ticks of an emulated board count instructions, not cycles of a Cortex-A9. One instruction is
``2 ** shift`` nanoseconds of the board's clock. A board that waits costs nothing: its clock leaps to
the next timer.
"""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Self

from dynrt.errors import LinkError, MeasureError

QEMU = "qemu-system-arm"
QEMU_PACKAGE = "qemu-system-arm"
_MEMORY_MIB = 512
_START_S = 20.0
_REPLY_S = 10.0
_PTY = re.compile(rb"char device redirected to (/dev/\S+) \(label serial([01])\)")
_MOST_SHIFT = 10


class Qemu:
    """One emulated board, from start to ``stop``. A context manager.

    Args:
        firmware: the agent's ELF file.
        shift: one instruction is ``2 ** shift`` ns by the board's clock.

    Raises:
        MeasureError: QEMU is not installed, or does not start.
    """

    def __init__(self, firmware: Path, *, shift: int) -> None:
        if not 0 <= shift <= _MOST_SHIFT:
            raise MeasureError(
                f"an instruction of 2**{shift} ns; 0 to {_MOST_SHIFT} can be emulated"
            )
        program = shutil.which(QEMU)
        if program is None:
            raise MeasureError(
                f"{QEMU} is not installed: apt-get install {QEMU_PACKAGE} (or your system's QEMU for ARM)"
            )
        self._folder = tempfile.TemporaryDirectory(prefix="dynrt-qemu-")
        self._qmp_path = str(Path(self._folder.name, "qmp"))
        # Linux ends the board with its bench, also after a kill -9 of the host.
        keeper = shutil.which("setpriv")
        leash = [keeper, "--pdeathsig", "KILL"] if keeper else []
        command = [
            *leash,
            program,
            *("-M", "xilinx-zynq-a9", "-m", str(_MEMORY_MIB), "-nic", "none"),
            *("-display", "none", "-monitor", "none", "-serial", "pty", "-serial", "pty"),
            *("-qmp", f"unix:{self._qmp_path},server=on,wait=off"),
            *("-icount", f"shift={shift},sleep=off", "-kernel", str(firmware)),
        ]
        self._process = subprocess.Popen(  # noqa: S603 - a program of the path, no shell
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        self._said = b""
        try:
            self.marker_port, self.board_port = self._ports()
            self._qmp("query-status")  # answered once the firmware is loaded
        except LinkError as exc:
            self.stop()
            raise self._no_start() from exc
        except BaseException:
            self.stop()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """Of QEMU's process."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None

    def kill(self) -> None:
        """Pull the plug: end it at once."""
        with suppress(ProcessLookupError):
            os.kill(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def stop(self) -> None:
        """End it, and remove what it left; a second call does nothing."""
        if self.alive:
            self.kill()
        if self._process.stdout is not None and not self._process.stdout.closed:
            self._said += self._process.stdout.read()
            self._process.stdout.close()
        self._folder.cleanup()

    def reset(self) -> None:
        """Press the reset button.

        Raises:
            LinkError: QEMU no longer runs.
        """
        self._qmp("system_reset")

    def _ports(self) -> tuple[str, str]:
        """The pseudo-terminals of both serial ports, as QEMU announces them."""
        pipe = self._process.stdout
        if pipe is None:
            raise MeasureError(f"{QEMU}: no output to read")
        found = dict[bytes, str]()
        deadline = time.monotonic() + _START_S
        while len(found) < 2:
            left_s = deadline - time.monotonic()
            ready = left_s > 0 and select.select([pipe], [], [], left_s)[0]
            piece = os.read(pipe.fileno(), 4096) if ready else b""
            if not piece:
                raise self._no_start()
            self._said += piece
            found = {m[2]: m[1].decode("ascii") for m in _PTY.finditer(self._said)}
        return found[b"0"], found[b"1"]

    def _no_start(self) -> MeasureError:
        """Why, in QEMU's own words."""
        lines = _PTY.sub(b"", self._said).decode("utf-8", "replace").strip().splitlines()
        return MeasureError(f"{QEMU} does not start: {lines[-1] if lines else 'it says nothing'}")

    def _qmp(self, command: str) -> None:
        """Execute one command of QEMU's machine protocol."""
        try:
            with socket.socket(socket.AF_UNIX) as channel:
                channel.settimeout(_REPLY_S)
                channel.connect(self._qmp_path)
                with channel.makefile("rwb") as stream:
                    stream.readline()
                    for name in ("qmp_capabilities", command):
                        stream.write(json.dumps({"execute": name}).encode("ascii") + b"\n")
                        stream.flush()
                        _reply(stream.readline, name)
        except OSError as exc:
            raise LinkError(f"{QEMU} no longer runs, so {command} cannot reach it") from exc


def _reply(readline: Callable[[], bytes], name: str) -> None:
    """Skip events until the command's reply."""
    while line := readline():
        said = json.loads(line)
        if "return" in said:
            return
        if "error" in said:
            raise MeasureError(f"{QEMU} refuses {name}: {said['error'].get('desc', said['error'])}")
    raise LinkError(f"{QEMU} ended before it answered {name}")
