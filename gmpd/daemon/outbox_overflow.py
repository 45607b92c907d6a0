"""Outcomes that have no room in the ring of shared memory: large ones; small ones when it is full.

They lie in the same memfd, beyond the mapped part: written with ``pwritev``, so too little memory
is an error of one write and not SIGBUS, and memory is used only while outcomes are stored. There
are two logs. The worker appends to one until it has grown to ``TURN_BYTES`` and the other is
acknowledged, then continues in the other from its beginning: so the same memory is reused, and no
record is moved or wraps around.

Outcomes stored here may have been acknowledged: the reader passes the tokens that are still owed.
It does not know jobs; the three integers that it shares lie in the status block.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Container, Sequence
from typing import Any, NamedTuple

from gmpd.protocol import Finished, Outcome, Report

#: A log that has grown to this is left for the other one when that is free: a few results of
#: megabytes, since more would touch more memory.
TURN_BYTES = 4 << 20
#: The limit of a log, except for a single larger record: the lag that a coordinator may have.
#: Beyond it an outcome is as safe as its message.
OVERFLOW_BYTES = 128 << 20

#: Where each log begins: far beyond what is mapped, and further apart than any value is large.
_BASES = (1 << 40, 1 << 41)
#: Parts of one write: below IOV_MAX, which POSIX and Linux put at 1,024.
_PARTS = 512

_RECORD = struct.Struct("<BQIIQI")  # outcome, token, ran us, occupied us, payload, buffers
_LENGTH = struct.Struct("<Q")


class StoredOutcome(NamedTuple):
    """One outcome found in a worker's shared memory."""

    token: int
    outcome: int
    payload: bytes
    ran_us: int
    occupied_us: int
    buffers: Sequence[bytes] = ()


def as_finished(stored: list[StoredOutcome]) -> Finished:
    """The report that a worker would have made of them; their buffers go beside it."""
    specials: dict[int, tuple[Outcome, Report | None]] = {
        i: (Outcome(each.outcome), None)
        for i, each in enumerate(stored)
        if each.outcome != Outcome.OK
    }
    return Finished(
        [each.token for each in stored],
        [each.payload for each in stored],
        [each.ran_us for each in stored],
        [each.occupied_us for each in stored],
        specials or None,
        None,
    )


