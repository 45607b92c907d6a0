"""The states of a G, and the one table of moves between them (Go: ``runtime2.go``, ``casgstatus``).

    idle ── go ──> runnable ── execute ──> running ── return ──> dead
                      ^                     │   │ │
                      ├──── Gosched ────────┘   │ └── entersyscall ──> syscall
                      └──── ready ──── waiting <┘ gopark(reason)          │
                      (a G that lost its P ends in syscall) dead <────────┘

The runtime does not store a state: where a G is says it (in a queue, on an M, in a list of
waiters), and a store per switch would cost a tenth of it. The only follower of a G by its events,
the tracer, moves it through this table, and a move that is not in it is a bug of the runtime, shown
with the G's story.

This file knows no G, only its states.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import IntEnum
from typing import Final

from gmpd.errors import InvariantError


class GStatus(IntEnum):
    """The numbers are Go's: ``scheddetail`` prints them. Each says which part owns the G."""

    #: Made, and not shared yet.
    IDLE = 0
    #: In exactly one run queue, which owns it.
    RUNNABLE = 1
    #: On the M that holds P; the M owns it.
    RUNNING = 2
    #: On an M, in a call that blocks, with or without P; the M owns it.
    SYSCALL = 3
    #: Owned by what it waits for; carries a wait reason.
    WAITING = 4
    #: Ended. Its coroutine must not be touched.
    DEAD = 6


class GEvent(IntEnum):
    """Why a G moves; the names follow Go's execution tracer."""

    CREATE = 0
    START = 1
    #: It yielded, or its slice was over.
    STOP = 2
    BLOCK = 3
    UNBLOCK = 4
    SYSCALL_BEGIN = 5
    #: Back in Go terms: the call returned and the G still holds P, or has got one.
    SYSCALL_END = 6
    END = 7
    #: The G wrote a line into its own story (Go: ``trace.Log``), and continues.
    LOG = 8


S, E = GStatus, GEvent

#: (from, event) -> to. All others are forbidden.
MOVES: Final[dict[tuple[GStatus, GEvent], GStatus]] = {
    (S.IDLE, E.CREATE): S.RUNNABLE,
    (S.RUNNABLE, E.START): S.RUNNING,
    (S.RUNNING, E.STOP): S.RUNNABLE,
    (S.RUNNING, E.BLOCK): S.WAITING,
    (S.WAITING, E.UNBLOCK): S.RUNNABLE,
    (S.RUNNING, E.SYSCALL_BEGIN): S.SYSCALL,
    (S.SYSCALL, E.SYSCALL_END): S.RUNNING,
    (S.SYSCALL, E.END): S.DEAD,
    (S.RUNNING, E.LOG): S.RUNNING,
    (S.RUNNING, E.END): S.DEAD,
}


def transition(
    status: GStatus, event: GEvent, story: Callable[[], Iterable[object]] = tuple
) -> GStatus:
    """Where ``event`` takes a G. InvariantError, with the G's story, when it may not happen now."""
    after = MOVES.get((status, event))
    if after is None:
        told = "\n".join(f"  {line}" for line in story()) or "  (no story was kept)"
        raise InvariantError(
            f"a G that is {status.name.lower()} cannot {event.name.lower()}; what led here:\n"
            f"{told}\n"
            "This is a bug in gmpd: please report it with this text."
        )
    return after
