"""Go's scheduler trace, in Go's format (runtime/proc.go: ``schedtrace``).

``GODEBUG=schedtrace=X`` is ``GMPD_SCHEDTRACE=X`` here: a line on stderr every X milliseconds. The
tools that read Go's lines read these. Nothing is stopped for a look: the numbers of one line may be
a step apart. ``needspinning`` is always 0, as nothing is asked to spin.
"""

from __future__ import annotations

import os
import time
from _thread import allocate_lock, start_new_thread
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from gmpd.runtime.gstate import on_ms, status_of
from gmpd.runtime.m import OWN_THREADS
from gmpd.runtime.stacks import Dump, chosen, count_gs, wait_reason
from gmpd.sched.g import GStatus
from gmpd.timeouts import wait_s

if TYPE_CHECKING:
    from gmpd.runtime.p import M, P

_IDLE, _RUNNING = 0, 1  # Go: _Pidle, _Prunning


class Counts(NamedTuple):
    """The numbers of one line. ``queues`` and ``ticks`` have one for each P."""

    idleprocs: int
    threads: int
    spinningthreads: int
    idlethreads: int
    runqueue: int
    queues: Sequence[int]
    ticks: Sequence[int]


def line(elapsed_ms: int, counts: Counts) -> str:
    """The line of ``schedtrace``, without its end."""
    queues = " ".join(map(str, counts.queues))
    ticks = " ".join(map(str, counts.ticks))
    return f"{_start(elapsed_ms, counts)} [ {queues} ] schedticks=[ {ticks} ]"


def header(elapsed_ms: int, counts: Counts) -> str:
    """The first line of ``scheddetail``."""
    return (
        f"{_start(elapsed_ms, counts)} gcwaiting=false nmidlelocked=0 stopwait=0 sysmonwait=false"
    )


def _start(elapsed_ms: int, counts: Counts) -> str:
    return (
        f"SCHED {elapsed_ms}ms: gomaxprocs={len(counts.queues)} idleprocs={counts.idleprocs}"
        f" threads={counts.threads} spinningthreads={counts.spinningthreads} needspinning=0"
        f" idlethreads={counts.idlethreads} runqueue={counts.runqueue}"
    )


def counts_of(p: P) -> Counts:
    """Counts of a P without a daemon. Any thread may ask."""
    return Counts(
        idleprocs=int(p.is_idle),
        threads=p.ms_count + OWN_THREADS,
        spinningthreads=0,
        idlethreads=len(p.idle_ms),
        runqueue=len(p.runq.global_),
        queues=[len(p.runq.ring)],
        ticks=[p.runq.schedtick],
    )


def details(p: P, number: int, limit: int, nbytes: int) -> Dump:
    """The lines of ``scheddetail`` for one P, its Ms (the newest first), and at most ``limit`` of
    its Gs, in ``nbytes`` of text. Any thread may ask. Ms and Gs are numbered for each P.
    """
    lines = [_of_p(p, number), *_of_ms(p, number)]
    left, shown = nbytes - sum(map(len, lines)), 0
    beside = on_ms(p)
    for g in chosen(p, limit, beside):
        lines.append(_of_g(g, beside.get(g)))
        left -= len(lines[-1]) + 1
        if left < 0:
            lines.pop()
            break
        shown += 1
    return Dump("\n".join(lines) + "\n", max(shown, count_gs(p)), shown)


def _of_p(p: P, number: int) -> str:
    owner, stats = p.owner, p.stats
    handoffs = stats.handoff_blocked + stats.handoff_known + stats.handoff_learned
    return (
        f"  P{number}: status={_IDLE if p.is_idle else _RUNNING} schedtick={p.runq.schedtick}"
        f" syscalltick={handoffs} m={'nil' if owner is None else owner.id}"
        f" runqsize={len(p.runq.ring)} gfreecnt=0"
        f" timerslen={len(p.loop._scheduled) + len(p.sleepers)}"
    )


def _of_ms(p: P, number: int) -> Iterator[str]:
    owner, idle = p.owner, set(p.idle_ms)
    ms = {*idle, *p.detached, *(m for m in (owner, p.home, p.m0) if m is not None)}
    for m in sorted(ms, key=lambda m: -m.id):
        g = m.g
        blocked = m in idle or (g is None and m is not owner)
        yield (
            f"  M{m.id}: p={number if m is owner else 'nil'} curg={'nil' if g is None else g.id}"
            " mallocing=0 throwing=0 preemptoff= locks=0 dying=0 spinning=false"
            f" blocked={str(blocked).lower()} lockedg=nil"
        )


def _of_g(g: Any, m: M | None) -> str:
    status = status_of(g, m)
    if m is not None:
        reason = m.wait_reason or ""
    else:
        reason = wait_reason(g._fut_waiter) if status is GStatus.WAITING else ""
    return f"  G{g.id}: status={status:d}({reason}) m={'nil' if m is None else m.id} lockedm=nil"


@contextmanager
def printed(p: P, every_ms: int) -> Iterator[None]:
    """A line on stderr now and every ``every_ms`` milliseconds, while this lasts; 0: none.

    By a thread that ``threading`` does not list: to the scheduler it is none of the program's.
    """
    if not every_ms:
        yield
        return
    stop, over = allocate_lock(), allocate_lock()
    stop.acquire()
    over.acquire()
    start_new_thread(_print, (p, every_ms, stop, over))
    try:
        yield
    finally:
        stop.release()
        over.acquire()


def _print(p: P, every_ms: int, stop: Any, over: Any) -> None:
    began = time.monotonic()
    try:
        while True:
            elapsed_ms = int((time.monotonic() - began) * 1e3)
            os.write(2, f"{line(elapsed_ms, counts_of(p))}\n".encode())
            if stop.acquire(timeout=wait_s(every_ms / 1e3)):
                return
    except OSError:  # there is no stderr any more
        return
    finally:
        over.release()
