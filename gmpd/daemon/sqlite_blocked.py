"""Jobs in the database whose functions cannot be imported.

One job of each such function is tried every few seconds. When that ends in another way, the others
follow: a million blocked jobs cost as much as one.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable

from gmpd.sched.stored import BLOCKED_MS, Again, BlockedFunction, StoredState, Surveyed

#: Functions that are named.
SHOWN = 10


class BlockedJobs:
    """Which functions have blocked jobs, and when one of them is tried (ms). ``freed`` is called
    when some are queued."""

    def __init__(self, db: sqlite3.Connection, freed: Callable[[], object]) -> None:
        self._db = db
        self._freed = freed
        self._due: dict[bytes, int] = {}

    def reload(self) -> None:
        """Look in the database: a transaction was undone."""
        rows = self._db.execute(
            "SELECT DISTINCT function FROM jobs WHERE state = ?", (StoredState.BLOCKED,)
        )
        self._due = {function: self._due.get(function, 0) for (function,) in rows}

    def tried(self, rows: Iterable[Again]) -> None:
        """Attempts have ended, and are followed by others."""
        for row in rows:
            if row.state is not StoredState.BLOCKED:
                self.ended_otherwise((row.number,))
                continue
            self._due.setdefault(self._function_of(row.number), row.run_at_ms)
            self._db.execute(  # its attempts are alike: the last one is kept
                "DELETE FROM attempts WHERE number = ? AND n = ? AND outcome = 'error'",
                (row.number, row.attempt.n),
            )

    def ended_otherwise(self, numbers: Iterable[int]) -> None:
        """Attempts of these did not fail by the import of their functions: the others that wait
        for those functions are due."""
        for number in numbers if self._due else ():
            function = self._function_of(number)
            if self._due.pop(function, None) is not None:
                self._free(function, -1)

    def _function_of(self, number: int) -> bytes:
        row = self._db.execute("SELECT function FROM jobs WHERE number = ?", (number,)).fetchone()
        return b"" if row is None else bytes(row[0])

    def _free(self, function: bytes, most: int) -> int:
        """Queue jobs that this function blocks, the one first that was tried longest ago."""
        self._freed()
        return self._db.execute(
            "UPDATE jobs SET state = ?, later = 0 WHERE number IN (SELECT number FROM jobs"
            " WHERE state = ? AND function = ? ORDER BY run_at_ms LIMIT ?)",
            (StoredState.QUEUED, StoredState.BLOCKED, function, most),
        ).rowcount

    def try_due(self, now_ms: int) -> None:
        """One job of each function that is due is queued."""
        for function, at_ms in list(self._due.items()):
            if at_ms > now_ms:
                continue
            if self._free(function, 1):
                self._due[function] = now_ms + BLOCKED_MS
            else:
                del self._due[function]

    def next_ms(self) -> int | None:
        """When ``try_due`` has something to do."""
        return min(self._due.values(), default=None)

    def survey(self) -> Surveyed:
        """The state of the whole store."""
        rows = self._db.execute("SELECT state, count(*) FROM jobs GROUP BY state")
        states = {StoredState(state): n for state, n in rows}
        (pages,) = self._db.execute("PRAGMA page_count").fetchone()
        (size,) = self._db.execute("PRAGMA page_size").fetchone()
        return Surveyed(states, self._functions(), pages * size)

    def _functions(self) -> tuple[BlockedFunction, ...]:
        """The functions with most blocked jobs."""
        rows = self._db.execute(
            "SELECT name, count(*), max(text) FROM jobs JOIN functions"
            " ON jobs.function = functions.digest WHERE state = ?"
            " GROUP BY function ORDER BY count(*) DESC LIMIT ?",
            (StoredState.BLOCKED, SHOWN),
        )
        return tuple(BlockedFunction(*row) for row in rows)
