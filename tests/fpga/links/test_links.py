"""Serial ports that are missing, taken or pulled; captures; and the tap."""

from __future__ import annotations

import builtins
import os
import pty
import tty
from collections.abc import Iterator
from pathlib import Path

import pytest

from dynrt.errors import LinkError, MissingExtraError
from dynrt.fpga.links import ReplayLink, TapLink, heard_s, is_pseudo_terminal, open_serial


class Terminal:
    """A pseudo-terminal whose far end the test holds."""

    def __init__(self) -> None:
        self.far, self._near = pty.openpty()
        tty.setraw(self._near)
        self.port = os.ttyname(self._near)

    def pull(self) -> None:
        for number in (self._near, self.far):
            if number >= 0:
                os.close(number)
        self.far = self._near = -1


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    made = Terminal()
    yield made
    made.pull()


def test_bytes_go_both_ways(terminal: Terminal) -> None:
    with open_serial(terminal.port) as link:
        os.write(terminal.far, b"from afar")
        assert link.read(1.0) == b"from afar"
        assert link.read(0.01) == b""
        link.write(b"\x00to it\n")
        assert os.read(terminal.far, 100) == b"\x00to it\n"
        assert link.emulated
        assert link.name == terminal.port


def test_a_second_opener_is_told(terminal: Terminal) -> None:
    with open_serial(terminal.port), pytest.raises(LinkError, match="taken by another program"):
        open_serial(terminal.port)
    open_serial(terminal.port).close()  # free again


def test_unplugged_on_read_and_on_write(terminal: Terminal) -> None:
    link = open_serial(terminal.port)
    terminal.pull()
    with pytest.raises(LinkError, match="unplugged"):
        link.read(0.1)
    with pytest.raises(LinkError, match="unplugged"):
        link.write(b"x")
    link.close()
    link.close()
    with pytest.raises(LinkError, match="closed"):
        link.read(0.1)
    with pytest.raises(LinkError, match="closed"):
        link.write(b"x")


def test_a_missing_port_and_what_is_no_port(tmp_path: Path) -> None:
    with pytest.raises(LinkError, match="no such port"):
        open_serial(tmp_path / "ttyUSB7")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(LinkError, match="not a serial port"):
        open_serial(tmp_path / "file")
    with pytest.raises(LinkError, match="/dev/null: cannot be opened"):
        open_serial("/dev/null")


def test_without_pyserial_the_extra_is_named(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def refuse(name: str, *args: object, **kwargs: object) -> object:
        if name == "serial":
            raise ModuleNotFoundError(name=name)
        return real(name, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(MissingExtraError, match=r"dynrt\[fpga\]"):
        open_serial(terminal.port)


def test_a_link_to_a_pseudo_terminal_is_emulated_too(terminal: Terminal, tmp_path: Path) -> None:
    (tmp_path / "meter").symlink_to(terminal.port)
    assert is_pseudo_terminal(tmp_path / "meter")
    assert not is_pseudo_terminal("/dev/ttyUSB0")


def test_replay_gives_the_pieces_with_their_times() -> None:
    link = ReplayLink([(1.5, b"a"), (2.5, b"bc")])
    assert (link.read(0), heard_s(link)) == (b"a", 1.5)
    assert [link.ended] == [False]
    assert (link.read(0), heard_s(link)) == (b"bc", 2.5)
    assert link.read(0) == b""
    assert [link.ended] == [True]
    link.write(b"?")
    assert link.written == [b"?"]
    link.close()
    with pytest.raises(LinkError, match="replay: closed"):
        link.read(0)


def test_the_tap_has_the_bytes_first_and_with_the_same_time() -> None:
    order: list[object] = []

    class Watched(ReplayLink):
        def write(self, data: bytes) -> None:
            order.append(("sent", data))
            super().write(data)

    tap = TapLink(
        Watched([(7.0, b"x")], name="meter"),
        lambda at_s, data: order.append(("read", at_s, data)),
        lambda at_s, data: order.append(("write", at_s, data)),
        clock=lambda: 9.0,
    )
    assert tap.name == "meter"
    assert tap.read(0) == b"x"
    assert heard_s(tap) == 7.0
    assert tap.read(0) == b""
    tap.write(b"go")
    assert order == [("read", 7.0, b"x"), ("write", 9.0, b"go"), ("sent", b"go")]


def test_a_tap_that_fails_keeps_the_bytes_back() -> None:
    def full(at_s: float, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        TapLink(ReplayLink([(0.0, b"x")]), full).read(0)


def test_a_far_end_that_takes_no_bytes(terminal: Terminal) -> None:
    with (
        open_serial(terminal.port, write_timeout_s=0.1) as link,
        pytest.raises(LinkError, match="takes no bytes"),
    ):
        link.write(b"x" * 1_000_000)


@pytest.mark.parametrize(
    ("exc", "text"),
    [
        (PermissionError(13, "Permission denied"), "no permission"),
        (OSError(5, "Input/output error"), "the device behind it is gone"),
        (ValueError("Invalid baud rate: 7"), "does not take these settings"),
    ],
)
def test_why_a_port_does_not_open(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, exc: Exception, text: str
) -> None:
    import serial

    def fail(*args: object, **kwargs: object) -> None:
        raise exc

    monkeypatch.setattr(serial, "Serial", fail)
    with pytest.raises(LinkError, match=text):
        open_serial(terminal.port)
