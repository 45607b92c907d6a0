"""The job, attempt, G and P that a log record was made in, as attributes of the record.

Records are what every logger, handler and format of a program shares, so the ids are put there: in
a worker by the factory of records (``install``), elsewhere by a filter that a program puts on its
handlers. A record is made by the thread and in the context that logs; a handler may run in another
one, and finds them all the same.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, NamedTuple

from gmpd.runtime.fresh import SyncCall
from gmpd.runtime.internals import running_loop
from gmpd.runtime.m import current_m
from gmpd.runtime.roots import async_job, is_job, root


class Ids(NamedTuple):
    """Texts, empty for what there is none of: a format may name each of them everywhere."""

    #: Id of the job that the code belongs to, as ``future.job_id`` and ``gmpd jobs`` show it.
    job: str
    #: The number of its attempt.
    attempt: str
    #: The number of the G that logs: the job's own, or that of a child or task, as ``gmpd stacks``.
    g: str
    #: The P of this worker, or "isolated".
    p: str
    #: The function that the G runs.
    function: str


#: Of a process that is no worker: its code may run under ``gmpd.run``, where the P is this one.
RUN_P = "0"
_NOWHERE = Ids("", "", "", "", "")


class LogFilter(logging.Filter):
    """Puts the ids of job, G and P on log records: for handlers of programs under ``gmpd.run``, and
    for workers whose factory of log records was replaced.

    The attributes are ``gmpd_job``, ``gmpd_attempt``, ``gmpd_g``, ``gmpd_p`` and ``gmpd_function``:
    texts, empty outside of a job or G. It keeps every record. In a daemon's workers all records
    have them anyway.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Add the attributes, if the record has none yet. True."""
        if "gmpd_job" not in record.__dict__:  # made elsewhere, and only handled here
            _mark(record, _worker_p)
        return True


#: The P of this worker; None: this process is none.
_worker_p: str | None = None


def install(p: str) -> None:
    """From here on all log records of this worker have the ids. Before users' modules: a factory
    that they set may call the one that it replaces."""
    global _worker_p
    _worker_p = p
    logging.setLogRecordFactory(_with_ids(logging.getLogRecordFactory(), p))


def worker_p() -> str:
    """The P of this worker as ``install`` has it; empty: this process is none."""
    return _worker_p or ""


def _with_ids(before: Callable[..., Any], p: str) -> Callable[..., logging.LogRecord]:
    def make(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record: logging.LogRecord = before(*args, **kwargs)
        _mark(record, p)
        return record

    return make


def _mark(record: logging.LogRecord, p: str | None) -> None:
    own = record.__dict__
    (
        own["gmpd_job"], own["gmpd_attempt"], own["gmpd_g"], own["gmpd_p"], own["gmpd_function"],
    ) = current_ids(p)  # fmt: skip


def current_ids(p: str | None) -> Ids:
    """The ids of the calling code. ``p``: of this worker; None: it is none."""
    m = current_m()
    plain = None if m is None else m.g
    g = plain if plain is not None else _running_g()
    # The context first: it is right also on a thread that runs for another G.
    job = root.get() or async_job.get()
    if job is None and is_job(plain):
        job = plain
    if job is not None and (type(g) is SyncCall or not hasattr(type(g), "fn_name")):
        g = job  # a part of the job that runs on another thread, or a task of another kind
    if g is None:
        return _NOWHERE if p is None else Ids("", "", "", p, "")
    id_, attempt = ("", "") if job is None else _identity(job)
    return Ids(id_, attempt, str(g.id), RUN_P if p is None else p, _name(g))


def _name(g: Any) -> str:
    try:
        return str(g.fn_name)
    except Exception:  # noqa: BLE001 - a callable of the user's may have any attributes
        return ""


def _running_g() -> Any:
    """The G whose coroutine runs on this thread; None for none, and on loops without a P."""
    loop = running_loop()
    if getattr(loop, "p", None) is None:
        return None
    return asyncio.current_task(loop)


def _identity(job: Any) -> tuple[str, str]:
    lease = getattr(job, "leased", None)
    if lease is None:
        return "", ""
    id_, attempt = lease.identity(job.token)
    return id_.hex(), str(attempt)
