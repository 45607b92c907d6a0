"""Outcomes and items of a worker as messages: column by column, as many as one message takes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gmpd import protocol
from gmpd.codec import Blob
from gmpd.daemon.attempt import Attempt
from gmpd.daemon.definitions import LONG_NS
from gmpd.protocol import Outcome
from gmpd.runtime.ring import Kind, Ring

#: Outcomes of quick calls are batched for this long: a quarter of a P's usual credit, so that the
#: coordinator refills it before it is used up.
GATHER_NS = 500_000
#: Outcomes of any calls are batched while P holds more than that credit: for a quarter of the time
#: that all of it takes, and for this at most.
GATHER_NS_MAX = 4_000_000
#: Child outcomes are batched longer, up to half the credit: a parent usually awaits many, and every
#: message wakes two processes on the cores that do the work.
GATHER_CHILDREN_NS = 20_000_000
#: The most outcomes of a batch: half of the credit in jobs.
GATHER_MAX = 128


def is_due(age_ns: int, fresh: int, slow_ns: int, quick_ns: int, child: bool = False) -> bool:
    """Whether outcomes are to be sent before the next of ``fresh`` leases has ended. ``age_ns``:
    since the last were sent; ``slow_ns``: what those leases take that are not quick; ``quick_ns``:
    the average of the function that has just ended, for all of them if none is slow.

    Not by the age of the outcomes, of which most ages would be asked for in vain.
    """
    if child:
        return age_ns > GATHER_CHILDREN_NS or slow_ns > 0
    if slow_ns:  # of fewer than four leases, the next one takes longer than a quarter of them
        return fresh < 4 or slow_ns >= LONG_NS or age_ns > min(GATHER_NS_MAX, slow_ns >> 2)
    return age_ns > GATHER_NS and age_ns > min(GATHER_NS_MAX, quick_ns * fresh >> 2)


def times_us(attempt: Attempt) -> tuple[int, int]:
    """How long a call ran and occupied P, in microseconds."""
    return max(0, attempt.ended_ns - attempt.began_ns) // 1000, attempt.occupied_ns // 1000


class OutcomeBatch:
    """Outcomes that go into one Finished, in the order in which they came about."""

    __slots__ = (
        "_began_ns",
        "_buffers",
        "_functions",
        "_occupied_us",
        "_payloads",
        "_ran_us",
        "_specials",
        "_tokens",
        "nbytes",
        "told",
    )

    def __init__(self) -> None:
        self._tokens: list[int] = []
        self._began_ns: list[int] = []
        #: ``~function`` of an async job.
        self._functions: list[int] = []
        self._payloads: list[bytes] = []
        self._ran_us: list[int] = []
        self._occupied_us: list[int] = []
        self._specials: dict[int, tuple[Outcome, protocol.Report | None]] = {}
        self._buffers: list[Any] = []
        #: Bytes of all values in it.
        self.nbytes = 0
        #: Their clients have them: see ``was_told``.
        self.told = False

    def __len__(self) -> int:
        return len(self._tokens)

    def add(self, attempt: Attempt, report: protocol.Report | None) -> tuple[int, int]:
        """Add the outcome of a call; how long it ran and occupied P, in microseconds."""
        ran_us, occupied_us = times_us(attempt)
        if report is not None or attempt.outcome is not Outcome.OK:
            self._specials[len(self._tokens)] = attempt.outcome, report
        self._tokens.append(attempt.token)
        self._began_ns.append(attempt.began_ns)
        self._functions.append(~attempt.fn.fid if attempt.adopted else attempt.fn.fid)
        self._payloads.append(attempt.data)
        self._ran_us.append(ran_us)
        self._occupied_us.append(occupied_us)
        self._buffers.append(attempt.out_buffers)
        self.nbytes += len(attempt.data)
        if attempt.out_buffers:
            self.nbytes += sum(map(len, attempt.out_buffers))
        return ran_us, occupied_us

    def add_plain(
        self, token: int, began_ns: int, fid: int, data: bytes, ran_us: int, occupied_us: int
    ) -> int:
        """Add a value without buffers, of a plain call; how many there are now."""
        tokens = self._tokens
        tokens.append(token)
        self._began_ns.append(began_ns)
        self._functions.append(fid)
        self._payloads.append(data)
        self._ran_us.append(ran_us)
        self._occupied_us.append(occupied_us)
        self._buffers.append(())
        self.nbytes += len(data)
        return len(tokens)

    def was_told(self) -> None:
        """The client of the one that is in it has its value. No other is to be added."""
        self._payloads[0], self.told = b"", True

    def record(self, ring: Ring | None) -> None:
        """Show it in the ring of events, if there is one."""
        if ring is None:
            return
        ring.add_jobs(self._tokens, self._began_ns, self._ran_us, self._functions)
        for row, (outcome, _) in self._specials.items():
            at = self._began_ns[row] + self._ran_us[row] * 1000
            ring.add((Kind.FAILED | outcome << 8, at, 0, self._tokens[row]))

    def message(self) -> tuple[protocol.Finished, list[Any]]:
        """The message and its further frames."""
        counts, frames = protocol.join_buffers(self._buffers)
        message = protocol.Finished(
            self._tokens, self._payloads, self._ran_us, self._occupied_us,
            self._specials or None, counts, self.told,
        )  # fmt: skip
        return message, frames


def items(token: int, blobs: list[Blob]) -> Iterator[tuple[protocol.Items, list[Any]]]:
    """The items of a generator job, as messages with their further frames."""
    while blobs:
        n = _fitting(blobs)
        some, blobs = blobs[:n], blobs[n:]
        counts, frames = protocol.join_buffers([blob.buffers for blob in some])
        yield protocol.Items(token, [blob.data for blob in some], counts), frames


def _fitting(blobs: list[Blob]) -> int:
    """How many of the first blobs go into one message."""
    nbytes = 0
    for n, blob in enumerate(blobs, 1):
        nbytes += blob.nbytes
        if nbytes > protocol.GATHER_BYTES:
            return n
    return len(blobs)
