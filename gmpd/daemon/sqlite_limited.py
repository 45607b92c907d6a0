"""Jobs in the database that have limits: those of a key are found without passing those of others.

It knows which keys have jobs that are due, so that a take costs what it takes, and a look at each
of those keys. A key too many costs one look; one too few would keep its jobs for ever: after
all that is rare the keys are read from the database again, at the next take.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import Any, NamedTuple

from gmpd.daemon.sqlite_schema import limit_in
from gmpd.sched.stored import TakeJobs

_QUEUED = (
    "SELECT jobs.number, id, digest, function, options, payload, buffers, attempt, deaths,"
    " spared, expires_ms, once FROM jobs INDEXED BY {} LEFT JOIN payloads USING (number)"
    " WHERE state = 0 AND later = 0 AND jobs.number NOT IN (SELECT number FROM temp.taken) AND {}"
    " ORDER BY priority DESC, jobs.number LIMIT ?"
)
#: Jobs that are due and were not taken: those without a limit; those of a key.
UNLIMITED = _QUEUED.format("due", "limit_key = ''")
_OF_KEY = _QUEUED.format("limited", "limit_key != '' AND limit_key = ?")
#: Begins of attempts that have ended: of jobs that have ended since, and of such as have not.
_STARTS = """
WITH own(number) AS (
    SELECT number FROM jobs INDEXED BY limited_ends
    WHERE limit_key != '' AND ended_ms IS NOT NULL AND limit_key = ? AND ended_ms >= ?
    UNION ALL
    SELECT number FROM jobs INDEXED BY limited_tries
    WHERE limit_key != '' AND ended_ms IS NULL AND attempt > 1 AND limit_key = ?
)
SELECT began_ms FROM own CROSS JOIN attempts INDEXED BY tries USING (number)
WHERE began_ms > ? AND began_ms <= ? ORDER BY began_ms DESC LIMIT ?
"""


class Limited(NamedTuple):
    """``more``: jobs were left that could be taken. ``left`` and ``cut`` as in ``Taken``."""

    rows: list[tuple[Any, ...]]
    more: bool
    left: frozenset[str]
    cut: bool
    starts: dict[str, tuple[int, ...]]


class LimitedJobs:
    """Which keys have jobs that are due."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        #: Those whose turn is next come first.
        self._keys: dict[str, None] = {}
        self._is_known = False
        self._opened_ms = 0
        #: Keys whose starts before the store was opened were told.
        self._recalled: set[str] = set()

    def boot(self, now_ms: int) -> None:
        """The store is opened."""
        self._opened_ms = now_ms

    def undone(self) -> None:
        """A transaction was undone."""
        self._is_known = False
        self._recalled.clear()

    def reload(self) -> None:
        """Some other jobs may be due now."""
        self._is_known = False

    def add(self, keys: Iterable[str]) -> None:
        """Jobs with these were stored; empty: one without."""
        self._keys.update(dict.fromkeys(key for key in keys if key))

    def fall_due(self, now_ms: int) -> None:
        """Jobs that were delayed until now are about to be due."""
        rows = self._db.execute(
            "SELECT DISTINCT limit_key FROM jobs INDEXED BY later"
            " WHERE state = 0 AND later = 1 AND run_at_ms <= ? AND limit_key != ''",
            (now_ms,),
        )
        self.add(key for (key,) in rows)

    def _read(self) -> None:
        """The keys of the database: a look for each."""
        self._is_known = True
        key = ""
        while True:
            row = self._db.execute(
                "SELECT limit_key FROM jobs INDEXED BY limited"
                " WHERE state = 0 AND later = 0 AND limit_key != '' AND limit_key > ?"
                " ORDER BY limit_key LIMIT 1",
                (key,),
            ).fetchone()
            if row is None:
                return
            key = row[0]
            self._keys.setdefault(key)

    def take(self, wanted: TakeJobs) -> Limited:
        """The rows of jobs that may be taken."""
        if not self._is_known:
            self._read()
        n = min(wanted.limited, -(-wanted.n // 2))
        rows: list[tuple[Any, ...]] = []
        starts: dict[str, tuple[int, ...]] = {}
        served: list[str] = []
        short = False
        for key in list(self._keys):
            most = wanted.of_keys.get(key, wanted.of_others)
            if not most:
                continue
            if len(rows) >= n:
                short = True
                break
            found = self._of(key, min(most, n - len(rows)) + 1)
            got = found[: min(most, n - len(rows))]
            if len(found) > len(got):
                short = short or len(got) < most
                served.append(key)
            else:
                del self._keys[key]
            rows += got
            if got and key not in self._recalled:
                self._recalled.add(key)
                starts[key] = self._starts(key, got[-1][4], wanted.now_ms)
        for key in served:
            self._keys[key] = self._keys.pop(key)
        cut = short and n == wanted.limited
        return Limited(rows, short and not cut, frozenset(self._keys), cut, starts)

    def _starts(self, key: str, options: bytes, now_ms: int) -> tuple[int, ...]:
        """When attempts of this key began before the store was opened, in order: those that count
        for the limit in these options."""
        _, _, most, seconds = limit_in(options) or ("", 0, 0, 0.0)
        since_ms = now_ms - int(seconds * 1000)
        if not most or since_ms >= self._opened_ms:
            return ()
        rows = self._db.execute(_STARTS, (key, since_ms, key, since_ms, self._opened_ms, most))
        return tuple(sorted(began_ms for (began_ms,) in rows))

    def _of(self, key: str, n: int) -> list[tuple[Any, ...]]:
        return self._db.execute(_OF_KEY, (key, n)).fetchall()
