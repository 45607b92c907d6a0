"""The awaitables of an asyncio client's jobs. Its loop alone uses them."""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

from gmpd import codec
from gmpd.client.unpickle_threads import UnpickleThreads
from gmpd.errors import ProtocolError
from gmpd.protocol import Outcome
from gmpd.submit.events import ItemsReceived, JobDone, JobProgress


class Owner(Protocol):
    """The client of a future."""

    unpickle_threads: UnpickleThreads

    def job_id(self, seq: int) -> str: ...
    def cancel_seqs(self, seqs: list[int], *, force: bool = False) -> None: ...
    def end_durable(self, job_id: bytes) -> None: ...


class AsyncJobFuture(asyncio.Future[Any]):
    """One job's awaitable. Cancelling it cancels the job."""

    #: How long the job ran, microseconds; once it is done.
    ran_us = 0
    _nbytes = 0
    _seq = 0
    _name = ""
    _client: Owner
    streams = False
    #: How far the job is, as it told by ``gmpd.progress``; None if it did not.
    progress: JobProgress | None = None

    @property
    def job_id(self) -> str:
        """The job's id, in hex."""
        return self._client.job_id(self._seq)

    def cancel(self, msg: Any = None, *, force: bool = False) -> bool:
        """Cancel the future at once, and the job as soon as the daemon hears of it. ``force``: see
        ``JobFuture.cancel``."""
        cancelled = super().cancel(msg)
        if cancelled:
            self._client.cancel_seqs([self._seq], force=force)
        return cancelled

    def ended(self, event: JobDone) -> None:
        """The job's outcome has come."""
        if self.done():
            return
        outcome, payload, buffers, self.ran_us, _ = event
        self._nbytes = len(payload) + sum(map(len, buffers))
        if outcome is Outcome.CANCELLED:
            super().cancel()
            return
        if outcome is Outcome.OK and not buffers and codec.is_plain(payload):
            try:
                self.set_result(codec.decode(payload))  # no user's code
            except ProtocolError as error:
                self.set_exception(error)
            return
        threads = self._client.unpickle_threads
        if threads.is_slow(event, self._name):
            threads.start(event, lambda: self.job_id, self._name, self._opened)
        else:
            self._opened(*threads.unpickle(event, lambda: self.job_id, self._name))

    def _opened(self, value: Any, error: BaseException | None) -> None:
        if self.done():  # cancelled meanwhile, if only by the value's own code
            return
        if error is None:
            self.set_result(value)
        else:
            self.set_exception(_for_asyncio(error))

    def yielded(self, event: ItemsReceived) -> None:
        """The job was not submitted as a stream."""

    def noted(self, what: str) -> None:
        """It runs, or a cancel came too late."""

    def progressed(self, progress: JobProgress) -> None:
        """The job has told how far it is."""
        self.progress = progress


class AsyncDurableFuture(AsyncJobFuture):
    """The awaitable of a durable job. Cancelling it leaves the job: ``client.job(id).cancel()``."""

    _id = b""
    #: Has the job stored, and awaits its end.
    _awaiting: asyncio.Task[None]
    #: It was cancelled by force before the job was on disk.
    is_unwanted = False

    @property
    def job_id(self) -> str:
        """The job's id, in hex; empty until it is on disk."""
        return self._id.hex()

    def cancel(self, msg: Any = None, *, force: bool = False) -> bool:
        """Wait no more; the job continues. ``force``: it is cancelled, too, as soon as it is on
        disk and the daemon hears of it; see ``JobFuture.cancel``."""
        cancelled = asyncio.Future.cancel(self, msg)
        if cancelled and force and not self._id:
            self.is_unwanted = True
            return True
        if cancelled and force:
            self._client.end_durable(self._id)
        self._awaiting.cancel(msg)
        return cancelled


def _for_asyncio(error: BaseException) -> BaseException:
    """``error``, or a RuntimeError where an asyncio future refuses it (StopIteration)."""
    if not isinstance(error, StopIteration):
        return error
    stand_in = RuntimeError(f"the job raised {error!r}")
    stand_in.__cause__ = error
    return stand_in
