"""Questions of watchers beside the status: clients, settings, registered functions,
and the picture of the queues.

It reads and changes nothing. Each answer has a bounded number of rows, so a look costs the same
whatever waits. It never looks at a user's value.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any, Protocol

from msgspec import to_builtins

from gmpd.config import KEYS, Config, Layer
from gmpd.daemon.durable import DurableJobs
from gmpd.daemon.registry import Registry
from gmpd.daemon.workers import Workers
from gmpd.sched.records import Job, PRecord
from gmpd.sched.schedt import Sched

#: Rows of one answer.
ROWS_MAX = 500
#: Jobs of each queue that the picture shows.
SHOWN = 48


class Shown(Protocol):
    """The parts of a daemon that are shown here."""

    config: Config
    sched: Sched
    workers: Workers
    durable: DurableJobs


#: Question -> what answers it.
QUESTIONS: dict[str, Callable[[Shown], Any]] = {
    "clients": lambda c: clients(c.sched),
    "config": lambda c: settings(c.config),
    "registered": lambda c: registered(c.workers.registry),
    "history": lambda c: {"events": c.sched.history.lines()},
    "picture": lambda c: picture(c.sched, c.durable.shown_id),
}


def clients(sched: Sched) -> dict[str, Any]:
    """Sessions, the newest first; workers, which are the clients of children, are left out."""
    seen = [each for each in reversed(sched.sessions.values()) if each.parent is None]
    rows = [
        {
            "sid": each.sid, "name": each.name, "key": each.owner, "jobs": len(each.jobs),
            "argument_bytes": each.nbytes, "result_bytes": each.untaken,
            "outcomes": each.delivered, "functions": len(each.functions),
            "takes_no_results": each.full, "store": each.patient,
        }
        for each in seen[:ROWS_MAX]
    ]  # fmt: skip
    return {"clients": rows, "total": len(seen)}


def settings(config: Config) -> dict[str, Any]:
    """Every key as TOML, with where its value came from; secrets are left out."""
    rows = []
    for name, key in KEYS.items():
        origin = config.origin(name)
        rows.append({
            "key": name, "value": key.literal(key.shown(config.value(name))), "doc": key.doc,
            "default": origin.layer is Layer.DEFAULT, "layer": origin.layer.value,
            "where": origin.where,
        })  # fmt: skip
    return {"settings": rows}


def registered(registry: Registry) -> dict[str, Any]:
    """Functions that may be called by name, with the options that they declare."""
    found = islice(registry.functions.values(), ROWS_MAX)
    rows = [
        {
            "name": each.name, "options": to_builtins(each.options), "expires": each.expires,
            "keep": each.keep, "once": each.once,
        }
        for each in found
    ]  # fmt: skip
    return {"functions": rows, "total": len(registry.functions)}


def picture(sched: Sched, id_of: Callable[[Job], str]) -> dict[str, Any]:
    """The queues as lists of functions, the first of each; functions go by their place in
    ``names``. ``begun``: jobs that run, wait or block, the oldest first, by the id that ``id_of``
    gives."""
    now = time.monotonic_ns()
    names: dict[str, int] = {}

    def row(job: Job) -> int:
        return names.setdefault(job.fn.name, len(names))

    def begun(record: PRecord) -> list[list[Any]]:
        jobs = islice(record.started.values(), SHOWN)
        return [[row(job), id_of(job), round(max(0, now - job.leased_ns) / 1e9, 3)] for job in jobs]

    ps = [
        {
            "p": p, "fresh": [*map(row, islice(record.fresh.values(), SHOWN))],
            "aside": len(record.set_aside()), "begun": begun(record),
        }
        for p, record in sorted(sched.ps.items())
    ]  # fmt: skip
    queue: Iterable[Job] = islice(iter(sched.queue), SHOWN)
    return {"global": [*map(row, queue)], "ps": ps, "names": list(names)}
