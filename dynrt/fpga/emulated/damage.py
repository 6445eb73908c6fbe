"""A line that flips bits, drops, doubles and inserts bytes, and takes its time; reproducible by seed."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np

from dynrt.errors import MeasureError
from dynrt.fpga.links import Link


@dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """Chances per byte, in each direction.

    Attributes:
        flip: one bit of it is wrong.
        drop: it is lost.
        double: it comes twice.
        insert: a run of 1 to 20 random bytes comes before it.
        bytes_per_s: speed of the line; 0 is without limit.
        seed: of all chances.
    """

    flip: float = 0.0
    drop: float = 0.0
    double: float = 0.0
    insert: float = 0.0
    bytes_per_s: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        for field in fields(self)[:4]:
            value = getattr(self, field.name)
            if not 0 <= value < 1:
                raise MeasureError(f"damage: {field.name} is {value}; it is a chance below 1")
        if not self.bytes_per_s >= 0:
            raise MeasureError(f"damage: {self.bytes_per_s} bytes per second; from 0 on")


@dataclass(slots=True)
class DamageCounts:
    """What was done to the bytes so far."""

    flipped: int = 0
    dropped: int = 0
    doubled: int = 0
    inserted: int = 0

    @property
    def total(self) -> int:
        """All faults."""
        return self.flipped + self.dropped + self.doubled + self.inserted


_MOST_INSERTED = 20


class DamagedLink:
    """A link through which both directions are damaged."""

    def __init__(
        self,
        link: Link,
        damage: Damage,
        *,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._link = link
        self._damage = damage
        self._rng = np.random.default_rng(damage.seed)
        self._sleep = sleep
        self.name = link.name
        self.emulated = link.emulated
        self.counts = DamageCounts()

    def read(self, timeout_s: float) -> bytes:
        """What came, damaged; ``b""`` on timeout, or if all of it was dropped."""
        data = self._link.read(timeout_s)
        self._throttle(len(data))
        return self._hurt(data)

    def write(self, data: bytes) -> None:
        """Send ``data``, damaged."""
        self._throttle(len(data))
        self._link.write(self._hurt(data))

    def close(self) -> None:
        """Close the link."""
        self._link.close()

    def _throttle(self, count: int) -> None:
        if self._damage.bytes_per_s and count:
            self._sleep(count / self._damage.bytes_per_s)

    def _hurt(self, data: bytes) -> bytes:
        if not data:
            return data
        d, n, rng = self._damage, len(data), self._rng
        flip, drop, double, insert = (
            set(np.flatnonzero(rng.random(n) < chance).tolist()) if chance else set()
            for chance in (d.flip, d.drop, d.double, d.insert)
        )
        out, before = bytearray(), 0
        for i in sorted(flip | drop | double | insert):
            out += data[before:i]
            before = i + 1
            if i in insert:
                out += rng.bytes(int(rng.integers(1, _MOST_INSERTED + 1)))
                self.counts.inserted += 1
            byte = data[i]
            if i in flip:
                byte ^= 1 << int(rng.integers(8))
                self.counts.flipped += 1
            if i in drop:
                self.counts.dropped += 1
                continue
            out.append(byte)
            if i in double:
                out.append(byte)
                self.counts.doubled += 1
        return bytes(out + data[before:])
