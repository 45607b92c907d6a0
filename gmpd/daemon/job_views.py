"""Running jobs as their users see them: the answers to questions about them.

A volatile job is known as long as the ledger has it, by the id that its future gives. Its result
goes to the client that submitted it, and to no other. Each answer looks at a bounded number of
jobs, so a million that wait do not hold up the coordinator.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, assert_never

import msgspec

from gmpd import protocol
from gmpd.daemon.stages import stage_of
from gmpd.errors import ConfigError
from gmpd.sched import events
from gmpd.sched.gates import Gate
from gmpd.sched.isolated import ISOLATED_FROM
from gmpd.sched.leavers import p_of
from gmpd.sched.records import Job, Session
from gmpd.sched.schedt import Sched
from gmpd.sched.states import JobState
from gmpd.sched.stored import StoredState, running
from gmpd.sched.uniques import WAITS
from gmpd.status import KeyLimit

#: States of a job that has begun.
BEGUN = frozenset({JobState.STARTED, JobState.OVERRUNNING})
#: Bytes of a volatile job's id that name its session; the rest is its number there.
KEY_BYTES = 12
_LOW = 1 << 32
#: Jobs of one page, and jobs that are looked at for it.
PAGE_MAX = 1000
SCAN_MAX = 10_000
#: The most jobs of a session that come before a page.
SKIP_MAX = 1_000_000


class JobViews:
    """``pid_of`` gives the process of the worker that has a P."""

    def __init__(self, sched: Sched, pid_of: Callable[[int], int | None]) -> None:
        self._sched = sched
        self._pid_of = pid_of

    # -- one job -----------------------------------------------------------------------------------

    def log(self, job: Job, after: int) -> dict[str, Any] | None:
        """The output of a running attempt from byte ``after`` on; None if it has not begun."""
        ring = self._sched.output.of(job)
        if ring is None:
            if job.state not in BEGUN:
                return None
            return {"data": b"", "end": 0, "runs": True, "over": False}
        return {"data": ring.since(after), "end": ring.end, "runs": True, "over": False}

    def live(self, job: Job) -> dict[str, Any]:
        """Where it runs, how far it is, and the limit that it waits for."""
        p = None if job.p is None or job.state not in BEGUN else job.p.p
        pid = None if p is None else self._pid_of(p)
        if p is not None:  # an isolated worker's number says nothing to people
            p = None if p >= ISOLATED_FROM else p_of(p)
        waits_for = None
        if job.state is JobState.LIMITED and job.options is not None and job.options.limit:
            waits_for = self.limit(job.options.limit[0])
        progress = self._sched.progress.get(job)
        stage = stage_of(self._sched, job, time.monotonic_ns())
        return {
            "p": p, "pid": pid, "progress": progress, "waits_for": waits_for, "stage": stage,
        }  # fmt: skip

    def limit(self, key: str) -> dict[str, Any] | None:
        """The limit of a key as it is now; None if no job of it is held."""
        gate = self._sched.gates.by_key.get(key)
        if gate is None:
            return None
        told: dict[str, Any] = msgspec.to_builtins(key_limit(gate, time.monotonic_ns()))
        return told

    # -- volatile jobs -----------------------------------------------------------------------------

    def find(self, ids: Iterable[bytes], owner: str | None) -> dict[bytes, Job]:
        """The volatile jobs among ``ids`` whose client is ``owner`` (None: any)."""
        sessions = {session.key: session for session in self._sessions(owner)}
        found: dict[bytes, Job] = {}
        for id_ in ids:
            session = sessions.get(id_[:KEY_BYTES].hex())
            job = None if session is None else _numbered(session, id_[KEY_BYTES:])
            if job is not None:
                found[id_] = job
        return found

    def _sessions(self, owner: str | None) -> Iterator[Session]:
        """Sessions of clients, the newest first."""
        for session in reversed(self._sched.sessions.values()):
            if _is_seen(session, owner):
                yield session

    def row(self, job: Job) -> dict[str, Any]:
        """As ``sched.stored.StoredJob``, with where it runs."""
        now_ns, wall_ms = time.monotonic_ns(), time.time_ns() // 1_000_000
        began = job.state in BEGUN
        return {
            "volatile": True, "number": None, "id": id_of(job), "function": job.fn.name,
            "client": job.session.name, "state": StoredState.QUEUED,
            "priority": job.option("priority", 0), "attempt": job.attempt, "deaths": job.deaths,
            "created_ms": wall_ms - (now_ns - job.accepted_ns) // 1_000_000,
            "run_at_ms": 0, "ended_ms": None, "expires_ms": None, "keep_ms": 0, "unique": None,
            "text": "",
            "runs_since_ms": wall_ms - (now_ns - job.leased_ns) // 1_000_000 if began else None,
            **self.live(job),
        }  # fmt: skip

    def story(self, job: Job) -> list[dict[str, Any]]:
        """The attempt that runs; of those before, nothing is kept."""
        row = self.row(job)
        since_ms = row["runs_since_ms"]
        if since_ms is None:
            return []
        ran_ms = (time.monotonic_ns() - job.leased_ns) // 1_000_000
        return [running(job.attempt, since_ms, ran_ms, job.deaths, row)]

    def volatile_log(self, job: Job, after: int) -> dict[str, Any]:
        """The output of its present attempt."""
        live = self.log(job, after) or {"data": b"", "end": 0, "runs": False, "over": False}
        return {"n": job.attempt, "last": job.attempt - 1, **live}

    def cancel(self, jobs: Iterable[Job], *, force: bool = False) -> dict[str, list[bytes]]:
        """End those that wait; ask those to end that run. The answer lists both. ``force``: also
        functions that do not stop."""
        told: dict[str, list[bytes]] = {"cancelled": [], "asked": []}
        seqs: dict[int, list[int]] = {}
        for job in jobs:
            told["cancelled" if job.state in WAITS else "asked"].append(id_of(job))
            seqs.setdefault(job.session.sid, []).append(job.seq)
        for sid, mine in seqs.items():
            self._sched.handle(events.Cancelled(sid, mine, force), time.monotonic_ns())
        return told

    def answer(self, message: protocol.AskJobs, jobs: dict[bytes, Job]) -> Any:
        """The answer to a question for these of its jobs. Raises ConfigError."""
        match message.what:
            case "find":
                return [self.row(jobs[id_]) if id_ in jobs else None for id_ in message.ids]
            case "cancel" | "force":
                return self.cancel(jobs.values(), force=message.what == "force")
            case "retry" | "remove":
                return []
            case "result" if jobs:
                raise ConfigError(
                    f"job {message.ids[0].hex()} is volatile: its result goes to the client that"
                    " submitted it, and to no other (enqueue() stores results)"
                )
            case "result":
                return False
            case "call":
                return None
            case "story":
                return [row for job in jobs.values() for row in self.story(job)]
            case "log":
                found = [self.volatile_log(job, message.after) for job in jobs.values()]
                return found[0] if found else None
            case _:
                assert_never(message.what)

    # -- lists -------------------------------------------------------------------------------------

    def page(self, params: dict[str, Any], owner: str | None) -> dict[str, Any]:
        """The question ``volatile_jobs``: rows, the newest first, and where the next page begins:
        ``next`` is None after the last. A page may be empty before that. Raises ConfigError."""
        state, limit = params.get("state"), params.get("limit", 100)
        if state not in (None, "queued", "running"):
            return {"rows": [], "next": None}
        if type(limit) is not int or not 1 <= limit <= PAGE_MAX:
            raise ConfigError(f"limit must be 1 to {PAGE_MAX}, not {limit!r}")
        at = str(params.get("after") or "")
        sid, skip = _place(at)
        wanted = str(params.get("function") or "")
        if state == "running":
            return self._running(wanted, limit, owner)
        rows: list[dict[str, Any]] = []
        looked = 0
        for session in self._sessions(owner):
            if sid and session.sid > sid:
                continue
            begin = skip if session.sid == sid else 0
            for n, job in enumerate(_newest(session, begin, SCAN_MAX - looked), begin + 1):
                looked += 1
                if (not wanted or job.fn.name == wanted) and (
                    state is None or job.state not in BEGUN
                ):
                    rows.append(self.row(job))
                if len(rows) == limit or looked == SCAN_MAX:
                    return {"rows": rows, "next": f"{session.sid}.{n}"}
        return {"rows": rows, "next": None}

    def _running(self, wanted: str, limit: int, owner: str | None) -> dict[str, Any]:
        jobs = [
            job
            for record in self._sched.records()
            for job in record.started.values()
            if (not wanted or job.fn.name == wanted) and _is_seen(job.session, owner)
        ]
        jobs.sort(key=lambda job: job.leased_ns, reverse=True)
        return {"rows": [self.row(job) for job in jobs[:limit]], "next": None}


def key_limit(gate: Gate, now: int) -> KeyLimit:
    """A limit, how much of it is used, and how many jobs of the ledger wait for it."""
    return KeyLimit(
        key=gate.key,
        at_once=gate.at_once,
        starts=gate.starts_max,
        per_s=gate.per_ns / 1e9,
        inside=gate.inside,
        started=gate.counted(now),
        waiting=len(gate.queue),
    )


def id_of(job: Job) -> bytes:
    """As its client's future gives it, in hex."""
    return bytes.fromhex(job.session.key) + (job.seq % _LOW).to_bytes(4, "big")


