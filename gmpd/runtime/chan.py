"""Channels with Go's semantics (``runtime/chan.go``), for async and for sync Gs.

A waiting peer is handed the value directly; waiters are served first come, first served; a closed
channel still gives what it holds, then its end; sending on it is a Panic. A channel has a home,
the event loop where it was made or first waited on, and its state is touched there alone: no
locks. ``Chan.sync`` goes through ``owner``.

Go cannot cancel a G; asyncio can. The rule: **a cancelled receive has received nothing.** A value
that had already been handed to the receiver goes back as it was cancelled: to the receiver that
waits longest, else to the front of the buffer, where ``len`` counts it (even beyond ``cap``) and
where several such values keep the order in which they were sent. A cancelled send whose value was
already taken has sent it; nothing can undo that. Rejected: finishing the receive and raising the
cancel at the next await, as that breaks ``asyncio.timeout`` on 3.11 and 3.12, and a task group's
abort where no await follows.

This file knows nothing of ``select`` beyond the cases' needs (``_recv_ready`` and what follows
it).
"""

from __future__ import annotations

import threading
from asyncio import AbstractEventLoop
from bisect import bisect
from collections import deque
from collections.abc import Awaitable, Generator, Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NoReturn, TypeVar

from gmpd.errors import ChanClosed, Panic
from gmpd.runtime.owner import Parker, owner_loop, run_on_owner, wait_on_owner
from gmpd.runtime.sudog import Sudog, Wait, WaitQueue, Waker, parks

T = TypeVar("T")

#: Stands for a deque that is not needed yet: an empty one takes 760 bytes, and a channel would
#: have three.
NOTHING: Any = ()
#: Receivers that a close wakes in one go: about half a millisecond. And then in each round of the
#: loop, in which some 16 Gs run while asyncio's callbacks are ready, as the next go is.
CLOSE_MAX = 1024
CLOSE_MORE = 64


class _Border(threading.local):
    """The packer of values on this thread: ``router`` is the ``remote.ChanRouter`` of its worker,
    and ``packed`` are the channels that it was asked to pack.
    """

    router: Any = None
    packed: Any = NOTHING


border = _Border()


def export(ch: Chan[Any]) -> Any:
    """The pickled form of a channel: its address, where that means something."""
    if border.router is None:
        raise TypeError("only children of a G can use a channel from another worker")
    address = border.router.export(ch)
    border.packed.append(ch)
    return address


class Receiver(Sudog):
    """A G in ``recv``. ``ok`` is the serial number of the value that it was handed."""

    __slots__ = ()
    reason: ClassVar[str] = "chan receive"

    def unlink(self) -> None:
        self.c._recvq.unlink(self)

    def undo(self) -> None:
        self.c._take_back(self.elem, self.ok)


class Sender(Sudog):
    """A G in ``send``; ``elem`` is its value. A send that was served stays sent."""

    __slots__ = ()
    reason: ClassVar[str] = "chan send"

    def unlink(self) -> None:
        self.c._sendq.unlink(self)


#: ``elem`` of a Sudog that only tried to receive, and would have had to wait.
EMPTY_HANDED: Any = object()


