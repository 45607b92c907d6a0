"""The policy of periodic jobs: which ticks become jobs, when, and which are left out.

**The idea.** The store keeps a row for each schedule: up to which tick everything is decided, which
ticks wait, and which tick became a job last. A tick becomes a job in the same transaction that
writes the row, and the job's id follows from the schedule's name and the tick. So a tick is at
most one job, whatever is killed and whatever the clock does.

**Rejected.** A timer per schedule, as a wall clock that is set would leave it behind. Rows that are
written when a run has ended: a crash would repeat the tick. Counting ticks from the start of the
daemon: after a restart they would be others.

A tick is *due* from its time on. Of several due ticks, as after a downtime, ``catch_up`` chooses
some; the others are *missed*. A chosen tick *waits*, or is *skipped*, while the run of an earlier
one has not ended. No tick is decided on while another one of its schedule is being stored.

It does no IO and reads no clock: the shell executes ``Ports``. Times are ms since 1970.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from msgspec import Struct
from msgspec.structs import replace

from gmpd.periodic import CatchUp, Ticks
from gmpd.sched.stored import StoredSchedule, Verdict

#: With ``catch_up="none"`` a tick still runs when it is found late by no more than this: a restart
#: that takes seconds is no downtime (ms).
LATE_MS = 60_000
#: Ticks of one schedule that wait; older ones are missed.
PENDING_MAX = 1000
#: A clock that is set back by more than this was wrong: the schedule begins anew, instead of
#: waiting until the time that it had seen (ms).
BACK_MS = 86_400_000
#: A tick that could not be stored, as the disk is full, is tried again after this (ms).
RETRY_MS = 5_000


class Periodic(Struct, frozen=True):
    """A schedule, as far as the policy needs it. ``when``: two with the same have the same ticks.
    ``waits``: a tick waits for the run before it to end, and is not skipped."""

    name: str
    when: str
    ticks: Ticks
    catch_up: CatchUp
    waits: bool


class Ports(Protocol):
    """Calls of this policy that the shell executes."""

    def wall_ms(self) -> int:
        """Milliseconds since 1970."""

    def save(self, row: StoredSchedule) -> None:
        """Store a row."""

    def drop(self, name: str) -> None:
        """Forget the row of a schedule."""

    def job_id(self, name: str, tick: int) -> bytes:
        """The id of a tick's job: of the same tick always the same."""

    def put(self, name: str, tick: int, row: StoredSchedule) -> None:
        """Store the job of a tick, and the row with it. Answered by ``stored``."""

    def await_end(self, name: str, job: bytes) -> None:
        """Call ``ended`` when this job has ended, or is not known."""

    def missed(self, name: str, n: int) -> None:
        """Ticks were left out, as nothing ran them in time."""


class Entry:
    """One schedule and its row."""

    __slots__ = ("next_ms", "retry_ms", "row", "running", "saved", "spec", "storing")

    def __init__(self, spec: Periodic, row: StoredSchedule) -> None:
        self.spec = spec
        self.row = row
        #: The row as it was given to the store last.
        self.saved: StoredSchedule | None = None
        #: The job that has not ended; empty: none.
        self.running = b""
        #: The tick whose job is being stored.
        self.storing: int | None = None
        #: When there is something to decide.
        self.next_ms: int | None = None
        self.retry_ms = 0

    def __repr__(self) -> str:
        return f"<Entry {self.spec.name!r}: {self.spec.when}, next {self.next_ms}>"


