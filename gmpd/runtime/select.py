"""``select`` with Go's semantics (``selectgo``): one winner, chosen uniformly among the cases that
are ready.

Go locks all channels to decide in one instant; here all channels of a select have one home and
only the M that holds its P decides, so the instant needs no lock. A G that has to wait is queued
on every channel as one Sudog per case; the first that is served takes the others out of their
queues before anything else can happen: that is the single winner. Nil channels (None) are cases
that are never ready.

Channels whose home is another worker (*far* ones) can be received from. Only its home knows whether
one is ready: so it counts as ready when the dice are cast, and is tried if it is chosen; if there
was nothing, another one that is ready is taken. When all have to wait, the far ones are asked for
at their homes, the first answer is the winner, and the others are withdrawn as cancelled receives
are. So no channel that is always ready here hides a far one.

This file knows the inner face of ``chan``, and nothing of what a channel is.
"""

from __future__ import annotations

import random
from asyncio import AbstractEventLoop
from collections.abc import Generator, Iterable
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NoReturn, TypeAlias, TypeVar

from gmpd.runtime.chan import EMPTY_HANDED, Chan
from gmpd.runtime.owner import Parker, owner_loop, wait_on_owner
from gmpd.runtime.sudog import Sudog, Wait, Waker, parks

T = TypeVar("T")

#: (index of the case that was chosen, value received or None, ok). ok is False for the end of a
#: closed channel.
Chosen: TypeAlias = tuple[int, Any, bool]

#: The result with ``default=True`` when nothing is ready.
DEFAULT: Chosen = (-1, None, False)


class RecvCase(Generic[T]):
    """``case v, ok := <-ch``."""

    __slots__ = ("ch",)

    if not TYPE_CHECKING:  # mypy finds the mistake by itself

        def __await__(self) -> NoReturn:
            raise TypeError("gmpd.recv(ch) is a case of select; to receive: `await ch.recv()`")

        __iter__ = __await__  # as `v, ok = gmpd.recv(ch)`

    def __init__(self, ch: Chan[T] | None):
        self.ch = ch

    def is_ready(self) -> bool:
        return self.ch is not None and self.ch._recv_ready()

    def now(self) -> tuple[Any, bool] | None:
        """Do it; it is ready. None of a far channel, whose home has to be tried."""
        assert self.ch is not None
        return self.ch._recv_now()

    def enqueue(self, g: Waker) -> Sudog | None:
        return None if self.ch is None else self.ch._enqueue_recv(g)

    def served(self, sg: Sudog) -> tuple[Any, bool]:
        """Its result after a wait. Errors from the home of a far channel are raised."""
        assert self.ch is not None
        return self.ch._received(sg)

    @property
    def is_far(self) -> bool:
        return self.ch is not None and self.ch.is_far

    def attempt(self, g: Waker) -> Sudog:
        """Have the home of a far channel tried."""
        sg: Sudog = self.ch.try_for(g)  # type: ignore[union-attr]
        return sg


class SendCase(Generic[T]):
    """``case ch <- value``."""

    __slots__ = ("ch", "value")

    #: A send on a far channel is refused when it is asked whether it is ready.
    is_far: ClassVar[bool] = False

    if not TYPE_CHECKING:  # mypy finds the mistake by itself

        def __await__(self) -> NoReturn:
            raise TypeError("gmpd.send(ch, v) is a case of select; to send: `await ch.send(v)`")

        __iter__ = __await__  # as `v, ok = gmpd.send(ch, v)`

    def __init__(self, ch: Chan[T] | None, value: T):
        self.ch = ch
        self.value = value

    def is_ready(self) -> bool:
        return self.ch is not None and self.ch._send_ready()

    def now(self) -> tuple[Any, bool]:
        """Do it; it is ready. Panic if the channel is closed."""
        assert self.ch is not None
        sent = self.ch._send_now(self.value)
        assert sent
        return None, True

    def enqueue(self, g: Waker) -> Sudog | None:
        return None if self.ch is None else self.ch._enqueue_send(g, self.value)

    def served(self, sg: Sudog) -> tuple[Any, bool]:
        """Its result after a wait. Panic if the channel was closed meanwhile."""
        assert self.ch is not None
        if not sg.ok:
            raise self.ch._send_error(sg)
        return None, True


