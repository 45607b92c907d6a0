"""The trace of a daemon for Perfetto (ui.perfetto.dev) and chrome://tracing, as Chrome's JSON.

Tracks: each P with the jobs that ran on it and its sleep, workers that have left their P or are
isolated, the Ms with jobs that lost their P, the coordinator with its turns, steals and leases; the
states of each async job, and of each plain one that took more than LONG_NS. Arrows lead from a
wake-up to the step that it woke, from a hand-off to the M, and from the victim of a steal over the
coordinator to the first job on the thief. Times are microseconds since the trace began. Counterpart
without a daemon: ``runtime.chrome_trace``.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from gmpd.daemon.trace_runs import Daemon, Run, Span, Steal, Track, all_runs

Json = dict[str, Any]

_PS, _MS, _COORDINATOR, _STATS, _GS, _OTHERS = 1, 2, 3, 4, 5, 6
_TITLES: Final = {
    _PS: "Ps", _MS: "Ms", _COORDINATOR: "Coordinator", _STATS: "Stats", _GS: "Gs",
    _OTHERS: "Other workers",
}  # fmt: skip
#: Numbers of threads differ between processes. P0 is 1000, M3 of P1 is 100001003; workers that
#: serve no P are numbered as if they served Ps from ``_BESIDE`` on.
_FIRST_P, _FIRST_M, _MS_OF_P, _BESIDE = 1000, 100_000_000, 1000, 100_000
_TURNS, _STEALS, _LEASES = 3, 4, 5

#: 52 bits of tokens, which may be below 0.
_TOKENS: Final = (1 << 52) - 1
#: Plain jobs that took less have no states of their own: their slice on P says all.
LONG_NS: Final = 1_000_000
#: Counters change at most this often.
COUNT_NS: Final = 200_000


class _Lane:
    """The slices of one track, which do not overlap."""

    def __init__(self, pid: int, tid: int) -> None:
        self.pid, self.tid = pid, tid
        self.slices: list[tuple[int, int, str, Json]] = []
        self._starts: list[int] = []

    def add(self, span: Span, name: str, **args: Any) -> None:
        self.slices.append((*span, name, args))

    def settle(self) -> None:
        """Sort them; clocks that were read a moment too late overlap by that much."""
        self.slices.sort(key=lambda each: each[:2])
        for n, (began, ended, name, args) in enumerate(self.slices[:-1]):
            following = self.slices[n + 1][0]
            if following < ended:
                self.slices[n] = (began, following, name, args)
        self._starts = [each[0] for each in self.slices]

    def covers(self, at: int) -> bool:
        """Whether a slice is open then."""
        n = bisect_right(self._starts, at) - 1
        return n >= 0 and at < self.slices[n][1]


class _Converter:
    """Makes Chrome's events of one daemon."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self.out: list[Json] = []
        #: Each track with the number of its lane.
        self._tracks = [
            (track.p if track.serves else _BESIDE + n, track)
            for n, track in enumerate(daemon.tracks)
        ]
        self._workers = {
            number: _Lane(_PS if track.serves else _OTHERS, _FIRST_P + number)
            for number, track in self._tracks
        }
        self._ms: dict[int, _Lane] = {}
        self._names: dict[int, str] = {}
        self._turns = _Lane(_COORDINATOR, _TURNS)
        self._steals = _Lane(_COORDINATOR, _STEALS)
        self._arrow = 0

    def convert(self) -> list[Json]:
        self._fill()
        for lane in self._lanes():
            lane.settle()
            for began, ended, name, args in lane.slices:
                self._slice(lane, began, ended, name, args)
        for number, track in self._tracks:
            self._arrows_of(number, track)
        for steal in self.daemon.steals:
            self._arrow_of_steal(steal)
        self._leases()
        for number, track in self._tracks:
            for run in track.runs:
                if run.is_async or run.beside or run.ended - run.began > LONG_NS:
                    self._states(number, run)
        self._counters()
        self._name_all()
        return self.out

    def _lanes(self) -> list[_Lane]:
        return [*self._workers.values(), *self._ms.values(), self._turns, self._steals]

    # -- slices ------------------------------------------------------------------------------------

    def _fill(self) -> None:
        for number, track in self._tracks:
            lane = self._workers[number]
            for span in track.idle:
                for slept, name in _sleeps(span, self.daemon.searches):
                    lane.add(slept, name)
            for run in track.runs:
                for span in run.on_p:
                    lane.add(self._kept(span), run.name, **_about(run))
                for part in run.beside:
                    on_m = self._lane_of_m(number, track, part.m)
                    span = self._kept((part.began, part.ended))
                    on_m.add(span, run.name, why=part.why, **_about(run))
        for turn in self.daemon.turns:
            self._turns.add((turn.began, turn.ended), "turn", queued=turn.queued)
        for steal in self.daemon.steals:
            name = f"P{steal.thief} steals {steal.jobs} of P{steal.victim}"
            self._steals.add((steal.at, steal.at + 1000), name)

    def _lane_of_m(self, number: int, track: Track, m: int) -> _Lane:
        tid = _FIRST_M + number * _MS_OF_P + m
        if tid not in self._ms:
            self._ms[tid] = _Lane(_MS, tid)
            self._names[tid] = f"{track.title} M{m}"
        return self._ms[tid]

    def _kept(self, span: Span) -> Span:
        """The part of it that is in the trace."""
        return max(span[0], self.daemon.since), max(span[1], self.daemon.since)

    # -- arrows ------------------------------------------------------------------------------------

    def _arrows_of(self, number: int, track: Track) -> None:
        lane = self._workers[number]
        steps: dict[int, list[int]] = defaultdict(list)
        for run in track.runs:
            if run.is_async:
                steps[run.token] = [began for began, _ in run.on_p]
            if run.child and run.on_p and lane.covers(run.arrived):
                began = run.on_p[0][0]
                self._link("go", [
                    (lane.pid, lane.tid, run.arrived), (lane.pid, lane.tid, began),
                ])  # fmt: skip
            for part in run.beside:
                if lane.covers(part.began - 1):
                    began, on_m = max(part.began, self.daemon.since), _FIRST_M + number * _MS_OF_P
                    self._link("hand-off", [
                        (lane.pid, lane.tid, part.began - 1), (_MS, on_m + part.m, began),
                    ])  # fmt: skip
        for at, token in track.wakes:
            begun = steps.get(token, [])
            n = bisect_left(begun, at)
            if n < len(begun) and lane.covers(at):
                self._link("wake", [(lane.pid, lane.tid, at), (lane.pid, lane.tid, begun[n])])

    def _arrow_of_steal(self, steal: Steal) -> None:
        """From what the victim ran, to the first job that the thief began of them."""
        places: list[tuple[int, int, int]] = []
        victim = self._workers.get(steal.victim)
        if victim is not None and victim.covers(steal.at):
            places.append((victim.pid, victim.tid, steal.at))
        places.append((_COORDINATOR, _STEALS, steal.at))
        begun = self._first_stolen(steal)
        if begun is not None:
            thief = self._workers[steal.thief]
            places.append((thief.pid, thief.tid, begun))
        if len(places) > 1:
            self._link("steal", places)

    def _first_stolen(self, steal: Steal) -> int | None:
        for leased in self.daemon.sent:
            if leased.to == steal.thief and leased.stolen and leased.at >= steal.at:
                break
        else:
            return None
        for track in self.daemon.tracks:
            for run in track.runs if track.serves and track.p == steal.thief else ():
                if leased.first <= run.token < leased.first + leased.stolen and run.on_p:
                    return max(run.on_p[0][0], self.daemon.since)
        return None

    def _link(self, name: str, places: list[tuple[int, int, int]]) -> None:
        self._arrow += 1
        for n, (pid, tid, at) in enumerate(places):
            ph = "s" if n == 0 else "f" if n == len(places) - 1 else "t"
            event = {
                "ph": ph, "cat": name, "name": name, "id": self._arrow, "pid": pid, "tid": tid,
                "ts": self._us(at),
            }  # fmt: skip
            self.out.append(event | ({"bp": "e"} if n else {}))

    # -- the rest ----------------------------------------------------------------------------------

    def _leases(self) -> None:
        for leased in self.daemon.sent:
            stolen = f", {leased.stolen} stolen" if leased.stolen else ""
            self._instant(_LEASES, leased.at, f"{leased.jobs} to P{leased.to}{stolen}")
        for at, p, epoch, died in self.daemon.workers:
            what = "died" if died else "is ready"
            self._instant(_LEASES, at, f"worker of P{p}, epoch {epoch}, {what}")

    def _instant(self, tid: int, at: int, name: str) -> None:
        self.out.append({
            "ph": "i", "s": "t", "pid": _COORDINATOR, "tid": tid, "name": name, "ts": self._us(at),
        })  # fmt: skip

    def _states(self, worker: int, run: Run) -> None:
        """A G's states, one after the other, inside its life."""
        number = f"0x{worker + 1:x}{run.token & _TOKENS:013x}"
        spans = [(began, ended, "running") for began, ended in run.on_p]
        spans += [(began, ended, "runnable") for began, ended in run.ready]
        spans += [(each.began, each.ended, f"waiting ({each.reason})") for each in run.blocked]
        spans += [(part.began, part.ended, f"without P ({part.why})") for part in run.beside]
        began, ended = self._kept((run.arrived or run.began, run.ended))
        self._state("b", number, run.name, began)
        for since, until, name in sorted(spans):
            since, until = self._kept((since, min(until, ended)))
            if since < until:
                self._state("b", number, name, since)
                self._state("e", number, name, until)
        self._state("e", number, run.name, ended)

    def _state(self, ph: str, number: str, name: str, at: int) -> None:
        self.out.append({
            "ph": ph, "cat": "g", "id": number, "pid": _GS, "tid": 0, "name": name,
            "ts": self._us(at),
        })  # fmt: skip

    def _counters(self) -> None:
        changes: list[tuple[int, str, int]] = []
        for run in all_runs(self.daemon):
            spans = [(span, "running") for span in run.on_p]
            spans += [(span, "runnable") for span in run.ready]
            spans += [((wait.began, wait.ended), "waiting") for wait in run.blocked]
            spans += [((part.began, part.ended), "without P") for part in run.beside]
            for span, state in spans:
                began, ended = self._kept(span)
                changes += [(began, state, 1), (ended, state, -1)]
        counts = Counter({"running": 0, "runnable": 0, "waiting": 0, "without P": 0})
        self._count("Gs", changes, counts)
        last = 0
        for turn in self.daemon.turns:
            if turn.ended - last > COUNT_NS:
                last = turn.ended
                queued = {"in the global queue": turn.queued, "unfinished": turn.unfinished}
                self._counter("Jobs", turn.ended, queued)

    def _count(self, name: str, changes: list[tuple[int, str, int]], counts: Counter[str]) -> None:
        last = 0
        for at, state, change in sorted(changes, key=lambda each: each[0]):
            if at - last > COUNT_NS:
                if last:
                    self._counter(name, last, counts)
                last = at
            counts[state] += change
        if last:
            self._counter(name, last, counts)

    def _counter(self, name: str, at: int, values: Mapping[str, int]) -> None:
        args = {state: max(0, n) for state, n in values.items()}
        self.out.append({
            "ph": "C", "pid": _STATS, "tid": 0, "name": name, "ts": self._us(at), "args": args,
        })  # fmt: skip

    def _slice(self, lane: _Lane, began: int, ended: int, name: str, args: Json) -> None:
        self.out.append({
            "ph": "X", "pid": lane.pid, "tid": lane.tid, "name": name, "ts": self._us(began),
            "dur": (ended - began) / 1e3, "args": args,
        })  # fmt: skip

    def _name_all(self) -> None:
        for pid, title in _TITLES.items():
            self._name("process_name", pid, 0, title)
            self._sort("process_sort_index", pid, 0, pid)
        for number, track in self._tracks:
            lane, title = self._workers[number], track.title
            if track.serves:
                title = f"P{track.p:02}"  # viewers sort by name
            title += f" ({track.missing})" if track.missing else ""
            self._name("thread_name", lane.pid, lane.tid, title)
        for tid, title in sorted(self._names.items()):
            self._name("thread_name", _MS, tid, title)
        for tid, title in ((_TURNS, "turns"), (_STEALS, "steals"), (_LEASES, "leases")):
            self._name("thread_name", _COORDINATOR, tid, title)

    def _name(self, kind: str, pid: int, tid: int, name: str) -> None:
        self.out.append({"ph": "M", "pid": pid, "tid": tid, "name": kind, "args": {"name": name}})

    def _sort(self, kind: str, pid: int, tid: int, index: int) -> None:
        args = {"sort_index": index}
        self.out.append({"ph": "M", "pid": pid, "tid": tid, "name": kind, "args": args})

    def _us(self, at: int) -> float:
        return (at - self.daemon.since) / 1e3


