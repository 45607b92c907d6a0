"""The lives of jobs, from the rings of workers: when each ran on P or beside it, waited, was ready.

The input is the reply to the administrative question ``trace``; the trace for Perfetto and the
summary are made of the result. It knows no daemon, only that reply.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

from msgspec.msgpack import decode

from gmpd.protocol import Outcome
from gmpd.runtime.ring import (
    ENDED,
    NAME_SHIFT,
    TRAIT_NAMES,
    YIELDED,
    Event,
    Kind,
    RingDump,
    rows_of,
)

#: From, to (ns).
Span: TypeAlias = tuple[int, int]

_LOW = (1 << 24) - 1
#: A step's wait reason; above it the name of a child that has ended.
_CODE = (1 << NAME_SHIFT) - 1


class Beside(NamedTuple):
    """A part of a G's life on an M without P, and why it lost it: known, blocked, hog, native."""

    began: int
    ended: int
    m: int
    why: str


class Blocked(NamedTuple):
    """A wait of a G, with Go's reason."""

    began: int
    ended: int
    reason: str


class Leased(NamedTuple):
    """Leases that reached a P, or (in the coordinator) were sent to P number ``to``."""

    at: int
    first: int
    jobs: int
    stolen: int
    to: int


@dataclass(slots=True)
class Run:
    """One job on one P, or a child or task there, as far as its ring reaches back."""

    p: int
    token: int
    name: str
    began: int
    ended: int
    is_async: bool = False
    #: It has not ended.
    runs: bool = False
    #: It is no job: its token is ``~id`` of its G.
    child: bool = False
    #: The token of the G that made it, of a child; 0: it is not known.
    maker: int = 0
    #: Its beginning is not known any more, or the ring has no events of its rest.
    partly: bool = False
    outcome: Outcome = Outcome.OK
    #: When its lease came; 0: not known any more.
    arrived: int = 0
    on_p: list[Span] = field(default_factory=list)
    beside: list[Beside] = field(default_factory=list)
    blocked: list[Blocked] = field(default_factory=list)
    #: It could have run: before its first step, after each wake-up and yield.
    ready: list[Span] = field(default_factory=list)


@dataclass(slots=True)
class Track:
    """One worker's events. ``lost``: events and jobs that its ring keeps no more."""

    p: int
    pid: int
    #: As people read it: ``P1``; of a worker that does not serve its P any more, or is isolated,
    #: with its pid.
    title: str = ""
    #: Whether it serves P number ``p``. There is one such track for each P.
    serves: bool = True
    #: Why there are none; "" if there are.
    missing: str = ""
    #: Its worker did not answer.
    silent: bool = False
    lost: int = 0
    runs: list[Run] = field(default_factory=list)
    idle: list[Span] = field(default_factory=list)
    wakes: list[tuple[int, int]] = field(default_factory=list)
    leased: list[Leased] = field(default_factory=list)
    #: Steps of async jobs that began then, and of children that were made, were left out.
    paused: list[Span] = field(default_factory=list)


class Steal(NamedTuple):
    """Leases that the coordinator revoked for another P."""

    at: int
    victim: int
    thief: int
    jobs: int


class Turn(NamedTuple):
    """A turn of the coordinator, and what it left in the global queue."""

    began: int
    ended: int
    queued: int
    unfinished: int


@dataclass(slots=True)
class Daemon:
    """All of a reply: times are of ``time.monotonic_ns``, from ``since`` to ``now``."""

    since: int
    now: int
    tracks: list[Track]
    turns: list[Turn] = field(default_factory=list)
    steals: list[Steal] = field(default_factory=list)
    sent: list[Leased] = field(default_factory=list)
    #: The coordinator asked a P for children; those that were idle searched.
    searches: list[Span] = field(default_factory=list)
    #: (at, P, epoch, whether it died).
    workers: list[tuple[int, int, int, bool]] = field(default_factory=list)
    lost: int = 0


def read(reply: Mapping[str, Any]) -> Daemon:
    """The reply to ``trace``."""
    since, now = reply["since"], reply["now"]
    tracks = [_track(each, since, now) for each in reply["ps"]]
    shown = [track for track in tracks if track.serves or track.runs or track.missing]
    daemon = Daemon(since, now, shown)
    told = decode(reply["coordinator"], type=RingDump)
    daemon.lost = told.lost
    for what, first, second, number in rows_of(told.events):
        kind, extra = what & 0xFF, what >> 8
        if first < since:
            continue
        if kind == Kind.TURN:
            daemon.turns.append(Turn(first, second, extra, number))
        elif kind == Kind.REVOKED and extra >> 24:
            daemon.steals.append(Steal(second, extra & _LOW, (extra >> 24) - 1, number))
        elif kind == Kind.LEASED:
            daemon.sent.append(_leased(what, first, second, number))
        elif kind == Kind.SEARCH:
            daemon.searches.append((first, second))
        elif kind in (Kind.READY, Kind.DIED):
            daemon.workers.append((first, extra, number, kind == Kind.DIED))
    return daemon