Case: TypeAlias = RecvCase[Any] | SendCase[Any]


def recv(ch: Chan[T] | None) -> RecvCase[T]:
    """A case of ``select``: receive from ``ch``. None: never."""
    return RecvCase(ch)


def send(ch: Chan[T] | None, value: T) -> SendCase[T]:
    """A case of ``select``: send ``value`` on ``ch``. None: never."""
    return SendCase(ch, value)


class Selection(Sudog):
    """A G in ``select``; it is ``g`` of the Sudogs of its cases. ``elem`` becomes the one that was
    served.
    """

    __slots__ = ()
    reason: ClassVar[str] = "select"

    #: The Sudogs of the cases, in their order; None for a nil channel.
    c: list[Sudog | None]

    def ready(self, winner: Sudog, /) -> None:
        """A case was served: no other can be from now on."""
        for sg in self.c:
            if sg is not None and sg is not winner:
                sg.abandon()
        self.elem = winner
        self.ok = True
        g, self.g = self.g, None
        assert g is not None
        g.ready(self)

    def unlink(self) -> None:
        for sg in self.c:
            if sg is not None:
                sg.abandon()

    def undo(self) -> None:
        self.elem.abandon()


class Trial(Selection):
    """A G that has the homes of far channels tried: it waits for the first that had something, or
    until all had nothing, and ``elem`` is None then.
    """

    __slots__ = ()

    def ready(self, answered: Sudog, /) -> None:
        if answered.elem is not EMPTY_HANDED:
            super().ready(answered)
            return
        self.c[self.c.index(answered)] = None
        if any(sg is not None for sg in self.c):
            return
        self.ok = True
        g, self.g = self.g, None
        assert g is not None
        g.ready(self)

    def undo(self) -> None:
        if self.elem is not None:
            super().undo()


class NoCases(Selection):
    """A G in ``select()``: nothing can wake it but a cancel."""

    __slots__ = ()
    reason: ClassVar[str] = "select (no cases)"


@parks
def select(  # noqa: C901 - one frame, which a parked G keeps
    *cases: Case, default: bool = False
) -> Generator[Wait, None, Chosen]:
    """Wait until one of the cases can proceed, and do it: ``(index, value, ok)``.

    With ``default``, (-1, None, False) at once when none can. A send case gives value None and ok
    True; Panic if it is chosen and its channel is closed. Without cases, or with nil channels
    only, it waits for ever. Cancelled, it has received nothing, as ``Chan.recv``. RuntimeError if
    it has to wait on channels of different event loops, or to send on one of another worker.
    """
    index = _pick(cases)
    selection: Selection | None
    if index >= 0:
        got = cases[index].now()
        if got is not None:
            return index, got[0], got[1]
        selection = _tried(cases, index, None, default=default)
        if selection is not None:
            try:
                yield selection
            except BaseException:
                selection.abandon()
                raise
            if not selection.ok:
                raise selection.cancelled_error()
            if selection.elem is not None:
                return _served(cases, selection)
        chosen = _do_near(cases)
        if chosen is not None:
            return chosen
    if default:
        return DEFAULT
    selection = _enqueue(cases, None)
    try:
        yield selection
    except BaseException:
        selection.abandon()
        raise
    if not selection.ok:
        raise selection.cancelled_error()
    return _served(cases, selection)


def select_sync(*cases: Case, default: bool = False) -> Chosen:
    """``select`` for sync Gs and threads: blocks its caller; inside a sync G P is handed off at
    once if it has to wait.
    """

    def attempt(parker: Parker) -> Chosen | Selection:
        index = _pick(cases)
        if index < 0:
            return waiting(parker)
        got = cases[index].now()
        if got is not None:
            return index, *got
        return _tried(cases, index, parker, default=default) or without_far(parker)

    def without_far(parker: Parker) -> Chosen | Selection:
        return _do_near(cases) or waiting(parker)

    def waiting(parker: Parker) -> Chosen | Selection:
        return DEFAULT if default else _enqueue(cases, parker)

    home = _home(cases)
    outcome = wait_on_owner(home, Selection.reason, attempt)
    if isinstance(outcome, Trial) and outcome.elem is None:
        outcome = wait_on_owner(home, Selection.reason, without_far)
    return _served(cases, outcome) if isinstance(outcome, Selection) else outcome


