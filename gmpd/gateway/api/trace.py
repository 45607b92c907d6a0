"""The last half minute of all Ps: fetched once for all pages that show it, in chunks.

A page asks for the chunks after the last one that it has. Workers are asked at most twice a second,
whatever asks here, and not at all while nothing does. A gap, in which nothing asked, is fetched as
one chunk.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Final, cast

import msgspec

from gmpd.errors import ProtocolError
from gmpd.gateway.api.trace_shapes import Chunk, Trace
from gmpd.gateway.api.tracks import Tracks

#: Seconds between two questions to the workers, and those that are kept.
PERIOD_S: Final = 0.5
BACK_S: Final = 30.0
#: Rows of all Ps in a second; and of one P, at least and at most.
ROWS, ROWS_MIN, ROWS_MAX = 2000, 60, 600
#: Rows of one P in one chunk, which may be the first of half a minute.
CHUNK_ROWS_MIN, CHUNK_ROWS_MAX = 50, 6000
#: Bytes of all chunks that are kept.
BYTES_MAX: Final = 32 << 20


class TraceFeed:
    """The chunks of the last half minute. ``look`` asks the coordinator."""

    def __init__(
        self,
        look: Callable[..., Awaitable[Any]],
        *,
        period_s: float = PERIOD_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._look = look
        self._period_s = period_s
        self._clock = clock
        self._tracks = Tracks()
        self._asking: asyncio.Task[None] | None = None
        self._asked_at = float("-inf")
        #: Until when the newest chunk tells (ns), and the number of Ps in it.
        self._until = 0
        self._ps = 1
        # Numbers of an older gateway are below those of this one.
        self._number = time.time_ns() // 1_000_000
        self._chunks: deque[tuple[int, int, msgspec.Raw]] = deque()
        self._nbytes = 0

    async def after(self, number: int) -> Trace:
        """The chunks after this one. Raises as a question does."""
        if self._asking is None and self._clock() - self._asked_at >= self._period_s:
            self._asking = asyncio.ensure_future(self._ask())
            self._asking.add_done_callback(self._asked)
        if self._asking is not None:
            await asyncio.shield(self._asking)
        chunks = self._chunks
        reset = not chunks or not chunks[0][0] - 1 <= number <= chunks[-1][0]
        told = [raw for each, _, raw in chunks if reset or each > number]
        newest = chunks[-1][0] if chunks else 0
        return Trace(next=newest, reset=reset, chunks=cast("list[Chunk]", told))

    def _asked(self, asking: asyncio.Task[None]) -> None:
        self._asking = None
        if not asking.cancelled():
            asking.exception()  # its readers may have gone

    async def _ask(self) -> None:
        now = self._clock()
        window_s = min(BACK_S, now - self._asked_at)
        self._asked_at = now
        a_second = min(ROWS_MAX, max(ROWS_MIN, ROWS // self._ps))
        rows = min(CHUNK_ROWS_MAX, max(CHUNK_ROWS_MIN, int(a_second * window_s)))
        reply = await self._look("timeline", since_ns=self._until, rows=rows)
        self._number += 1
        try:
            chunk = self._tracks.chunk(self._number, reply)
        except (KeyError, TypeError, ValueError, msgspec.MsgspecError) as error:
            raise ProtocolError(
                f"the daemon's answer is none that this version reads: {error!r}"
            ) from None
        self._until, self._ps = reply["until"], max(1, len(chunk.tracks))
        self._keep(msgspec.Raw(msgspec.json.encode(chunk)))

    def _keep(self, raw: msgspec.Raw) -> None:
        self._chunks.append((self._number, self._until, raw))
        self._nbytes += len(bytes(raw))
        oldest = self._until - int(BACK_S * 1e9)
        while len(self._chunks) > 1 and (self._chunks[0][1] < oldest or self._nbytes > BYTES_MAX):
            self._nbytes -= len(bytes(self._chunks.popleft()[2]))