class Chan(Generic[T]):
    """A channel of capacity ``cap`` (items; 0: a send waits for its receiver). Panic for a
    negative one.
    """

    __slots__ = (
        "__weakref__",
        "_buf",
        "_cap",
        "_closed",
        "_loop",
        "_recvq",
        "_returned",
        "_sendq",
        "_serial",
        "_spare",
    )

    #: Whether its home is another worker: a ``select`` cannot see whether it is ready.
    is_far: ClassVar[bool] = False

    def __init__(self, cap: int = 0):
        if cap < 0:
            raise Panic(f"makechan: size out of range: {cap}")
        self._cap = cap
        #: Home; None until the first wait if it was made where no loop runs.
        self._loop: Any = owner_loop()
        #: Values that no receiver was handed: at most ``cap`` sent ones, after those that cancelled
        #: receivers gave back.
        self._buf: Any = deque() if cap else NOTHING
        #: Serial numbers of the values that were given back, for those still at the front of
        #: ``_buf``.
        self._returned: Any = NOTHING
        #: Counts hand-overs to waiting receivers.
        self._serial = 0
        #: Waiting receivers: then ``_buf`` is empty. Waiting senders: then it is full.
        self._recvq: Any = NOTHING
        self._sendq: Any = NOTHING
        self._closed = False
        #: The Sudog of a receive that has returned; the next one takes it (Go keeps a cache per P).
        #: No G refers to it: a G drops its reference when it is resumed.
        self._spare: Any = None

    # ---- public attributes -------------------------------------------------------------------

    @property
    def cap(self) -> int:
        """Capacity in items."""
        return self._cap

    @property
    def closed(self) -> bool:
        """Whether it was closed; it may still hold values."""
        return self._closed

    @property
    def sync(self) -> SyncChan[T]:
        """The same channel for sync Gs and threads: operations block the caller, and P is handed
        off at once.
        """
        return SyncChan(self)

    def __len__(self) -> int:
        return len(self._buf)

    def __bool__(self) -> bool:
        return True  # an empty channel is still a channel: `if ch:` asks whether there is one

    def __reduce__(self) -> Any:
        return export(self)

    def __repr__(self) -> str:
        state = " closed" if self._closed else ""
        return f"<Chan {id(self):#x} {len(self._buf)}/{self._cap}{state}>"

    # ---- for async Gs -----------------------------------------------------------------------

    # The locals and the stack of these two are kept small: a parked G has them for its lifetime.

    @parks
    def send(self, value: T) -> Generator[Wait, None, None]:
        """Send, waiting until a receiver or the buffer takes it (Go: ``chansend``). Panic on a
        closed channel.

        Cancelled while it waits: the value was not sent. Cancelled after it was taken, before this
        G ran again: it was.
        """
        if self._closed:
            raise Panic("send on closed channel")
        recvq = self._recvq
        while recvq:
            sg = recvq.popleft()
            g = sg.g
            if g is not None:
                sg.g = None
                sg.elem = value
                self._serial = sg.ok = self._serial + 1
                g.ready(sg)
                return
            recvq.dead -= 1
        if len(self._buf) < self._cap:
            self._buf.append(value)
            return
        sg = self._new_sender(value)
        self._sendq.append(sg)
        try:
            yield sg
        except BaseException:
            sg.abandon()
            raise
        if not sg.ok:
            raise self._send_error(sg)

    @parks
    def recv(self, _end: type[Exception] = ChanClosed) -> Generator[Wait, None, T]:
        """Receive, waiting for a value (Go: ``chanrecv``). ChanClosed once the channel is closed
        and drained.

        Cancelled, it has received nothing: see the module's text. (``_end`` is for ``async for``.)
        """
        queue = self._buf
        if queue:
            got = queue.popleft()
            if self._sendq or self._returned:
                self._taken()
            return got  # type: ignore[no-any-return]
        queue = self._sendq
        while queue:
            sg = queue.popleft()
            got = sg.g
            if got is not None:  # a G that waits with its value
                sg.g = None
                sg.ok = True
                got.ready(sg)
                return sg.elem  # type: ignore[no-any-return]
            queue.dead -= 1
        if self._closed:
            raise _end("receive from a channel that is closed and drained")
        sg = self._spare
        if sg is None:
            sg = self._new_receiver()
        else:
            self._spare = sg.ok = None
            sg.c = self
        self._recvq.append(sg)
        try:
            yield sg
        except BaseException:
            sg.abandon()
            raise
        if sg.ok:
            got = sg.elem
            sg.elem = sg.c = None
            self._spare = sg
            return got  # type: ignore[no-any-return]
        if sg.c is None or sg.ok is None:
            raise sg.cancelled_error()
        raise _end("receive from a channel that is closed and drained")

    @parks
    def recv_ok(self) -> Generator[Wait, None, tuple[T | None, bool]]:
        """Receive as in Go's ``v, ok := <-ch``: (None, False) once the channel is closed and
        drained.
        """
        got = self._recv_now()
        if got is not None:
            return got
        sg = self._enqueue_recv(None)
        try:
            yield sg
        except BaseException:
            sg.abandon()
            raise
        if sg.ok:
            return sg.elem, True
        if sg.c is None or sg.ok is None:
            raise sg.cancelled_error()
        return None, False

    if not TYPE_CHECKING:  # mypy finds the mistake by itself

        def __iter__(self) -> NoReturn:
            raise TypeError(
                "a Chan is received from with `async for v in ch`, or in a plain function with"
                " `for v in ch.sync`"
            )

    def __aiter__(self) -> Chan[T]:
        return self

    def __anext__(self) -> Awaitable[T]:
        return self.recv(StopAsyncIteration)

    # ---- for any caller ---------------------------------------------------------------------

    def close(self) -> None:
        """Close: receivers get what is left, then the end; waiting senders get a Panic. Twice is a
        Panic (Go: ``closechan``).
        """
        run_on_owner(self._home(), self._close)

    def _close(self) -> None:
        if self._closed:
            raise Panic("close of closed channel")
        self._closed = True
        self._end_waits(CLOSE_MAX, self._sendq)

    def _end_waits(self, limit: int, senders: Any = NOTHING) -> None:
        """Wake those that wait for a closed channel: receivers, of which very many are woken over
        several rounds of the loop, which has others to serve. No G can tell: what comes after
        sees the channel closed anyway.

        They are made ready last first, as in Go: the one that has waited longest is in ``runnext``
        then. Of a select with several cases of this channel the first is served.
        """
        waiting: dict[int, Any] = {}
        for queue, count in (self._recvq, limit), (senders, len(senders)):
            for _ in range(min(count, len(queue))):
                sg = queue.take()
                if sg is None:
                    break
                waiting.setdefault(id(sg.g), sg)
        for sg in reversed(waiting.values()):
            g, sg.g, sg.ok = sg.g, None, False
            g.ready(sg)
        if self._recvq:
            assert self._loop is not None
            self._loop.call_soon(self._end_waits, CLOSE_MORE)

    # ---- the parts that select, sync Gs and timers share: on the P holder only -----------------

    def _recv_ready(self) -> bool:
        """Whether a receive would not wait."""
        return bool(self._buf) or self._closed or (bool(self._sendq) and self._sendq.live())

    def _send_ready(self) -> bool:
        """Whether a send would not wait (on a closed channel it panics at once)."""
        if self._closed or len(self._buf) < self._cap:
            return True
        return bool(self._recvq) and self._recvq.live()

    def _recv_now(self) -> tuple[Any, bool] | None:
        """(value, True), (None, False) at the end, or None if it had to wait."""
        if self._buf:
            value = self._buf.popleft()
            self._taken()
            return value, True
        sg = self._sendq.take() if self._sendq else None
        if sg is not None:
            g, sg.g, sg.ok = sg.g, None, True
            g.ready(sg)
            return sg.elem, True
        return (None, False) if self._closed else None

    def _receive_for(self, g: Waker) -> Sudog:
        """Receive for another worker's G: the value, or a wait. Abandoned, it goes back."""
        serial = self._returned[0] if self._returned else self._serial + 1
        got = self._recv_now()
        if got is None:
            return self._enqueue_recv(g)
        self._serial = max(self._serial, serial)
        sg = self._new_receiver()
        sg.elem = got[0]
        sg.ok = serial if got[1] else False  # type: ignore[assignment]
        return sg

    def _send_now(self, value: Any) -> bool:
        """Whether it was sent without waiting. Panic on a closed channel."""
        if self._closed:
            raise Panic("send on closed channel")
        if self._hand_over(value, self._serial + 1):
            self._serial += 1
            return True
        if len(self._buf) < self._cap:
            self._buf.append(value)
            return True
        return False

    def _hand_over(self, value: Any, serial: int) -> bool:
        """Give a value to the receiver that waits longest; False if there is none."""
        sg = self._recvq.take() if self._recvq else None
        if sg is None:
            return False
        g, sg.g, sg.elem, sg.ok = sg.g, None, value, serial
        g.ready(sg)
        return True

    def _received(self, sg: Sudog) -> tuple[Any, bool]:
        """The result of a receive in a ``select`` that waited. Any thread."""
        return sg.elem, bool(sg.ok)

    def _enqueue_recv(self, g: Waker | None) -> Sudog:
        sg = self._new_receiver()
        sg.g = g
        self._recvq.append(sg)
        return sg

    def _enqueue_send(self, g: Waker, value: Any) -> Sudog:
        sg = self._new_sender(value)
        sg.g = g
        self._sendq.append(sg)
        return sg

    # ---- seldom -----------------------------------------------------------------------------

    def _taken(self) -> None:
        """A value left the front of the buffer: was it one given back? Is there room for a waiting
        sender's?
        """
        if self._returned:
            del self._returned[0]
        if self._sendq and len(self._buf) < self._cap:
            sg = self._sendq.take()
            if sg is not None:
                self._buf.append(sg.elem)
                g, sg.g, sg.ok = sg.g, None, True
                g.ready(sg)

    def _take_back(self, value: Any, serial: int) -> None:
        """A receiver was cancelled after it was handed ``value``, before it ran."""
        if self._hand_over(value, serial):
            return
        if self._buf is NOTHING:
            self._buf = deque()
        if self._returned is NOTHING:
            self._returned = []
        at = bisect(self._returned, serial)
        self._returned.insert(at, serial)
        self._buf.insert(at, value)

    def _new_receiver(self) -> Receiver:
        if self._recvq is NOTHING:
            self._home()
            self._recvq = WaitQueue()
        return Receiver(self, self._loop)

    def _new_sender(self, value: Any) -> Sender:
        if self._sendq is NOTHING:
            self._home()
            self._sendq = WaitQueue()
        return Sender(self, self._loop, value)

    def _home(self) -> AbstractEventLoop | None:
        """The loop that the channel belongs to: the caller's, if it had none so far."""
        if self._loop is None:
            self._loop = owner_loop()
        return self._loop  # type: ignore[no-any-return]

    def _send_error(self, sg: Sudog) -> BaseException:
        """Why a send that waited was not served."""
        if sg.c is None or sg.ok is None:
            return sg.cancelled_error()
        return Panic("send on closed channel")