def _pick(cases: tuple[Case, ...]) -> int:
    """Go's first pass: one of the cases that are ready, each with the same chance; -1 if none is.
    A far one may be.
    """
    ready = [index for index, case in enumerate(cases) if case.is_ready()]
    if not ready:
        return -1
    return ready[0] if len(ready) == 1 else ready[_dice(cases, len(ready))]


def _ready_near(cases: tuple[Case, ...]) -> list[int]:
    return [index for index, case in enumerate(cases) if not case.is_far and case.is_ready()]


def _do_near(cases: tuple[Case, ...]) -> Chosen | None:
    """Do one of the cases that are ready, except far ones; None if none is."""
    ready = _ready_near(cases)
    if not ready:
        return None
    index = ready[0] if len(ready) == 1 else ready[_dice(cases, len(ready))]
    got = cases[index].now()
    assert got is not None
    return index, *got


def _tried(cases: tuple[Case, ...], index: int, g: Waker | None, *, default: bool) -> Trial | None:
    """Have the far case that was chosen tried, if there is another way to continue than to wait;
    without any case that is ready here, all far ones.
    """
    if _ready_near(cases):
        tried = {index}
    elif default:
        tried = {at for at, case in enumerate(cases) if case.is_far}
    else:
        return None  # to wait is to ask them all
    loop = _home(cases)
    assert loop is not None
    trial = Trial([], loop)
    trial.g = g
    try:
        for at, case in enumerate(cases):
            if at in tried and isinstance(case, RecvCase):
                trial.c.append(case.attempt(trial))
            else:
                trial.c.append(None)
    except BaseException:
        trial.abandon()
        raise
    return trial


def _dice(cases: tuple[Case, ...], sides: int) -> int:
    """0 to sides - 1: from the loop's own ``rng`` (a ``random.Random``) if it has one, so that a
    seed repeats the run.
    """
    ch = next((case.ch for case in cases if case.ch is not None), None)
    rng = getattr(None if ch is None else ch._loop, "rng", None) or random
    return int(rng.random() * sides)


def _enqueue(cases: tuple[Case, ...], g: Waker | None) -> Selection:
    """Go's second pass: wait in the queues of all cases."""
    loop = _home(cases)
    assert loop is not None
    kind = Selection if cases else NoCases
    selection = kind([None] * len(cases), loop)
    selection.g = g
    try:
        for index in _order(cases):
            selection.c[index] = cases[index].enqueue(selection)
    except BaseException:  # the home of a far one is dead
        selection.abandon()
        raise
    return selection


def _order(cases: tuple[Case, ...]) -> Iterable[int]:
    """In which order to queue up: shuffled, as in Go, where it can be told, which is when a channel
    stands in several cases.
    """
    count = len(cases)
    if count < 2 or (count == 2 and cases[0].ch is not cases[1].ch):
        return range(count)
    if len({id(case.ch) for case in cases}) == count:
        return range(count)
    order = list(range(len(cases)))
    for at in range(len(order) - 1, 0, -1):
        other = _dice(cases, at + 1)
        order[at], order[other] = order[other], order[at]
    return order


def _served(cases: tuple[Case, ...], selection: Selection) -> Chosen:
    """Go's third pass: the result of the case that was served."""
    index = selection.c.index(selection.elem)
    value, ok = cases[index].served(selection.elem)
    return index, value, ok


def _home(cases: tuple[Case, ...]) -> AbstractEventLoop | None:
    """The one home of all channels; the caller's loop if there is none."""
    homes = {case.ch._home() for case in cases if case.ch is not None}
    if len(homes) > 1:
        raise RuntimeError(
            "select over channels of different event loops: one P cannot decide for another; "
            "make the channels in one loop, or let a G there pass the values on"
        )
    return homes.pop() if homes else owner_loop()
