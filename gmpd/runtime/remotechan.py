"""The handle of a channel whose home is another worker: an operation is a message and its answer.

``remote.ChanRouter`` carries the messages; a handle knows it as an ``Asker`` only.
"""

from __future__ import annotations

from asyncio import AbstractEventLoop
from collections.abc import Generator
from typing import Any, ClassVar, NamedTuple, Protocol, TypeAlias, TypeVar

from gmpd.codec import Blob
from gmpd.errors import ChanClosed, Panic, WorkerLost
from gmpd.protocol import ChanOp
from gmpd.runtime import chan as chans
from gmpd.runtime.chan import Chan, Receiver, Sender, SyncChan
from gmpd.runtime.internals import running_loop
from gmpd.runtime.owner import Parker, wait_on_owner
from gmpd.runtime.p_callbacks import soon_threadsafe
from gmpd.runtime.sudog import Sudog, Wait, Waker, parks

T = TypeVar("T")

#: A worker: (P, epoch).
Address: TypeAlias = tuple[int, int]

NOTHING = Blob(b"")


class ChanMessage(NamedTuple):
    """One worker's message to another about a channel of one of them.

    ``chan`` is the home's number, ``req`` the asker's number of an operation; ``length`` is the
    channel's, told with every answer.
    """

    op: ChanOp
    chan: int
    req: int = 0
    length: int = 0
    blob: Blob = NOTHING


class Asker(Protocol):
    """Carries operations to the homes of channels; see ``remote.ChanRouter``."""

    loop: AbstractEventLoop

    def pack(self, value: Any) -> Blob: ...
    def ask(self, ch: RemoteChan[Any], op: ChanOp, sg: Sudog, blob: Blob = ..., /) -> None: ...
    def tell(self, ch: RemoteChan[Any], op: ChanOp, /) -> None: ...
    def check(self, ch: RemoteChan[Any], /) -> None: ...
    def accept(self, request: Any, /) -> None: ...


class RemoteReceiver(Receiver):
    """A G that receives from afar. ``c`` is its operation."""

    __slots__ = ()

    def unlink(self) -> None:
        self.c.cancel()

    def undo(self) -> None:
        self.c.cancel()


class RemoteSender(Sender):
    """A G that sends to afar."""

    __slots__ = ()

    def unlink(self) -> None:
        self.c.cancel()


def home_lost(ch: RemoteChan[Any]) -> WorkerLost:
    """The error of operations on a channel of a dead worker."""
    p, epoch = ch.home
    return WorkerLost(
        f"channel {ch.number} is gone: its home, the worker of P{p} (epoch {epoch}), died"
    )


