"""The invariants of the ledger between two events, checked across all of its records.

For tests, and after a handler has failed: it looks at every job.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

from gmpd.errors import InvariantError
from gmpd.sched.delays import Delays
from gmpd.sched.functions import Functions
from gmpd.sched.gates import Gate, Gates
from gmpd.sched.globq import GlobalQueue
from gmpd.sched.isolated import Isolation, Stage
from gmpd.sched.records import Job, PRecord
from gmpd.sched.states import JobState
from gmpd.sched.suspects import Suspects
from gmpd.sched.uniques import Uniques


class Audited(Protocol):
    """The parts of the policy that hold jobs."""

    queue: GlobalQueue
    suspects: Suspects
    isolated: Isolation
    delays: Delays
    gates: Gates
    uniques: Uniques
    functions: Functions
    started_max: int

    @property
    def unfinished(self) -> int: ...

    def records(self) -> Iterator[PRecord]: ...
    def is_idle(self, record: PRecord) -> bool: ...
    def could_run(self) -> bool: ...


def audit(sched: Audited) -> None:
    """Raise InvariantError for the first thing that is wrong."""
    places = _Places()
    places.see(sched.queue, JobState.QUEUED, "queue")
    places.see(sched.suspects.queue, JobState.QUEUED, "queue of suspects")
    places.see(sched.isolated.queue, JobState.QUEUED, "isolated queue")
    places.see(sched.delays, JobState.DELAYED, "heap")
    places.see(sched.gates, JobState.LIMITED, "gates")
    places.see(sched.uniques, JobState.HELD, "unique keys")
    for record in sched.records():
        _audit_record(sched, record, places)
    for worker in sched.isolated.ps.values():
        if len(worker.fresh) + len(worker.started) > (worker.stage is Stage.RUNNING):
            raise InvariantError(f"isolated worker {worker.p} is {worker.stage.value} with jobs")
    sched.delays.validate()
    sched.uniques.validate()
    _audit_gates(sched)
    if places.count != sched.unfinished:
        raise InvariantError(f"{sched.unfinished} jobs are unfinished, {places.count} somewhere")
    if sum(fn.jobs for fn in sched.functions.all()) != places.count:
        raise InvariantError(f"functions count other jobs than the {places.count} that there are")
    if sched.could_run():
        raise InvariantError("work waits while a P is idle")


def _audit_record(sched: Audited, record: PRecord, places: _Places) -> None:
    """Its leases are where they are said to be, and it holds no more than it may."""
    if record.fresh:
        places.see(record.fresh.values(), JobState.LEASED, "fresh", record)
    if record.started:
        places.see(record.started.values(), JobState.STARTED, "started", record)
    if record.withheld:
        places.see(record.withheld.values(), JobState.STARTED, "withheld", record)
    if record.overrunning:
        waits = [each.waits for each in record.overrunning.values() if each.waits is not None]
        places.see(waits, JobState.OVERRUNNING, "overrunning", record)
    if record.used_ns != sum(job.est_ns for job in record.fresh.values()):
        raise InvariantError(f"P{record.p}: used_ns is not the sum of its fresh jobs")
    if record.fresh and sched.is_idle(record):
        raise InvariantError(f"P{record.p} is idle and has fresh work")
    if record.begun + len(record.fresh) > max(record.begun, sched.started_max):
        raise InvariantError(f"P{record.p} holds more than {sched.started_max} jobs")


def _audit_gates(sched: Audited) -> None:
    """Every place inside a gate is held by one job, or by one frame that overruns."""
    sched.gates.validate()
    inside: dict[Gate, int] = {}
    for held in sched.gates.passes.values():
        inside[held.gate] = inside.get(held.gate, 0) + 1
    for record in sched.records():
        for overrun in record.overrunning.values():
            if overrun.limit is not None:
                gate = overrun.limit.gate
                inside[gate] = inside.get(gate, 0) + 1
    for gate in {*sched.gates.by_key.values(), *inside}:
        if gate.inside != inside.get(gate, 0):
            raise InvariantError(f"{gate!r}: {inside.get(gate, 0)} places are held")


class _Places:
    """Where each job was found: it must be in one place, in the state of that place.

    In sets and lists, not job by job: a test looks at all jobs after each decision.
    """

    def __init__(self) -> None:
        self._seen: set[Job] = set()
        self._found: list[tuple[str, PRecord | None, list[Job]]] = []

    @property
    def count(self) -> int:
        return len(self._seen)

    def see(
        self, jobs: Iterable[Job], state: JobState, place: str, record: PRecord | None = None
    ) -> None:
        here = list(jobs)
        if not here:
            return
        before = len(self._seen)
        self._seen.update(here)
        if len(self._seen) < before + len(here) or [job for job in here if job.state is not state]:
            self._complain(here, state, _named(place, record))
        self._found.append((place, record, here))

    def _complain(self, here: list[Job], state: JobState, place: str) -> None:
        before = {job: _named(where, at) for where, at, jobs in self._found for job in jobs}
        for job in here:
            if job.state is not state or job in before:
                where = before.get(job, "nowhere")
                raise InvariantError(f"in {place} and {where}: {job.story()}")
            before[job] = place


def _named(place: str, record: PRecord | None) -> str:
    return place if record is None else f"P{record.p} {place}"
