"""Durable jobs on their way to the daemon: many in one message, a window of them unanswered.

One message and one transaction for each job cost ten times what they cost for a thousand.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Iterator
from typing import Any, Protocol

from gmpd import spans
from gmpd.client.calls import Answer
from gmpd.client.defer_signals import DEFER_SIGNALS
from gmpd.client.stored import Storable, accepted, prepare_storable
from gmpd.codec import Blob, describe_function

#: Jobs of one message, and their bytes: what a loop may be busy with at a time.
BATCH_JOBS = 1024
BATCH_BYTES = 1 << 20
#: Jobs that the daemon has not answered: it keeps them in memory until they are on disk.
WINDOW_JOBS = 16 * BATCH_JOBS


class StoreBatch:
    """Durable jobs alike in function and options: one Enqueue."""

    def __init__(self, first: Storable) -> None:
        self.ref, self.options, self.stored = first.ref, first.options, first.stored
        self.jobs: list[tuple[bytes, Blob]] = []
        self._nbytes = 0

    def __len__(self) -> int:
        return len(self.jobs)

    def fits(self, job: Storable) -> bool:
        """Whether it takes this one, too."""
        return (
            len(self.jobs) < BATCH_JOBS
            and self._nbytes < BATCH_BYTES
            and self.ref == job.ref
            and self.options == job.options
            and self.stored == job.stored
        )

    def add(self, job: Storable) -> None:
        """One more job, which fits."""
        self.jobs.append((job.id, job.blob))
        self._nbytes += job.blob.nbytes

    def ids(self, value: Any) -> Iterator[bytes | Exception]:
        """From the daemon's reply: for each job the id that counts, or why it has none."""
        for row, (id_, _) in enumerate(self.jobs):
            try:
                yield accepted(value, id_, self.options, row)
            except Exception as error:  # noqa: BLE001 - of this job alone
                yield error

    def hex_ids(self, value: Any) -> list[str]:
        """The ids that count, from the daemon's reply. Raises GmpdError when a job has none."""
        if not any(value["verdicts"]):  # all of them are new: their own
            return [id_.hex() for id_, _ in self.jobs]
        return [
            accepted(value, id_, self.options, row).hex() for row, (id_, _) in enumerate(self.jobs)
        ]


def note_stored(error: BaseException, n: int) -> None:
    """Tell with an error of ``enqueue_many`` what was done before it."""
    if n:
        error.add_note(f"gmpd: enqueue_many had stored the first {n:,} jobs by then, or more")


def batches(jobs: Iterable[Storable]) -> Iterator[StoreBatch]:
    """Neighbours that fit into one message."""
    batch = None
    for job in jobs:
        if batch is None or not batch.fits(job):
            if batch is not None:
                yield batch
            batch = StoreBatch(job)
        batch.add(job)
    if batch is not None:
        yield batch


def storables(
    fn: Callable[..., Any],
    overrides: dict[str, Any] | None,
    items: Iterable[tuple[Any, ...]],
    check: Callable[[Storable], None],
) -> Iterator[Storable]:
    """A call for each tuple of arguments. ``check`` raises for what cannot be sent."""
    header = b""  # one span for all of them
    if spans.LOADED in sys.modules:
        header = spans.submitted(describe_function(fn).name, **{"gmpd.many": True})
    for args in items:
        job = prepare_storable(fn, overrides, args, _NO_WORDS, header)
        check(job)
        yield job


_NO_WORDS: dict[str, Any] = {}


async def store_many(
    calls: Iterable[Storable], store: Callable[[StoreBatch], Coroutine[Any, Any, list[str]]]
) -> list[str]:
    """Have all of them stored, some messages at a time; their ids, in order."""
    out, ids = deque[asyncio.Task[list[str]]](), list[str]()
    try:
        for batch in batches(calls):
            out.append(asyncio.create_task(store(batch)))
            await asyncio.sleep(0)  # others run between two batches
            while len(out) * BATCH_JOBS > WINDOW_JOBS:
                ids += await out[0]
                out.popleft()
        while out:
            ids += await out[0]
            out.popleft()
    except BaseException as error:
        for task in out:
            task.cancel()
        await asyncio.gather(*out, return_exceptions=True)
        note_stored(error, len(ids))
        raise
    return ids


class Told(Protocol):
    """Waits for one job to be stored: a future."""

    def done(self) -> bool: ...
    def set_result(self, id_: bytes, /) -> None: ...
    def set_exception(self, error: Exception, /) -> None: ...


class Asker(Protocol):
    """A client."""

    endpoint: str

    def ask_to_store(self, batch: StoreBatch, told: Callable[[], object]) -> Answer: ...


class Gathering:
    """The jobs that callers of one loop have stored one by one. It has no reference to its client,
    which is to end with its last reference."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[StoreBatch, list[Told]]] = deque()
        self._unanswered = 0
        #: A flush is about to come.
        self._is_due = False

    async def store(self, client: Asker, job: Storable) -> bytes:
        """Have a job stored, together with others of this turn of the loop; the id that counts."""
        loop = asyncio.get_running_loop()
        told: asyncio.Future[bytes] = loop.create_future()
        with DEFER_SIGNALS:  # a signal handler may do this, too
            self.add(job, told)
            if not self._is_due:
                self._is_due = True
                loop.call_soon(self.flush, client)
        return await told

    def add(self, job: Storable, told: Told) -> None:
        """One more; ``told`` gets its id. It goes with the next ``flush``."""
        if not self._waiting or not self._waiting[-1][0].fits(job):
            self._waiting.append((StoreBatch(job), []))
        batch, waiters = self._waiting[-1]
        batch.add(job)
        waiters.append(told)

    def flush(self, client: Asker) -> None:
        """Send what the window allows."""
        with DEFER_SIGNALS:
            self._is_due = False
            while self._waiting and self._unanswered < WINDOW_JOBS:
                batch, waiters = self._waiting.popleft()
                self._unanswered += len(batch)
                try:
                    self._send(client, batch, waiters)
                except Exception as error:  # noqa: BLE001 - whatever it is, they get it
                    self._answered(batch, waiters, error)

    def _send(self, client: Asker, batch: StoreBatch, waiters: list[Told]) -> None:
        def answered() -> None:
            try:
                value = answer.take(client.endpoint, None)
            except Exception as error:  # noqa: BLE001 - whatever it is, they get it
                value = error
            self._answered(batch, waiters, value)
            self.flush(client)

        answer = client.ask_to_store(batch, answered)

    def _answered(self, batch: StoreBatch, waiters: list[Told], value: Any) -> None:
        self._unanswered -= len(batch)
        ids = [value] * len(batch) if isinstance(value, Exception) else batch.ids(value)
        for told, id_ in zip(waiters, ids, strict=True):
            if told.done():  # it was cancelled
                continue
            if isinstance(id_, Exception):
                told.set_exception(id_)
            else:
                told.set_result(id_)
