"""The tables of durable jobs in SQLite, and what is in their columns."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

import msgpack
import msgspec

from gmpd.protocol import Options
from gmpd.sched.gates import Numbers
from gmpd.sched.stored import StoredJob, StoredState

#: ``later`` of a job: 0: it is due; 1: it waits for its time; 2: it waits for its ``unique`` key.
SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE functions (
    digest BLOB PRIMARY KEY, kind TEXT NOT NULL, name TEXT NOT NULL, payload BLOB NOT NULL,
    needs BLOB NOT NULL
) WITHOUT ROWID;
CREATE TABLE jobs (
    number INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE, digest BLOB NOT NULL,
    function BLOB NOT NULL REFERENCES functions, client TEXT NOT NULL, owner TEXT NOT NULL,
    state INTEGER NOT NULL, later INTEGER NOT NULL, priority INTEGER NOT NULL,
    options BLOB NOT NULL, created_ms INTEGER NOT NULL, run_at_ms INTEGER NOT NULL,
    expires_ms INTEGER, keep_ms INTEGER NOT NULL, ended_ms INTEGER, forget_ms INTEGER,
    attempt INTEGER NOT NULL, deaths INTEGER NOT NULL, spared INTEGER NOT NULL, unique_key TEXT,
    once INTEGER NOT NULL, ran_us INTEGER NOT NULL, outcome TEXT NOT NULL, text TEXT NOT NULL,
    limit_key TEXT NOT NULL DEFAULT ''
);
CREATE TABLE payloads (number INTEGER PRIMARY KEY, payload BLOB NOT NULL, buffers BLOB);
CREATE TABLE results (number INTEGER PRIMARY KEY, value BLOB NOT NULL, buffers BLOB);
CREATE TABLE attempts (
    number INTEGER NOT NULL, n INTEGER NOT NULL, ended_ms INTEGER NOT NULL, ran_us INTEGER NOT NULL,
    p INTEGER, pid INTEGER, outcome TEXT NOT NULL, error BLOB NOT NULL, text TEXT NOT NULL,
    began_ms INTEGER NOT NULL, strikes INTEGER NOT NULL, log_end INTEGER NOT NULL, log BLOB NOT NULL
);
CREATE INDEX due ON jobs (priority DESC, number)
    WHERE state = 0 AND later = 0 AND limit_key = '';
CREATE INDEX limited ON jobs (limit_key, priority DESC, number)
    WHERE state = 0 AND later = 0 AND limit_key != '';
CREATE INDEX limited_ends ON jobs (limit_key, ended_ms)
    WHERE limit_key != '' AND ended_ms IS NOT NULL;
CREATE INDEX limited_tries ON jobs (limit_key)
    WHERE limit_key != '' AND ended_ms IS NULL AND attempt > 1;
CREATE INDEX later ON jobs (run_at_ms) WHERE state = 0 AND later = 1;
CREATE INDEX expiring ON jobs (expires_ms) WHERE state = 0 AND expires_ms IS NOT NULL;
CREATE INDEX forgotten ON jobs (forget_ms) WHERE forget_ms IS NOT NULL;
CREATE UNIQUE INDEX held ON jobs (unique_key, owner)
    WHERE unique_key IS NOT NULL AND ended_ms IS NULL AND later != 2;
CREATE UNIQUE INDEX waiting ON jobs (unique_key, owner)
    WHERE unique_key IS NOT NULL AND ended_ms IS NULL AND later = 2;
CREATE INDEX by_owner ON jobs (owner, number) WHERE owner != '';
CREATE INDEX by_state ON jobs (state, number);
CREATE INDEX tries ON attempts (number);
"""

#: It makes a database of version 1 one of version 2.
_TO_2 = """
ALTER TABLE jobs ADD COLUMN limit_key TEXT NOT NULL DEFAULT '';
DROP INDEX due;
CREATE INDEX due ON jobs (priority DESC, number)
    WHERE state = 0 AND later = 0 AND limit_key = '';
CREATE INDEX limited ON jobs (limit_key, priority DESC, number)
    WHERE state = 0 AND later = 0 AND limit_key != '';
PRAGMA user_version = 2
"""

#: The same of version 2 and 3.
_TO_3 = """
CREATE INDEX limited_ends ON jobs (limit_key, ended_ms)
    WHERE limit_key != '' AND ended_ms IS NOT NULL;
CREATE INDEX limited_tries ON jobs (limit_key)
    WHERE limit_key != '' AND ended_ms IS NULL AND attempt > 1;
PRAGMA user_version = 3
"""

#: The same of version 3 and 4.
_TO_4 = """
DROP INDEX held;
CREATE UNIQUE INDEX held ON jobs (unique_key, owner)
    WHERE unique_key IS NOT NULL AND ended_ms IS NULL AND later != 2;
CREATE UNIQUE INDEX waiting ON jobs (unique_key, owner)
    WHERE unique_key IS NOT NULL AND ended_ms IS NULL AND later = 2;
PRAGMA user_version = 4
"""

#: Columns of ``job_of``.
JOB_COLUMNS = (
    "jobs.number, jobs.id, functions.name, client, state, priority, attempt, deaths, created_ms,"
    " run_at_ms, ended_ms, expires_ms, keep_ms, unique_key,"
    " jobs.number IN (SELECT number FROM temp.taken), text, owner, limit_key,"
    " later = 2 AND ended_ms IS NULL"
)


def upgrade(db: sqlite3.Connection) -> None:
    """Make a database of an earlier version one of this: whole, or not at all."""
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version not in (1, 2, 3):
        return
    db.execute("BEGIN IMMEDIATE")
    try:
        if version == 1:
            _execute(db, _TO_2)
            _note_limits(db)
        if version <= 2:
            _execute(db, _TO_3)
        _execute(db, _TO_4)
        db.execute("COMMIT")
    except BaseException:
        db.execute("ROLLBACK")
        raise


def _execute(db: sqlite3.Connection, statements: str) -> None:
    for statement in statements.split(";"):
        db.execute(statement)


def _note_limits(db: sqlite3.Connection) -> None:
    rows = db.execute(
        "SELECT number, options FROM jobs WHERE forget_ms IS NULL AND instr(options, ?)",
        (b"limit",),
    ).fetchall()
    limits = [(limit_in(options), number) for number, options in rows]
    db.executemany(
        "UPDATE jobs SET limit_key = ? WHERE number = ?",
        [(limit[0], number) for limit, number in limits if limit is not None],
    )


def limit_in(options: bytes) -> Numbers | None:
    """The limit in a job's options; None if there is none, or the disk gives other bytes than it
    got: that is found out when the job is taken."""
    try:
        return msgspec.msgpack.decode(options, type=Options).limit
    except (msgspec.DecodeError, RecursionError):
        return None


def pack_buffers(buffers: Sequence[bytes]) -> bytes | None:
    """The out-of-band frames of a value as one; None if it has none."""
    if not buffers:
        return None
    packed: bytes = msgpack.packb([bytes(each) for each in buffers])
    return packed


def unpack_buffers(packed: bytes | None) -> tuple[bytes, ...]:
    """The frames that ``pack_buffers`` packed."""
    return () if packed is None else tuple(msgpack.unpackb(packed))


def job_of(row: tuple[Any, ...]) -> StoredJob:
    """The job of a row of ``JOB_COLUMNS``."""
    values = list(row)
    values[4] = StoredState(values[4])
    values[14], values[18] = bool(values[14]), bool(values[18])
    return StoredJob(*values)
