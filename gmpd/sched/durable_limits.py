"""How many durable jobs with limits are held: few of each key, and a share of the window.

**The tension.** A job that waits for its limit must be in the ledger to get its turn at the gate;
and the window must not fill with such jobs, as the others behind them would wait for that limit.

**Rejected.** To look at the gates, and take what may pass: other clients' jobs would always be
before those of the store. A bound on the jobs of a key, those included that run: with it a key
that may have a thousand at once would have a few.

**Chosen.** Of each key a few more are held than may run, counted until they have begun. The rest
stays in the store, which finds the jobs of a key without passing those of others. While a key has
jobs left in the store, some of it are held, so the begin or the end of one of those is when to ask
again. Only when the share of all keys is used up may a key have none; then each begin or end of
any key is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import NamedTuple

from gmpd.sched.gates import Numbers

#: Of a key that may have more at once, at most this many are held before their begins are told.
AT_ONCE_MAX = 1024


class Sizes(NamedTuple):
    """``window``: jobs of the store that are in the ledger at a time: batches for many cores, and
    little memory. It is filled again when ``refill`` are free: one transaction for many jobs."""

    window: int = 8192
    refill: int = 1024
    #: Jobs with limits that are held and have not begun.
    limited: int = 4096
    #: Of them for each key, beside those that may run, while less than half of ``limited`` is used.
    spare: int = 16


class Wanted(NamedTuple):
    """The jobs with limits that may be taken, as ``TakeJobs`` has it."""

    of_keys: dict[str, int]
    of_others: int
    limited: int


class LimitedShare:
    """Jobs with limits that are held and have not begun."""

    def __init__(self, sizes: Sizes) -> None:
        self._sizes = sizes
        self._waiting = Counter[str]()
        #: How many of a key may run at once, as far as its newest held job says.
        self._at_once: dict[str, int] = {}
        self._total = 0
        #: Keys that have jobs which are due in the store.
        self._left: set[str] = set()
        #: A key might have had more, and the share of all was used up.
        self._cut = False

    def __repr__(self) -> str:
        return f"<LimitedShare: {self._total} jobs wait, {len(self._left)} keys have more>"

    def held(self, limit: Numbers) -> None:
        """A job with this limit was taken."""
        key, at_once, starts, _ = limit
        self._waiting[key] += 1
        self._at_once[key] = min(at_once or AT_ONCE_MAX, starts or AT_ONCE_MAX, AT_ONCE_MAX)
        self._total += 1

    def gone(self, key: str) -> bool:
        """One has begun, or ended before. Whether the store is to be asked."""
        self._total -= 1
        self._waiting[key] -= 1
        if not self._waiting[key]:
            del self._waiting[key]
        wants = self._cut or self.wants(key)
        if key not in self._waiting:
            del self._at_once[key]
        return wants

    def stored(self, key: str) -> bool:
        """The store has a job of this key that is due. Whether it is to be asked."""
        self._left.add(key)
        return self._cut or self.wants(key)

    def wants(self, key: str) -> bool:
        """Whether more of this key are to be taken: enough to be worth it."""
        enough = self._at_once.get(key, 1) + self._spare // 2
        return key in self._left and self._waiting[key] < enough

    @property
    def _spare(self) -> int:
        return self._sizes.spare if self._total < self._sizes.limited // 2 else 0

    def wanted(self) -> Wanted:
        """The jobs that may be taken now."""
        spare = self._spare
        of_keys = {
            key: max(0, self._at_once[key] + spare - waiting)
            for key, waiting in self._waiting.items()
        }
        return Wanted(of_keys, 1 + spare, max(0, self._sizes.limited - self._total))

    def took(self, left: Collection[str], *, cut: bool) -> bool:
        """The store was asked: the keys that have more, and whether the share kept some from being
        taken. Whether it is to be asked again."""
        self._left = set(left)
        self._cut = cut
        return self._total < self._sizes.limited and any(map(self.wants, left))
