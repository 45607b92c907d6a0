"""Group: Gs that work on parts of one task, as Go's ``errgroup``.

Go's functions return errors and look at a context; ours raise, and are cancelled. So ``wait``
raises the first error, and a group cancels its Gs on it unless it was told not to. Rejected:
asyncio.TaskGroup's ExceptionGroup (errgroup keeps the first error, as the others are mostly its
consequences).

Like everything in ``sync``, a Group has a home loop and is touched by the holder of its P alone.
"""

from __future__ import annotations

from asyncio import CancelledError
from collections.abc import Callable, Generator
from functools import partial
from typing import Any, ClassVar

from gmpd.errors import Panic
from gmpd.runtime.g import G
from gmpd.runtime.owner import Parker, run_on_owner, spawn, wait_on_owner
from gmpd.runtime.sudog import Sudog, WaitQueue, Waker, park
from gmpd.runtime.sync.waiting import Queued, Queueing, serve, serve_all
from gmpd.runtime.unretrieved import UnretrievedError


class GroupWaiter(Queued):
    """A G in ``Group.wait``: errgroup waits with a WaitGroup."""

    __slots__ = ()
    reason: ClassVar[str] = "sync.WaitGroup.Wait"


class GroupGo(Sudog):
    """A call that waits for room in a Group; ``elem`` is the call. Go's errgroup waits by a
    channel send.
    """

    __slots__ = ()
    reason: ClassVar[str] = "chan send"

    def unlink(self) -> None:
        self.c._pending.unlink(self)


class Unawaited:
    """The ``g`` of a ``Group.go`` that is not awaited (yet)."""

    __slots__ = ()

    def ready(self, _sg: Sudog, /) -> None:
        """There is no waiter to wake."""


class Admission:
    """The result of ``Group.go``: awaited, it waits until the call has started."""

    __slots__ = ("_sg",)

    def __init__(self, sg: Sudog | None):
        self._sg = sg

    def __await__(self) -> Generator[Any, None, None]:
        sg = self._sg
        if sg is not None and sg.ok is None:
            if sg.g is not NOBODY:
                raise RuntimeError("this Group.go(...) is being awaited already: await it once")
            yield from park(sg).__await__()


