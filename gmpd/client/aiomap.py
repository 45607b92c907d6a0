"""``map`` of the asyncio face: a ``MapRun`` that awaits, and reads async iterators, too.

A source that is slow holds up no result: the next chunk is read beside the wait for results.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable
from typing import Any, Protocol, cast

from gmpd.client.chunks import let_go, pieces
from gmpd.client.mapping import Items, MapRun
from gmpd.codec import Blob, FunctionRef
from gmpd.submit.batch import Options


class Submitted(Protocol):
    """A future of the asyncio client."""

    ran_us: int

    def done(self) -> bool: ...
    def result(self) -> Any: ...
    def cancel(self) -> bool: ...
    def add_done_callback(self, fn: Callable[[Any], None], /) -> None: ...


#: Submits a prepared call.
Submit = Callable[[FunctionRef, Options | None, Blob], Submitted]
#: Calls a function in a thread.
InThread = Callable[[Callable[[], list[Any]]], Awaitable[list[Any]]]
Source = Iterable[Any] | AsyncIterable[Any]


class AsyncMapping(MapRun):
    """An asyncio client's ``map``; ``run`` is its async generator."""

    def __init__(
        self,
        submit: Submit,
        in_thread: InThread,
        overrides: Options | None,
        fn: Callable[..., Any],
        iterables: tuple[Source, ...],
        **how: Any,
    ) -> None:
        super().__init__(overrides, fn, iterables, **how)
        self._submitter = submit
        self._in_thread = in_thread
        self._source: Any = None
        if any(isinstance(each, AsyncIterable) for each in iterables):
            self._rows = self._plan.rows_async([_as_async(each) for each in iterables])
        else:
            self._source = self._plan.rows_sync(cast("tuple[Iterable[Any], ...]", iterables))
        self._news = asyncio.Event()
        self._reading: asyncio.Task[list[Any]] | None = None

    async def run(self) -> AsyncIterator[Any]:
        """The results. Closing it early cancels what has not ended."""
        try:
            while self._fill():
                chunk = self._due()
                if chunk is None:
                    await self._wait()
                    continue
                since = time.monotonic()
                for piece in pieces(chunk):
                    there = piece if isinstance(piece, list) else await self._in_thread(piece)
                    for value in let_go(there):
                        yield value
                self._plan.away(since)
            self._finish()
        finally:
            for future in self._plan.out:
                future.cancel()
            self._plan.over()
            if self._reading is not None:
                self._reading.cancel()
                await asyncio.wait([self._reading])
        self._plan.hint()

    async def _wait(self) -> None:
        self._news.clear()
        try:
            await asyncio.wait_for(self._news.wait(), self._left())
        except TimeoutError:
            self._passed()

    def _take(self, size: int) -> Items:
        chunk: Items
        if self._source is not None:
            chunk = self._plan.take(self._source, size)
        else:
            size = self._plan.fixed or 1  # else the first of a slow source would wait for the last
            if self._reading is None:
                self._reading = asyncio.ensure_future(self._read(size))
                self._reading.add_done_callback(self._tell)
            if not self._reading.done():
                return []
            chunk, self._reading = self._reading.result(), None
        self._over = len(chunk) < size
        return chunk

    async def _read(self, n: int) -> list[Any]:
        """As ``Plan.take``, from a source that may have to be waited for."""
        taken: list[Any] = []
        try:
            async for row in self._rows:
                taken.append(row)
                if len(taken) == n:
                    break
        except Exception as error:  # noqa: BLE001 - the caller's own source
            self._plan.source_error = error
        return taken

    def _submit(self, ref: FunctionRef, options: Options | None, blob: Blob) -> Submitted:
        future = self._submitter(ref, options, blob)
        future.add_done_callback(self._tell if self._ordered else self._tell_ended)
        return future

    def _outcome(self, future: Any) -> tuple[Any, int]:
        return future.result(), future.ran_us

    def _tell(self, _: object) -> None:
        self._news.set()

    def _tell_ended(self, future: Submitted) -> None:
        self._ended.append(future)
        self._news.set()


async def _as_async(items: Source) -> AsyncIterator[Any]:
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
    else:
        for item in items:
            yield item
