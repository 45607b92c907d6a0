"""The store of durable jobs: a port of one method, and the thread that alone uses it.

The coordinator hands operations (``sched.stored``) to ``StoreThread`` and gets their answers in its
own loop, in order, after the transaction that they were part of has been flushed to the disk. The
thread takes all operations that wait into one transaction (group commit): the flush of the last one
is the time in which the next ones gather, so no timer is needed.

Nothing above this module knows which store it is.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from gmpd.sched.stored import Answer, Operation, PutJobs, StoreFailure

log = logging.getLogger("gmpd.store")

#: Most operations of one transaction, and most bytes of jobs: bounds how long the first of them
#: waits for the last.
BATCH_OPERATIONS = 512
BATCH_BYTES = 4 << 20
#: A job's row, beside its arguments.
JOB_BYTES = 256
#: While the disk is full, everything but new jobs is tried again at this interval (s).
RETRY_S = 1.0
#: The thread looks for housekeeping (checkpoints) after it was idle for this long (s).
IDLE_S = 1.0


class StoreRefusedError(Exception):
    """The store cannot be used. The text is one sentence: what is wrong, and what to do."""


class StoreFullError(Exception):
    """The disk is full. The transaction changed nothing."""


class StoreBrokenError(Exception):
    """A transaction failed, and whether it is on disk is unknown. The store must be opened anew by
    another process: after a failed flush Linux may call pages of the file clean."""


class Store(Protocol):
    """A store of durable jobs. One thread uses it, which also opens it."""

    def apply(self, batch: Sequence[Operation]) -> list[Answer]:
        """Apply operations in one transaction; the answers come once it is flushed.

        Raises StoreFullError with nothing changed, StoreBrokenError when that is unknown.
        """

    def make_room(self) -> bool:
        """The disk is full: free the ballast; False when none is left."""

    def rest(self) -> None:
        """Nothing is to be done: time for housekeeping."""

    def close(self) -> None:
        """An orderly end."""


#: Called in the coordinator's loop with the answer.
Told = Callable[["Answer | StoreFailure"], None]


class StoreThread:
    """Opens a store, and applies operations to it, in a thread of its own.

    ``open_store`` is called in that thread. ``fd`` is readable when ``deliver`` has answers to
    give. After a failure (``failure``) every operation is answered with ``StoreFailure``.
    """

    def __init__(self, open_store: Callable[[], Store]) -> None:
        self._open = open_store
        self._lock = threading.Lock()
        self._waiting: deque[tuple[Operation, Told]] = deque()
        self._work = threading.Event()
        self._answered: deque[tuple[Told, Answer | StoreFailure]] = deque()
        self.fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        #: Why nothing is kept any more; empty while all is well.
        self.failure = ""
        #: It is not known what the last transaction did.
        self.is_broken = False
        #: The disk is full: new jobs are refused.
        self.is_full = False
        #: Transactions, and operations in them.
        self.commits = 0
        self.operations = 0
        self._ending = False
        self._thread = threading.Thread(target=self._run, name="gmpd-store", daemon=True)
        self._thread.start()

    # -- the coordinator's side --------------------------------------------------------------------

    def do(self, operation: Operation, told: Told) -> None:
        """Have an operation applied; ``told`` gets the answer from a later ``deliver``."""
        self._waiting.append((operation, told))
        self._work.set()

    @property
    def waiting(self) -> int:
        """Operations that were not answered yet, apart from those of the present transaction."""
        return len(self._waiting)

    def deliver(self) -> None:
        """Hand the answers that have come to their callers."""
        try:
            os.eventfd_read(self.fd)
        except BlockingIOError:
            pass
        while self._answered:
            told, answer = self._answered.popleft()
            told(answer)

    def close(self, timeout_s: float) -> bool:
        """Apply the queued operations, and end; False if that took longer than ``timeout_s``."""
        self._ending = True
        self._work.set()
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            return False
        os.close(self.fd)
        return True

    # -- the thread's side -------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            store = self._open()
        except StoreRefusedError as error:
            self._fail(str(error))
            return
        except Exception as error:
            log.exception("the store of durable jobs cannot be opened")
            self._fail(f"the store of durable jobs cannot be opened: {error!r}")
            return
        try:
            self._serve(store)
        except Exception as error:
            log.exception("the store of durable jobs failed")
            self.is_broken = True
            self._fail(f"the store of durable jobs failed: {error}")
        finally:
            store.close()

    def _serve(self, store: Store) -> None:
        while True:
            if not self._work.wait(IDLE_S):
                store.rest()
                continue
            self._work.clear()
            while self._waiting:
                self._apply(store, self._take())
            if self._ending and not self._waiting:
                return

    def _take(self) -> list[tuple[Operation, Told]]:
        batch: list[tuple[Operation, Told]] = []
        nbytes = 0
        while self._waiting and len(batch) < BATCH_OPERATIONS and nbytes < BATCH_BYTES:
            operation, told = self._waiting.popleft()
            batch.append((operation, told))
            if isinstance(operation, PutJobs):
                nbytes += sum(JOB_BYTES + len(job.payload) for job in operation.jobs)
        return batch

    def _apply(self, store: Store, batch: list[tuple[Operation, Told]]) -> None:
        try:
            answers = store.apply([operation for operation, _ in batch])
        except StoreFullError as error:
            self._apply_without_new(store, batch, str(error))
            return
        self.is_full = False
        self._count(batch)
        for (_, told), answer in zip(batch, answers, strict=True):
            self._answered.append((told, answer))
        self._wake()

    def _apply_without_new(
        self, store: Store, batch: list[tuple[Operation, Told]], text: str
    ) -> None:
        """The disk is full: refuse new jobs, but store the ends of those that ran."""
        if not self.is_full:
            log.error("%s: new durable jobs are refused until there is room", text)
        self.is_full = True
        rest: list[tuple[Operation, Told]] = []
        for operation, told in batch:
            if isinstance(operation, PutJobs):
                self._answered.append((told, StoreFailure(text, full=True)))
            else:
                rest.append((operation, told))
        self._wake()
        while rest:
            try:
                answers = store.apply([operation for operation, _ in rest])
            except StoreFullError:
                if not store.make_room() and self._wait_for_room():
                    return
                continue
            self._count(rest)
            for (_, told), answer in zip(rest, answers, strict=True):
                self._answered.append((told, answer))
            self._wake()
            return

    def _wait_for_room(self) -> bool:
        """Wait a moment; whether the daemon ends meanwhile: then the jobs run again."""
        time.sleep(RETRY_S)
        for operation, told in list(self._waiting):
            if isinstance(operation, PutJobs):
                self._waiting.remove((operation, told))
                self._answered.append((told, StoreFailure("the disk is full", full=True)))
        self._wake()
        return self._ending

    def _count(self, batch: Sequence[tuple[Operation, Told]]) -> None:
        self.commits += 1
        self.operations += len(batch)

    def _fail(self, text: str) -> None:
        self.failure = text
        self._wake()
        while not self._ending:
            self._work.wait()
            self._work.clear()
            while self._waiting:
                _, told = self._waiting.popleft()
                self._answered.append((told, StoreFailure(text)))
            self._wake()

    def _wake(self) -> None:
        os.eventfd_write(self.fd, 1)
