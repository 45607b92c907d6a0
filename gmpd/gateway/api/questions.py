"""Questions of the API to the coordinator: by the messages that exist, bounded, and once for all
readers of a moment.

Nothing is asked while there is no reader. A look that several readers share is asked once per
interval; all others together are asked at most RATE times a second, and at most PENDING_MAX may
wait: those beyond are refused, and no other waits for them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

from msgspec import ValidationError, convert

from gmpd.errors import GmpdError, ProtocolError
from gmpd.gateway.api.trace import TraceFeed
from gmpd.gateway.collector import Reading
from gmpd.gateway.latest import Latest
from gmpd.gateway.link import CoordinatorLink
from gmpd.status import Status, read

if TYPE_CHECKING:  # only a process in which jobs are submitted needs the codec
    from gmpd.codec import Blob, FunctionRef

#: Questions per second, and those that may wait for their answers.
RATE: Final = 50
PENDING_MAX: Final = 64
#: Seconds for which one answer serves all equal questions.
REUSE_S: Final = 0.25
#: Seconds that a reader waits for a snapshot: people would rather wait than see an old one. And the
#: age up to which one shows the daemon as it is.
SNAPSHOT_WAIT_S: Final = 1.0
FRESH_S: Final = 2.0
#: Questions that wait for workers. They have a link of their own: a link asks one after the other,
#: and those about the queues are not to wait for a deaf worker.
OF_WORKERS: Final = frozenset({"gs", "g", "stacks", "sched", "trace"})
#: Answers that are kept.
SHARED_MAX: Final = 64


class Busy(GmpdError):
    """Too many questions at once: ``retry_s`` is when to ask again."""

    def __init__(self, retry_s: float) -> None:
        super().__init__("too many questions at once")
        self.retry_s = retry_s


class Unready(GmpdError):
    """There is no snapshot yet, or no daemon."""


class Questions:
    """``latest``: the snapshot that all share. ``connect`` makes a link for a role, when one is
    needed; ``clock`` counts seconds."""

    def __init__(
        self,
        latest: Latest,
        connect: Callable[[str], CoordinatorLink],
        *,
        rate: float = RATE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.latest = latest
        self.trace = TraceFeed(self.call)
        self._connect = connect
        self._rate = rate
        self._clock = clock
        self._links: dict[tuple[str, bool], CoordinatorLink] = {}
        self._shared: dict[Any, tuple[float, asyncio.Future[Any]]] = {}
        self._pending = 0
        self._credit = rate
        self._credited_at = clock()

    async def snapshot(self) -> tuple[Reading, Status]:
        """The last snapshot, made fresh if the coordinator answers in time. Raises Unready if there
        is none."""
        await self.latest.refresh(SNAPSHOT_WAIT_S)
        reading = self.latest.reading()
        if not reading.snapshot:
            raise Unready(self.latest.trouble)
        return reading._replace(up=reading.age_s < FRESH_S), read(reading.snapshot)

    async def look(self, method: str, **params: Any) -> Any:
        """The answer to a question that many may ask at once."""
        key = method, tuple(sorted(params.items()))
        known = self._shared.get(key)
        if known is not None and (not known[1].done() or self._clock() < known[0] + REUSE_S):
            return await asyncio.shield(known[1])
        answer = asyncio.ensure_future(self.call(method, **params))
        answer.add_done_callback(_retrieved)
        self._shared.pop(key, None)
        while len(self._shared) >= SHARED_MAX:
            del self._shared[next(iter(self._shared))]
        self._shared[key] = self._clock(), answer
        return await asyncio.shield(answer)

    async def call(self, method: str, **params: Any) -> Any:
        """The answer to an administrative question."""
        link = self._link("admin", of_workers=method in OF_WORKERS)
        return await self._bounded(lambda: link.call(method, **params))

    async def ask_jobs(self, what: str, id_: bytes, **more: Any) -> Any:
        """The answer to a question about a job."""
        link = self._link("admin")
        return await self._bounded(
            lambda: link.put(lambda core, sink: core.ask_jobs(what, [id_], sink, **more))
        )

    async def store(
        self, ref: FunctionRef, id_: bytes, blob: Blob, options: Any, stored: dict[str, Any]
    ) -> Any:
        """Have a durable job stored."""
        link = self._link("client")
        return await self._bounded(
            lambda: link.put(
                lambda core, sink: core.enqueue(ref, [(id_, blob)], options, stored, sink)
            )
        )

    async def close(self) -> None:
        """Leave the coordinator."""
        links, self._links = list(self._links.values()), {}
        for link in links:
            await asyncio.to_thread(link.close)

    def _link(self, role: str, *, of_workers: bool = False) -> CoordinatorLink:
        key = role, of_workers
        if key not in self._links:
            self._links[key] = self._connect(role)
        return self._links[key]

    async def _bounded(self, ask: Callable[[], Awaitable[Any]]) -> Any:
        now = self._clock()
        self._credit = min(self._rate, self._credit + (now - self._credited_at) * self._rate)
        self._credited_at = now
        if self._credit < 1 or self._pending >= PENDING_MAX:
            raise Busy(1.0)
        self._credit -= 1
        self._pending += 1
        try:
            return await ask()
        finally:
            self._pending -= 1


def _retrieved(answer: asyncio.Future[Any]) -> None:
    """Its readers may have gone, and then its error is not to be reported."""
    if not answer.cancelled():
        answer.exception()


def answer_as(value: Any, kind: type[Any]) -> Any:
    """An answer of the coordinator, checked. Raises ProtocolError."""
    try:
        return convert(value, kind)
    except ValidationError as error:
        raise ProtocolError(
            f"the daemon's answer is none that this version reads: {error}"
        ) from None
