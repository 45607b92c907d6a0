"""Schedules of periodic jobs in their table of the database of durable jobs.

It begins and ends no transaction: ``sqlite_store`` does.
"""

from __future__ import annotations

import sqlite3
from typing import Any, assert_never

import msgpack

from gmpd.sched.stored import (
    GONE,
    DropSchedule,
    LoadSchedules,
    SaveSchedule,
    StoredSchedule,
    StoredState,
)

_TABLE = """
CREATE TABLE IF NOT EXISTS schedules (
    name TEXT PRIMARY KEY, ticks TEXT NOT NULL, decided_ms INTEGER NOT NULL, pending BLOB NOT NULL,
    tick_ms INTEGER NOT NULL, job BLOB NOT NULL, outcome TEXT NOT NULL, text TEXT NOT NULL,
    skipped INTEGER NOT NULL, missed INTEGER NOT NULL, paused INTEGER NOT NULL
) WITHOUT ROWID
"""


class ScheduleTable:
    """The schedules of an open database."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def boot(self) -> None:
        """A database of an earlier time has none."""
        self._db.execute(_TABLE)

    def do(
        self, operation: LoadSchedules | SaveSchedule | DropSchedule
    ) -> tuple[StoredSchedule, ...] | None:
        """Apply one operation."""
        match operation:
            case LoadSchedules():
                return self._load()
            case SaveSchedule(schedule):
                self.save(schedule)
            case DropSchedule(name):
                self._db.execute("DELETE FROM schedules WHERE name = ?", (name,))
            case _:
                assert_never(operation)
        return None

    def save(self, row: StoredSchedule) -> None:
        """Store one, new or changed."""
        self._db.execute(
            "INSERT OR REPLACE INTO schedules VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                row.name, row.when, row.decided_ms, msgpack.packb(row.pending), row.tick_ms,
                row.job, row.outcome, row.text, row.skipped, row.missed, row.paused,
            ),
        )  # fmt: skip

    def _load(self) -> tuple[StoredSchedule, ...]:
        """With the ends of jobs that are not in the rows yet: the daemon died in between."""
        rows = self._db.execute(
            "SELECT schedules.*, jobs.state, jobs.ended_ms, jobs.text FROM schedules"
            " LEFT JOIN jobs ON schedules.job = jobs.id ORDER BY name"
        )
        return tuple(_schedule(*row) for row in rows)


def _schedule(*columns: Any) -> StoredSchedule:
    (
        name, when, decided_ms, pending, tick_ms, job, outcome, text, skipped, missed, paused,
        state, ended_ms, its_text,
    ) = columns  # fmt: skip
    if job and not outcome and state is None:
        outcome = GONE
    elif job and not outcome and ended_ms is not None:
        outcome, text = StoredState(state).name.lower(), its_text
    return StoredSchedule(
        name, when, decided_ms, tuple(msgpack.unpackb(pending)), tick_ms, job, outcome, text,
        skipped, missed, bool(paused),
    )  # fmt: skip
