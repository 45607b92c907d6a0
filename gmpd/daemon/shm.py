"""The memory that a worker shares with the coordinator: it survives the worker.

One memfd per P, made by the coordinator and written by the worker, except for one acknowledgement
and the claims, which both write. It can be read while the worker is stopped, deaf or dead:

- the *status block*: integers of 8 bytes, for metrics, liveness and the last words of a crash;
- the *claims* (``claims``): which leases the worker has claimed; the others may be revoked without
  a message, and after a death only claimed ones are lost;
- the *outbox*: a ring of outcomes that the coordinator has not acknowledged. ZeroMQ loses messages
  sent shortly before an abrupt end; outcomes must survive it. Outcomes that do not fit lie behind
  the ring in the same memory (``outbox_overflow``).

It does not know jobs, sockets or the policy. Integers are aligned, so each is stored and read
whole; there is no lock, and no method waits.
"""

from __future__ import annotations

import mmap
import os
import struct
from array import array
from collections import deque
from collections.abc import Collection, Container, Sequence
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final, Self

from gmpd.daemon.claims import CLAIMS_BYTES, Claims
from gmpd.daemon.outbox_overflow import OverflowLog, StoredOutcome
from gmpd.protocol import GATHER_BYTES
from gmpd.runtime.stats import BUCKETS, COUNTERS, HISTOGRAMS, unfold

if TYPE_CHECKING:
    import cython
else:
    from gmpd.runtime import interpreted as cython
if not cython.compiled:
    from gmpd.runtime.interpreted import forget_base, learn_base, put, put_record


class Slot(IntEnum):
    """The integers of the status block. Times: CLOCK_MONOTONIC, nanoseconds."""

    EPOCH = 0
    PID = 1
    #: The lease that P executes now, 0 when none; and since when.
    CURRENT = 2
    CURRENT_NS = 3
    #: Rounds of the run loop, falling asleep counted too; and since when it sleeps (0: it does
    #: not). A worker lives if the rounds advance, or if P sleeps and has been sent nothing.
    ROUND = 4
    ASLEEP_NS = 5
    #: For how long it has slept before.
    SLEPT_NS = 6
    #: How often sysmon has looked. Beside a P that stands still it advances as long as the GIL can
    #: be had.
    LOOKS = 7
    #: When the counters were written last.
    BEAT_NS = 8
    #: Messages of the coordinator that the worker has handled, and messages that it gave its link:
    #: those that the other side does not know of may be in the queues of a worker that is stopped.
    TAKEN = 9
    SENT = 10
    #: Of a bridge to a host: batches on their way, those that came back, and jobs that were sent
    #: and have not begun there.
    BATCHES_AWAY = 11
    BATCHES = 12
    AT_HOST = 13
    #: Of a bridge: until when jobs that it sent may run on its host, if it ends now; 0: none do.
    FENCE_NS = 14
    #: Ring positions: bytes written and bytes that may be overwritten, both only ever rising.
    OUT_HEAD = 32
    OUT_TAIL = 33
    #: The lengths of the two logs of ``outbox_overflow``; and how often one was begun anew.
    OVERFLOW = 34
    #: Written by the coordinator: outcomes of this epoch that it has.
    OUT_ACKED = 40
    #: The lease whose job ends the process on purpose; see ``lastwords``.
    DYING = 41
    #: Leases that were claimed and wait for an import, up to COUNTERS; 0: a free place.
    WAITING = 42
    #: From here on ``runtime.stats.COUNTERS``; and its histograms, the sum of each behind it.
    COUNTERS = 64
    HISTOGRAMS = 128
    #: Threads whose jobs have lost P: the thread's identifier (0: a free place) and the lease, up
    #: to SLOTS.
    BESIDE = 320


#: Integers in the status block.
SLOTS = 832
#: Outcomes on their way: half a second of no-op jobs, or a few results of a hundred kilobytes. What
#: finds no room here is appended to the overflow log.
OUTBOX_BYTES = 1 << 20

_CLAIMS_AT = SLOTS * 8
_OUTBOX_AT = _CLAIMS_AT + CLAIMS_BYTES
SHM_BYTES = _OUTBOX_AT + OUTBOX_BYTES

