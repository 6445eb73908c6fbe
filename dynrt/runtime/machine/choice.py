"""Chooses between running a batch together and one sample at a time, by what each took before."""

from __future__ import annotations

from collections.abc import Sequence

#: After so many batches of a size the slower way is tried again.
RETRY_EVERY = 32
#: Times that every way is tried at first.
TRIALS = 3
#: How much the latest measurement counts.
_WEIGHT = 0.3


class Choice:
    """The quicker of two ways for each size of batch (sizes to the next power of two are alike).

    Every way gives the same answers; only time decides.
    """

    def __init__(self, ways: Sequence[str]) -> None:
        self.ways = tuple(ways)
        self._seconds: dict[tuple[int, str], float] = {}
        self._asked: dict[int, int] = {}

    def pick(self, size: int) -> str:
        """The way to take now: each some times at first, then the quickest, now and then another."""
        bucket = size.bit_length()
        asked = self._asked[bucket] = self._asked.get(bucket, 0) + 1
        if asked <= TRIALS * len(self.ways):
            return self.ways[(asked - 1) % len(self.ways)]
        # one that was never measured (its runs failed, or others are at it now) is tried first
        ranked = sorted(self.ways, key=lambda w: self._seconds.get((bucket, w), 0.0))
        return ranked[-1] if asked % RETRY_EVERY == 0 else ranked[0]

    def took(self, size: int, way: str, seconds: float) -> None:
        """Note how long a batch took."""
        key = (size.bit_length(), way)
        each = seconds / size
        old = self._seconds.get(key)
        if old is None or (self._asked.get(key[0], 0) <= TRIALS * len(self.ways) and each < old):
            self._seconds[key] = each  # the first ones also explore and bind
        else:
            self._seconds[key] = old + _WEIGHT * (each - old)
