"""The work of a host's cores over time: how much of each tenth of a second they were taken, by
function. The task stream shows that.

A host keeps its events itself, by a clock that is not this machine's. Known here are the jobs that
it says it has begun, and the run times of those that ended, when their outcomes come: a few tens of
milliseconds late. That is enough for how busy a host was and by what; it is no record of each job.
No IO, no clock: times are ns of this machine's monotonic one.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Final

from gmpd.runtime.timeline import FUNCTIONS_OF_SPAN, SEVERAL, Row, Timeline, What

#: Times are told in such spans. Outcomes of one batch ran within about half of one.
SPAN_NS: Final = 100_000_000
#: After a question, jobs that end are counted for this time; and how far back that may go.
WATCHED_NS: Final = 10_000_000_000
BACK_NS: Final = 30_000_000_000


class Occupancy:
    """Counts for one host. ``cores``: more than these are never taken."""

    def __init__(self, cores: int) -> None:
        self._cores = cores
        self._names: dict[int, str] = {}
        #: Jobs that the host has begun: their functions, and until when they were counted.
        self._begun: dict[int, tuple[int, int]] = {}
        #: Time on cores (ns) and jobs that ended, by span and function.
        self._taken: defaultdict[int, defaultdict[int, int]] = defaultdict(_counter)
        self._ended: defaultdict[int, defaultdict[int, int]] = defaultdict(_counter)
        #: Spans before this one were told.
        self._told = 0
        self._watched_until = 0

    def define(self, fid: int, name: str) -> None:
        """A function has this name."""
        self._names[fid] = name

    def forget(self, fid: int) -> None:
        """No more jobs of it will come."""
        self._names.pop(fid, None)

    def is_watched(self, now: int) -> bool:
        """Whether jobs that end count."""
        return now < self._watched_until

    def begun(self, token: int, fid: int, now: int) -> None:
        """The host said that it has begun a job."""
        self._begun[token] = fid, now

    def ended(self, token: int, fid: int, ran_ns: int, now: int) -> None:
        """The outcome of a job came."""
        _, since = self._begun.pop(token, (fid, now - ran_ns))
        if self.is_watched(now):
            self._take(fid, since, now)
            self._ended[now // SPAN_NS][fid] += 1

    def _take(self, fid: int, since: int, until: int) -> None:
        """A core was taken from then to then."""
        at = max(since, self._told * SPAN_NS, until - BACK_NS)
        while at < until:
            span = at // SPAN_NS
            end = min(until, (span + 1) * SPAN_NS)
            self._taken[span][fid] += end - at
            at = end

    def read(self, since: int, until: int) -> Timeline:
        """The spans that have ended by ``until``, each told once."""
        self._watched_until = max(self._watched_until, until + WATCHED_NS)
        for token, (fid, counted) in self._begun.items():
            if counted < until:
                self._take(fid, counted, until)
                self._begun[token] = fid, until
        out = Timeline(since, until)
        end = until // SPAN_NS
        for span in sorted(each for each in self._taken.keys() | self._ended.keys() if each < end):
            taken, ended = self._taken.pop(span, _counter()), self._ended.pop(span, _counter())
            if (span + 1) * SPAN_NS > since:
                out.rows += self._rows(span, taken, ended)
                out.jobs += sum(ended.values())
        self._told = max(self._told, end)
        for row in out.rows:
            name = self._names.get(row.function, f"function {row.function}")
            out.names[row.function] = "several functions" if row.function == SEVERAL else name
        return out

    def _rows(self, span: int, taken: dict[int, int], ended: dict[int, int]) -> list[Row]:
        """The functions that took most of a span, and the others as one."""
        fids = sorted(taken.keys() | ended.keys(), key=lambda fid: -taken.get(fid, 0))
        found = [(fid, taken.get(fid, 0), ended.get(fid, 0)) for fid in fids]
        if len(found) > FUNCTIONS_OF_SPAN:
            rest = found[FUNCTIONS_OF_SPAN - 1 :]
            del found[FUNCTIONS_OF_SPAN - 1 :]
            found.append((SEVERAL, sum(ns for _, ns, _ in rest), sum(n for *_, n in rest)))
        began, ended_at = span * SPAN_NS, (span + 1) * SPAN_NS
        room = SPAN_NS * self._cores
        scale = min(1.0, room / max(1, sum(ns for _, ns, _ in found))) / self._cores / 1000
        return [
            Row(int(What.RAN), began, ended_at, fid, jobs, int(ns * scale), 0)
            for fid, ns, jobs in found
        ]


def _counter() -> defaultdict[int, int]:
    return defaultdict(int)