#: Where a crash writes the stacks of the threads: beyond what is mapped and ``outbox_overflow``.
_STACKS_AT = 1 << 42
_STACKS_BYTES = 1 << 18

_RECORD = struct.Struct("<IBQII")  # payload length, outcome, token, ran us, occupied us
_RECORD_BYTES: Final = _RECORD.size
_pack_record = _RECORD.pack_into
_LOW: Final = 0xFFFFFFFF
_RING: Final = OUTBOX_BYTES

# Plain ints for what is written with every job: an enum's member costs as much as the store itself.
_CURRENT, _CURRENT_NS = int(Slot.CURRENT), int(Slot.CURRENT_NS)
_BEAT_NS = int(Slot.BEAT_NS)
_TAKEN, _SENT = int(Slot.TAKEN), int(Slot.SENT)
_OUT_HEAD, _OUT_TAIL, _OUT_ACKED = int(Slot.OUT_HEAD), int(Slot.OUT_TAIL), int(Slot.OUT_ACKED)


class WorkerShm:
    """Either side's view of the shared memory. ``fd`` is the memfd; the view has its own of it."""

    def __init__(self, fd: int) -> None:
        self._map = mmap.mmap(fd, SHM_BYTES)
        self._view = memoryview(self._map)
        self.slots = self._view[:_CLAIMS_AT].cast("q")
        self.claims = Claims(self._map, _CLAIMS_AT)
        learn_base(self)
        self._fd = os.dup(fd)
        self.overflow = OverflowLog(self._fd, self.slots[Slot.OVERFLOW : Slot.OVERFLOW + 3])
        #: (outcomes so far, ring position after them): what an acknowledgement frees.
        self._sent: deque[tuple[int, int]] = deque()
        #: The worker's own copies of OUT_HEAD and OUT_TAIL: it alone moves them.
        self._head = self._tail = 0

    @classmethod
    def create(cls, name: str) -> tuple[Self, int]:
        """New shared memory and its descriptor, to be inherited by the worker and then closed."""
        fd = os.memfd_create(name, os.MFD_CLOEXEC)
        try:
            return cls.create_in(fd), fd
        except BaseException:
            os.close(fd)
            raise

    @classmethod
    def create_in(cls, fd: int) -> Self:
        """The same in an empty memfd, which the worker may have inherited already.

        Allocated at once: too little memory is an error here, and not SIGBUS later.
        """
        os.posix_fallocate(fd, 0, SHM_BYTES)
        shm = cls(fd)
        shm.claims.clear()
        return shm

    def close(self) -> None:
        forget_base(self)
        os.close(self._fd)
        self.overflow.close()
        self.slots.release()
        self.claims.close()
        self._view.release()
        self._map.close()

    # -- the worker writes -------------------------------------------------------------------------

    def begin(self, token: int, now_ns: int) -> bool:
        """Claim a lease that is about to run; False when it was revoked: the job runs elsewhere."""
        if not self.claims.claim(token):
            return False
        if cython.compiled:
            put(self, _CURRENT_NS, now_ns)
            put(self, _CURRENT, token)
        else:
            slots = self.slots
            slots[_CURRENT_NS] = now_ns
            slots[_CURRENT] = token
        return True

    def store(
        self,
        token: int,
        outcome: int,
        payload: bytes,
        ran_us: int,
        occupied_us: int,
        buffers: Sequence[bytes] = (),
    ) -> bool:
        """Keep an outcome until the coordinator has it; whether that will be found.

        Small ones in the ring, others in the overflow log. One that is left out, for want of memory
        or because the coordinator lags behind by more than ``outbox_overflow.OVERFLOW_BYTES``, is
        as safe as its message.
        """
        if ran_us > _LOW or occupied_us > _LOW:
            ran_us, occupied_us = min(ran_us, _LOW), min(occupied_us, _LOW)
        size = _RECORD_BYTES + len(payload)
        head = self._head
        end = head + size
        if buffers or (end - self._tail > _RING and end - self._free() > _RING):
            stored = StoredOutcome(token, outcome, payload, ran_us, occupied_us, buffers)
            return self.overflow.append(stored, self.slots[_OUT_ACKED])
        start = head % _RING
        if start + size <= _RING:
            at = _OUTBOX_AT + start
            if cython.compiled:
                put_record(self, at, outcome, token, payload, ran_us, occupied_us)
            else:
                _pack_record(self._map, at, len(payload), outcome, token, ran_us, occupied_us)
                self._map[at + _RECORD_BYTES : at + size] = payload
        else:
            self._write(
                head, _RECORD.pack(len(payload), outcome, token, ran_us, occupied_us) + payload
            )
        self._head = end
        if cython.compiled:
            put(self, _OUT_HEAD, end)
        else:
            self.slots[_OUT_HEAD] = end
        return True

    def keep(self, stored: StoredOutcome) -> None:
        """Keep an outcome that is not sent before ``release``; as ``store`` otherwise."""
        self.overflow.append(stored, self.slots[_OUT_ACKED], kept=True)

    def release(self, token: int) -> bool:
        """An outcome of ``keep`` is about to be sent; False if it had no room."""
        return self.overflow.release(token)

    def sent(self, outcomes: int) -> None:
        """All stored outcomes were sent: note the space that an acknowledgement of this many frees.

        ``outcomes`` counts those of this epoch, also the ones that were not stored.
        """
        self._sent.append((outcomes, self._head))
        if self.overflow.is_used:
            self.overflow.sent(outcomes)
        self._free()  # so that little lies there when it must be searched

    @property
    def acknowledged(self) -> int:
        """How many outcomes of this epoch the coordinator has."""
        return self.slots[_OUT_ACKED]

    def rest(self) -> None:
        """P has little to do: memory of large results that have arrived is given back."""
        if self.overflow.is_used:
            self.overflow.rest(self.slots[_OUT_ACKED], SHM_BYTES)

    def _free(self) -> int:
        """Advance the tail over all that is acknowledged; gives the new tail."""
        acked = self.slots[_OUT_ACKED]
        sent = self._sent
        while sent and sent[0][0] <= acked:
            self._tail = sent.popleft()[1]
        self.slots[_OUT_TAIL] = self._tail
        return self._tail

    def _write(self, at: int, data: bytes) -> None:
        start = at % OUTBOX_BYTES
        first = min(len(data), OUTBOX_BYTES - start)
        base = _OUTBOX_AT + start
        self._map[base : base + first] = data[:first]
        if first < len(data):
            self._map[_OUTBOX_AT : _OUTBOX_AT + len(data) - first] = data[first:]

    def resume(self, token: int, now_ns: int) -> None:
        """A begun coroutine runs again."""
        slots = self.slots
        slots[_CURRENT_NS] = now_ns
        slots[_CURRENT] = token

    def pause(self) -> None:
        """Nothing of a job runs now."""
        self.slots[_CURRENT] = 0

    def queue_up(self, token: int) -> int | None:
        """A claimed lease waits, and has not begun. Gives its place; None when all are taken:
        then it counts as begun. One thread at a time."""
        for place in range(Slot.WAITING, Slot.COUNTERS):
            if not self.slots[place]:
                self.slots[place] = token
                return place
        return None

    def waits_no_more(self, place: int) -> None:
        """It begins."""
        self.slots[place] = 0

    def took(self) -> None:
        """A message of the coordinator has been handled."""
        self.slots[_TAKEN] += 1

    def sends(self) -> None:
        """A message goes to the coordinator."""
        self.slots[_SENT] += 1

    def stacks_fd(self) -> int:
        """A descriptor that writes where ``stacks`` reads; OSError where there is no /proc."""
        fd = os.open(f"/proc/self/fd/{self._fd}", os.O_WRONLY | os.O_CLOEXEC)
        os.lseek(fd, _STACKS_AT, os.SEEK_SET)
        return fd

    def publish(self, counters: Sequence[int], now_ns: int) -> None:
        """The counters of the run loop so far, for any reader."""
        at = int(Slot.COUNTERS)
        self.slots[at : at + len(counters)] = memoryview(array("q", counters))
        self.slots[_BEAT_NS] = now_ns

    def publish_histograms(self, histograms: Sequence[tuple[list[int], int]]) -> None:
        """Its histograms: buckets and sum (ns) of each."""
        at = int(Slot.HISTOGRAMS)
        for buckets, sum_ns in histograms:
            end = at + len(buckets) + 1
            self.slots[at:end] = memoryview(array("q", [*buckets, sum_ns]))
            at = end

    # -- the coordinator reads ---------------------------------------------------------------------

    def stats(self, now_ns: int) -> dict[str, Any]:
        """The worker's counters so far, in the snapshot's form; nothing before it began."""
        slots = self.slots
        if not slots[_BEAT_NS]:
            return {}
        first = int(Slot.COUNTERS)
        counters = list(slots[first : first + len(COUNTERS)])
        out = unfold(counters, now_ns, slots[Slot.ASLEEP_NS], slots[Slot.SLEPT_NS])
        at, out["hist"] = int(Slot.HISTOGRAMS), {}
        for name in HISTOGRAMS:
            buckets = list(slots[at : at + BUCKETS])
            sum_ns = slots[at + BUCKETS]
            out["hist"][name] = {"buckets": buckets, "sum_ns": sum_ns, "count": sum(buckets)}
            at += BUCKETS + 1
        return out

    def waiting(self) -> set[int]:
        """Leases that were claimed and had not begun."""
        return {token for token in self.slots[Slot.WAITING : Slot.COUNTERS] if token}

    def beside(self) -> dict[int, int]:
        """The leases whose jobs have lost P, by the identifiers of their threads."""
        pairs = self.slots[Slot.BESIDE : SLOTS]
        return dict(zip(pairs[::2], pairs[1::2], strict=True))

    def stacks(self) -> bytes:
        """The stacks that a crash has written; nothing before one."""
        return os.pread(self._fd, _STACKS_BYTES, _STACKS_AT)

    def acknowledge(self, outcomes: int) -> None:
        """The coordinator has this many outcomes of this epoch."""
        self.slots[_OUT_ACKED] = outcomes

    def recover(
        self, owed: Container[int] | None = None, largest: int | None = None
    ) -> list[StoredOutcome]:
        """All that was kept of the tokens ``owed`` (None: of all), those in the ring oldest first;
        of those behind it, the ones of ``largest`` bytes at most. For a dead worker: no process
        writes any more."""
        found: list[StoredOutcome] = []
        at, head = self.slots[_OUT_TAIL], self.slots[_OUT_HEAD]
        while at < head:
            length, outcome, token, ran_us, occupied_us = _RECORD.unpack(
                self._read(at, _RECORD.size)
            )
            at += _RECORD.size
            if owed is None or token in owed:
                payload = self._read(at, length)
                found.append(StoredOutcome(token, outcome, payload, ran_us, occupied_us))
            at += length
        return found + self.overflow.recover(owed, largest)

    def recover_from_living(self, owed: Collection[int] | None = None) -> list[StoredOutcome]:
        """As ``recover``, of a worker that does not move but may at any moment. It tells no client
        the value of a lease of ``owed`` from now on; what it has told is found here, or its message
        is on its way.

        Without larger ones: they are sent as soon as they are stored, or kept until they are asked
        for, and a second copy of a large result may be on its way.
        """
        for token in owed or ():
            self.claims.take_right(token)
        found = self._recover_unmoved(owed)
        if found is None:  # it may free what is acknowledged, once before more of that is
            found = self._recover_unmoved(owed)
        return found or []

    def _recover_unmoved(self, owed: Collection[int] | None) -> list[StoredOutcome] | None:
        """None, if some of it was freed meanwhile, since then it may have been written over while
        it was being read."""
        before = self.slots[_OUT_TAIL], self.overflow.turns
        found = self.recover(owed, GATHER_BYTES)
        return found if (self.slots[_OUT_TAIL], self.overflow.turns) == before else None

    def _read(self, at: int, size: int) -> bytes:
        start = at % OUTBOX_BYTES
        first = min(size, OUTBOX_BYTES - start)
        data = self._map[_OUTBOX_AT + start : _OUTBOX_AT + start + first]
        if first < size:
            data += self._map[_OUTBOX_AT : _OUTBOX_AT + size - first]
        return data
