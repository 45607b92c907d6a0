"""The states of a job in the coordinator, and the only functions that move it between them.

    DELAYED ──▶ QUEUED ──▶ LEASED ──▶ STARTED ──▶ FINAL
       ▲          ▲  ▲────────┘       │  │  │
       │          └───────────────────│──┘  │  only after its worker is confirmed dead
       └──────────────────────────────┴── OVERRUNNING   only after its frame has ended: `retries`

A job with a `limit` is LIMITED whenever it would become QUEUED, until its limit lets it pass. One
whose `unique` key another job has is HELD at first.

QUEUED is owned by the global queue, LIMITED by the gate of the job's key, HELD by `uniques`, LEASED
and STARTED by one lease of one P and epoch, DELAYED by the timer heap. OVERRUNNING is owned by the
attempt whose frame the job waits for: its time limit has passed, its frame has not ended, and a
further attempt may not start beside it. FINAL is owned by no part: the record is forgotten as soon
as the outcome is on its way to the session's outbox. Any state may end in FINAL.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import IntEnum
from typing import Protocol

from gmpd.errors import InvariantError


class JobState(IntEnum):
    """Where an accepted job is: it is in exactly one of these."""

    DELAYED = 0
    QUEUED = 1
    LEASED = 2
    STARTED = 3
    FINAL = 4
    OVERRUNNING = 5
    LIMITED = 6
    HELD = 7


class HasState(Protocol):
    state: JobState

    def story(self) -> str: ...


_ALLOWED: Mapping[JobState, frozenset[JobState]] = {
    JobState.DELAYED: frozenset({JobState.QUEUED, JobState.LIMITED, JobState.FINAL}),
    JobState.HELD: frozenset({JobState.DELAYED, JobState.LIMITED, JobState.QUEUED, JobState.FINAL}),
    JobState.LIMITED: frozenset({JobState.QUEUED, JobState.FINAL}),
    # QUEUED to LIMITED: its client takes no results, and others are to pass.
    JobState.QUEUED: frozenset({JobState.LEASED, JobState.LIMITED, JobState.FINAL}),
    # LEASED to QUEUED: revoked, or its worker died before it was started.
    JobState.LEASED: frozenset(
        {JobState.STARTED, JobState.QUEUED, JobState.LIMITED, JobState.DELAYED, JobState.FINAL}
    ),
    JobState.STARTED: frozenset(
        {
            JobState.QUEUED,
            JobState.LIMITED,
            JobState.DELAYED,
            JobState.OVERRUNNING,
            JobState.FINAL,
        }
    ),
    # Its frame has ended, its worker is confirmed dead, or its client no longer waits for it.
    JobState.OVERRUNNING: frozenset(
        {JobState.QUEUED, JobState.LIMITED, JobState.DELAYED, JobState.FINAL}
    ),
    JobState.FINAL: frozenset(),
}


def transition(job: HasState, to: JobState) -> None:
    """Move ``job``; a forbidden move changes nothing and raises InvariantError with its story."""
    if to not in _ALLOWED[job.state]:
        raise InvariantError(f"{job.state.name} -> {to.name} is forbidden: {job.story()}")
    job.state = to


def transition_all(jobs: Iterable[HasState], to: JobState) -> None:
    """Move each of these, in one call: there are four moves for each job, and calls cost more than
    moves."""
    for job in jobs:
        if to not in _ALLOWED[job.state]:
            raise InvariantError(f"{job.state.name} -> {to.name} is forbidden: {job.story()}")
        job.state = to
