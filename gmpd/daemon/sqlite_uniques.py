"""Jobs in the database with ``unique`` keys: one that replaces another waits for its end.

A job that has not left the store ends at once when another one replaces it. One that has left, and
may run, is to be asked to end; the other one waits in the store meanwhile (``later = 2``), and is
due in the transaction that ends the first. So a job that waits there has a holder that was taken:
when that comes back, or at the next boot, it ends instead of a further attempt.

Of each key one job holds it, and at most one more waits: the last one that was accepted.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from gmpd.sched.stored import Attempt, Ended, Freed, NewJob, Replaced, StoredState, replaced_by

#: The job that holds a key, and then the one that waits.
_RIVALS = (
    "SELECT number, id, attempt, 0, number IN (SELECT number FROM temp.taken)"
    " FROM jobs INDEXED BY held"
    " WHERE unique_key = :key AND owner = :owner AND ended_ms IS NULL AND later != 2"
    " UNION ALL"
    " SELECT number, id, attempt, 1, 0 FROM jobs INDEXED BY waiting"
    " WHERE unique_key = :key AND owner = :owner AND ended_ms IS NULL AND later = 2"
    " ORDER BY 4"
)
_SUCCESSORS = (
    "SELECT holder.number, jobs.number, jobs.id FROM jobs INDEXED BY waiting"
    " JOIN jobs AS holder INDEXED BY held ON holder.unique_key = jobs.unique_key"
    " AND holder.owner = jobs.owner AND holder.ended_ms IS NULL AND holder.later != 2"
    " WHERE jobs.unique_key IS NOT NULL AND jobs.ended_ms IS NULL AND jobs.later = 2"
)
#: A job that waits is due, or delayed as it asks.
_FREE = (
    "UPDATE jobs SET later = run_at_ms > created_ms, text = ''"
    " WHERE number = ? AND later = 2 AND ended_ms IS NULL"
)


class Rival(NamedTuple):
    """A job with the key that has not ended. ``taken``: it has left the store, and may run."""

    number: int
    id: bytes
    attempt: int
    waits: int
    taken: int


class UniqueJobs:
    """``end`` stores ends of jobs. ``freed`` is called when some are due."""

    def __init__(
        self,
        db: sqlite3.Connection,
        end: Callable[[Sequence[Ended]], object],
        freed: Callable[[], object],
    ) -> None:
        self._db = db
        self._end = end
        self._freed = freed
        #: Of holders that were taken: the number and the id of the job that waits. While no job
        #: replaces another, nothing here costs anything.
        self._successors: dict[int, tuple[int, bytes]] = {}
        self._ended: list[bytes] = []
        self._asked: list[tuple[bytes, bytes]] = []
        self._aside: set[bytes] = set()

    def reload(self) -> None:
        """Look in the database: a transaction was undone."""
        rows = self._db.execute(_SUCCESSORS)
        self._successors = {holder: (number, id_) for holder, number, id_ in rows}

    def boot(self, now_ms: int) -> None:
        """Nothing runs: what was replaced ends, and those that wait are due."""
        self.reload()
        self.came_back(list(self._successors), now_ms)
        rows = self._db.execute(
            "SELECT number FROM jobs INDEXED BY waiting"
            " WHERE unique_key IS NOT NULL AND ended_ms IS NULL AND later = 2"
        )
        self._db.executemany(_FREE, rows.fetchall())

    # -- jobs are stored ---------------------------------------------------------------------------

    def rivals(self, job: NewJob) -> list[Rival]:
        """Jobs that have its key: the one that holds it, and the one that waits."""
        rows = self._db.execute(_RIVALS, {"key": job.unique, "owner": job.owner})
        return [Rival(*row) for row in rows]

    def replace(self, rivals: Sequence[Rival], job: NewJob, number: int) -> bytes | None:
        """Job ``number`` takes their place. Gives the id of the one that it waits for."""
        holder = None
        for rival in rivals:
            if rival.taken:
                holder = rival.id
                self._successors[rival.number] = number, job.id
                self._asked.append((rival.id, job.id))
                self._aside.add(job.id)
            else:
                self._withdraw(rival.number, rival.attempt, job.id, job.created_ms)
                self._ended.append(rival.id)
                self._aside.add(rival.id)
        return holder

    def take_replaced(self) -> Replaced | None:
        """The work of ``replace`` since the last time; None: there was none."""
        if not self._aside:
            return None
        done = Replaced(frozenset(self._aside), tuple(self._ended), tuple(self._asked))
        self.forget_replaced()
        return done

    def forget_replaced(self) -> None:
        """A transaction begins anew."""
        self._ended, self._asked, self._aside = [], [], set()

    def _withdraw(self, number: int, attempt: int, successor: bytes, now_ms: int) -> None:
        text = replaced_by(successor)
        end = Attempt(attempt, now_ms, 0, None, None, "cancelled", b"", text)
        self._end([Ended(number, StoredState.CANCELLED, b"", (), end)])

    # -- jobs end, or come back --------------------------------------------------------------------

    def came_back(self, numbers: Iterable[int], now_ms: int) -> Freed | None:
        """Jobs that had left the store would wait there again: those that are replaced end."""
        if not self._successors:
            return None
        ended = []
        replaced = [number for number in numbers if number in self._successors]
        for number in replaced:
            row = self._db.execute(
                "SELECT id, attempt FROM jobs WHERE number = ? AND ended_ms IS NULL", (number,)
            ).fetchone()
            if row is not None:
                self._withdraw(number, row[1], self._successors[number][1], now_ms)
                ended.append(row[0])
        return self.have_ended(replaced, tuple(ended))

    def have_ended(self, numbers: Iterable[int], ids: tuple[bytes, ...] = ()) -> Freed | None:
        """The keys of these are free: those that wait for them are due."""
        if not self._successors:
            return None
        waiting = [pair for n in numbers if (pair := self._successors.pop(n, None)) is not None]
        if not waiting:
            return None
        self._db.executemany(_FREE, [(number,) for number, _ in waiting])
        self._freed()
        return Freed(ids)
