"""The stream of events: one look serves all readers, and no part waits for a slow one.

While there are readers, the daemon is looked at a few times a second, and each reader has the news
put into a bounded queue. A reader that does not take them loses the oldest, and is told how many.
With no reader there is no look.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec

from gmpd.errors import GmpdError
from gmpd.gateway.api import shapes
from gmpd.gateway.api.handlers import picture
from gmpd.gateway.api.questions import Questions

#: Readers at once: each is a connection.
READERS_MAX: Final = 64
#: Events that wait for one reader.
QUEUE_MAX: Final = 8
#: Seconds between comments that keep an idle connection.
PING_S: Final = 15.0
#: The least seconds between two looks.
PERIOD_S: Final = 0.25
#: News without a change are told this often (s): their reader sees that all is well.
STILL_S: Final = 2.0

PING: Final = b": here\n\n"
BYE: Final = b"event: bye\ndata: {}\n\n"


class Full(Exception):
    """There are as many readers as may be."""


def event(name: str, data: Any, id_: int | None = None) -> bytes:
    """One event as it is sent."""
    head = f"id: {id_}\n" if id_ is not None else ""
    return f"{head}event: {name}\ndata: ".encode() + msgspec.json.encode(data) + b"\n\n"


class Reader:
    """One reader. ``period_s``: the least time between two snapshots."""

    def __init__(self, period_s: float) -> None:
        self._period_s = period_s
        self._queue: deque[bytes] = deque()
        self._lost = 0
        self._next_at = 0.0
        self._woken = asyncio.Event()
        self.is_over = False

    def offer(self, news: bytes, now: float) -> None:
        """News for it, if its period has passed; the oldest is dropped when it is slow."""
        if now < self._next_at:
            return
        self._next_at = now + self._period_s * 0.9
        if len(self._queue) >= QUEUE_MAX:
            self._queue.popleft()
            self._lost += 1
        self._queue.append(news)
        self._woken.set()

    def end(self) -> None:
        """Nothing follows."""
        self.is_over = True
        self._woken.set()

    async def take(self) -> bytes:
        """The next of what is to be sent; a comment if there is nothing for long."""
        if not self._queue and not self.is_over:
            self._woken.clear()
            try:
                async with asyncio.timeout(PING_S):
                    await self._woken.wait()
            except TimeoutError:
                return PING
        if self._lost:
            lost, self._lost = self._lost, 0
            return event("lost", shapes.Lost(events=lost))
        return self._queue.popleft() if self._queue else BYE


class Hub:
    """All readers, and the task that looks for them while there are some."""

    def __init__(
        self,
        ask: Questions,
        *,
        period_s: float = PERIOD_S,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._ask = ask
        self._period_s = period_s
        self._sleep = sleep
        self._readers: set[Reader] = set()
        self._looking: asyncio.Task[None] | None = None
        self._seq = 0
        self._last: tuple[bytes, float] = b"", 0.0

    def __len__(self) -> int:
        return len(self._readers)

    def enter(self, period_s: float) -> Reader:
        """One reader more. Raises Full."""
        if len(self._readers) >= READERS_MAX:
            raise Full(f"{READERS_MAX} readers of events are connected")
        reader = Reader(period_s)
        self._readers.add(reader)
        self._last = b"", 0.0  # it gets the first news whatever the others know
        if self._looking is None:
            self._looking = asyncio.create_task(self._look())
        return reader

    def leave(self, reader: Reader) -> None:
        """It has gone; after the last one there are no more looks."""
        self._readers.discard(reader)
        if not self._readers and self._looking is not None:
            self._looking.cancel()
            self._looking = None

    async def close(self) -> None:
        """End all streams."""
        for reader in self._readers:
            reader.end()
        looking, self._looking = self._looking, None
        if looking is not None:
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)

    async def _look(self) -> None:
        while True:
            news = await self._news()
            now = asyncio.get_running_loop().time()
            if news is not None:
                for reader in self._readers:
                    reader.offer(news, now)
            await self._sleep(self._period_s)

    async def _news(self) -> bytes | None:
        """The event to send; None if nothing has changed."""
        try:
            reading, status = await self._ask.snapshot()
            shown = await picture(self._ask) if reading.up else None
        except GmpdError as error:
            return event("gone", shapes.Gone(error=str(error)))
        if shown is None:
            return event("gone", shapes.Gone(error=self._ask.latest.trouble))
        now = asyncio.get_running_loop().time()
        same = _fingerprint(status, shown)
        if same == self._last[0] and now < self._last[1] + STILL_S:
            return None
        self._last = same, now
        self._seq += 1
        status.functions = []  # the largest part of it, with a route of its own
        watched = shapes.Watched(
            seq=self._seq, age_s=reading.age_s, up=reading.up, snapshot=status, picture=shown
        )
        return event("snapshot", watched, self._seq)


def _fingerprint(status: Any, shown: shapes.Picture) -> bytes:
    """The part whose change a reader sees: no clocks, and nothing that looking itself moves."""
    counters = [
        (p.state, p.pid, p.fresh, p.started, p.running, p.runq, p.ms, p.jobs_finished, p.gs,
         p.handoffs, p.children, p.steals, p.picks, p.schedtick)
        for p in status.ps
    ]  # fmt: skip
    hosts = [
        (h.name, h.state, h.problem, h.fresh, h.started, h.waiting, h.jobs_finished, h.stolen,
         h.losses)
        for h in status.cluster.hosts
    ]  # fmt: skip
    rest = (
        status.state, status.procs, status.sessions, status.queue.in_queue, status.jobs, hosts,
        status.cluster.engine, status.cluster.problem,
        status.isolated.states, status.durable.jobs, status.cron.problems, shown.queue,
        [each.fresh for each in shown.ps], status.stalled, status.degraded,
    )  # fmt: skip
    return msgspec.json.encode((counters, rest))
