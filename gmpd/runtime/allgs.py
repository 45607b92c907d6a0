"""All Gs of a P that have not ended: they keep a parked G alive, and ``stacks`` lists them (Go:
``allgs``).

Several sets, each of a bounded size: a set moves all its members when it grows, and with 600,000
that took 34 to 130 ms, in which P did nothing else. A G knows its own. Rejected: a list that runs
through the Gs themselves. It takes 20 bytes less for each, but makes a spawn 5 % slower.

Any thread may add, remove and look; only the holder of P calls ``grow``. It knows nothing of what a
G is.
"""

from __future__ import annotations

from itertools import islice
from typing import Any

#: Entries of a full set: with one more, CPython would make its table four times as large. It takes
#: 27 bytes for each now, and a third of a millisecond to be made.
FULL = 4914


class AllGs:
    """The sets. A G that is made is put into ``young`` and remembers that as ``_among``, from which
    it is taken when it ends.
    """

    __slots__ = ("_sets", "young")

    def __init__(self) -> None:
        #: Where new ones go, until it is full.
        self.young: set[Any] = set()
        self._sets = [self.young]

    def __len__(self) -> int:
        return sum(map(len, self._sets))

    def __contains__(self, g: Any) -> bool:
        return any(g in gs for gs in self._sets)

    def add(self, g: Any) -> None:
        """A G was made; ``go`` has this written out."""
        among = self.young
        g._among = among
        among.add(g)
        if len(among) >= FULL:
            self.grow()

    def grow(self) -> None:
        """Let new ones go elsewhere: to the emptiest set, or to a new one if that is half full. So
        there are at most twice as many sets as all Gs need.
        """
        self._sets = [gs for gs in self._sets if gs]
        self.young = min(self._sets, key=len)
        if len(self.young) > FULL // 2:
            self.young = set()
            self._sets.append(self.young)

    def some(self, limit: int) -> list[Any]:
        """All, or any ``limit`` of very many: to sort a million takes a second."""
        found: list[Any] = []
        for gs in self._sets:
            found += _some(gs, max(0, limit - len(found)))
        return found

    def find(self, number: int) -> Any:
        """The one with this ``id``: 50 ns for each."""
        for gs in self._sets:
            for g in _some(gs, len(gs)):
                if g.id == number:
                    return g
        return None

    def clear(self) -> None:
        """Forget them all."""
        self.young = set()
        self._sets = [self.young]


def _some(gs: set[Any], limit: int) -> list[Any]:
    while True:
        try:
            return list(islice(gs, limit))
        except RuntimeError:  # it changed: another thread holds P, and Gs come and go
            continue