class Group(Queueing):
    """Gs that work on parts of one task (``golang.org/x/sync/errgroup``). The first error wins.

    With ``cancel`` (the default) the first error cancels the others, as ``errgroup.WithContext``
    does for functions that look at their context; ``Group(cancel=False)`` is Go's zero Group: the
    others run on. As ``async with`` it waits at the end, and an exception inside cancels the Gs.
    """

    __slots__ = (
        "_active",
        "_cancel",
        "_children",
        "_error",
        "_limit",
        "_pending",
        "_stopped",
        "_unretrieved",
    )

    #: The queue is of Gs in ``wait``.
    _waiter = GroupWaiter

    def __init__(self, *, cancel: bool = True):
        super().__init__()
        self._cancel = cancel
        #: Gs at once; below 0: any number.
        self._limit = -1
        self._active = 0
        self._children: set[Any] = set()
        self._error: BaseException | None = None
        #: Reports it if it is not retrieved.
        self._unretrieved: UnretrievedError | None = None
        #: Cancelled: starts nothing more.
        self._stopped = False
        #: Calls that wait for room.
        self._pending = WaitQueue()

    def set_limit(self, n: int) -> None:
        """At most ``n`` Gs at once; 0 refuses all, below 0 is no limit. Panic while Gs are active.
        From anywhere.
        """
        run_on_owner(self._home(), self._set_limit, n)

    def go(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Admission:
        """Call ``fn`` in a child G, as soon as the limit has room for it.

        Go's ``Go`` blocks until there is room: ``await group.go(...)`` does. Not awaited, the call
        queues up by itself.
        """
        call = fn, args, kwargs
        sg = run_on_owner(self._here(), self._reserve, call, NOBODY)
        if sg is None:
            self._start(call)
        return Admission(sg)

    def try_go(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> bool:
        """Call ``fn`` in a child G if the limit has room; else False, and it never runs."""
        room = run_on_owner(self._here(), self._try_reserve)
        if room:
            self._start((fn, args, kwargs))
        return room

    async def wait(self) -> None:
        """Wait until all calls have ended, then raise the first error, if one ended with any."""
        if self._busy():
            await park(self._enqueue(None))
        self._raise()

    def cancel(self) -> None:
        """Cancel the Gs and drop the calls that wait for room. From anywhere."""
        run_on_owner(self._home(), self._stop)

    @property
    def error(self) -> BaseException | None:
        """The first error so far (Go: the context's cause)."""
        if self._unretrieved is not None:
            self._unretrieved.retrieved()
        return self._error

    @property
    def sync(self) -> SyncGroup:
        """The face for sync Gs and threads."""
        return SyncGroup(self)

    async def __aenter__(self) -> Group:
        return self

    async def __aexit__(self, _kind: object, error: BaseException | None, _where: object) -> None:
        if error is None:
            try:
                await self.wait()
            except CancelledError:
                await self._cancel_and_wait()
                raise
        elif isinstance(error, GeneratorExit):  # the G is dropped, and must not wait
            self._stop()
        else:
            await self._cancel_and_wait()

    async def _cancel_and_wait(self) -> None:
        """Leave no G behind: errors that come now are of less interest than the one under way."""
        self._stop()
        while self._busy():
            await park(self._enqueue(None))
        if self._unretrieved is not None:
            self._unretrieved.retrieved()

    # ---- at home only -----------------------------------------------------------------------

    def _busy(self) -> bool:
        return self._active > 0 or bool(self._pending.live())

    def _raise(self) -> None:
        if self.error is not None:
            raise self.error

    def _set_limit(self, n: int) -> None:
        if self._active:
            raise Panic(
                f"errgroup: modify limit while {self._active} goroutines in the group "
                "are still active"
            )
        self._limit = n

    def _try_reserve(self) -> bool:
        if 0 <= self._limit <= self._active:
            return False
        self._active += 1
        return True

    def _reserve(self, call: tuple[Any, ...], g: Waker) -> Sudog | None:
        """Make room for one child; or queue the call, which ``_ended`` will start."""
        if self._try_reserve():
            return None
        sg = GroupGo(self, self._here(), call)
        sg.g = g
        self._pending.append(sg)
        return sg

    def _start(self, call: tuple[Any, ...]) -> None:
        """Start a child, for which there is room. From anywhere, but not within an operation at
        home.
        """
        loop = self._here()
        if self._stopped:
            run_on_owner(loop, self._leave)
            return
        child = spawn(loop, *call)
        run_on_owner(loop, self._adopt, child)

    def _adopt(self, child: Any) -> None:
        self._children.add(child)
        child.add_done_callback(self._ended)
        if self._stopped:
            child.cancel()

    def _ended(self, child: Any) -> None:
        """A child ended: note its error, give its place away."""
        self._children.discard(child)
        error = None if child.cancelled() else child.exception()
        if error is not None and self._error is None:
            self._error = error
            if isinstance(child, G):
                self._unretrieved = child._p.unretrieved.add(child, error)
            if self._cancel:
                self._stop()
        elif isinstance(child, G) and child._p.dropped is not None:
            self._stop()
        self._leave()
        while self._pending.live() and self._try_reserve():
            sg = self._pending.take()
            serve(sg)
            self._start(sg.elem)

    def _leave(self) -> None:
        self._active -= 1
        if not self._busy():
            serve_all(self._queue)

    def _stop(self) -> None:
        self._stopped = True
        serve_all(self._pending)
        for child in list(self._children):
            child.cancel()


class SyncGroup:
    """``group.sync``."""

    __slots__ = ("_group",)

    def __init__(self, group: Group):
        self._group = group

    def go(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """As ``Group.go``; blocks until there is room."""
        group = self._group
        call = fn, args, kwargs
        if wait_on_owner(group._here(), GroupGo.reason, partial(group._reserve, call)) is None:
            group._start(call)

    def wait(self) -> None:
        """As ``Group.wait``; P is handed off for the wait."""
        group = self._group

        def attempt(parker: Parker) -> Sudog | None:
            return group._enqueue(parker) if group._busy() else None

        wait_on_owner(group._here(), GroupWaiter.reason, attempt)
        group._raise()


NOBODY = Unawaited()