def _leased(what: int, at: int, to: int, first: int) -> Leased:
    counts = what >> 8
    return Leased(at, first, counts & _LOW, counts >> 24, to)


class _Events:
    """A worker's events, by kind and token."""

    def __init__(self, rows: Sequence[Event], reasons: Sequence[str]) -> None:
        self.steps: dict[int, list[tuple[int, int, int]]] = defaultdict(list)
        self.wakes: dict[int, list[int]] = defaultdict(list)
        #: (at, M, trait); BACK has no trait.
        self.moves: dict[int, list[tuple[int, int, str]]] = defaultdict(list)
        self.failed: dict[int, Outcome] = {}
        self.idle: list[Span] = []
        self.leased: list[Leased] = []
        #: Of children and tasks: number of the name, when it was made, token of its maker.
        self.made: dict[int, Event] = {}
        #: Since when there are no events of one; since when the call of one lasts.
        self.left: dict[int, int] = {}
        self.called: dict[int, int] = {}
        self.paused: list[Span] = []
        self.reasons = reasons
        for what, first, second, token in rows:
            kind, extra = what & 0xFF, what >> 8
            if kind == Kind.STEP:
                self.steps[token].append((first, second, extra))
            elif kind == Kind.WAKE:
                self.wakes[token].append(first)
            elif kind == Kind.IDLE:
                self.idle.append((first, second))
            elif kind == Kind.HANDOFF:
                why = TRAIT_NAMES[extra >> 24 & 0xFF]
                self.moves[token].append((second, extra & _LOW, why))
            elif kind == Kind.BACK:
                self.moves[token].append((first, extra, ""))
            elif kind == Kind.LEASED:
                self.leased.append(_leased(what, first, second, token))
            elif kind == Kind.FAILED:
                self.failed[token] = Outcome(extra)
            else:
                self._add_about_child(kind, extra, first, second, token)

    def _add_about_child(self, kind: int, extra: int, first: int, second: int, token: int) -> None:
        if kind == Kind.CHILD:
            self.made[token] = extra, first, second, token
        elif kind == Kind.LEFT:
            self.left[token] = first
        elif kind == Kind.PAUSED:
            self.paused.append((first, second))


def _track(told: Mapping[str, Any], since: int, now: int) -> Track:
    status = told["status"]
    track = _titled(Track(told["p"], status.get("pid") or 0), told)
    now = told.get("ended") or now
    if track.missing:
        return track
    if not told["answered"]:
        state = status.get("state", "dead")
        track.silent = True
        track.missing = f"its worker did not answer: its state is {state}"
        return track
    ring = decode(told["ring"], type=RingDump)
    if not ring.keeps:
        track.missing = "its worker keeps no events: trace.enabled is false"
        return track
    track.lost = ring.lost
    events = _Events(rows_of(ring.events), ring.reasons)
    track.leased = events.leased
    track.idle = [(max(began, since), ended) for began, ended in events.idle if ended > since]
    runs = (*_jobs(track.p, ring, events, now), *_children(track.p, ring, events, now))
    track.runs = [run for run in runs if run.ended >= since]
    track.paused = [(max(began, since), ended) for began, ended in events.paused if ended > since]
    if ring.paused_ns:
        track.paused.append((max(ring.paused_ns, since), now))
    track.runs.sort(key=lambda run: run.began)
    track.wakes = sorted((at, token) for token, all_at in events.wakes.items() for at in all_at)
    return track


def _titled(track: Track, told: Mapping[str, Any]) -> Track:
    """Name the track, and say that its events are lost."""
    state = told["status"].get("state", "dead")
    track.title, track.missing = f"P{track.p}", told.get("missing", "")
    if told.get("isolated"):
        track.title, track.serves = f"isolated worker {track.pid}", False
    elif state == "leaving" or told.get("ended"):
        left = "leaving worker" if state == "leaving" else "former worker"
        track.title, track.serves = f"{track.title}, {left} {track.pid}", False
    return track


