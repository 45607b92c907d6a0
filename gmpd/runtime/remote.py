"""Channels whose home is another worker: how a G sends to and receives from them.

A channel that goes to another worker, in the arguments of a child or as a value of a channel, stays
where it was made; a ``RemoteChan`` stands for it there. Each operation is a message to the home,
which does it as for a G of its own (``chan``): it waits in the same queue of waiters, so order and
hand-over are those of one channel.

**No value is lost.** A received value stays with the home until the receiver says that it has it
(ACK) or will never (CANCEL, also when the G was cancelled with the value already under way); then
it goes back as for a cancelled local receive. If the receiver's worker dies, so do all that it had
not confirmed. If the home dies, all waiting Gs get WorkerLost.

**Holders.** A worker tells the home with INCREF that it has a handle and with DECREF that
the last is gone. A value in transit is held by its sender: a child that is away keeps its
arguments, a send keeps its value until it is answered, a receive as above; channels in a child's
result are pinned until UNPIN, which is sent for a result that is not wanted too. So the home's
table of channels needs only weak references beside the holders.

Called by the M that holds P, except what is said to be thread-safe. It knows no socket: messages
leave by ``post`` and come in by ``received``. **In a ``select``** each receive is asked for at its
home, the first answer wins, and the others are withdrawn, as a cancelled receive is: a value that
was under way goes back. Rejected: sends in a ``select`` (a value that was taken there cannot be
taken back; a home would have to ask before each hand-over, its receiver waiting meanwhile).
"""

from __future__ import annotations

import threading
import weakref
from asyncio import AbstractEventLoop
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeAlias, assert_never

from gmpd.codec import Blob, decode, encode
from gmpd.errors import Panic, Unserializable
from gmpd.protocol import ChanOp
from gmpd.runtime import chan as chans
from gmpd.runtime.chan import Chan, Sender
from gmpd.runtime.p_callbacks import soon, soon_threadsafe
from gmpd.runtime.remotechan import NOTHING, Address, ChanMessage, RemoteChan, home_lost
from gmpd.runtime.sudog import Sudog

__all__ = [
    "Address",
    "ChanMessage",
    "ChanRouter",
    "Post",
    "RemoteChan",
    "Request",
    "Served",
    "home_lost",
]


Post: TypeAlias = Callable[[Address, ChanMessage], None]


class Request:
    """An operation of this worker at the home of its channel: ``c`` of the Sudog that waits."""

    __slots__ = ("_router", "ch", "number")

    def __init__(self, router: ChanRouter, ch: RemoteChan[Any], number: int):
        self._router = router
        #: The handle lives at least as long as what was asked through it.
        self.ch = ch
        self.number = number

    def cancel(self) -> None:
        """It has no waiter any more; its answer is dropped."""
        self._router.withdraw(self)


class Served:
    """An operation of another worker's G, at home: the ``g`` of its Sudog."""

    __slots__ = ("_router", "far", "number", "req", "sg")

    def __init__(self, router: ChanRouter, far: Address, number: int, req: int):
        self._router = router
        self.far = far
        self.number = number
        self.req = req
        self.sg: Sudog | None = None

    def ready(self, _sg: Sudog, /) -> None:
        # The serving thread may hold a lock, and packing a value runs user code: a little later.
        soon(self._router.loop, self._router.answer, self)


