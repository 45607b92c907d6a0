"""Administrative calls that are passed on to workers: the asked, the answers, the deadline.

A worker may be deaf (a coroutine that does not await, C code that holds the GIL) or die: then its
silence is the answer, at the latest when the time is over. Knows no socket, no clock, no status.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from gmpd.errors import ConfigError

#: Questions that may wait for workers at a time: people ask them, and each answer may be large.
OPEN_MAX = 64


def _nothing() -> None:
    pass


@dataclass(slots=True)
class FanoutCall:
    """One call that was passed on. ``peer`` and ``request`` are where its reply goes."""

    peer: bytes
    request: int
    due_ns: int
    #: Ps that have not answered.
    silent: set[int]
    answers: dict[int, Any] = field(default_factory=dict)


class Fanout:
    """All that wait for workers, by the number under which those were asked. ``changed`` is called
    when one was asked or answered: it may be over."""

    def __init__(self, changed: Callable[[], None] = _nothing) -> None:
        self._changed = changed
        self._open: dict[int, FanoutCall] = {}
        self._next = 1

    def open(self, peer: bytes, request: int, ps: Iterable[int], due_ns: int) -> int:
        """Begin one; its number. ConfigError when too many are open."""
        if len(self._open) >= OPEN_MAX:
            raise ConfigError(f"{OPEN_MAX} questions to workers wait already: ask again later")
        number = self._next
        self._next += 1
        self._open[number] = FanoutCall(peer, request, due_ns, set(ps))
        self._changed()
        return number

    def answered(self, number: int, p: int, value: Any) -> None:
        """A worker's answer; one that comes late, or was not asked for, changes nothing."""
        call = self._open.get(number)
        if call is not None and p in call.silent:
            call.silent.remove(p)
            call.answers[p] = value
            self._changed()

    def take(self, now: int, alive: Iterable[int]) -> list[FanoutCall]:
        """Those that are over: all have answered, or are not ``alive``, or the time has passed."""
        alive = set(alive)
        over = [
            number
            for number, call in self._open.items()
            if not call.silent & alive or call.due_ns <= now
        ]
        return [self._open.pop(number) for number in over]

    def next_due(self) -> int | None:
        """When the next one ends for want of an answer."""
        return min((call.due_ns for call in self._open.values()), default=None)

    def __bool__(self) -> bool:
        return bool(self._open)
