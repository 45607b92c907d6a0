"""The counters of a P as the worker shows them: read from any thread, without asking the P."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from gmpd.runtime.counts import BUCKETS

if TYPE_CHECKING:
    from gmpd.runtime.p import P


__all__ = ["BUCKETS", "COUNTERS", "HISTOGRAMS", "counters", "histograms", "snapshot", "unfold"]

#: The names of ``counters``, in its order. A dot makes a group; ``ns`` and ``gs.live`` are what
#: ``unfold`` computes the rest from.
COUNTERS = (
    "schedtick", "syscalltick", "runq", "held", "ms", "idle_ms", "max_ms_waits", "overruns",
    "overflows", "gs_created", "finished",
    "picks.runnext", "picks.local", "picks.global", "picks.steal", "picks.poller", "picks.timer",
    "children.out", "children.in",
    "handoffs.blocked", "handoffs.hog", "handoffs.known", "handoffs.learned",
    "gs.live", "gs.syscall", "gc.young", "gc.full", "gc.major", "ns.born", "ns.blocked",
)  # fmt: skip
#: Names of what ``histograms`` gives, in its order.
HISTOGRAMS = ("slice", "sched_latency", "gc_pause")


def counters(p: P) -> tuple[int, ...]:
    """``COUNTERS`` of a P: totals since the loop was made, and current values. About 2 µs. Any
    thread may ask; the values of one answer may be a few Gs apart.
    """
    runq, stats, controller = p.runq, p.stats, p.gc_controller
    ticks, deferred = runq.schedtick, len(p.deferred)
    blocked, known, learned = stats.handoff_blocked, stats.handoff_known, stats.handoff_learned
    passes = (0, 0, 0) if controller is None else controller.snapshot().values()
    stats.local = max(stats.local, ticks - runq.global_picks - stats.steal)
    return (
        ticks, blocked + known + learned, len(runq) + deferred, deferred,
        p.ms_count, len(p.idle_ms), stats.max_ms_waits, stats.overruns,
        runq.overflows, p.last_goid, stats.finished,
        runq.inherited, stats.local, runq.global_picks, stats.steal,
        stats.poller, stats.timer, stats.children_out, stats.children_in,
        blocked, stats.handoff_hog, known, learned,
        len(p.gs), len(p.detached), *passes,
        stats.born_ns, stats.blocked_ns,
    )  # fmt: skip


def histograms(p: P) -> list[tuple[list[int], int]]:
    """Buckets and sum (ns) of each of ``HISTOGRAMS``."""
    stats, controller = p.stats, p.gc_controller
    none: tuple[list[int], int] = [0] * BUCKETS, 0
    return [
        (stats.slice, stats.slice_sum_ns),
        (stats.sched_latency, stats.sched_latency_sum_ns),
        none if controller is None else (controller.pause, controller.pause_sum_ns),
    ]


def snapshot(p: P) -> dict[str, Any]:
    """``counters`` with names, and as the daemon's snapshot has them."""
    return unfold(counters(p), time.monotonic_ns(), *p.status_slots[1:3])


def unfold(counters: Sequence[int], now_ns: int, asleep_ns: int, slept_ns: int) -> dict[str, Any]:
    """Counters as the daemon's snapshot has them: current values, and totals.

    ``asleep_ns``: since when P sleeps, 0 when it does not; ``slept_ns``: how long it had before.
    Both from the board, not from counters of another moment: what is idle time in one and not in
    the other would be time that it ran, for as long as nothing more is counted.
    """
    out: dict[str, Any] = {}
    for name, value in zip(COUNTERS, counters, strict=True):
        group, _, key = name.rpartition(".")
        (out.setdefault(group, {}) if group else out)[key] = value
    ns, gs = out.pop("ns"), out["gs"]
    running, runnable = int(not asleep_ns), out["runq"]
    gs |= {"runnable": runnable, "running": running}
    gs["waiting"] = max(0, gs.pop("live") - runnable - running)
    idle_ns = slept_ns + (max(0, now_ns - asleep_ns) if asleep_ns else 0)
    running_ns = max(0, now_ns - ns["born"] - idle_ns - ns["blocked"])
    out["state_s"] = {
        "running": running_ns / 1e9,
        "idle": idle_ns / 1e9,
        "blocked": ns["blocked"] / 1e9,
    }
    return out
