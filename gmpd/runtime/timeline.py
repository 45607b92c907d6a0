"""The jobs of a P between two times, in a bounded number of rows: for pictures that are drawn live.

The ring has a record for each job and step. Where there are more than fit, those that are shorter
than a row's share of the time are merged, by function; what is longer keeps a row of its own. A
batch of equal short jobs is merged as a whole, so 50,000 jobs a second cost a few milliseconds.
Jobs that lost P are merged one by one, with P and without it: else a burst of jobs that block would
look like work of P.

The window is a time of *recording*: a job counts when it was reported, an event when it happened.
Windows that adjoin have each exactly once, whatever it is that runs meanwhile.
"""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final, NamedTuple

from gmpd.runtime.ring import STEP, TRAIT_NAMES, WAKE, WIDTH, Event, Kind, Ring

#: Events that are looked at, the newest: 5 ms of work.
EVENTS_READ: Final = 16_384
#: Rows of one time span; further functions are shown as one.
FUNCTIONS_OF_SPAN: Final = 6
#: Sleeps that are told, and moves of jobs without a row of their own: the newest.
IDLE_MAX: Final = 500
MARKS_MAX: Final = 500
#: Moves of jobs that have a row, or none yet: more than a P has Ms.
MOVES_MAX: Final = 4096
#: A job may be reported this long after its end: its moves are looked for in the time before.
LATE_NS: Final = 100_000_000
#: Sleeps that are shorter are not told one by one.
IDLE_NS: Final = 1_000_000
#: Batches of fewer jobs are read job by job: that says more, and costs no more.
BATCH: Final = 5
#: The number of several functions together.
SEVERAL: Final = -1

#: Numbers, not members of an enum: they are compared with every event.
FAILED: Final = int(Kind.FAILED)
HANDOFF: Final = int(Kind.HANDOFF)


class What(IntEnum):
    """The kinds of rows."""

    #: A plain job that had P.
    RAN = 0
    #: One step of an async job, which had P.
    STEP = 1
    #: An async job from its begin to its end: its steps, and its waits between them.
    ASYNC = 2
    #: A plain job that runs or waits without P.
    BESIDE = 3


#: Numbers, not members of an enum: to hash one of those is slow.
_RAN, _STEP, _ASYNC, _BESIDE = map(int, What)


class Row(NamedTuple):
    """A job, a step, or several in one span. ``token`` is 0 for several; ``busy_us``: how long they
    ran in all, 0 if that is not known. ``ended`` is 0 while it runs."""

    what: int
    began: int
    ended: int
    function: int
    jobs: int
    busy_us: int
    token: int


class Move(NamedTuple):
    """P left the M of a plain job that began at ``began``; ``why`` is the reason. Without one the
    job has P again. ``token`` is 0 of a job that ended and has no row of its own."""

    at: int
    token: int
    why: str
    began: int


@dataclass(slots=True)
class Timeline:
    """The work of a P after ``since`` and until ``until``."""

    since: int = 0
    until: int = 0
    rows: list[Row] = field(default_factory=list)
    #: Jobs that have begun and not ended, the first of them.
    running: list[Row] = field(default_factory=list)
    moves: list[Move] = field(default_factory=list)
    #: Sleeps of P: the longer ones, and all together.
    idle: list[tuple[int, int]] = field(default_factory=list)
    idle_ns: int = 0
    #: Outcomes by token, of jobs that ended without a value.
    failed: dict[int, int] = field(default_factory=dict)
    #: Functions by number.
    names: dict[int, str] = field(default_factory=dict)
    #: Jobs that ended; and rows for which there was no room.
    jobs: int = 0
    left_out: int = 0
    #: False: there is no ring.
    keeps: bool = True