def _jobs(p: int, ring: RingDump, events: _Events, now: int) -> Iterator[Run]:
    """Jobs that have ended, and those that run."""
    arrivals = _Arrivals(events.leased)
    for token, began, ran_us, number in (*rows_of(ring.jobs), *rows_of(ring.running)):
        ended = now if ran_us < 0 else began + ran_us * 1000
        fid = ~number if number < 0 else number
        run = Run(p, token, ring.names.get(fid, f"function {fid}"), began, ended, number < 0)
        run.runs = ran_us < 0
        run.outcome = events.failed.get(token, Outcome.OK)
        run.arrived = min(arrivals.of(token), began)
        if run.is_async:
            run.partly = token in events.left or token not in events.steps
            _follow_steps(run, events, events.left.get(token, ended))
        else:
            _follow_moves(run, events.moves.get(token, ()))
        yield run


def _children(p: int, ring: RingDump, events: _Events, now: int) -> Iterator[Run]:
    """Children and tasks that have events."""
    for what, called, _, token in rows_of(ring.alive):
        events.made.setdefault(token, (what >> 8, 0, 0, token))
        if called:
            events.called[token] = called
    for token in events.made.keys() | {token for token in events.steps if token < 0}:
        child = _child(p, token, events, ring.children, now)
        if child is not None:
            yield child


def _child(p: int, token: int, events: _Events, names: Sequence[str], now: int) -> Run | None:
    """A child or task, by its events; None if it runs in another worker."""
    number, made, maker, _ = events.made.get(token, (0, 0, 0, token))
    steps = events.steps.get(token, [])
    left = events.left.get(token)
    ends = bool(steps) and steps[-1][2] & _CODE == ENDED
    if ends:
        number = steps[-1][2] >> NAME_SHIFT
    elif left is not None and not steps:
        return None
    name = names[number] if 0 < number < len(names) else "a child"
    began = steps[0][0] if steps else events.called.get(token) or made or now
    ended = steps[-1][1] if ends else left if left is not None else now
    run = Run(p, token, name, began, ended, is_async=True, child=True, maker=maker, arrived=made)
    run.runs = not ends and left is None
    run.partly = not made or left is not None
    run.outcome = events.failed.get(token, Outcome.OK)
    moves = events.moves.get(token, ())
    if moves or token in events.called:
        run.is_async = False
        _follow_moves(run, moves)
    else:
        _follow_steps(run, events, ended)
    return run


class _Arrivals:
    """When each token's lease came."""

    def __init__(self, leased: list[Leased]) -> None:
        self._leased = sorted(leased, key=lambda each: each.first)
        self._firsts = [each.first for each in self._leased]

    def of(self, token: int) -> int:
        """0: not known any more."""
        at = bisect_right(self._firsts, token) - 1
        if at < 0 or token >= self._leased[at].first + self._leased[at].jobs:
            return 0
        return self._leased[at].at


def _follow_moves(run: Run, moves: Sequence[tuple[int, int, str]]) -> None:
    """A plain job: on P until it is handed off, beside it until it is back or ends."""
    if run.arrived:
        run.ready.append((run.arrived, run.began))
    at, beside = run.began, None
    for moved, m, why in sorted(moves):
        if not run.began <= moved <= run.ended:
            continue
        if why:
            run.on_p.append((at, moved))
            beside = m, why
        elif beside is not None:
            run.beside.append(Beside(at, moved, *beside))
            beside = None
        at = moved
    if beside is None:
        run.on_p.append((at, run.ended))
    else:
        run.beside.append(Beside(at, run.ended, *beside))


def _follow_steps(run: Run, events: _Events, until: int) -> None:
    """A coroutine: its steps up to ``until``, and what is between them."""
    wakes = events.wakes.get(run.token, [])
    first = run.arrived or run.began
    before = -1  # the code with which the step before ended
    step = 0, 0
    for began, ended, code in events.steps.get(run.token, ()):
        if before < 0:
            run.ready.append((first, began))
        else:
            _between(run, events, before, step, began, wakes)
        run.on_p.append((began, ended))
        before, step = code & _CODE, (began, ended)
    if (run.runs or run.partly) and before != ENDED:
        if before >= 0:
            _between(run, events, before, step, until, wakes)
        elif run.child:  # of a job no step is known
            run.ready.append((first, until))


def _between(
    run: Run, events: _Events, code: int, step: Span, until: int, wakes: list[int]
) -> None:
    """From the end of one step to the begin of the next, or to now."""
    began, at = step
    if code == YIELDED:
        run.ready.append((at, until))
        return
    reason = events.reasons[code] if code < len(events.reasons) else "IO wait"
    place = bisect_right(wakes, began)  # it may be woken before its step has ended
    woken = max(at, wakes[place]) if place < len(wakes) and wakes[place] <= until else until
    run.blocked.append(Blocked(at, woken, reason))
    if woken < until:
        run.ready.append((woken, until))


def all_runs(daemon: Daemon) -> Iterator[Run]:
    """The runs of all Ps."""
    for track in daemon.tracks:
        yield from track.runs