class Cron:
    """The schedules of one daemon. ``rows``: what the store knows of them."""

    def __init__(self, ports: Ports, rows: Iterable[StoredSchedule]) -> None:
        self._ports = ports
        self._rows = {row.name: row for row in rows}
        self.entries: dict[str, Entry] = {}

    def __repr__(self) -> str:
        return f"<Cron: {len(self.entries)} schedules>"

    # -- which there are ---------------------------------------------------------------------------

    def declare(self, specs: Mapping[str, Periodic]) -> None:
        """These are the schedules from now on. One that is not among them is forgotten; one that is
        new, or has other ticks, begins with the next tick."""
        wall_ms = self._ports.wall_ms()
        for name in [name for name in (*self.entries, *self._rows) if name not in specs]:
            self.entries.pop(name, None)
            self._rows.pop(name, None)
            self._ports.drop(name)
        for name, spec in specs.items():
            entry = self.entries.get(name)
            if entry is None:
                entry = self.entries[name] = self._new(spec)
            entry.spec = spec
            if entry.row.when != spec.when:
                decided_ms = max(wall_ms, min(entry.row.decided_ms, wall_ms + BACK_MS))
                entry.row = replace(
                    entry.row, when=spec.when, decided_ms=decided_ms, pending=()
                )  # fmt: skip
            self._decide(entry)

    def _new(self, spec: Periodic) -> Entry:
        row = self._rows.pop(spec.name, None)
        if row is None:
            return Entry(spec, StoredSchedule(spec.name, spec.when, self._ports.wall_ms()))
        entry = Entry(spec, row)
        entry.saved = row
        if row.job and not row.outcome:
            entry.running = row.job
            self._ports.await_end(spec.name, row.job)
        return entry

    def pause(self, name: str) -> bool:
        """Ticks pass by from now on, until ``resume``; False: there is no such schedule."""
        entry = self.entries.get(name)
        if entry is not None:
            entry.row = replace(entry.row, paused=True)
            self._decide(entry)
        return entry is not None

    def resume(self, name: str) -> bool:
        """The next tick runs again; False: there is no such schedule."""
        entry = self.entries.get(name)
        if entry is not None and entry.row.paused:
            decided_ms = max(entry.row.decided_ms, self._ports.wall_ms())
            entry.row = replace(entry.row, paused=False, decided_ms=decided_ms)
            self._decide(entry)
        return entry is not None

    # -- time --------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Do what is due. Also to be called now and then, as the clock may have been set."""
        wall_ms = self._ports.wall_ms()
        for entry in list(self.entries.values()):
            is_due = entry.next_ms is not None and entry.next_ms <= wall_ms
            if is_due or entry.row.decided_ms > wall_ms + BACK_MS:
                self._decide(entry)

    def next_ms(self) -> int | None:
        """When ``tick`` has something to do."""
        times = [entry.next_ms for entry in self.entries.values() if entry.next_ms is not None]
        return min(times, default=None)

    def _decide(self, entry: Entry) -> None:
        """Decide on the ticks that are due, and have one of them stored if none runs."""
        entry.next_ms = None
        if entry.storing is not None:
            return  # the answer leads here
        wall_ms = self._ports.wall_ms()
        if not entry.row.paused:
            self._choose(entry, wall_ms)
            if entry.row.pending and not entry.running:
                if entry.retry_ms <= wall_ms:
                    self._put(entry)
                    return
                next_ms = entry.spec.ticks.after(entry.row.decided_ms)
                entry.next_ms = min(next_ms or entry.retry_ms, entry.retry_ms)
        if entry.row != entry.saved:
            self._ports.save(entry.row)
            entry.saved = entry.row

    def _choose(self, entry: Entry, wall_ms: int) -> None:
        """Choose which of the due ticks wait from now on."""
        row, spec = entry.row, entry.spec
        if row.decided_ms > wall_ms + BACK_MS:
            row = replace(row, decided_ms=wall_ms)
        if due := spec.ticks.newest(row.decided_ms, wall_ms, PENDING_MAX + 1):
            chosen = _caught_up(spec.catch_up, due, wall_ms)
            missed, skipped = len(due) - len(chosen), 0
            if not spec.waits and (entry.running or row.pending):
                missed, skipped, chosen = 0, len(due), []
            pending = (*row.pending, *chosen)
            missed += max(0, len(pending) - PENDING_MAX)
            if missed:
                self._ports.missed(spec.name, missed)
            row = replace(
                row, decided_ms=due[-1], pending=pending[-PENDING_MAX:],
                missed=row.missed + missed, skipped=row.skipped + skipped,
            )  # fmt: skip
        entry.row = row
        entry.next_ms = spec.ticks.after(row.decided_ms)

    # -- a tick becomes a job ----------------------------------------------------------------------

    def _put(self, entry: Entry) -> None:
        tick = entry.row.pending[0]
        entry.storing = tick
        entry.next_ms = None
        entry.saved = self._with(entry, tick)
        self._ports.put(entry.spec.name, tick, entry.saved)

    def _with(self, entry: Entry, tick: int) -> StoredSchedule:
        """The row of a schedule whose tick is a job."""
        pending = tuple(each for each in entry.row.pending if each != tick)
        job = self._ports.job_id(entry.spec.name, tick)
        return replace(entry.row, pending=pending, tick_ms=tick, job=job, outcome="", text="")

    def stored(self, name: str, tick: int, verdict: Verdict | None, job: bytes) -> None:
        """The answer to ``put``: the job is there, or ``job`` holds its unique key. None: it was
        not stored, as the disk is full."""
        entry = self.entries.get(name)
        if entry is None or entry.storing != tick:
            return  # the schedule was removed meanwhile
        entry.storing = None
        match verdict:
            case Verdict.NEW | Verdict.SAME | Verdict.CONFLICT:
                entry.row = self._with(entry, tick)
                self._run(entry, entry.row.job)
            case Verdict.HELD:
                entry.saved = None
                if not entry.spec.waits:
                    pending = tuple(each for each in entry.row.pending if each != tick)
                    skipped = entry.row.skipped + 1
                    entry.row = replace(entry.row, pending=pending, skipped=skipped)
                self._run(entry, job)
            case None:
                entry.saved = None
                entry.retry_ms = self._ports.wall_ms() + RETRY_MS
        self._decide(entry)

    def _run(self, entry: Entry, job: bytes) -> None:
        entry.running = job
        self._ports.await_end(entry.spec.name, job)

    def ended(self, name: str, job: bytes, outcome: str, text: str) -> None:
        """The answer to ``await_end``."""
        entry = self.entries.get(name)
        if entry is None or entry.running != job:
            return
        entry.running = b""
        if entry.row.job == job:
            entry.row = replace(entry.row, outcome=outcome, text=text)
        self._decide(entry)


def _caught_up(catch_up: CatchUp, due: list[int], wall_ms: int) -> list[int]:
    """The due ticks that run."""
    match catch_up:
        case CatchUp.ALL:
            return due
        case CatchUp.LAST:
            return due[-1:]
        case CatchUp.NONE:
            return [tick for tick in due[-1:] if wall_ms - tick <= LATE_MS]