class OverflowLog:
    """Either side's view. ``shared``: the two logs' lengths, and how often one was begun anew."""

    def __init__(self, fd: int, shared: memoryview) -> None:
        self._fd = fd
        self._shared = shared
        #: The log that is written to; the worker's own copies of the lengths.
        self._log = 0
        self._lengths = [0, 0]
        #: For each log: something in it has not been sent; the acknowledgement that frees it.
        self._unsent = [False, False]
        self._until = [0, 0]
        #: For each log: tokens of outcomes that are not sent before they are asked for.
        self._kept: tuple[set[int], set[int]] = set(), set()
        self.is_used = False

    def close(self) -> None:
        """Release the shared memory; the descriptor belongs to ``WorkerShm``."""
        self._shared.release()

    # -- the worker writes -------------------------------------------------------------------------

    def append(self, stored: StoredOutcome, acked: int, *, kept: bool = False) -> bool:
        """Append an outcome; False when there is no room or no memory for it. ``kept``: it is not
        to be sent before ``release``."""
        lengths = [len(buffer) for buffer in stored.buffers]
        head = _RECORD.pack(
            stored.outcome,
            stored.token,
            stored.ran_us,
            stored.occupied_us,
            len(stored.payload),
            len(lengths),
        )
        head += struct.pack(f"<{len(lengths)}Q", *lengths)
        size = len(head) + len(stored.payload) + sum(lengths)
        log = self._choose(size, acked)
        if log is None:
            return False
        at = self._lengths[log]
        self.is_used = True
        if not self._write(_BASES[log] + at, [head, stored.payload, *stored.buffers]):
            return False
        if kept:
            self._kept[log].add(stored.token)
        else:
            self._unsent[log] = True
        self._lengths[log] = self._shared[log] = at + size
        return True

    def release(self, token: int) -> bool:
        """An outcome that was kept is about to be sent; False if it is not here."""
        for log, kept in enumerate(self._kept):
            if token in kept:
                kept.discard(token)
                self._unsent[log] = True
                return True
        return False

    def sent(self, outcomes: int) -> None:
        """All that was kept has been sent; an acknowledgement of that many outcomes frees it."""
        for log in (0, 1):
            if self._unsent[log]:
                self._unsent[log] = False
                self._until[log] = outcomes

    def rest(self, acked: int, mapped: int) -> None:
        """Give the memory back, if nothing in it is owed. The file keeps ``mapped`` bytes."""
        if self._is_free(0, acked) and self._is_free(1, acked):
            self.is_used = False
            self._begin(0)
            self._begin(1)
            os.ftruncate(self._fd, mapped)

    def _choose(self, size: int, acked: int) -> int | None:
        log, other = self._log, 1 - self._log
        if self._is_free(log, acked):
            self._begin(log)
        elif self._lengths[log] + size > TURN_BYTES and self._is_free(other, acked):
            self._begin(other)
            self._log = other
        elif self._lengths[log] + size > OVERFLOW_BYTES:
            return None
        return self._log

    def _is_free(self, log: int, acked: int) -> bool:
        return not (self._unsent[log] or self._kept[log]) and self._until[log] <= acked

    def _begin(self, log: int) -> None:
        if self._lengths[log]:
            self._shared[2] += 1
            self._lengths[log] = self._shared[log] = 0

    def _write(self, at: int, parts: Sequence[Any]) -> bool:
        try:
            for i in range(0, len(parts), _PARTS):
                some = parts[i : i + _PARTS]
                wanted = sum(map(len, some))
                if os.pwritev(self._fd, some, at) != wanted:
                    return False
                at += wanted
        except OSError:  # no memory, or a limit on the size of files
            return False
        return True

    # -- the coordinator reads ---------------------------------------------------------------------

    @property
    def turns(self) -> int:
        """Rises before anything is written over."""
        turns: int = self._shared[2]
        return turns

    def recover(
        self, owed: Container[int] | None, largest: int | None = None
    ) -> list[StoredOutcome]:
        """The outcomes kept here of the tokens ``owed`` (None: all), of ``largest`` bytes at most.
        Of a living worker it may be nonsense, if ``turns`` has risen meanwhile; it ends early then,
        and raises nothing."""
        found: list[StoredOutcome] = []
        turns = self.turns
        for log, base in enumerate(_BASES):
            at, end = base, base + self._shared[log]
            while at + _RECORD.size <= end and self.turns == turns:
                head = _RECORD.unpack(self._read(at, _RECORD.size))
                outcome, token, ran_us, occupied_us, length, n = head
                at += _RECORD.size
                if at + n * _LENGTH.size > end:
                    break
                sizes = length, *struct.unpack(f"<{n}Q", self._read(at, n * _LENGTH.size))
                at += n * _LENGTH.size
                after = at + sum(sizes)
                if after > end:
                    break
                wanted = owed is None or token in owed
                if wanted and (largest is None or sum(sizes) <= largest):
                    payload, *buffers = self._split(at, sizes)
                    found.append(
                        StoredOutcome(token, outcome, payload, ran_us, occupied_us, tuple(buffers))
                    )
                at = after
        return found

    def _split(self, at: int, sizes: Sequence[int]) -> list[bytes]:
        parts: list[bytes] = []
        for size in sizes:
            parts.append(self._read(at, size))
            at += size
        return parts

    def _read(self, at: int, size: int) -> bytes:
        """As many bytes, zeros for those that are gone."""
        parts: list[bytes] = []
        while size:
            part = os.pread(self._fd, size, at)
            if not part:
                parts.append(bytes(size))
                break
            parts.append(part)
            at, size = at + len(part), size - len(part)
        return b"".join(parts)
