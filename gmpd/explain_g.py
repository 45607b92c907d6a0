"""Why a G waits or runs: one sentence with facts, a reason code, and a hint.

Pure: a row as a worker tells it (``protocol.GRow``) and the status of its P in; an explanation out.
Jobs have ``explain``.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any, Final, NamedTuple

from gmpd.explain import seconds
from gmpd.status import PStatus


class GReason(Enum):
    """Why a G is where it is."""

    RUNNING = "running"
    BESIDE = "beside"
    BLOCKED = "blocked"
    RUNNABLE = "runnable"
    RECEIVE = "receive"
    SEND = "send"
    SELECT = "select"
    FOREVER = "forever"
    LOCK = "lock"
    SEMAPHORE = "semaphore"
    GROUP = "group"
    SIGNAL = "signal"
    SLEEP = "sleep"
    IO = "io"
    G = "g"
    AWAY = "away"
    DEAF_P = "deaf_p"
    OTHER = "other"
    ENDED = "ended"


class GExplanation(NamedTuple):
    """As ``explain.Explanation``."""

    reason: GReason
    text: str
    hint: str = ""
    facts: Mapping[str, Any] = {}


_SEE_STACK: Final = "its stack shows where"
#: Go's wait reasons: the code, the end of the sentence, the hint.
WAITS: Final[Mapping[str, tuple[GReason, str, str]]] = {
    "chan receive": (GReason.RECEIVE, "for a value from a channel", _SEE_STACK),
    "chan send": (GReason.SEND, "for room in a channel", "a receiver is slow, or gone"),
    "select": (GReason.SELECT, "for the first of several channels", _SEE_STACK),
    "select (no cases)": (
        GReason.FOREVER, "in a select without cases, which never ends", "cancel its job",
    ),
    "sync.Mutex.Lock": (GReason.LOCK, "for a mutex", "another G holds it"),
    "sync.RWMutex.RLock": (GReason.LOCK, "to read: a writer has the lock", ""),
    "sync.RWMutex.Lock": (GReason.LOCK, "to write: others have the lock", ""),
    "semacquire": (GReason.SEMAPHORE, "for a semaphore", "all its places are taken"),
    "sync.WaitGroup.Wait": (GReason.GROUP, "for the Gs of a group", ""),
    "sync.Cond.Wait": (GReason.SIGNAL, "for a signal of a condition", _SEE_STACK),
    "synctest.Wait": (GReason.SIGNAL, "until all other Gs wait", ""),
    "sleep": (GReason.SLEEP, "for the end of its sleep", ""),
    "IO wait": (
        GReason.IO, "for asyncio: a socket, a timer, or a future of a library", _SEE_STACK,
    ),
    "running in another worker": (
        GReason.AWAY, "for another worker, which took it and runs it", "",
    ),
    "syscall": (GReason.BLOCKED, "for the end of a call that gave P away", ""),
}  # fmt: skip
_OF_G: Final = "G wait (G "


def explain_g(row: Mapping[str, Any], p: PStatus) -> GExplanation:
    """``row``: of a G of ``p``."""
    found = _explained(row, p)
    facts = {
        "p": p.p, "m": row["m"], "wait_reason": row["reason"], "since_s": row["since_s"],
        "p_runs": p.running, "ahead": p.runq if row["state"] == "runnable" else None,
        **found.facts,
    }  # fmt: skip
    known = {name: value for name, value in facts.items() if value not in (None, "")}
    return found._replace(facts=known)


def _explained(row: Mapping[str, Any], p: PStatus) -> GExplanation:
    state, since_s = row["state"], row["since_s"]
    since = "" if since_s is None else f" for {seconds(since_s)}"
    thread = "" if row["m"] is None else f" on M{row['m']}"
    match state:
        case "running" if thread and p.running != row["function"]:
            text = f"it computes{thread} beside P{p.p}, as threads share an interpreter{since}"
            return GExplanation(GReason.BESIDE, text)
        case "running":
            return GExplanation(GReason.RUNNING, f"it runs on P{p.p}{thread}{since}")
        case "dead":
            return GExplanation(GReason.ENDED, "it has ended")
        case "runnable":
            return _runnable(p)
        case "syscall" if not row["reason"]:
            text = f"it blocks{thread} beside P{p.p}, which runs other Gs{since}"
            return GExplanation(GReason.BLOCKED, text, "its stack shows the call")
        case _:
            return _waiting(row["reason"], since_s)


def _waiting(reason: str, since_s: float | None) -> GExplanation:
    waits = "it waits" if since_s is None else f"it has waited {seconds(since_s)}"
    if reason.startswith(_OF_G):
        g = int(reason.removeprefix(_OF_G).rstrip(")"))
        return GExplanation(GReason.G, f"{waits} for the end of G {g}", facts={"g": g})
    code, text, hint = WAITS.get(reason, (GReason.OTHER, f"for {reason or 'something'}", ""))
    return GExplanation(code, f"{waits} {text}", hint)


def _runnable(p: PStatus) -> GExplanation:
    runs = f", which runs {p.running}" if p.running else ""
    if p.state == "deaf":
        text = f"it is ready, and P{p.p}{runs}, has made no round for {seconds(p.running_s)}"
        return GExplanation(
            GReason.DEAF_P, text, "a coroutine that computes or blocks holds up the others of its P"
        )
    ahead = f": {p.runq:,} in its run queue" if p.runq else ""
    return GExplanation(
        GReason.RUNNABLE, f"it is ready, and waits for its turn on P{p.p}{runs}{ahead}"
    )


def silence(status: PStatus) -> str:
    """Why a worker may not have answered, from its shared memory and the snapshot."""
    if not status.up:
        return f"did not answer: its state is {status.state}"
    runs = status.running
    if runs:
        return (
            f"did not answer: it has been running {runs} for {status.running_s:.1f} s,"
            " which neither awaits nor releases the GIL; gmpd status shows when it has ended"
        )
    return (
        f"did not answer, and no job is on its P; it holds {status.started} started"
        f" and {status.fresh} fresh jobs, last heard of"
        f" {status.beat_age_s:.1f} s ago"
    )
