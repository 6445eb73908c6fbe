"""RUN and IDLE: started at once, ended by a DONE that may get lost, and never run twice."""

from __future__ import annotations

import struct

from dynrt.errors import BoardError
from dynrt.fpga.exchange import Exchange, SilenceError
from dynrt.fpga.wire import DONE, STARTED, Frame, Kind, Refusal, RunDone, State

#: A run that takes longer than so many times what was expected, and a minute, is given up.
_PATIENCE = 4.0
_PATIENCE_S = 60.0
_DONE_BYTES = 44


class Runs:
    """Starts runs with ids of their own, and waits for their ends."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._session = 0
        self._run_id = 0

    def begin(self, session: int) -> None:
        """Count from 1 again, in a new session."""
        self._session, self._run_id = session, 0

    def run(self, first: int, count: int, passes: int, flags: int, *, expect_s: float) -> RunDone:
        """Run samples; see ``Board.run``."""
        return self._until_done(Kind.RUN, struct.pack("<4I", first, count, passes, flags), expect_s)

    def idle(self, ticks: int, flags: int, *, expect_s: float) -> RunDone:
        """Wait on the board; see ``Board.idle``."""
        return self._until_done(Kind.IDLE, struct.pack("<QI", ticks, flags), expect_s)

    def _until_done(self, kind: Kind, rest: bytes, expect_s: float) -> RunDone:
        """Send until it is started, listen, and ask only when DONE seems lost.

        A line that is silent disturbs no measurement, so nothing is sent before ``expect_s``.
        """
        self._run_id += 1
        exchange, run_id = self._exchange, self._run_id
        payload = struct.pack("<2I", self._session, run_id) + rest
        sequence = exchange.next_sequence()
        began = exchange.clock()
        give_up = began + _PATIENCE * expect_s + _PATIENCE_S
        step_s = exchange.timeout_s + exchange.wire_s(len(payload)) + exchange.wire_s(_DONE_BYTES)
        started, unheard, again = False, 0, False
        while exchange.clock() < give_up:
            if started:
                # Only its own sequence number makes an answer to STATUS a late one.
                status = struct.pack("<2I", self._session, run_id)
                sequence, asked = exchange.next_sequence(), Kind.STATUS
                exchange.send(asked, sequence, status, again=True)
            else:
                asked = kind
                exchange.send(asked, sequence, payload, again=again)
            again = True
            quiet_until = exchange.clock() + step_s
            while (left_s := quiet_until - exchange.clock()) > 0:
                for frame in exchange.receive(left_s):
                    done = self._done(frame, run_id)
                    if done is not None and done.state in (State.DONE, State.FAULT):
                        return done
                    if done is not None and done.state is State.UNKNOWN:
                        self._forgotten(run_id, started)
                    if done is not None or self._is_start(frame, run_id):
                        started, unheard = True, 0
                        quiet_until = max(quiet_until, began + expect_s)
                    elif exchange.is_damage(frame):
                        quiet_until = min(
                            quiet_until, exchange.clock() + exchange.wire_s(64) + 0.02
                        )
                    else:
                        code = exchange.refusal(frame, asked, sequence)
                        if code == Refusal.BUSY:
                            unheard = 0
                        elif code is not None:
                            exchange.raise_refused(frame, asked)
            unheard += 1
            step_s = exchange.longer(step_s)
            if unheard > exchange.retries and exchange.clock() > began + 2 * expect_s:
                break
        waited_s = exchange.clock() - began
        raise SilenceError(
            f"{exchange.link.name}: {kind.name} {run_id} has no end after {waited_s:.0f} s"
            f" ({expect_s:.0f} s expected); it was {'' if started else 'not '}seen to start"
        )

    @staticmethod
    def _done(frame: Frame, run_id: int) -> RunDone | None:
        if frame.kind != DONE:
            return None
        done = RunDone.unpack(frame.payload)
        return done if done.run_id == run_id else None

    @staticmethod
    def _is_start(frame: Frame, run_id: int) -> bool:
        return frame.kind == STARTED and frame.payload == struct.pack("<I", run_id)

    def _forgotten(self, run_id: int, started: bool) -> None:
        if started:
            raise BoardError(
                f"{self._exchange.link.name}: run {run_id} was started and is unknown now:"
                " the board was reset"
            )
