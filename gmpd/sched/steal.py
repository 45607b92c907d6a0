"""The order in which an idle P tries victims: Go's runtime.randomOrder, without dice.

Each search starts at a random P and goes on in steps of a random stride that is coprime to their
number, so every P is visited exactly once and no two searches favour the same victim. The
randomness is a small generator with a given seed: the same events give the same victims.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from math import gcd

#: A steal costs a lease and its way back (about 0.2 ms): less work is not worth moving.
WORTH_NS = 300_000

#: A P that holds work and is silent for this long is probed: a G's time slice (Go:
#: ``forcePreemptNS``), so that one that hands a long G off speaks in time. While it moves, the
#: looks get rarer up to the second value.
SILENT_NS = 10_000_000
LOOK_NS_MAX = 1_000_000_000

#: A fresh job that was leased this long ago is moved to any idle P, and at its next P has twice
#: as long: behind two hogs it is not carried to and fro for ever.
STALE_NS = 50_000_000
#: So often it doubles at most: 3.2 s.
STALE_DOUBLINGS = 6

#: Children that are asked for at once; the worker gives half of what it has, and packs no longer
#: than it may. A round of asking costs the thief a slice at worst: a few of these per second.
CHILDREN_MAX = 512
#: More children are asked for when those that are queued here are less work than this per thief:
#: a victim answers after the child that it runs, or after a slice (10 ms), and then packs.
CHILDREN_LOW_NS = 30_000_000
#: A thief holds children worth so much: what counts is when the last of them ends, not each by
#: itself, and a round trip for every 2 ms of them cost a tenth of two cores. Jobs queued behind a
#: long one is taken back as soon as another P has nothing.
CHILDREN_CREDIT_NS = 40_000_000


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

    def positions(self, n: int) -> Iterator[int]:
        """0 to ``n - 1``, each once."""
        if n <= 1:  # no dice needed
            yield from range(n)
            return
        draw = self.next()
        strides = coprimes(n)
        at, stride = draw % n, strides[draw // n % len(strides)]
        for _ in range(n):
            yield at
            at = (at + stride) % n


_MASK = (1 << 64) - 1
