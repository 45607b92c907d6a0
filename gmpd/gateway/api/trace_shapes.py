"""The types of ``GET /trace``. Rows are tuples: a page gets hundreds of them every second.

Times within a chunk are microseconds after its ``since_us`` (before it, if negative); ``since_us``
and ``until_us`` are of the clock that all processes of the daemon's machine share.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

from msgspec import Meta

from gmpd.gateway.api.shapes import Answer, Params

#: What, begin, duration, name, jobs, time (us) that they ran, wait (us). ``what``: 0 a plain job
#: that had P; 1 a step of an async job; 2 an async job from its begin to its end; 3 a plain job
#: beside P, which it had lost. ``name`` is a place in ``names``. Rows with the same span are
#: several functions in one. -1: not known.
Bar: TypeAlias = tuple[int, int, int, int, int, int, int]
#: The place of a row, the job's id, and whether it is durable.
Known: TypeAlias = tuple[int, str, bool]
#: The place of a row, and how its job ended.
Failed: TypeAlias = tuple[int, str]
#: When, why (``blocked``, ``hog``, ``native``, or ``known`` to block), and the name, or -1.
HandOff: TypeAlias = tuple[int, str, int]


class OfTrace(Params):
    """From where on."""

    after: Annotated[
        int, Meta(ge=0, le=1 << 53, description="``next`` of the answer before; 0: all there is.")
    ] = 0


class Running(Answer):
    """A job that has begun and not ended. ``job``: empty if it is not known."""

    what: int
    began: int
    name: int
    wait_us: int
    job: str
    durable: bool


class Track(Answer):
    """The work of one P, or why it is not known."""

    p: int
    epoch: int
    #: Its worker has told what it did until ``until``. Without an answer: its state, and for how
    #: long it has been asked.
    answered: bool
    until: int
    state: str
    silent_s: float
    #: Why there is nothing to tell, though it answers.
    missing: str
    bars: list[Bar]
    known: list[Known]
    failed: list[Failed]
    running: list[Running]
    handoffs: list[HandOff]
    #: Longer sleeps of P: begin and duration; and how long it slept in all (us).
    idle: list[tuple[int, int]]
    idle_us: int
    #: Jobs that ended, and rows for which there was no room.
    jobs: int
    left_out: int


class Alone(Answer):
    """An isolated job, in a worker of its own. ``ran_us`` is -1 while it runs."""

    worker: int
    began: int
    ran_us: int
    name: int
    wait_us: int
    job: str
    durable: bool


class Chunk(Answer):
    """The time between two questions to the workers."""

    number: int
    since_us: int
    until_us: int
    #: Unix time at ``until_us``, in ms.
    wall_ms: int
    names: list[str]
    tracks: list[Track]
    isolated: list[Alone]
    #: When, victim, thief, jobs.
    steals: list[tuple[int, int, int, int]]
    #: When, P, epoch, and whether the worker died, else it began to serve.
    workers: list[tuple[int, int, int, bool]]


class Trace(Answer):
    """The last half minute of all Ps, in chunks. ``reset``: they replace what was told before."""

    next: int
    reset: bool
    chunks: list[Chunk]
