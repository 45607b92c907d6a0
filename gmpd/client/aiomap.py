"""``map`` of the asyncio face: the plan of ``mapping``, filled from iterables and async iterators.

A source that is slow holds up no result: the next chunk is read beside the wait for results.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable
from typing import Any, Protocol, cast

from gmpd.client.chunks import let_go, pieces
from gmpd.client.mapping import Plan
from gmpd.codec import Blob, FunctionRef
from gmpd.timeouts import checked


class Submitted(Protocol):
    """A future of the asyncio client."""

    ran_us: int

    def done(self) -> bool: ...
    def result(self) -> Any: ...
    def cancel(self) -> bool: ...
    def add_done_callback(self, fn: Callable[[Any], None], /) -> None: ...


#: Submits a prepared call.
Submit = Callable[[FunctionRef, dict[str, Any] | None, Blob], Submitted]
#: Calls a function in a thread.
InThread = Callable[[Callable[[], list[Any]]], Awaitable[list[Any]]]
Source = Iterable[Any] | AsyncIterable[Any]


class AsyncMapping:
    """One ``map`` call; ``run`` is its async generator."""

    def __init__(
        self,
        submit: Submit,
        in_thread: InThread,
        overrides: dict[str, Any] | None,
        fn: Callable[..., Any],
        iterables: tuple[Source, ...],
        *,
        ordered: bool,
        timeout: float | None,
        **how: Any,
    ) -> None:
        self._submit = submit
        self._in_thread = in_thread
        self._plan = Plan(overrides, fn, iterables, **how)
        self._ordered = ordered
        left_s = checked(timeout)
        self._end = None if left_s is None else time.monotonic() + left_s
        self._sync: Any = None
        if any(isinstance(each, AsyncIterable) for each in iterables):
            self._async = self._plan.rows_async([_as_async(each) for each in iterables])
        else:
            self._sync = self._plan.rows_sync(cast("tuple[Iterable[Any], ...]", iterables))
        self._out: dict[Submitted, None] = {}
        self._done: deque[Submitted] = deque()
        self._news = asyncio.Event()
        self._reading: asyncio.Task[list[Any]] | None = None
        self._over = False

    async def run(self) -> AsyncIterator[Any]:
        """The results. Closing it early cancels what has not ended."""
        try:
            while self._fill():
                future = self._next()
                if future is None:
                    await self._wait()
                    continue
                del self._out[future]
                chunk = self._plan.chunk(future, future.result(), future.ran_us)
                for piece in pieces(chunk):
                    there = piece if isinstance(piece, list) else await self._in_thread(piece)
                    for value in let_go(there):
                        yield value
            if self._plan.source_error is not None:
                raise self._plan.source_error
        finally:
            await self._leave()

    def _fill(self) -> bool:
        """Send what the window allows; whether anything is still to come."""
        while not self._over and (size := self._plan.room()):
            if self._sync is not None:
                chunk = self._plan.take(self._sync, size)
            elif self._reading is None:
                # One at a time, or the first of a slow source would wait for the last.
                self._reading = asyncio.ensure_future(self._take(self._plan.fixed or 1))
                self._reading.add_done_callback(self._tell)
                break
            elif self._reading.done():
                chunk, self._reading = self._reading.result(), None
                size = self._plan.fixed or 1
            else:
                break
            self._over = len(chunk) < size
            if chunk:
                self._send(chunk)
        return bool(self._out) or not self._over

    async def _take(self, n: int) -> list[Any]:
        """As ``Plan.take``, from what may have to be waited for."""
        taken: list[Any] = []
        try:
            async for row in self._async:
                taken.append(row)
                if len(taken) == n:
                    break
        except Exception as error:  # noqa: BLE001 - the caller's own source
            self._plan.source_error = error
        return taken

    def _send(self, chunk: list[Any]) -> None:
        future = self._submit(*self._plan.call(chunk))
        self._plan.sent(future, len(chunk))
        self._out[future] = None
        future.add_done_callback(self._ended)

    def _ended(self, future: Submitted) -> None:
        if not self._ordered:
            self._done.append(future)
        self._news.set()

    def _tell(self, _: object) -> None:
        self._news.set()

    def _next(self) -> Submitted | None:
        """The next future whose results are due, if there is one."""
        if not self._ordered:
            return self._done.popleft() if self._done else None
        first = next(iter(self._out), None)
        return first if first is not None and first.done() else None

    async def _wait(self) -> None:
        self._news.clear()
        left = None if self._end is None else max(0.0, self._end - time.monotonic())
        await asyncio.wait_for(self._news.wait(), left)

    async def _leave(self) -> None:
        for future in self._out:
            future.cancel()
        self._plan.over()
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait([self._reading])


async def _as_async(items: Source) -> AsyncIterator[Any]:
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
    else:
        for item in items:
            yield item