class ChanRouter:
    """Channels of this worker that others hold, and those of others that are held here.

    ``me`` is this worker, ``post`` sends a message to another one; no value may have more than
    ``value_bytes``.
    """

    def __init__(self, me: Address, loop: AbstractEventLoop, post: Post, value_bytes: int):
        self.me = me
        self.loop = loop
        self._post = post
        self._value_bytes = value_bytes
        self._lock = threading.RLock()
        self._last_chan = self._last_req = 0
        #: Channels of ours that were told about, by number, and their numbers.
        self._exported: dict[int, weakref.ref[Chan[Any]]] = {}
        self._numbers: weakref.WeakKeyDictionary[Chan[Any], int] = weakref.WeakKeyDictionary()
        #: Channels that other workers hold, and their holders.
        self._held: dict[int, tuple[Chan[Any], set[Address]]] = {}
        #: Operations of others here that are not over.
        self._served: dict[tuple[Address, int], Served] = {}
        #: Channels of others: the one handle of each.
        self._handles: weakref.WeakValueDictionary[tuple[Address, int], RemoteChan[Any]] = (
            weakref.WeakValueDictionary()
        )
        #: Waiters for an answer; ``c`` is a Request.
        self._requests: dict[int, Sudog] = {}
        #: Channels in results that are on their way, by receiver and number.
        self._pinned: dict[tuple[Address, int], list[Chan[Any]]] = {}
        self._last_pin = 0
        self._dead: set[Address] = set()

    @property
    def is_held(self) -> bool:
        """Whether another worker has a channel of ours, or a result with one is on its way."""
        return bool(self._held or self._pinned)

    # ---- packing ------------------------------------------------------------------------------

    @contextmanager
    def open(self) -> Iterator[list[Chan[Any]]]:
        """Inside, on this thread, channels may be packed and unpacked; those that were packed
        gather in the list. Thread-safe.
        """
        border = chans.border
        before = border.router, border.packed
        packed: list[Chan[Any]] = []
        border.router, border.packed = self, packed
        try:
            yield packed
        finally:
            border.router, border.packed = before

    def export(self, ch: Chan[Any]) -> tuple[Any, tuple[int, int, int, int]]:
        """The pickled form of a channel. TypeError for one of another loop. Thread-safe."""
        if isinstance(ch, RemoteChan):
            return import_chan, (*ch.home, ch.number, ch.cap)
        with self._lock:
            if ch._home() is not self.loop:
                raise TypeError(f"{ch!r} belongs to another event loop than this worker's")
            number = self._numbers.get(ch)
            if number is None:
                number = self._last_chan = self._last_chan + 1
                self._numbers[ch] = number
                self._exported[number] = weakref.ref(ch, partial(self._collected, number))
        return import_chan, (*self.me, number, ch.cap)

    def _collected(self, number: int, _ref: object) -> None:
        self._exported.pop(number, None)

    def find(self, home: Address, number: int, cap: int) -> Chan[Any]:
        """The channel of that number, or its RemoteChan here. Unserializable if it is gone."""
        if home == self.me:
            ch = self._at_home(number)
            if ch is None:
                raise Unserializable(
                    f"channel {number} of P{home[0]} is gone: no handle of it was left"
                )
            return ch
        handle = self._handles.get((home, number))
        if handle is None:
            handle = self._handles[home, number] = RemoteChan(self, home, number, cap)
            weakref.finalize(handle, self._let_go, home, number).atexit = False
            if home not in self._dead:
                self._post(home, ChanMessage(ChanOp.INCREF, number))
        return handle

    def _at_home(self, number: int) -> Chan[Any] | None:
        ref = self._exported.get(number)
        return None if ref is None else ref()

    def _let_go(self, home: Address, number: int) -> None:
        """A handle was collected, on whatever thread."""
        try:
            soon_threadsafe(self.loop, self._release, home, number)
        except RuntimeError:  # the loop is closed: this worker ends
            pass

    def _release(self, home: Address, number: int) -> None:
        if (home, number) not in self._handles and home not in self._dead:
            self._post(home, ChanMessage(ChanOp.DECREF, number))

    def pin(self, to: Address, channels: list[Chan[Any]]) -> list[int]:
        """Keep the channels of a result until it has arrived at ``to``: what ``unpin`` there needs
        to be told.
        """
        self._last_pin += 1
        if to not in self._dead:
            self._pinned[to, self._last_pin] = channels
        return [*self.me, self._last_pin]

    def unpin(self, pinned: list[int]) -> None:
        """A result with channels has arrived, and is unpacked, or never will be."""
        p, epoch, number = pinned
        owner = p, epoch
        if owner == self.me:
            self._pinned.pop((owner, number), None)
        elif owner not in self._dead:
            self._post(owner, ChanMessage(ChanOp.UNPIN, 0, number))

    # ---- asking -------------------------------------------------------------------------------

    def ask(self, ch: RemoteChan[Any], op: ChanOp, sg: Sudog, blob: Blob = NOTHING) -> None:
        """Send an operation to the home; ``sg`` waits for its answer. WorkerLost if it is dead."""
        self.check(ch)
        self._last_req += 1
        sg.c = Request(self, ch, self._last_req)
        self._requests[self._last_req] = sg
        self._post(ch.home, ChanMessage(op, ch.number, self._last_req, 0, blob))

    def tell(self, ch: RemoteChan[Any], op: ChanOp) -> None:
        """Send an operation that is not answered."""
        if ch.home not in self._dead:
            self._post(ch.home, ChanMessage(op, ch.number))

    def check(self, ch: RemoteChan[Any]) -> None:
        if ch.home in self._dead:
            raise home_lost(ch)

    def accept(self, request: Request) -> None:
        """The G has what it received: the home may forget it."""
        if request.ch.home not in self._dead:
            message = ChanMessage(ChanOp.ACK, request.ch.number, request.number)
            self._post(request.ch.home, message)

    def withdraw(self, request: Request) -> None:
        """The G was cancelled, with or without an answer."""
        self._requests.pop(request.number, None)
        home = request.ch.home
        if home not in self._dead:
            self._post(home, ChanMessage(ChanOp.CANCEL, request.ch.number, request.number))

    # ---- messages ------------------------------------------------------------------------------

    def received(self, source: Address, message: ChanMessage) -> None:
        """A message came: a request to the home, or an answer."""
        match message.op:
            case ChanOp.INCREF | ChanOp.DECREF | ChanOp.CLOSE:
                self._about(source, message)
            case ChanOp.RECV | ChanOp.TRY_RECV | ChanOp.SEND | ChanOp.LEN | ChanOp.CLOSE_ASKED:
                self._serve(source, message)
            case ChanOp.UNPIN:
                self._pinned.pop((source, message.req), None)
            case ChanOp.ACK:
                self._served.pop((source, message.req), None)
            case ChanOp.CANCEL:
                served = self._served.pop((source, message.req), None)
                if served is not None and served.sg is not None:
                    served.sg.abandon()
            case (
                ChanOp.VALUE
                | ChanOp.DONE
                | ChanOp.END
                | ChanOp.EMPTY
                | ChanOp.PANIC
                | ChanOp.REFUSED
            ):
                self._answered(message)
            case _:
                assert_never(message.op)

    def _about(self, source: Address, message: ChanMessage) -> None:
        ch = self._at_home(message.chan)
        if message.op is ChanOp.DECREF:
            held = self._held.get(message.chan)
            if held is not None:
                held[1].discard(source)
                if not held[1]:
                    del self._held[message.chan]
        elif ch is None:
            return  # later operations through that handle get the error
        elif message.op is ChanOp.INCREF:
            self._held.setdefault(message.chan, (ch, set()))[1].add(source)
        elif not ch.closed:
            ch._close()

    def _serve(self, source: Address, message: ChanMessage) -> None:
        """Serve the request of a G of another worker, or let it wait in the channel's queue."""
        ch = self._at_home(message.chan)
        served = Served(self, source, message.chan, message.req)
        if ch is None:
            self._refuse(served, f"channel {message.chan} of P{self.me[0]} is gone")
            return
        try:
            self._begin(ch, served, message)
        except Panic as panic:
            self._reply(served, ChanOp.PANIC, encode(str(panic)))
        except Exception as exc:  # noqa: BLE001 - user code rebuilds the value
            self._refuse(served, f"the value cannot be rebuilt on P{self.me[0]}: {exc}")

    def _begin(self, ch: Chan[Any], served: Served, message: ChanMessage) -> None:
        match message.op:
            case ChanOp.LEN:
                self._reply(served, ChanOp.DONE)
            case ChanOp.CLOSE_ASKED:
                ch._close()
                self._reply(served, ChanOp.DONE)
            case ChanOp.SEND:
                value = self._unpack(message.blob)
                if ch._send_now(value):
                    self._reply(served, ChanOp.DONE)
                else:
                    served.sg = ch._enqueue_send(served, value)
                    self._served[served.far, served.req] = served
            case ChanOp.TRY_RECV if not ch._recv_ready():
                self._reply(served, ChanOp.EMPTY)
            case _:
                self._served[served.far, served.req] = served
                served.sg = ch._receive_for(served)
                if served.sg.g is None:
                    self.answer(served)

    def answer(self, served: Served) -> None:
        """The operation of a G elsewhere has succeeded."""
        key = served.far, served.req
        sg = served.sg
        if sg is None or self._served.get(key) is not served:
            return  # cancelled meanwhile
        if isinstance(sg, Sender):
            del self._served[key]
            if sg.ok:
                self._reply(served, ChanOp.DONE)
            else:
                self._reply(served, ChanOp.PANIC, encode("send on closed channel"))
        elif not sg.ok:
            del self._served[key]
            self._reply(served, ChanOp.END)
        else:
            self._give(served, sg)

    def _give(self, served: Served, sg: Sudog) -> None:
        try:
            blob = self.pack(sg.elem)
        except Unserializable as exc:
            del self._served[served.far, served.req]
            sg.abandon()  # it goes back: a G at home can receive it
            self._refuse(served, str(exc))
            return
        self._reply(served, ChanOp.VALUE, blob)

    def pack(self, value: Any) -> Blob:
        """A value for a channel elsewhere; Unserializable if it cannot be one. Thread-safe."""
        with self.open():
            blob = encode(value)
        if blob.nbytes > self._value_bytes:
            raise Unserializable(
                f"a value of {blob.nbytes} bytes for a channel of another worker,"
                f" limits.value_bytes allows {self._value_bytes}"
            )
        return blob

    def _unpack(self, blob: Blob) -> Any:
        with self.open():
            return decode(*blob)

    def _refuse(self, served: Served, text: str) -> None:
        self._reply(served, ChanOp.REFUSED, encode(text))

    def _reply(self, served: Served, op: ChanOp, blob: Blob = NOTHING) -> None:
        ch = self._at_home(served.number)
        length = 0 if ch is None else len(ch)
        self._post(served.far, ChanMessage(op, served.number, served.req, length, blob))

    def _answered(self, message: ChanMessage) -> None:
        sg = self._requests.pop(message.req, None)
        if sg is None:
            return  # cancelled: the home knows, or will
        request: Request = sg.c
        request.ch.told(message)
        sg.ok = message.op in (ChanOp.VALUE, ChanOp.DONE)
        try:
            sg.elem = self._unpack(message.blob) if message.blob.data else None
        except Exception as exc:  # noqa: BLE001 - user code rebuilds the value
            # It cannot be received here: elsewhere perhaps.
            self.withdraw(request)
            sg.elem, sg.ok = exc, False
        else:
            if message.op is ChanOp.PANIC:
                sg.elem = Panic(sg.elem)
            elif message.op is ChanOp.REFUSED:
                sg.elem = Unserializable(sg.elem)
            elif message.op is ChanOp.EMPTY:
                sg.elem = chans.EMPTY_HANDED
        self._wake(sg)

    @staticmethod
    def _wake(sg: Sudog) -> None:
        g, sg.g = sg.g, None
        if g is not None:
            g.ready(sg)

    # ---- deaths -------------------------------------------------------------------------------

    def lost(self, who: Address) -> None:
        """A worker is no more: its Gs wait for nothing, and its channels are gone."""
        self._dead.add(who)
        for pin in [pin for pin in self._pinned if pin[0] == who]:
            del self._pinned[pin]
        for key in [key for key in self._served if key[0] == who]:
            served = self._served.pop(key)
            if served.sg is not None:
                served.sg.abandon()
        for number in [n for n, (_, holders) in self._held.items() if who in holders]:
            self._about(who, ChanMessage(ChanOp.DECREF, number))
        for sg in [sg for sg in self._requests.values() if sg.c.ch.home == who]:
            del self._requests[sg.c.number]
            sg.elem, sg.ok = home_lost(sg.c.ch), False
            self._wake(sg)


def import_chan(p: int, epoch: int, number: int, cap: int) -> Chan[Any]:
    """Called by pickle where a channel arrives."""
    router: ChanRouter | None = getattr(chans.border, "router", None)
    if router is None:
        raise Unserializable("a channel can be unpacked in a worker only, by a child of its Gs")
    return router.find((p, epoch), number, cap)
