"""The values of a generator job, with back-pressure: the job is a window ahead and no more.

One that is dropped unread is cancelled, or its job would wait for ever. Not by a finalizer: what
Ctrl-C raises there is thrown away, and the rest of it is not done. Weak references tell the client,
by callbacks that are C all through: between two of their steps nothing is raised.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Self

from gmpd import codec
from gmpd.client.core import STREAM_WINDOW, Ended, Yielded
from gmpd.client.futures import error_of
from gmpd.protocol import Outcome

if TYPE_CHECKING:
    from gmpd.client.sync import Client


class Stream(Iterator[Any]):
    """Iterates over what a generator job yields; ``close()`` cancels the job.

    Raises what the generator raises, after its last value.
    """

    #: The job's number, once it has been submitted.
    _seq = 0

    def __init__(self, client: Client, name: str) -> None:
        self._client = client
        self._name = name
        self._arrivals = client.new_queue()
        self._items: deque[tuple[bytes, Any]] = deque()
        self._used = 0
        self._over = False

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        while not self._items:
            if self._over:
                raise StopIteration
            self._take(self._arrivals.get())
        payload, buffers = self._items.popleft()
        self._used += 1
        if self._used * 2 >= STREAM_WINDOW:
            self._client.pull_items(self._seq, self._used)
            self._used = 0
        return codec.decode(payload, buffers)

    def _take(self, event: Yielded | Ended) -> None:
        if isinstance(event, Yielded):
            self._items.extend(zip(event.payloads, event.buffers, strict=True))
            return
        self._over = True
        if event.outcome is not Outcome.OK:
            raise error_of(event, self._client.job_id(self._seq), self._name)

    def close(self) -> None:
        """No more is wanted: the job is cancelled where it is."""
        self._forget()
        self._items.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _forget(self) -> None:
        if self._seq and not self._over:
            self._client.forget_seqs([self._seq])
            self._over = True  # last, so that a close that was interrupted is done by the next

    # -- a sink of the core ----------------------------------------------------------------------

    def sink(self) -> Sink:
        """What the core holds: not the stream itself, which may so be dropped."""
        return Sink(self._arrivals)

    def begun(self, seq: int, sink: Sink) -> None:
        """It is job ``seq`` from now on."""
        self._seq = seq
        sink.watching = self._client.watch_stream(self, seq)


class Gone(weakref.ref[Stream]):
    """What of a dropped stream a callback gets to see."""

    __slots__ = ("seqs", "write")

    seqs: list[int]
    write: Any


class Sink:
    """A stream's end of its job."""

    streams = True

    def __init__(self, arrivals: Any) -> None:
        self._arrivals = arrivals
        #: Weak references to the stream: their callbacks come only while they live.
        self.watching: tuple[Gone, ...] = ()

    def yielded(self, event: Yielded) -> None:
        self._arrivals.put(event)

    def ended(self, event: Ended) -> None:
        self.watching = ()
        self._arrivals.put(event)

    def noted(self, what: str) -> None:
        pass
