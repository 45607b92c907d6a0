"""Durable jobs in the tables of one SQLite database: every operation of ``sched.stored``.

It begins and ends no transaction: ``sqlite_store`` does.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from itertools import groupby
from typing import Any, assert_never

import msgpack

from gmpd.daemon.sqlite_blocked import BlockedJobs
from gmpd.daemon.sqlite_cron import ScheduleTable
from gmpd.daemon.sqlite_limited import UNLIMITED, LimitedJobs
from gmpd.daemon.sqlite_rows import run_numbers, run_rows
from gmpd.daemon.sqlite_schema import JOB_COLUMNS, job_of, pack_buffers, unpack_buffers
from gmpd.daemon.sqlite_uniques import UniqueJobs
from gmpd.sched.stored import (
    Again,
    Answer,
    Attempt,
    CancelJobs,
    Count,
    DropSchedule,
    Ended,
    Find,
    Finish,
    GiveBack,
    ListJobs,
    LoadSchedules,
    NewJob,
    Operation,
    PutJobs,
    PutResult,
    QueuedJob,
    ReadCall,
    ReadLog,
    Remove,
    Results,
    Retry,
    Revive,
    SaveSchedule,
    StoredCall,
    StoredFunction,
    StoredJob,
    StoredLog,
    StoredResult,
    StoredState,
    Story,
    Survey,
    Sweep,
    Swept,
    TakeJobs,
    Taken,
    Unblock,
    Verdict,
)


class JobTables:
    """The jobs of an open database. ``boot`` comes first."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._schedules = ScheduleTable(db)
        self.next_number = 1
        self.limited = LimitedJobs(db)
        self.blocked = BlockedJobs(db, self.limited.reload)
        self.uniques = UniqueJobs(db, self._finish, self.limited.reload)

    def boot(self, now_ms: int) -> None:
        """The first thing in a new process: jobs that were leased run again, or, if they must not,
        end as unknown."""
        self._db.execute("CREATE TEMP TABLE taken (number INTEGER PRIMARY KEY)")
        self._db.execute(
            "UPDATE jobs SET state = ?, ended_ms = ?, forget_ms = ? + keep_ms,"
            " outcome = 'lost', text = ?"
            " WHERE state = ?",
            (
                StoredState.UNKNOWN, now_ms, now_ms,
                "the daemon ended when it may have begun, and once=True forbids a second run",
                StoredState.LEASED,
            ),
        )  # fmt: skip
        self._schedules.boot()
        self.limited.boot(now_ms)
        self._unblock()
        self.uniques.boot(now_ms)
        self._drop_unused_functions()
        row = self._db.execute("SELECT max(number) FROM jobs").fetchone()
        self.next_number = (row[0] or 0) + 1

    def reload(self) -> None:
        """A transaction was undone."""
        self.blocked.reload()
        self.limited.undone()
        self.uniques.reload()

    def _unblock(self) -> None:
        """Modules that could not be imported may be there now."""
        self.limited.reload()
        self._db.execute("UPDATE jobs SET state = 0, later = 0 WHERE state = 2")

    def _drop_unused_functions(self) -> None:
        """Functions, and parts of programs, that no job needs."""
        used = {digest for (digest,) in self._db.execute("SELECT DISTINCT function FROM jobs")}
        used = {function.digest for function in self._functions(used)}
        every = [digest for (digest,) in self._db.execute("SELECT digest FROM functions")]
        self._db.executemany(
            "DELETE FROM functions WHERE digest = ?",
            [(digest,) for digest in every if digest not in used],
        )

    def do_all(self, batch: Sequence[Operation]) -> list[Answer]:
        """Apply operations in order. New jobs that many clients sent one by one are stored
        together."""
        answers: list[Answer] = []
        for take, same in groupby(batch, key=_how_put):
            operations = list(same)
            if take is None or len(operations) == 1:
                answers += map(self.do, operations)
            else:
                answers += self._put_together([op for op in operations if isinstance(op, PutJobs)])
        return answers

    def _put_together(self, operations: Sequence[PutJobs]) -> Iterator[PutResult]:
        functions = dict.fromkeys(each for op in operations for each in op.functions)
        jobs = tuple(job for op in operations for job in op.jobs)
        put = self._put(PutJobs(tuple(functions), jobs, operations[0].take))
        at = 0
        for operation in operations:
            end = at + len(operation.jobs)
            own = put.verdicts[at:end], put.numbers[at:end], put.ids[at:end]
            yield PutResult(*own, put.replaced)
            at = end

    def do(self, operation: Operation) -> Answer:  # noqa: C901 - a case per operation
        """Apply one operation."""
        match operation:
            case PutJobs():
                return self._put(operation)
            case TakeJobs():
                return self._take(operation)
            case GiveBack(numbers, now_ms, run_at_ms):
                self._give_back(numbers, run_at_ms)
                return self.uniques.came_back(numbers, now_ms)
            case Finish():
                self._finish(operation.rows)
                ran = (StoredState.DONE, StoredState.FAILED)
                self.blocked.ended_otherwise(r.number for r in operation.rows if r.state in ran)
                return self.uniques.have_ended(row.number for row in operation.rows)
            case Retry(again):
                self._retry(again)
                now_ms = max((row.attempt.ended_ms for row in again), default=0)
                return self.uniques.came_back((row.number for row in again), now_ms)
            case Find(ids):
                return tuple(self._find(id_) for id_ in ids)
            case Results(ids):
                return tuple(self._result(id_) for id_ in ids)
            case Story(id_):
                return self._story(id_)
            case ReadCall(id_):
                return self._read_call(id_)
            case ReadLog(id_, n):
                return self._read_log(id_, n)
            case ListJobs():
                return self._list(operation)
            case CancelJobs(ids, now_ms):
                return tuple(id_ for id_ in ids if self._cancel(id_, now_ms))
            case Revive(ids, now_ms):
                return tuple(id_ for id_ in ids if self._revive(id_, now_ms))
            case Unblock():
                self._unblock()
            case Remove(ids):
                return tuple(id_ for id_ in ids if self._remove(id_))
            case LoadSchedules() | SaveSchedule() | DropSchedule():
                return self._schedules.do(operation)
            case Sweep(now_ms, n):
                return self._sweep(now_ms, n)
            case Count(owner):
                where = "" if owner is None else " WHERE owner = ?"
                rows = self._db.execute(
                    f"SELECT state, count(*) FROM jobs{where} GROUP BY state",  # noqa: S608 - constants
                    () if owner is None else (owner,),
                )
                return {StoredState(state): n for state, n in rows}
            case Survey():
                return self.blocked.survey()
            case _:
                assert_never(operation)
        return None

    def _put(self, operation: PutJobs) -> PutResult:
        self._db.executemany(
            "INSERT OR IGNORE INTO functions VALUES (?, ?, ?, ?, ?)",
            [
                (each.digest, each.kind, each.name, each.payload, msgpack.packb(each.needs))
                for each in operation.functions
            ],
        )
        jobs = operation.jobs
        first = self.next_number
        replaced = None
        self._db.execute("SAVEPOINT put")
        inserted = self._insert(jobs, first)
        if inserted == len(jobs):
            self._db.execute("RELEASE put")
            verdicts = (Verdict.NEW,) * len(jobs)
            numbers = tuple(range(first, first + len(jobs)))
            ids = tuple(job.id for job in jobs)
        else:  # some are there already: one by one
            self._db.execute("ROLLBACK TO put")
            self._db.execute("RELEASE put")
            self.uniques.forget_replaced()
            told = [self._put_one(job) for job in jobs]
            replaced = self.uniques.take_replaced()
            verdicts = tuple(verdict for verdict, _, _ in told)
            numbers = tuple(number for _, number, _ in told)
            ids = tuple(id_ for _, _, id_ in told)
        if operation.schedule is not None and Verdict.HELD not in verdicts:
            self._schedules.save(operation.schedule)
        if operation.take:
            aside = replaced.aside if replaced else frozenset()
            self._lease(
                [
                    (number, job.once)
                    for number, job, verdict in zip(numbers, jobs, verdicts, strict=True)
                    if verdict is Verdict.NEW and job.id not in aside
                ]
            )
        return PutResult(verdicts, numbers, ids, replaced)

    def _insert(self, jobs: Sequence[NewJob], first: int, holder: bytes | None = None) -> int:
        """Insert those that are not there; how many that were. They are numbered from ``first``.
        ``holder``: the job for whose end they wait."""
        text = "" if holder is None else f"job {holder.hex()} has its unique key"
        rows = [
            (
                number, job.id, job.digest, job.function, job.client, job.owner,
                job.run_at_ms > job.created_ms if holder is None else 2, job.priority,
                job.options, job.created_ms, job.run_at_ms, job.expires_ms, job.keep_ms, job.unique,
                job.once, text, job.limit,
            )
            for number, job in enumerate(jobs, first)
        ]  # fmt: skip
        inserted = run_rows(
            self._db,
            "INSERT OR IGNORE INTO jobs VALUES",
            "(?, ?, ?, ?, ?, ?, 0, ?, ?, ?, ?, ?, ?, ?, NULL, NULL, 1, 0, 0, ?, ?, 0, '', ?, ?)",
            rows,
        )
        if inserted == len(jobs):
            payloads = [
                (number, job.payload, pack_buffers(job.buffers))
                for number, job in enumerate(jobs, first)
            ]
            run_rows(self._db, "INSERT INTO payloads VALUES", "(?, ?, ?)", payloads)
            self.next_number = first + inserted
            self.limited.add(job.limit for job in jobs)
        return inserted

    def _put_one(self, job: NewJob) -> tuple[Verdict, int, bytes]:
        row = self._db.execute(
            "SELECT number, digest, owner FROM jobs WHERE id = ?", (job.id,)
        ).fetchone()
        if row is not None:
            same = row[1:] == (job.digest, job.owner)
            return (Verdict.SAME if same else Verdict.CONFLICT), row[0], job.id
        holder = None
        if job.unique is not None and (rivals := self.uniques.rivals(job)):
            if not job.replaces:
                return Verdict.HELD, rivals[-1].number, rivals[-1].id
            holder = self.uniques.replace(rivals, job, self.next_number)
        self._insert([job], self.next_number, holder)
        return Verdict.NEW, self.next_number - 1, job.id

    def _lease(self, jobs: Sequence[tuple[int, bool]]) -> None:
        """These leave the store, until ``_untake``. The flag: ``once``."""
        numbers = [(number,) for number, _ in jobs]
        run_rows(self._db, "INSERT OR IGNORE INTO temp.taken VALUES", "(?)", numbers)
        self._db.executemany(
            "UPDATE jobs SET state = ? WHERE number = ?",
            [(StoredState.LEASED, number) for number, once in jobs if once],
        )

    def _untake(self, numbers: Sequence[int]) -> None:
        run_numbers(self._db, "DELETE FROM temp.taken WHERE number IN", numbers)

    def _take(self, operation: TakeJobs) -> Taken:
        now_ms, n = operation.now_ms, operation.n
        self.limited.fall_due(now_ms)
        self._db.execute(
            "UPDATE jobs INDEXED BY later SET later = 0"
            " WHERE state = 0 AND later = 1 AND run_at_ms <= ?",
            (now_ms,),
        )
        self.blocked.try_due(now_ms)
        limited = self.limited.take(operation)
        n -= len(limited.rows)
        rows = self._db.execute(UNLIMITED, (n + 1,)).fetchall()
        more = len(rows) > n or limited.more
        jobs, damaged = [], []
        for row in [*limited.rows, *rows[:n]]:
            job = self._whole(row, now_ms)
            damaged.append(row[1]) if job is None else jobs.append(job)
        self._lease([(job.number, job.once) for job in jobs])
        row = self._db.execute(
            "SELECT min(run_at_ms) FROM jobs INDEXED BY later WHERE state = 0 AND later = 1"
        ).fetchone()
        due = [at for at in (row[0], self.blocked.next_ms()) if at is not None]
        functions = self._functions({job.function for job in jobs})
        return Taken(
            tuple(jobs), functions, more, min(due, default=None), tuple(damaged), limited.left,
            limited.cut, limited.starts,
        )  # fmt: skip

    def _whole(self, row: tuple[Any, ...], now_ms: int) -> QueuedJob | None:
        """The job of a row; None, and the job ends, when the disk gives other bytes than it got."""
        number, id_, digest, function, options, payload, buffers, *rest = row
        buffers = unpack_buffers(buffers)
        if payload is not None and content_digest(function, options, payload, buffers) == digest:
            return QueuedJob(number, id_, function, options, payload, buffers, *rest)
        text = "its arguments on disk are damaged: it is not run"
        attempt = Attempt(rest[0], now_ms, 0, None, None, "lost", b"", text)
        self._finish([Ended(number, StoredState.FAILED, b"", (), attempt)])
        return None

    def _functions(self, digests: set[bytes]) -> tuple[StoredFunction, ...]:
        """These functions and the parts that they need, parts first."""
        found: dict[bytes, StoredFunction] = {}

        def add(digest: bytes) -> None:
            if digest in found:
                return
            row = self._db.execute(
                "SELECT kind, name, payload, needs FROM functions WHERE digest = ?", (digest,)
            ).fetchone()
            needs = tuple(msgpack.unpackb(row[3]))
            for part in needs:
                add(part)
            found[digest] = StoredFunction(digest, row[0], row[1], row[2], needs)

        for digest in sorted(digests):
            add(digest)
        return tuple(found.values())

    def _give_back(self, numbers: Sequence[int], run_at_ms: int | None) -> None:
        self._untake(numbers)
        self.limited.reload()
        if run_at_ms is not None:
            self._db.executemany(
                "UPDATE jobs SET state = 0, later = 1, run_at_ms = ? WHERE number = ?"
                " AND ended_ms IS NULL",
                [(run_at_ms, number) for number in numbers],
            )
        else:
            self._db.executemany(
                "UPDATE jobs SET state = 0 WHERE number = ? AND ended_ms IS NULL",
                [(number,) for number in numbers],
            )

    def _finish(self, rows: Sequence[Ended]) -> None:
        self._untake([row.number for row in rows])
        run_rows(
            self._db,
            "WITH ends(n, state, at_ms, attempt, us, how, why) AS (VALUES",
            "(?, ?, ?, ?, ?, ?, ?)",
            [
                (
                    row.number, row.state, row.attempt.ended_ms, row.attempt.n,
                    row.attempt.ran_us, row.attempt.outcome, row.attempt.text,
                )
                for row in rows
            ],
            ") UPDATE jobs SET state = ends.state, ended_ms = at_ms, forget_ms = at_ms + keep_ms,"
            " attempt = ends.attempt, ran_us = us, outcome = how, text = why"
            " FROM ends WHERE number = n",
        )  # fmt: skip
        results = [(row.number, row.value, pack_buffers(row.buffers)) for row in rows]
        run_rows(self._db, "INSERT OR REPLACE INTO results VALUES", "(?, ?, ?)", results)
        # A failed job keeps its arguments, as it may be asked to run again.
        done = [row.number for row in rows if row.state is StoredState.DONE]
        run_numbers(self._db, "DELETE FROM payloads WHERE number IN", done)
        self._add_attempts([(row.number, row.attempt) for row in rows])

    def _retry(self, rows: Sequence[Again]) -> None:
        self._untake([row.number for row in rows])
        self._db.executemany(
            "UPDATE jobs SET state = ?, later = 1, run_at_ms = ?, attempt = ?, deaths = ?,"
            " spared = ?, text = ? WHERE number = ? AND ended_ms IS NULL",
            [
                (
                    row.state, row.run_at_ms, row.next_attempt, row.deaths, row.spared,
                    row.attempt.text, row.number,
                )
                for row in rows
            ],
        )  # fmt: skip
        self.blocked.tried(rows)
        self._add_attempts([(row.number, row.attempt) for row in rows])

    def _add_attempts(self, attempts: Sequence[tuple[int, Attempt]]) -> None:
        run_rows(
            self._db,
            "INSERT INTO attempts VALUES",
            "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (
                    number, a.n, a.ended_ms, a.ran_us, a.p, a.pid, a.outcome, a.error, a.text,
                    a.began_ms, a.strikes, a.log_end, a.log,
                )
                for number, a in attempts
            ],
        )  # fmt: skip

    def _find(self, id_: bytes) -> StoredJob | None:
        row = self._db.execute(
            f"SELECT {JOB_COLUMNS} FROM jobs JOIN functions ON jobs.function = functions.digest"  # noqa: S608 - constants
            " WHERE id = ?",
            (id_,),
        ).fetchone()
        return None if row is None else job_of(row)

    def _list(self, operation: ListJobs) -> tuple[StoredJob, ...]:
        where: list[str] = ["1"]
        values: list[int | str] = []
        if operation.states:
            where.append(f"state IN ({', '.join('?' * len(operation.states))})")
            values += [int(state) for state in operation.states]
        if operation.function:
            where.append("functions.name = ?")
            values.append(operation.function)
        if operation.owner is not None:
            where.append("owner = ?")
            values.append(operation.owner)
        if operation.before is not None:
            where.append("jobs.number < ?")
            values.append(operation.before)
        rows = self._db.execute(
            f"SELECT {JOB_COLUMNS} FROM jobs JOIN functions ON jobs.function = functions.digest"  # noqa: S608 - constants
            f" WHERE {' AND '.join(where)} ORDER BY jobs.number DESC LIMIT ?",
            (*values, operation.limit),
        )
        return tuple(map(job_of, rows))

    def _result(self, id_: bytes) -> StoredResult | bool | None:
        row = self._db.execute(
            "SELECT ended_ms, state, value, buffers, ran_us, outcome, attempt, text FROM jobs"
            " LEFT JOIN results USING (number) WHERE id = ?",
            (id_,),
        ).fetchone()
        if row is None:
            return False
        ended_ms, state, value, buffers, *rest = row
        if ended_ms is None:
            return None
        return StoredResult(StoredState(state), value or b"", unpack_buffers(buffers), *rest)

    def _story(self, id_: bytes) -> tuple[Attempt, ...]:
        rows = self._db.execute(
            "SELECT n, attempts.ended_ms, attempts.ran_us, p, pid, attempts.outcome, error,"
            " attempts.text, began_ms, strikes, log_end FROM attempts JOIN jobs USING (number)"
            " WHERE id = ? ORDER BY attempts.rowid",
            (id_,),
        )
        return tuple(Attempt(*row) for row in rows)

    def _read_call(self, id_: bytes) -> StoredCall | None:
        row = self._db.execute(
            "SELECT payload, buffers FROM payloads"
            " WHERE number = (SELECT number FROM jobs WHERE id = ?)",
            (id_,),
        ).fetchone()
        return None if row is None else StoredCall(row[0], unpack_buffers(row[1]))

    def _read_log(self, id_: bytes, n: int | None) -> StoredLog | None:
        """Attempts have the numbers 1, 2, … again after a job was revived: the last of a number."""
        job = self._db.execute(
            "SELECT number, ended_ms IS NOT NULL FROM jobs WHERE id = ?", (id_,)
        ).fetchone()
        if job is None:
            return None
        number, is_over = job
        row = self._db.execute(
            "SELECT n FROM attempts WHERE number = ? ORDER BY rowid DESC LIMIT 1",
            (number,),
        ).fetchone()
        last = 0 if row is None else row[0]
        which = last if n is None else n
        row = self._db.execute(
            "SELECT log, log_end FROM attempts WHERE number = ? AND n = ?"
            " ORDER BY rowid DESC LIMIT 1",
            (number, which),
        ).fetchone()
        log, end = row or (b"", 0)
        return StoredLog(which, log, end, last, bool(is_over))

    def _cancel(self, id_: bytes, now_ms: int) -> bool:
        row = self._db.execute(
            "SELECT number, attempt FROM jobs WHERE id = ? AND ended_ms IS NULL"
            " AND number NOT IN (SELECT number FROM temp.taken)",
            (id_,),
        ).fetchone()
        if row is None:
            return False
        attempt = Attempt(row[1], now_ms, 0, None, None, "cancelled", b"", "")
        self._finish([Ended(row[0], StoredState.CANCELLED, b"", (), attempt)])
        return True

    def _revive(self, id_: bytes, now_ms: int) -> bool:
        changed = self._db.execute(
            "UPDATE jobs SET state = 0, later = 0, run_at_ms = ?, ended_ms = NULL,"
            " forget_ms = NULL, expires_ms = NULL, attempt = 1, deaths = 0, spared = 0, text = ''"
            " WHERE id = ? AND (ended_ms IS NOT NULL OR state = ?) AND state != ?"
            " AND number IN (SELECT number FROM payloads) AND (unique_key IS NULL OR NOT EXISTS"
            " (SELECT 1 FROM jobs AS other WHERE other.unique_key = jobs.unique_key"
            " AND other.owner = jobs.owner"
            " AND other.ended_ms IS NULL AND other.later != 2 AND other.number != jobs.number))",
            (now_ms, id_, StoredState.BLOCKED, StoredState.DONE),
        ).rowcount
        self.limited.reload()
        self._db.execute(
            "DELETE FROM results WHERE number = (SELECT number FROM jobs WHERE id = ?) AND ?",
            (id_, changed),
        )
        return bool(changed)

    def _remove(self, id_: bytes) -> bool:
        row = self._db.execute(
            "SELECT number FROM jobs WHERE id = ? AND ended_ms IS NOT NULL", (id_,)
        ).fetchone()
        if row is None:
            return False
        self._forget([row[0]])
        return True

    def _forget(self, numbers: Sequence[int]) -> None:
        for table in ("jobs", "payloads", "results", "attempts"):
            self._db.executemany(
                f"DELETE FROM {table} WHERE number = ?",  # noqa: S608 - constants
                [(number,) for number in numbers],
            )

    def _sweep(self, now_ms: int, n: int) -> Swept:
        expired = self._db.execute(
            "SELECT number, id, attempt FROM jobs INDEXED BY expiring"
            " WHERE state = 0 AND expires_ms <= ?"
            " AND number NOT IN (SELECT number FROM temp.taken) LIMIT ?",
            (now_ms, n),
        ).fetchall()
        text = "it could not begin before its expires"
        self._finish(
            [
                Ended(
                    number, StoredState.EXPIRED, b"", (),
                    Attempt(attempt, now_ms, 0, None, None, "expired", b"", text),
                )
                for number, _, attempt in expired
            ]
        )  # fmt: skip
        old = self._db.execute(
            "SELECT number FROM jobs WHERE forget_ms <= ? LIMIT ?", (now_ms, n)
        ).fetchall()
        self._forget([number for (number,) in old])
        row = self._db.execute(
            "SELECT min(at) FROM (SELECT min(forget_ms) AS at FROM jobs WHERE forget_ms IS NOT NULL"
            " UNION ALL SELECT min(expires_ms) FROM jobs INDEXED BY expiring WHERE state = 0"
            " AND expires_ms IS NOT NULL AND number NOT IN (SELECT number FROM temp.taken))"
        ).fetchone()
        return Swept(tuple(id_ for _, id_, _ in expired), len(old), row[0])


def _how_put(operation: Operation) -> bool | None:
    """Whether it takes the jobs that it stores; None: it stores none, or a schedule with them."""
    if not isinstance(operation, PutJobs) or operation.schedule is not None:
        return None
    return operation.take


def content_digest(
    function: bytes, options: bytes, payload: bytes, buffers: Sequence[bytes]
) -> bytes:
    """The digest of a job's content, beside its id: 16 bytes."""
    digest = blake2b(function, digest_size=16)
    for part in (options, payload, *buffers):
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.digest()
