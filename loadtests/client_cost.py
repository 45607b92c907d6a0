"""CPU time of a job that does nothing: on client, coordinator and workers, and by part.

    python loadtests/client_cost.py

First live: 10,000 jobs at a time, then each one's ``result()``; and the same with
``concurrent.futures.wait``. The figures are CPU time of the processes with all their threads, and
how many jobs a message takes. Then the parts, each alone in this process: the fastest of some
rounds, without sockets and the switches between processes and threads, which are the rest. For two
trees: in turn, by PYTHONPATH, from an interpreter of each.
"""

from __future__ import annotations

import glob
import math
import os
import statistics
import sys
import time
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import _base, wait
from pathlib import Path
from typing import Any

import gmpd
from gmpd import protocol
from gmpd.client.defer_signals import CoreLock
from gmpd.client.futures import Waiters
from gmpd.client.held import HeldFutures
from gmpd.codec import FunctionRef, encode_call, encode_result
from gmpd.daemon.lease_run import LeaseRun
from gmpd.daemon.outcomes import OutcomeBatch
from gmpd.daemon.shm import WorkerShm
from gmpd.submit.core import SubmitCore

JOBS, ROUNDS = 10_000, 10
#: Rows of a message, and rounds, of the parts.
BATCH, TURNS = 64, 200

Row = dict[str, float]


# ---- live ----------------------------------------------------------------------------------------


def cpu_us(pid: int) -> float:
    """CPU time of a process so far."""
    ns = 0
    for thread in glob.glob(f"/proc/{pid}/task/*/schedstat"):
        try:
            ns += int(Path(thread).read_text().split()[0])
        except OSError:  # it has ended
            continue
    return ns / 1e3


def results(futures: list[Any]) -> None:
    for future in futures:
        future.result()


def live(client: gmpd.Client, await_all: Callable[[list[Any]], object]) -> Row:
    """Medians of the rounds, microseconds per job."""
    status = client.call("status")
    pids = [os.getpid(), status["pid"], *(p["pid"] for p in status["ps"])]
    rows = []
    for _ in range(ROUNDS):
        before, began = [*map(cpu_us, pids)], time.perf_counter()
        await_all([client.submit(math.sqrt, 4.0) for _ in range(JOBS)])
        wall = (time.perf_counter() - began) * 1e6
        spent = [now - then for now, then in zip(map(cpu_us, pids), before, strict=True)]
        rows.append([each / JOBS for each in (wall, spent[0], spent[1], sum(spent[2:]))])
    names = ("wall", "client", "coordinator", "workers")
    columns = zip(*rows, strict=True)
    return dict(zip(names, map(statistics.median, columns), strict=True))


def jobs_per_message(before: Any, after: Any) -> Row:
    """Of the kinds that carry them."""
    sent: Counter[str] = Counter()
    for status, sign in ((before, -1), (after, 1)):
        for kinds in status["messages"].values():
            sent.update({kind: sign * n for kind, n in kinds.items()})
    jobs = 2 * ROUNDS * JOBS
    return {kind: jobs / sent[kind] for kind in ("submit", "assign", "finished", "done")}


# ---- parts ---------------------------------------------------------------------------------------


class _Client(gmpd.Client):
    """Without daemon, socket and threads."""

    def __init__(self) -> None:
        self._requests, self._unsettled = deque(), HeldFutures()
        info = {"python": "3", "pickle": 5, "gmpd": ""}
        self._core: Any = SubmitCore(bytes(16), info, role="client", functions_max=100)
        self._core.window, self._core.batch_jobs = 1 << 30, 4096
        self._room = self._idle = Waiters()
        self._closed = self._asleep = False
        self._pending_max, self._turns, self._notified_turn = 1 << 30, 0, 0
        self._checked, self._ended = None, True
        self._core_lock = CoreLock()

    def __del__(self) -> None:
        pass

    def _flush(self) -> None:
        """It has no socket."""


def client_parts(*, waits: bool) -> Row:
    """A job on its way through the client; ``waits``: for all by ``wait``."""
    client, now = _Client(), time.process_time_ns
    row: Row = {}
    marks = [now()]

    def mark(what: str) -> None:
        marks.append(now())
        row[what] = row.get(what, 0) + (marks[-1] - marks[-2]) / JOBS / 1e3

    futures: list[Any] = [client.submit(math.sqrt, 4.0) for _ in range(JOBS)]
    mark("submit")
    client._number()
    client._core.take_outgoing()
    mark("number and pack")
    waiter: Any = None
    if waits:
        with _base._AcquireFutures(futures):
            waiter = _base._create_and_install_waiters(futures, _base.ALL_COMPLETED)  # type: ignore[attr-defined]
        mark("wait: waiters in")
    seqs, data = [each._seq for each in futures], encode_result(2.0).data
    cuts = [seqs[at : at + BATCH] for at in range(0, JOBS, BATCH)]
    done = [
        protocol.pack(protocol.Done(cut, [data] * len(cut), [1] * len(cut), None, None))
        for cut in cuts
    ]
    mark("")
    for message in done:
        client._core.receive([message])
        mark("unpack")
        client._settle()
        mark("settle")
    if waits:
        for future in futures:
            with future._condition:
                future._waiters.remove(waiter)
        mark("wait: waiters out")
    results(futures)
    mark("result")
    del row[""]
    return row


