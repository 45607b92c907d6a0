"""The order in which an idle P tries victims: Go's runtime.randomOrder, without dice.

Each search starts at a random P and continues in steps of a random stride that is coprime to their
number, so every P is visited exactly once and no two searches favour the same victim. The
randomness is a small generator with a given seed: the same events give the same victims.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from math import gcd


@lru_cache(maxsize=64)
def coprimes(n: int) -> tuple[int, ...]:
    """The strides that visit all of ``n`` Ps."""
    return tuple(k for k in range(1, n + 1) if gcd(k, n) == 1)


class RandomOrder:
    """xorshift64*: as good as an order of victims needs, and the same in every run."""

    __slots__ = ("_state",)

    def __init__(self, seed: int) -> None:
        self._state = (seed * 0x9E3779B97F4A7C15 + 1) & _MASK or 1

    def next(self) -> int:
        x = self._state
        x ^= x >> 12
        x = (x ^ (x << 25)) & _MASK
        x ^= x >> 27
        self._state = x
        return ((x * 0x2545F4914F6CDD1D) & _MASK) >> 32

    def positions(self, n: int) -> Iterable[int]:
        """0 to ``n - 1``, each once."""
        return range(n) if n <= 1 else self._drawn(n)  # for one no dice are needed

    def _drawn(self, n: int) -> Iterator[int]:
        draw = self.next()
        strides = coprimes(n)
        at, stride = draw % n, strides[draw // n % len(strides)]
        for _ in range(n):
            yield at
            at = (at + stride) % n


_MASK = (1 << 64) - 1