def _sleeps(idle: Span, searches: Sequence[Span]) -> Iterator[tuple[Span, str]]:
    """The parts of a P's sleep: searching while the coordinator looks for work for it."""
    at = idle[0]
    for began, ended in searches[max(0, bisect_left(searches, (at, 0)) - 1) :]:
        if began >= idle[1]:
            break
        if ended <= at:
            continue
        if began > at:
            yield (at, began), "idle"
        until = min(ended, idle[1])
        yield (max(began, at), until), "searching"
        at = until
    if at < idle[1]:
        yield (at, idle[1]), "idle"


def _about(run: Run) -> Json:
    about: Json = {"child": ~run.token} if run.child else {"token": run.token}
    args: Json = about | {"outcome": "runs" if run.runs else run.outcome.name.lower()}
    if run.maker:
        args["made_by"] = f"child {~run.maker}" if run.maker < 0 else f"job {run.maker}"
    if run.arrived:
        args["waited_us"] = (run.began - run.arrived) / 1e3
    return args


def chrome_document(daemon: Daemon, version: str) -> Json:
    """The whole file. Parts that are not in it are named in ``otherData``."""
    missing = {track.title: track.missing for track in daemon.tracks if track.missing}
    lost = {track.title: track.lost for track in daemon.tracks if track.lost}
    if daemon.lost:
        lost["coordinator"] = daemon.lost
    return {
        "traceEvents": _Converter(daemon).convert(),
        "displayTimeUnit": "ns",
        "otherData": {
            "program": f"gmpd {version}",
            "seconds": (daemon.now - daemon.since) / 1e9,
            "missing": missing,
            "events_older_than_the_rings": lost,
        },
    }


def missing_of(tracks: Iterable[Track]) -> list[str]:
    """A line for each worker without events."""
    return [f"{track.title} has no track: {track.missing}" for track in tracks if track.missing]
