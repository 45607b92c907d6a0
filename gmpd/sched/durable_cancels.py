"""Cancels of durable jobs that the store has not answered.

A job in the window is asked to end at once. One that the store has given away, and that has not
come yet, neither waits there nor is in the window: it is asked to end when it comes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from gmpd.sched.durable_ends import Held
from gmpd.sched.stored import Replaced, replaced_by


class Cancel:
    """One of them. ``asked``: jobs whose attempts were to end."""

    def __init__(self, ids: frozenset[bytes], force: bool, asked: list[bytes]) -> None:
        self.ids = ids
        self.force = force
        self.asked = asked


class Cancels:
    """``window``: jobs by id. ``end`` ends attempts, by their seqs; the flag: by force."""

    def __init__(
        self, window: Mapping[bytes, Held], end: Callable[[list[int], bool], object]
    ) -> None:
        self._window = window
        self._end = end
        self._open: list[Cancel] = []

    def begin(self, ids: Iterable[bytes], *, force: bool) -> Cancel:
        """The store is about to be asked for these."""
        cancel = Cancel(frozenset(ids), force, self._ask(ids, force))
        self._open.append(cancel)
        return cancel

    def answered(self, cancel: Cancel) -> None:
        """The store has answered."""
        self._open.remove(cancel)

    def submitted(self, ids: Iterable[bytes]) -> None:
        """These have come into the window."""
        for cancel in self._open:
            cancel.asked += self._ask([id_ for id_ in ids if id_ in cancel.ids], cancel.force)

    def replace(self, replaced: Replaced) -> None:
        """The store has others that take the places of these. One that is not in the window any
        more comes back to the store, which ends it."""
        for id_, by in replaced.asked:
            if (held := self._window.get(id_)) is not None:
                held.why = replaced_by(by)
                self._ask([id_], force=False)

    def _ask(self, ids: Iterable[bytes], force: bool) -> list[bytes]:
        asked = [held for id_ in ids if (held := self._window.get(id_)) is not None]
        for held in asked:
            held.cancelling = True
        if asked:
            self._end([held.seq for held in asked], force)
        return [held.job.id for held in asked]