def policy() -> float:
    """Microseconds of the policy for jobs that a client submits, one P runs and the client hears
    of."""
    from gmpd.sched.events import TurnEnded
    from tests.desk import Desk

    desk = Desk(recorded=False)
    p, client = desk.ready(0), desk.client()

    def turn() -> None:
        desk.now += 100_000
        desk.sched.handle(TurnEnded(), desk.now)

    def jobs() -> None:
        desk.submit(client, BATCH)
        turn()
        while p.started or p.fresh:
            desk.finish(p)
            turn()

    for _ in range(20):
        jobs()
    return per_row(jobs)


def coordinator_parts() -> Row:
    call, data = encode_call("", (4.0,), {}).data, encode_result(2.0).data
    rows = list(range(100_000, 100_000 + BATCH))
    submit = protocol.pack(protocol.Submit(1, rows[0], None, [call] * BATCH, None))
    assign = protocol.Assign(1, rows[0], None, [call] * BATCH, None, 0, bytes(12 + 4 * BATCH))
    done = protocol.Done(rows, [data] * BATCH, [1] * BATCH, None, None)
    finished = protocol.pack(
        protocol.Finished(rows, [data] * BATCH, [1] * BATCH, [1] * BATCH, None, None)
    )

    def messages() -> None:
        protocol.unpack(submit, protocol.FROM_CLIENT)
        protocol.pack(assign)
        protocol.unpack(finished, protocol.FROM_WORKER)
        protocol.pack(done)

    return {"policy": policy(), "pack and unpack": per_row(messages)}


def per_row(fn: Callable[[], object]) -> float:
    """Microseconds for one of ``BATCH`` rows."""
    began = time.process_time_ns()
    for _ in range(TURNS):
        fn()
    return (time.process_time_ns() - began) / TURNS / BATCH / 1e3


def worker_parts() -> Row:
    from tests.unit.test_lease_run import Worker

    shm, fd = WorkerShm.create("gmpd-cost")
    os.close(fd)
    worker: Any = Worker(1)
    worker.p.runq.ring.clear()
    worker.shm, worker.claim, worker.flush = shm, shm.begin, lambda: None
    worker.fn.ref, worker.fn.gathers = FunctionRef("name", "math:sqrt"), True
    call = encode_call("", (4.0,), {}).data
    assign = protocol.pack(protocol.Assign(1, 1, None, [call] * BATCH, None, 0))
    row = {"unpack": per_row(lambda: protocol.unpack(assign, protocol.TO_WORKER))}
    token, spent, packed = 1, 0, 0
    for _ in range(TURNS):
        shm.claims.offer(token, BATCH)
        worker.fresh, worker.fn.quick_ns = BATCH, 1
        began = time.process_time_ns()
        LeaseRun(worker, worker.fn, None, token, [call] * BATCH).queue()
        while worker.p.runq.ring:
            worker.step()
        ended = time.process_time_ns()
        protocol.pack(worker.outcomes.message()[0])
        packed += time.process_time_ns() - ended
        spent += ended - began
        token += BATCH
        shm.sent(token - 1)
        shm.acknowledge(token - 1)
        worker.outcomes = OutcomeBatch()
    row["claim, call, store, settle"] = spent / TURNS / BATCH / 1e3
    row["pack"] = packed / TURNS / BATCH / 1e3
    shm.close()
    return row


def fastest(parts: Callable[[], Row]) -> Row:
    rows = [parts() for _ in range(7)]
    return {what: min(row[what] for row in rows) for what in rows[0]}


def main() -> None:
    with gmpd.Client() as client:
        results([client.submit(math.sqrt, 4.0) for _ in range(3 * JOBS)])
        before = client.call("status")
        for name, await_all in (("results", results), ("wait", wait)):
            show(f"submit, then {name}: us per job", live(client, await_all))
        show("jobs per message", jobs_per_message(before, client.call("status")))
    show("client, us per job", fastest(lambda: client_parts(waits=False)))
    show("client with wait", fastest(lambda: client_parts(waits=True)))
    show("coordinator", fastest(coordinator_parts))
    show("worker", fastest(worker_parts))


def show(what: str, row: Row) -> None:
    print(f"{what:34}", ", ".join(f"{name} {value:.2f}" for name, value in row.items()))


if __name__ == "__main__":
    sys.path.append(str(Path(__file__).parents[1]))  # last: gmpd is that of PYTHONPATH
    main()
