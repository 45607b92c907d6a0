"""The values of a generator job, with back-pressure: the job is a window ahead and no more.

One that is dropped unread is cancelled, or its job would wait for ever. Not by a finalizer: what
Ctrl-C raises there is thrown away, and the rest of it is not done. Weak references tell the client,
by callbacks that are C all through: between two of their steps nothing is raised.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Protocol, Self

from gmpd import codec
from gmpd.client.defer_signals import DEFER_SIGNALS
from gmpd.client.futures import decoded
from gmpd.errors import JobCancelled
from gmpd.protocol import STREAM_BYTES, Outcome
from gmpd.submit.core import STREAM_WINDOW
from gmpd.submit.events import ItemsReceived, JobDone, JobProgress


class Owner(Protocol):
    """A blocking client, as a stream needs it."""

    def refuse_to_wait(self) -> None: ...
    def job_id(self, seq: int) -> str: ...
    def new_waiters(self) -> Any: ...
    def pull_items(self, seq: int, n: int) -> None: ...
    def forget_seqs(self, seqs: list[int]) -> None: ...
    def watch_stream(self, stream: Stream, seq: int) -> tuple[DropCallback, ...]: ...


class Incoming:
    """The received values of a stream, and when its job may continue. Never waits."""

    def __init__(self, name: str) -> None:
        #: The job has ended; what has come is still to be taken.
        self.over = False
        self._name = name
        self._items: deque[tuple[bytes, Any]] = deque()
        #: Items that were taken and not acknowledged, and their bytes.
        self._used = self._used_bytes = 0

    def __bool__(self) -> bool:
        """Whether a value is there."""
        return bool(self._items)

    def take(self, event: ItemsReceived | JobDone, job_id: str) -> None:
        """A message has come. Raises the generator's error, or the one that ended its job."""
        if isinstance(event, ItemsReceived):
            self._items.extend(zip(event.payloads, event.buffers, strict=True))
            return
        # First, because a signal handler may raise meanwhile: then the end is still to come.
        error = self._error(event, job_id) if event.outcome is not Outcome.OK else None
        self.over = True
        if error is not None:
            raise error

    def _error(self, event: JobDone, job_id: str) -> BaseException:
        _, error = decoded(event, lambda: job_id, self._name)
        return error or JobCancelled(f"job {job_id}: cancelled")

    def first(self) -> tuple[bytes, Any]:
        """The next value, encoded: it stays."""
        return self._items[0]

    def pop(self) -> tuple[bytes, Any]:
        """The next value, encoded; ``due`` is to be asked after each."""
        item = self._items.popleft()
        self._used += 1
        self._used_bytes += len(item[0]) + sum(map(len, item[1]))
        return item

    def due(self) -> int:
        """How many more items are to be requested now."""
        if self._used * 2 < STREAM_WINDOW and self._used_bytes * 2 < STREAM_BYTES:
            return 0
        used, self._used, self._used_bytes = self._used, 0, 0
        return used

    def clear(self) -> None:
        """Drop the values that are there: they are not wanted."""
        self._items.clear()


class Stream(Iterator[Any]):
    """Iterates over what a generator job yields; ``close()`` cancels the job.

    Raises what the generator raises, after its last value.
    """

    #: The job's number, once it has been submitted.
    _seq = 0

    def __init__(self, client: Owner, name: str) -> None:
        self._client = client
        self._arrived: deque[ItemsReceived | JobDone] = deque()
        self._waiters = client.new_waiters()
        self._incoming = self._new_incoming(name)

    def _new_incoming(self, name: str) -> Incoming:
        return Incoming(name)

    def _decode(self, item: tuple[bytes, Any]) -> Any:
        return codec.decode(*item)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        incoming = self._incoming
        while not incoming:
            if incoming.over:
                raise StopIteration
            self._await_arrival()
        return self._next_value()

    def _await_arrival(self) -> None:
        self._client.refuse_to_wait()
        self._waiters.wait_for(lambda: self._arrived)
        event = self._arrived[0]
        if isinstance(event, JobDone):  # stays, should a handler raise while the error is decoded
            self._incoming.take(event, self._client.job_id(self._seq))
            return
        with DEFER_SIGNALS:
            if self._arrived and self._arrived[0] is event:  # else another reader has it
                self._arrived.popleft()
                self._incoming.take(event, "")

    def _next_value(self) -> Any:
        # Taken out once it is decoded: what a signal handler raises meanwhile costs no value.
        item = self._incoming.first()
        watch = DEFER_SIGNALS.watch()
        try:
            with watch:
                value = self._decode(item)
        except BaseException:
            if watch.raised is None:
                self._drop(item)
            watch.reraise()
            raise
        if not self._drop(item):
            return next(self)  # another thread reads this stream, too, and has had that value
        if n := self._incoming.due():
            self._client.pull_items(self._seq, n)
        return value

    def _drop(self, item: tuple[bytes, Any]) -> bool:
        with DEFER_SIGNALS:
            mine = bool(self._incoming) and self._incoming.first() is item
            if mine:
                self._incoming.pop()
            return mine

    def close(self) -> None:
        """No more is wanted: the job is cancelled where it is."""
        self._forget()
        self._incoming.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _forget(self) -> None:
        if self._seq and not self._incoming.over:
            self._client.forget_seqs([self._seq])
            self._incoming.over = (
                True  # last, so that a close that was interrupted is done by the next
            )

    # -- a sink of the core ----------------------------------------------------------------------

    def sink(self) -> Sink:
        """Held by the core instead of the stream, so that the stream can be dropped."""
        arrived, waiters = self._arrived, self._waiters

        def put(event: ItemsReceived | JobDone) -> None:
            arrived.append(event)
            waiters.notify_all()

        return Sink(put)

    def begun(self, seq: int, sink: Sink) -> None:
        """It is job ``seq`` from now on."""
        self._seq = seq
        sink.watching = self._client.watch_stream(self, seq)


class DropCallback(weakref.ref[Stream]):
    """The data of a dropped stream that its callback gets."""

    __slots__ = ("seqs", "write")

    seqs: list[int]
    write: Any


class Sink:
    """The receiving end of a stream: ``put`` hands an arriving value to its reader."""

    streams = True

    def __init__(self, put: Callable[[Any], object]) -> None:
        self._put = put
        #: Weak references to the stream: their callbacks come only while they live.
        self.watching: tuple[DropCallback, ...] = ()

    def yielded(self, event: ItemsReceived) -> None:
        self._put(event)

    def ended(self, event: JobDone) -> None:
        self.watching = ()
        self._put(event)

    def noted(self, what: str) -> None:
        pass

    def progressed(self, progress: JobProgress) -> None:
        pass
