"""Results of clients that take none: kept in the worker that made them, until they are asked for.

The coordinator leases no more jobs of such a client; but thousands may have begun, as coroutines
that wait, and each gives its result when its time comes. So the memory that they take is spread
over the workers, bounded in each, and counted as theirs: a job whose result is withheld is one that
has started and not ended. Beyond the bound a result is refused by name.

A result that is withheld is lost with its worker, and said to be.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from gmpd.codec import encode_error
from gmpd.errors import ResultRefused
from gmpd.protocol import Outcome

if TYPE_CHECKING:
    from gmpd.daemon.attempt import Attempt

#: Smaller ones cost the coordinator no more than the job itself does.
SMALL_BYTES = 1024


class Withheld:
    """``most``: bytes that are kept here, ``limits.worker_results``."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._nbytes = 0
        #: Leases whose results are to be withheld, once there are some; and those that are.
        self._tokens: set[int] = set()
        self._attempts: dict[int, Attempt] = {}

    def __bool__(self) -> bool:
        """Whether results are to be withheld, or are."""
        return bool(self._tokens or self._attempts)

    def begin(self, tokens: Iterable[int]) -> None:
        """The results of these leases are to be withheld."""
        self._tokens.update(tokens)

    def keep(self, attempt: Attempt) -> bool:
        """Whether the outcome of ``attempt`` is withheld; it may have been replaced by a
        refusal."""
        if attempt.token not in self._tokens:
            return False
        self._tokens.discard(attempt.token)
        nbytes = _nbytes(attempt)
        if nbytes <= SMALL_BYTES:
            return False
        if self._nbytes + nbytes > self._most:
            refusal = ResultRefused(
                f"the result of {attempt.fn_name}() has {nbytes} bytes, its client takes no"
                f" results, and the worker already keeps {self._nbytes} bytes of them:"
                f" limits.worker_results allows {self._most}. Read results as they come, or let"
                " jobs write them to files"
            )
            attempt.outcome, attempt.data = Outcome.ERROR, encode_error(refusal)
            attempt.out_buffers = ()
            return False
        self._nbytes += nbytes
        self._attempts[attempt.token] = attempt
        return True

    def end(self, tokens: Iterable[int]) -> list[Attempt]:
        """These are asked for: those that are there, to be reported."""
        found = []
        for token in tokens:
            self._tokens.discard(token)
            attempt = self._attempts.pop(token, None)
            if attempt is not None:
                self._nbytes -= _nbytes(attempt)
                found.append(attempt)
        return found

    def end_all(self) -> list[Attempt]:
        """All that are there: the worker is about to end."""
        return self.end([*self._tokens, *self._attempts])


def _nbytes(attempt: Attempt) -> int:
    return len(attempt.data) + sum(map(len, attempt.out_buffers))