def _is_seen(session: Session, owner: str | None) -> bool:
    if session.parent is not None or session.patient or not session.key:
        return False
    return owner is None or session.owner == owner


def _numbered(session: Session, low: bytes) -> Job | None:
    """A job of a session by the last 32 bits of its number: those of a session are less apart."""
    if not session.jobs:
        return None
    latest = next(reversed(session.jobs))
    seq = latest - (latest - int.from_bytes(low, "big")) % _LOW
    return session.jobs.get(seq)


def _newest(session: Session, begin: int, n: int) -> Iterator[Job]:
    return islice(reversed(session.jobs.values()), begin, begin + n)


def _place(at: str) -> tuple[int, int]:
    """Where a page begins: a session, and how many of its jobs come before."""
    sid, _, skip = at.partition(".")
    if not at:
        return 0, 0
    if not sid.isdecimal() or not skip.isdecimal() or len(at) > 40 or int(skip) > SKIP_MAX:
        raise ConfigError(f"after={at!r} is not where a page ended; see `next`")
    return int(sid), int(skip)


def with_stored(volatile: Any, value: Any) -> Any:
    """The answer of the store, with the one for volatile jobs that waited for it."""
    if isinstance(volatile, dict) and isinstance(value, dict):
        return {name: [*volatile[name], *value[name]] for name in volatile}
    if isinstance(volatile, list) and isinstance(value, list | tuple):
        stored = iter(value)
        return [*(next(stored) if row is None else row for row in volatile), *stored]
    return value