class SyncChan(Generic[T]):
    """``ch.sync``: the operations of a channel for sync Gs, and for any other thread. They block
    their caller.

    Inside a sync G that has to wait, P is handed off at once and the G continues without it
    afterwards. In async code that runs on the channel's own loop they work as long as they need
    not wait, else RuntimeError.
    """

    __slots__ = ("_ch",)

    def __init__(self, ch: Chan[T]):
        self._ch = ch

    def send(self, value: T) -> None:
        """As ``Chan.send``: Panic on a closed channel."""
        ch = self._ch

        def attempt(parker: Parker) -> Sudog | None:
            return None if ch._send_now(value) else ch._enqueue_send(parker, value)

        sg = wait_on_owner(ch._home(), Sender.reason, attempt)
        if sg is not None and not sg.ok:
            raise Panic("send on closed channel")

    def recv(self) -> T:
        """As ``Chan.recv``: ChanClosed once the channel is closed and drained."""
        value, ok = self.recv_ok()
        if not ok:
            raise ChanClosed("receive from a channel that is closed and drained")
        return value  # type: ignore[return-value]

    def recv_ok(self) -> tuple[T | None, bool]:
        """As ``Chan.recv_ok``: (None, False) once the channel is closed and drained."""
        ch = self._ch

        def attempt(parker: Parker) -> Sudog | tuple[Any, bool]:
            return ch._recv_now() or ch._enqueue_recv(parker)

        got = wait_on_owner(ch._home(), Receiver.reason, attempt)
        if isinstance(got, Sudog):
            return got.elem, bool(got.ok)
        return got  # type: ignore[no-any-return]

    def __iter__(self) -> Iterator[T]:
        while True:
            value, ok = self.recv_ok()
            if not ok:
                return
            yield value  # type: ignore[misc]

    def close(self) -> None:
        """As ``Chan.close``."""
        self._ch.close()

    def __len__(self) -> int:
        return len(self._ch)

    @property
    def cap(self) -> int:
        """Capacity in items."""
        return self._ch.cap
