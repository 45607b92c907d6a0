"""All Ps (Go: ``allp``), those without fresh work (Go: ``pidle``), and the silent ones.

**Silence** is not death. A P that holds something and is not heard of for ``PROBE_AFTER_NS`` is
probed, in memory that it shares; if its run loop stands still it is *deaf*: the leases that it did
not claim are revoked, and it gets none until it moves again.

**Leaving.** A worker may give its P to a successor while jobs run in it. Its record then is beside
those of the Ps, holds what has begun, gets nothing more, and goes with the worker. The P has a new
record, and waits for the successor.

It does not know jobs, nor which P should get one: only whether a P holds any.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from gmpd.errors import ProtocolError
from gmpd.sched.instructions import Instruction, Probe, RecoverOutcomes, Retire, Revoke, UndefineAt
from gmpd.sched.leavers import number_beside, p_of
from gmpd.sched.records import PROBE_AFTER_NS, PROBE_EVERY_MAX_NS, Function, PRecord


class Ps:
    """All Ps by number. ``out`` collects instructions for the shell."""

    def __init__(self, out: list[Instruction]) -> None:
        self.all: dict[int, PRecord] = {}
        #: Of all Ps together: one for each of this machine, those of each host for its P.
        self.cores = 0
        #: Leaving workers, by their numbers (``leavers``).
        self.leaving: dict[int, PRecord] = {}
        #: Ps without fresh work, the one that became so last at the end: LIFO keeps caches warm
        #: and leaves the others asleep (Go's idle P list).
        self.idle: list[PRecord] = []
        self._out = out
        #: When the next P is to be looked at; as ``probe`` saw it.
        self.next_probe: int | None = None

    # -- they come and go ------------------------------------------------------------------------

    def ready(self, p: int, epoch: int, cores: int = 1, host: str = "") -> PRecord:
        """A worker said Hello: P ``p`` lives in it from now on; or in ``host``, by a bridge.

        Raises ProtocolError, nothing changed, while the worker before it is not confirmed dead, and
        for a worker that is: its Hello was late.
        """
        record = self.all.get(p)
        if record is None:
            record = self.all[p] = PRecord(p, epoch)
        elif record.ready:
            raise ProtocolError(f"P{p} is ready already, in epoch {record.epoch}")
        elif epoch <= record.epoch:
            raise ProtocolError(f"P{p} was in epoch {record.epoch}, a Hello of {epoch} is too late")
        record.epoch = epoch
        record.cores, record.host = cores, host
        self._count_cores()
        record.ready = True
        record.draining = record.ending = False
        record.defined.clear()
        record.deaf = False
        record.probe_at_ns = 0
        record.collected.clear()
        self.idle.append(record)
        return record

    def record(self, p: int) -> PRecord | None:
        """The P, or the leaving worker, of this number."""
        return self.all.get(p) or self.leaving.get(p)

    def records(self) -> Iterator[PRecord]:
        """Records of all Ps and leaving workers."""
        yield from self.all.values()
        yield from self.leaving.values()

    def leave(self, p: int, now: int) -> PRecord:
        """The worker of P ``p`` gives it away: its record is a leaving worker's from now on."""
        record = self.all[p]
        self._drain(record, now)
        heir = self.all[p] = PRecord(p, record.epoch)
        heir.next_token = record.next_token
        record.p = number_beside(p, record.epoch)
        self.leaving[record.p] = record
        return record

    def gone(self, record: PRecord) -> None:
        """A leaving worker is confirmed dead: its P keeps what it had counted."""
        if self.leaving.pop(record.p, None) is None:
            return
        home = self.all.get(p_of(record.p))
        if home is not None:
            home.add_counts(record)

    def drain(self, p: int, now: int) -> None:
        """Shrink: P ``p`` gets no more jobs, finishes claimed ones, and loses its other leases."""
        self._drain(self.all[p], now)

    def _drain(self, record: PRecord, now: int) -> None:
        if record.draining and not record.ending:
            return
        record.draining, record.ending = True, False
        self.not_idle(record)
        if record.fresh:
            self._out.append(Revoke(record, list(record.fresh), None, now))
        self._out.append(Retire(record))

    def end(self, record: PRecord) -> None:
        """Its worker is to be replaced: it gets no more jobs."""
        if not record.draining:
            record.draining = record.ending = True
            self.not_idle(record)

    def keep(self, record: PRecord) -> None:
        """It need not be replaced after all."""
        if record.ending:
            record.draining = record.ending = False
            self.rest(record)

    def remove(self, p: int) -> None:
        """A P that was shrunk away has ended; its record goes when nothing is leased to it."""
        record = self.all.get(p)
        if record is not None and not record.fresh and not record.started:
            self.not_idle(record)
            del self.all[p]
            self._count_cores()

    def _count_cores(self) -> None:
        self.cores = sum(record.cores for record in self.all.values())

    def forget(self, fn: Function) -> None:
        """No session uses this function any more: workers need not know it."""
        for p in self.records():
            if fn.fid in p.defined:
                p.defined.discard(fn.fid)
                self._out.append(UndefineAt(p, [fn.fid]))

    def rest(self, record: PRecord) -> None:
        """A P without fresh work goes to the idle list."""
        if not record.fresh and record.ready and not record.draining and record not in self.idle:
            self.idle.append(record)

    def not_idle(self, record: PRecord) -> None:
        """It has fresh work, or takes none."""
        if record in self.idle:
            self.idle.remove(record)

    def another_hears(self) -> bool:
        """Whether some P may get work that is not deaf."""
        return any(p.ready and not p.draining and not p.deaf for p in self.all.values())

    # -- silence ---------------------------------------------------------------------------------

    def heard(self, record: PRecord, now: int) -> None:
        """Any message of a worker: its run loop lives."""
        record.probe_at_ns = now + PROBE_AFTER_NS
        record.probe_every_ns = PROBE_AFTER_NS
        record.deaf = False

    def watch(self, record: PRecord, now: int) -> None:
        """It is about to get work, and ought to begin it soon."""
        at = now + PROBE_AFTER_NS
        if not record.is_holding or not record.probe_at_ns or record.probe_at_ns > at:
            record.probe_at_ns = at
            record.probe_every_ns = PROBE_AFTER_NS

    def probe(self, isolated: Mapping[int, PRecord], now: int) -> bool:
        """Probe Ps and isolated workers that hold leases and were not heard for a while; whether
        there are any."""
        found, later = False, None
        ps: Collection[PRecord] = self.all.values()
        if isolated or self.leaving:
            ps = [*self.records(), *isolated.values()]
        for p in ps:
            at = p.probe_at_ns
            if not at or not p.is_holding:
                continue
            if at <= now:
                self._out.append(Probe(p))
                found = True
            elif later is None or at < later:
                later = at
        self.next_probe = later
        return found

    def probed(self, record: PRecord, *, moves: bool, asleep: bool, now: int) -> None:
        """Answers ``Probe``: the run loop moves, or sleeps as it may, or the P is deaf."""
        deaf = not moves and not asleep
        if deaf and not record.deaf:
            record.deaf_ns = now
        record.deaf = deaf
        if asleep:  # it may wake for a moment, and stop in it
            record.probe_at_ns = now + PROBE_EVERY_MAX_NS
            record.probe_every_ns = PROBE_AFTER_NS
        else:
            record.probe_at_ns = now + record.probe_every_ns
            record.probe_every_ns = min(PROBE_EVERY_MAX_NS, record.probe_every_ns * 2)
        if record.deaf:
            self._out.append(RecoverOutcomes(record))
