"""Results of clients that take none: kept in the worker that made them, until they are asked for.

The coordinator leases no more jobs of such a client; but thousands may have begun, as coroutines
that wait, and each gives its result when its time comes. So the memory that they take is spread
over the workers, bounded in each, and counted as theirs: a job whose result is withheld is one that
has started and not ended. Beyond the bound a result is refused by name.

A worker also withholds results by itself while ``TRANSIT_BYTES`` of others are on their way: jobs
may end all at once, before it is told that their client takes nothing.

A result that is withheld is lost with its worker, and said to be.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING

from gmpd.codec import encode_error
from gmpd.daemon.outbox_overflow import StoredOutcome
from gmpd.daemon.outcomes import times_us
from gmpd.errors import ResultRefused
from gmpd.protocol import Outcome

if TYPE_CHECKING:
    from gmpd.daemon.attempt import Attempt
    from gmpd.daemon.shm import WorkerShm

#: Results on their way to the coordinator, beyond which further ones are kept here: as much as it
#: takes in two turns.
TRANSIT_BYTES = 8 << 20

#: Smaller ones cost the coordinator no more than the job itself does.
SMALL_BYTES = 1024


class Withheld:
    """``most``: bytes that are kept here, ``limits.worker_results``."""

    def __init__(self, most: int, shm: WorkerShm) -> None:
        self._most = most
        self._shm = shm
        self._nbytes = 0
        self._transit = InTransit()
        #: Whether an outcome has to be offered to ``keep``. A plain attribute, read for every one.
        self.is_needed = False
        #: Leases whose results are to be withheld, once there are some; and those that are.
        self._tokens: set[int] = set()
        self._attempts: dict[int, Attempt] = {}

    def sent(self, outcomes: int, nbytes: int) -> None:
        """A message of ``nbytes`` was sent; ``outcomes`` of this epoch in all by now."""
        if nbytes > SMALL_BYTES or self._transit.nbytes:
            self._transit.sent(outcomes, nbytes)
            self._look()

    def _look(self) -> None:
        crowded = self._transit.acknowledged(self._shm.acknowledged) > TRANSIT_BYTES
        self.is_needed = bool(self._tokens or self._attempts or crowded)

    def begin(self, tokens: Iterable[int]) -> None:
        """The results of these leases are to be withheld."""
        self._tokens.update(tokens)
        self._look()

    def keep(self, attempt: Attempt) -> int:
        """The bytes of an outcome that is withheld, 0 if it is to be sent; it may have been
        replaced by a refusal."""
        told = attempt.token in self._tokens
        self._tokens.discard(attempt.token)
        self._look()
        if not told and self._transit.nbytes <= TRANSIT_BYTES:
            return 0
        nbytes = _nbytes(attempt)
        if nbytes <= SMALL_BYTES:
            return 0
        if self._nbytes + nbytes > self._most:
            if told:
                self._refuse(attempt, nbytes)
            return 0
        if attempt.may_be_kept and not told:
            # Nothing speaks against its client: it is as safe from a crash as one that was sent.
            token, outcome, data = attempt.token, attempt.outcome, attempt.data
            ran = times_us(attempt)
            self._shm.keep(StoredOutcome(token, outcome, data, *ran, attempt.out_buffers))
        self._nbytes += nbytes
        self._attempts[attempt.token] = attempt
        self.is_needed = True
        return nbytes

    def _refuse(self, attempt: Attempt, nbytes: int) -> None:
        refusal = ResultRefused(
            f"the result of {attempt.fn_name}() has {nbytes} bytes, its client takes no"
            f" results, and the worker already keeps {self._nbytes} bytes of them:"
            f" limits.worker_results allows {self._most}. Read results as they come, or let"
            " jobs write them to files"
        )
        attempt.outcome, attempt.data = Outcome.ERROR, encode_error(refusal)
        attempt.out_buffers = ()

    def end(self, tokens: Iterable[int]) -> list[Attempt]:
        """These are asked for: those that are there, to be reported."""
        found = []
        for token in tokens:
            self._tokens.discard(token)
            attempt = self._attempts.pop(token, None)
            if attempt is not None:
                self._nbytes -= _nbytes(attempt)
                found.append(attempt)
        self._look()
        return found

    def end_all(self) -> list[Attempt]:
        """All that are there: the worker is about to end."""
        return self.end([*self._tokens, *self._attempts])


class InTransit:
    """Bytes of outcomes that were sent and that the coordinator does not have."""

    def __init__(self) -> None:
        self.nbytes = 0
        #: Outcomes sent so far, and the bytes of the last message.
        self._messages: deque[tuple[int, int]] = deque()

    def sent(self, outcomes: int, nbytes: int) -> None:
        """A message of ``nbytes`` was sent; ``outcomes`` in all by now."""
        self._messages.append((outcomes, nbytes))
        self.nbytes += nbytes

    def acknowledged(self, outcomes: int) -> int:
        """The coordinator has this many outcomes; the bytes that are still in transit."""
        messages = self._messages
        while messages and messages[0][0] <= outcomes:
            self.nbytes -= messages.popleft()[1]
        return self.nbytes


def _nbytes(attempt: Attempt) -> int:
    return len(attempt.data) + sum(map(len, attempt.out_buffers))