def read(
    ring: Ring,
    since: int,
    until: int,
    rows_max: int,
    function_of: Callable[[int], int | None] = lambda _token: None,
) -> Timeline:
    """The window ``since`` to ``until`` in about ``rows_max`` rows. ``function_of``: of jobs that
    have not ended, by token."""
    out = Timeline(since, until)
    share_ns = (until - since) // rows_max
    events = _Events(out, ring.events_since(since - share_ns - LATE_NS, EVENTS_READ))
    batches = ring.jobs_since(since)
    out.jobs = sum(len(batch) // WIDTH for at, batch in batches if at <= until)
    many = out.jobs + len(events.steps) > rows_max
    rows = _Rows(share_ns if many else 0, {token for token, *_ in events.steps}, events)
    for at, batch in batches:
        rows.batch(batch, told=at <= until)
    rows.steps(events.steps, function_of)
    _choose(out, rows, rows_max)
    return out


def name(out: Timeline, ring: Ring) -> Timeline:
    """Add the names of all functions in it."""
    for row in (*out.rows, *out.running):
        number = row.function
        out.names[number] = (
            "several functions" if number == SEVERAL
            else ring.names.get(number, f"function {number}")
        )  # fmt: skip
    return out


def _choose(out: Timeline, rows: _Rows, rows_max: int) -> None:
    """Put the rows into their order; where long jobs that overlap are too many, keep the longest.
    What is merged is always kept."""
    own = rows.own
    if len(own) > 2 * rows_max:
        own.sort(key=lambda row: row.began - row.ended)
        out.left_out = len(own) - 2 * rows_max
        del own[2 * rows_max :]
    found = [*own, *rows.merged(2 * rows_max)]
    found.sort(key=lambda row: row.began)
    out.rows = found
    kept = {row.token for row in found}
    out.failed = {token: outcome for token, outcome in out.failed.items() if token in kept}
    _choose_moves(out, rows.moved_ended - kept)


def _choose_moves(out: Timeline, over: set[int]) -> None:
    """Moves of jobs that are ``over``, without a row of their own, only mark their times."""
    needed = [move for move in out.moves if move.token not in over]
    marks = [move._replace(token=0) for move in out.moves if move.token in over]
    out.moves = sorted([*needed[-MOVES_MAX:], *marks[-MARKS_MAX:]], key=lambda move: move.at)


class _Events:
    """The events of the window, by kind."""

    def __init__(self, out: Timeline, events: Iterable[Event]) -> None:
        #: Token, began, ended.
        self.steps: list[tuple[int, int, int]] = []
        #: By token, of jobs that lost P: the moves; and those that have lost it before the window,
        #: of which the reader was told then.
        self.moves: dict[int, list[Move]] = {}
        self.moved_before: set[int] = set()
        self._out = out
        since, until = out.since, out.until
        for event in events:
            what, first, second, token = event
            kind = what & 0xFF
            if token < 0:  # of a child or task
                continue
            if kind == STEP:
                if since < second <= until:
                    self.steps.append((token, first, second))
            elif kind == FAILED:  # its time is the job's, which is told later
                out.failed[token] = what >> 8
            elif kind != WAKE and (at := max(second, first)) <= until:
                if at > since:
                    self._add(*event)
                elif kind == HANDOFF:
                    self.moved_before.add(token)
        del out.idle[:-IDLE_MAX]
        for move in out.moves:
            self.moves.setdefault(move.token, []).append(move)

    def _add(self, what: int, first: int, second: int, token: int) -> None:
        kind = what & 0xFF
        if kind == Kind.IDLE:
            self._out.idle_ns += second - first
            if second - first >= IDLE_NS:
                self._out.idle.append((first, second))
        elif kind == HANDOFF:
            self._out.moves.append(Move(second, token, TRAIT_NAMES[what >> 32 & 0xFF], first))
        elif kind == Kind.BACK:
            self._out.moves.append(Move(first, token, "", 0))


class _Span:
    """Several short jobs and steps: ``parts`` by kind and function: jobs, time, token."""

    __slots__ = ("began", "ended", "parts")

    def __init__(self, began: int, ended: int) -> None:
        self.began, self.ended = began, ended
        self.parts: dict[tuple[int, int], list[int]] = {}

    def rows(self, most: int) -> Iterable[Row]:
        """A row for each of the ``most`` functions that took the most time, one for the others."""
        parts = sorted(self.parts.items(), key=lambda each: -each[1][1])
        for (what, function), (jobs, busy_us, token) in parts[:most]:
            yield Row(
                what, self.began, self.ended, function, jobs, busy_us, token if jobs == 1 else 0
            )
        if rest := [each for _, each in parts[most:]]:
            jobs, busy_us = sum(each[0] for each in rest), sum(each[1] for each in rest)
            what = _BESIDE if _BESIDE in {each[0] for each, _ in parts} else _RAN
            yield Row(what, self.began, self.ended, SEVERAL, jobs, busy_us, 0)


class _Rows:
    """Collects rows. Jobs and steps of less than ``least_ns`` are merged. ``stepped``: tokens of
    async jobs that have steps in the window."""

    def __init__(self, least_ns: int, stepped: set[int], events: _Events) -> None:
        self.own: list[Row] = []
        #: Jobs that ended and had lost P.
        self.moved_ended: set[int] = set()
        self._least_ns = least_ns
        self._stepped = stepped
        self._moves, self._moved_before = events.moves, events.moved_before
        self._moved = self._moves.keys() | self._moved_before
        self._spans: dict[int, _Span] = {}
        #: Functions of ended async jobs, by token.
        self._functions: dict[int, int] = {}

    def batch(self, batch: array[int], *, told: bool) -> None:
        """Jobs that ended; those that are not to be told may have steps that are."""
        n = len(batch) // WIDTH
        tokens, began, ran_us, functions = (batch[n * k : n * (k + 1)] for k in range(WIDTH))
        if self._stepped and not self._stepped.isdisjoint(tokens):
            self._functions.update(zip(tokens, functions, strict=True))
        if not told:
            return
        moved = self._moved.intersection(tokens)
        self.moved_ended |= moved
        if n >= BATCH and max(ran_us) * 1000 < self._least_ns and not moved:
            if functions.count(functions[0]) == n:
                self._same(tokens, began, ran_us, functions[0])
                return
            if min(functions) >= 0:
                self._mixed(began, ran_us, functions)
                return
        for token, at, us, number in zip(tokens, began, ran_us, functions, strict=True):
            self._job(token, at, at + us * 1000, us, number)

    def _same(self, tokens: array[int], began: array[int], ran_us: array[int], number: int) -> None:
        """A batch of short jobs of one function."""
        first, last = min(began), began[-1] + ran_us[-1] * 1000
        if number >= 0:
            self._merge(_RAN, first, last, number, len(tokens), sum(ran_us), 0)
        elif self._stepped.isdisjoint(tokens):
            self._merge(_ASYNC, first, last, ~number, len(tokens), 0, 0)

    def _mixed(self, began: array[int], ran_us: array[int], functions: array[int]) -> None:
        """A batch of short plain jobs of several functions."""
        first, last = min(began), began[-1] + ran_us[-1] * 1000
        times: defaultdict[int, int] = defaultdict(int)
        for number, us in zip(functions, ran_us, strict=True):
            times[number] += us
        for number, us in times.items():
            self._merge(_RAN, first, last, number, functions.count(number), us, 0)

    def _job(self, token: int, began: int, ended: int, ran_us: int, number: int) -> None:
        is_short = ended - began < self._least_ns
        if number >= 0:
            if not is_short or token in self._moved_before:  # its reader knows where it ran
                self.own.append(Row(_RAN, began, ended, number, 1, ran_us, token))
            elif token in self._moves:
                self._moved_job(token, began, ended, number)
            else:
                self._merge(_RAN, began, ended, number, 1, ran_us, token)
        elif not is_short:
            self.own.append(Row(_ASYNC, began, ended, ~number, 1, 0, token))
        elif token not in self._stepped:
            self._merge(_ASYNC, began, ended, ~number, 1, 0, token)

    def _moved_job(self, token: int, began: int, ended: int, number: int) -> None:
        """A short plain job that lost P."""
        at, what = began, _RAN
        for move in self._moves[token]:
            self._merge(what, at, move.at, number, 1, (move.at - at) // 1000, 0)
            at, what = move.at, _BESIDE if move.why else _RAN
        self._merge(what, at, ended, number, 1, max(0, ended - at) // 1000, 0)

    def steps(
        self, steps: Iterable[tuple[int, int, int]], function_of: Callable[[int], int | None]
    ) -> None:
        """Steps of async jobs, once all batches are known."""
        functions, least_ns = self._functions, self._least_ns
        for token in self._stepped.difference(functions):
            known = function_of(token)
            functions[token] = ~SEVERAL if known is None else ~known
        key, span = None, _Span(0, 0)
        for token, began, ended in steps:
            function = ~functions[token]
            ns = ended - began
            if ns >= least_ns:
                self.own.append(Row(_STEP, began, ended, function, 1, ns // 1000, token))
                continue
            if began // least_ns != key:
                key = began // least_ns
                span = self._span(key, began, ended)
            if ended > span.ended:
                span.ended = ended
            part = span.parts.get((_STEP, function))
            if part is None:
                span.parts[_STEP, function] = [1, ns // 1000, token]
            else:
                part[0] += 1
                part[1] += ns // 1000

    def _span(self, key: int, began: int, ended: int) -> _Span:
        """The span of this number, made to include this time."""
        span = self._spans.get(key)
        if span is None:
            span = self._spans[key] = _Span(began, ended)
        span.began, span.ended = min(span.began, began), max(span.ended, ended)
        return span

    def _merge(
        self, what: int, began: int, ended: int, function: int, jobs: int, us: int, token: int
    ) -> None:
        key = began // self._least_ns
        # Work beside P has spans of its own: a span is drawn in one lane.
        span = self._span(~key if what == _BESIDE else key, began, ended)
        part = span.parts.get((what, function))
        if part is None:
            span.parts[what, function] = [jobs, us, token]
        else:
            part[0] += jobs
            part[1] += us

    def merged(self, rows_max: int) -> Iterable[Row]:
        """The rows of all spans: with one for each function if these are not more than that."""
        most = min(FUNCTIONS_OF_SPAN, max(1, rows_max // max(1, len(self._spans))))
        for span in self._spans.values():
            yield from span.rows(most)