class RemoteChan(Chan[T]):
    """A channel whose home is another worker, as children find it among their arguments.

    As ``Chan``, with these differences. Each operation is a message to the home and back. ``len``
    and ``closed`` are as the home told them last; ``len(ch.sync)`` in a sync G asks. ``close``
    does not wait, so closing what another worker has closed is no Panic; ``ch.sync.close()`` in a
    sync G waits, and is. Values are copied, so they must be such that a job could return them.
    A ``select`` may receive from it, not send on it. WorkerLost when the home's worker has died.
    """

    __slots__ = ("_length", "_router", "home", "number")

    is_far: ClassVar[bool] = True

    def __init__(self, router: Asker, home: Address, number: int, cap: int):
        self._router = router
        self.home = home
        self.number = number
        self._cap = cap
        self._loop = router.loop
        self._length = 0
        self._closed = False

    def __reduce__(self) -> Any:
        return chans.export(self)

    def __len__(self) -> int:
        return self._length

    def __repr__(self) -> str:
        return f"<Chan {self.number} of P{self.home[0]} {self._length}/{self._cap}>"

    @property
    def sync(self) -> RemoteSyncChan[T]:
        return RemoteSyncChan(self)

    def told(self, message: ChanMessage) -> None:
        """The home answered."""
        self._length = message.length
        if message.op in (ChanOp.END, ChanOp.PANIC):
            self._closed = True

    async def send(self, value: T) -> None:
        blob = self._router.pack(value)
        sg = RemoteSender(None, self._loop, value)
        self._router.ask(self, ChanOp.SEND, sg, blob)
        await _served(sg)
        _check_sent(sg)

    async def recv(self, _end: type[Exception] = ChanClosed) -> T:
        sg = RemoteReceiver(None, self._loop)
        self._router.ask(self, ChanOp.RECV, sg)
        await _served(sg)
        if sg.ok:
            self._router.accept(sg.c)
            value: T = sg.elem
            return value
        if sg.c is None:
            raise sg.cancelled_error()
        if sg.elem is not None:
            raise sg.elem
        raise _end("receive from a channel that is closed and drained")

    async def recv_ok(self) -> tuple[T | None, bool]:
        try:
            return await self.recv(), True
        except ChanClosed:
            return None, False

    def close(self) -> None:
        """Close; does not wait for the home, which closes once the values sent before have arrived.
        Panic if it is known here to be closed."""
        if self._closed:
            raise Panic("close of closed channel")
        self._closed = True
        router = self._router
        router.check(self)
        if running_loop() is self._loop:
            router.tell(self, ChanOp.CLOSE)
        else:
            soon_threadsafe(self._loop, router.tell, self, ChanOp.CLOSE)

    # ---- in a select -------------------------------------------------------------------------

    def _recv_ready(self) -> bool:
        return True  # perhaps: its home has to be asked

    def _recv_now(self) -> None:
        """It has to be asked."""

    def _send_ready(self) -> bool:
        raise RuntimeError(
            f"a send on {self!r} is a case of a select, and its home is another worker: a value"
            " sent there cannot be taken back if another case is chosen. Send on a channel that"
            " is made here, and let a G forward its values"
        )

    def _enqueue_recv(self, g: Waker | None) -> Sudog:
        return self._ask_for(g, ChanOp.RECV)

    def try_for(self, g: Waker) -> Sudog:
        """Receive if a value is there; else ``elem`` becomes EMPTY_HANDED."""
        return self._ask_for(g, ChanOp.TRY_RECV)

    def _ask_for(self, g: Waker | None, op: ChanOp) -> Sudog:
        sg = RemoteReceiver(None, self._loop)
        sg.g = g
        self._router.ask(self, op, sg)
        return sg

    def _received(self, sg: Sudog) -> tuple[Any, bool]:
        if sg.ok:
            if running_loop() is self._loop:
                self._router.accept(sg.c)
            else:  # a sync G: P may be elsewhere by now
                soon_threadsafe(self._loop, self._router.accept, sg.c)
            return sg.elem, True
        if sg.elem is not None:
            raise sg.elem
        return None, False


@parks
def _served(sg: Sudog) -> Generator[Wait, None, None]:
    """Wait for the home's answer."""
    try:
        yield sg
    except BaseException:
        sg.abandon()
        raise


def _check_sent(sg: Sudog) -> None:
    if sg.ok:
        return
    if sg.c is None:
        raise sg.cancelled_error()
    raise sg.elem


class _Asked(Sudog):
    """A sync G that waits for an answer of the home."""

    __slots__ = ()
    reason: ClassVar[str] = "chan receive"

    def unlink(self) -> None:
        self.c.cancel()


class RemoteSyncChan(SyncChan[T]):
    """``ch.sync`` of a channel whose home is another worker."""

    __slots__ = ()

    _ch: RemoteChan[T]

    def send(self, value: T) -> None:
        ch = self._ch
        blob = ch._router.pack(value)
        _check_sent(self._wait(RemoteSender, ChanOp.SEND, value, blob))

    def recv_ok(self) -> tuple[T | None, bool]:
        sg = self._wait(RemoteReceiver, ChanOp.RECV)
        if sg.ok:  # P may be elsewhere by now
            soon_threadsafe(self._ch._loop, self._ch._router.accept, sg.c)
            return sg.elem, True
        if sg.elem is not None:
            raise sg.elem
        return None, False

    def close(self) -> None:
        _check_sent(self._wait(_Asked, ChanOp.CLOSE_ASKED))
        self._ch._closed = True

    def __len__(self) -> int:
        _check_sent(self._wait(_Asked, ChanOp.LEN))
        return len(self._ch)

    def _wait(
        self, kind: type[Sudog], op: ChanOp, value: Any = None, blob: Blob = NOTHING
    ) -> Sudog:
        ch = self._ch

        def attempt(parker: Parker) -> Sudog:
            sg = kind(None, ch._loop, value)
            sg.g = parker
            ch._router.ask(ch, op, sg, blob)
            return sg

        sg: Sudog = wait_on_owner(ch._loop, kind.reason, attempt)
        return sg
