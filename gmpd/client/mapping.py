"""``map`` over a window: takes from the source only what fits, so an endless one works.

Which items go together (``Sizer``), how many are out (``Mapping``), what comes back in which order.
Uses a client only through ``submit_ref``, ``cancel_jobs`` and ``new_queue``.
"""

from __future__ import annotations

import functools
import inspect
import queue
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from itertools import islice
from typing import TYPE_CHECKING, Any

from gmpd import codec
from gmpd.client.chunks import Partly, describe_chunk
from gmpd.client.core import wire_options
from gmpd.client.progress import Report, reporter

if TYPE_CHECKING:
    from gmpd.client.sync import Client

#: Items that are out at most: enough to keep a thousand requests in flight.
WINDOW_ITEMS = 1024
#: Chunks that may be out however large they are, or few cores' worth would starve many.
WINDOW_CHUNKS = 64
#: An automatic chunk is to take so long, in microseconds: long against the way there and back,
#: short against what stealing can move.
CHUNK_US = 3_000
#: Largest automatic chunk: its arguments and results travel together.
CHUNK_ITEMS_MAX = 4096
#: An automatic chunk grows by at most this factor over the last one that came back.
GROWTH = 8
#: Of a source whose length is known, a chunk is at most this part: the last ones must spread.
PARTS = 32


class Sizer:
    """How many items the next chunk has."""

    def __init__(self, chunksize: int | str, total: int | None, alone: bool) -> None:
        if chunksize != "auto" and (not isinstance(chunksize, int) or chunksize < 1):
            raise ValueError(f"chunksize={chunksize!r}: must be 'auto' or at least 1")
        self._auto = chunksize == "auto" and not alone
        self.size = chunksize if isinstance(chunksize, int) else 1
        self._most = CHUNK_ITEMS_MAX if total is None else max(1, total // PARTS)
        self._item_us: float | None = None

    def learn(self, items: int, ran_us: int) -> None:
        """``items`` took ``ran_us`` together."""
        if not self._auto:
            return
        one = max(0.05, ran_us / items)
        self._item_us = one if self._item_us is None else (self._item_us + one) / 2
        wanted = int(CHUNK_US / self._item_us)
        self.size = max(1, min(wanted, items * GROWTH, self._most, CHUNK_ITEMS_MAX))


class Mapping:
    """One ``map`` call; ``run`` is its iterator."""

    def __init__(
        self,
        client: Client,
        overrides: dict[str, Any] | None,
        fn: Callable[..., Any],
        iterables: tuple[Iterable[Any], ...],
        *,
        ordered: bool = True,
        chunksize: int | str = "auto",
        timeout: float | None = None,
        progress: bool | Report = False,
    ) -> None:
        self._client = client
        self._fn = fn
        self._ref = codec.describe_function(fn)
        self._options, self._plain = wire_options(fn, overrides)
        #: Items are tuples of arguments; of a plain function with one argument, it alone.
        self._rows = len(iterables) != 1 or inspect.iscoroutinefunction(fn)
        self._source: Iterator[Any] = (
            zip(*iterables, strict=False) if self._rows else iter(iterables[0])
        )
        total = _length(iterables)
        # Coroutines wait together anyway; a chunk of them would only delay each other's results.
        # Of isolated jobs, each item is to have a worker of its own.
        isolate = bool(self._options and self._options.get("isolate"))
        alone = self._plain or isolate or inspect.iscoroutinefunction(fn)
        self._sizer = Sizer(chunksize, total, alone)
        self._ordered = ordered
        self._end = None if timeout is None else time.monotonic() + timeout
        self._report = reporter(progress, total)
        #: Futures in order of submission, and their numbers of items.
        self._out: dict[Any, int] = {}
        self._items_out = 0
        self._over = False
        self._done = 0

    @functools.cached_property
    def _chunk_ref(self) -> codec.FunctionRef:
        return describe_chunk(self._fn, self._ref, rows=self._rows)

    def run(self) -> Iterator[Any]:
        """The results. Closing it early cancels what has not started."""
        chunks = self._in_order() if self._ordered else self._as_completed()
        try:
            for chunk in chunks:
                if isinstance(chunk, Partly):
                    yield from _up_to_error(chunk)
                    return
                # Each result is let go of as soon as the caller has it.
                results, chunk = chunk, []
                results.reverse()
                take = results.pop
                while results:
                    yield take()
        finally:
            self._client.cancel_jobs(list(self._out))
            if self._report is not None:
                self._report(self._done, True)

    def _in_order(self) -> Iterator[list[Any] | Partly]:
        while self._fill(None):
            future = next(iter(self._out))
            future.wait_over(self._left())
            yield self._results(future)
            del future  # it must not keep its result while the caller works

    def _as_completed(self) -> Iterator[list[Any] | Partly]:
        over = self._client.new_queue()
        while self._fill(over.put):
            try:
                future = over.get(timeout=self._left())
            except queue.Empty:
                raise TimeoutError from None
            yield self._results(future)
            del future

    def _fill(self, tell: Callable[[Any], object] | None) -> bool:
        """Send what the window allows; whether anything is out."""
        while not self._over:
            size = self._sizer.size
            if self._out and (
                self._items_out + size > WINDOW_ITEMS and len(self._out) >= WINDOW_CHUNKS
            ):
                break
            chunk = list(islice(self._source, size))
            self._over = len(chunk) < size
            if chunk:
                future = self._send(chunk)
                self._out[future] = len(chunk)
                self._items_out += len(chunk)
                if tell is not None:
                    future.add_done_callback(tell)
        return bool(self._out)

    def _send(self, chunk: list[Any]) -> Any:
        if len(chunk) == 1:
            ref, args = self._ref, chunk[0] if self._rows else (chunk[0],)
        else:
            ref, args = self._chunk_ref, (chunk,)
        blob = codec.encode_call(ref.name, args, {}, fn=self._fn, plain=self._plain)
        return self._client.submit_ref(ref, self._options, blob, wait=True)

    def _results(self, future: Any) -> list[Any] | Partly:
        items = self._out.pop(future)
        self._items_out -= items
        value = future.result(0)
        self._sizer.learn(items, future._ran_us)
        self._done += items
        if self._report is not None:
            self._report(self._done, False)
        return [value] if items == 1 else value

    def _left(self) -> float | None:
        return None if self._end is None else max(0.0, self._end - time.monotonic())


def _up_to_error(chunk: Partly) -> Iterator[Any]:
    """The results before the first item that raised, then its error."""
    first = min(chunk.errors)
    yield from chunk.results[:first]
    raise codec.decode_error(chunk.errors[first])


def _length(iterables: tuple[Iterable[Any], ...]) -> int | None:
    lengths = [len(each) for each in iterables if isinstance(each, Sized)]
    return min(lengths) if lengths else None
