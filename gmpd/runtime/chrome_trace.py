"""The events of Gs as a trace for Perfetto (ui.perfetto.dev) and chrome://tracing.

Chrome's JSON format, laid out as Go's own converter does (internal/trace/traceviewer): P and Ms as
tracks with the Gs that ran on them, an arrow from the G that woke another to the step that it woke,
counters of Gs by state; beside these each G's states as a track of its own. Times are microseconds
since the first event.
"""

from __future__ import annotations

import gzip
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gmpd.runtime.trace import BEFORE, TraceEvent, Tracer
from gmpd.sched.g import GEvent, GStatus, transition

if TYPE_CHECKING:
    from gmpd.runtime.p import P

Json = dict[str, Any]
#: Where a trace is written.
PathName = str | os.PathLike[str]

_PS, _MS, _STATS, _GS = 1, 2, 3, 4
_TITLES = {_PS: "Ps", _MS: "Ms", _STATS: "Stats", _GS: "Gs"}
#: A thread's number must differ from those of other processes. P0 is 1000, M3 is 2003.
_P, _FIRST_M = 1000, 2000

_SHOWN = (GStatus.RUNNING, GStatus.RUNNABLE, GStatus.WAITING, GStatus.SYSCALL)


class _Converter:
    """Turns events, oldest first, into Chrome's."""

    def __init__(self) -> None:
        self.out: list[Json] = []
        self._start_s: float | None = None
        self._status: dict[int, GStatus] = {}
        #: Of each G, since when it is in its status.
        self._since: dict[int, tuple[float, str]] = {}
        #: Of each G in a system call: its M, and since when.
        self._ms: dict[int, tuple[int, float]] = {}
        self._running: int | None = None
        #: Arrows by the G that was woken, until its next step.
        self._arrows: dict[int, int] = {}
        self._arrow = 0
        self._seen_ms: set[int] = set()
        #: Names of Gs whose creation was seen.
        self._alive: dict[int, TraceEvent] = {}

    def add(self, event: TraceEvent) -> None:
        if self._start_s is None:
            self._start_s = event.time_s
        ts = (event.time_s - self._start_s) * 1e6
        before = self._status.get(event.g)
        if before is None:
            before = BEFORE[event.event]
        if event.event is GEvent.UNBLOCK and before is not GStatus.WAITING:
            return  # as the tracer: it was cancelled and woken at once
        self._leave(event, before, ts)
        self._enter(event, transition(before, event.event), ts)
        self._count(ts)

    def _leave(self, event: TraceEvent, before: GStatus, ts: float) -> None:
        """The status that the event ends, as a slice."""
        g = event.g
        since, why = self._since.pop(g, (0.0, ""))
        if event.event is GEvent.CREATE:
            self._alive[g] = event
            self._state("b", event, event.name, ts)
        else:
            name = f"{before.name.lower()} ({why})" if why else before.name.lower()
            self._state("b", event, name, since)
            self._state("e", event, name, ts)
        if before is GStatus.RUNNING and g == self._running:
            self._running = None
            self._slice(_PS, _P, event, since, ts)
        elif before is GStatus.SYSCALL and g in self._ms:
            m, began = self._ms.pop(g)
            self._slice(_MS, _FIRST_M + m, event, began, ts)

    def _enter(self, event: TraceEvent, after: GStatus, ts: float) -> None:
        g = event.g
        if event.event in (GEvent.CREATE, GEvent.UNBLOCK) and self._running is not None:
            self._arrow += 1
            self._arrows[g] = self._arrow
            self._flow("s", self._arrow, ts)
        if after is GStatus.DEAD:
            self._status.pop(g, None)
            if self._alive.pop(g, None) is not None:
                self._state("e", event, event.name, ts)
            return
        self._status[g] = after
        self._since[g] = ts, event.detail if after is GStatus.WAITING else ""
        if after is GStatus.RUNNING:
            self._running = g
            if g in self._arrows:
                self._flow("f", self._arrows.pop(g), ts)
        elif after is GStatus.SYSCALL:
            self._ms[g] = int(event.detail.removeprefix("M") or 0), ts

    def close(self, last: TraceEvent | None) -> None:
        """Close what is open, and name the tracks."""
        if last is not None and self._start_s is not None:
            ts = (last.time_s - self._start_s) * 1e6
            for event in self._alive.values():
                self._state("e", event, event.name, ts)
        for pid, title in _TITLES.items():
            self._name("process_name", pid, 0, title)
        self._name("thread_name", _PS, _P, "P0")
        for m in sorted(self._seen_ms):
            self._name("thread_name", _MS, m, f"M{m - _FIRST_M}")

    # -- Chrome's events ---------------------------------------------------------------------------

    def _slice(self, pid: int, tid: int, event: TraceEvent, since: float, ts: float) -> None:
        if pid == _MS:
            self._seen_ms.add(tid)
        self.out.append({
            "ph": "X", "pid": pid, "tid": tid, "name": f"G{event.g} {event.name}", "ts": since,
            "dur": ts - since, "args": {"g": event.g, "end": event.event.name.lower()},
        })  # fmt: skip

    def _state(self, ph: str, event: TraceEvent, name: str, ts: float) -> None:
        self.out.append({
            "ph": ph, "cat": "g", "id": f"0x{event.g:x}", "pid": _GS, "tid": 0, "name": name,
            "ts": ts,
        })  # fmt: skip

    def _flow(self, ph: str, number: int, ts: float) -> None:
        at_the_end = {"bp": "e"} if ph == "f" else {}
        self.out.append({
            "ph": ph, "cat": "wake", "name": "wake", "id": number, "pid": _PS, "tid": _P, "ts": ts,
            **at_the_end,
        })  # fmt: skip

    def _count(self, ts: float) -> None:
        counts = Counter(self._status.values())
        args = {status.name.lower(): counts[status] for status in _SHOWN}
        self.out.append({"ph": "C", "pid": _STATS, "tid": 0, "name": "Gs", "ts": ts, "args": args})

    def _name(self, kind: str, pid: int, tid: int, name: str) -> None:
        self.out.append({"ph": "M", "pid": pid, "tid": tid, "name": kind, "args": {"name": name}})


def chrome_events(events: Iterable[TraceEvent]) -> list[Json]:
    """Chrome's events of these, which are in order."""
    converter = _Converter()
    last = None
    for last in events:
        converter.add(last)
    converter.close(last)
    return converter.out


@contextmanager
def written(p: P, path: PathName | None) -> Iterator[None]:
    """Trace ``p`` while this lasts, and write the newest events to ``path``, also if the program
    fails; None: no trace. A name that ends with .gz is compressed. Raises OSError before anything
    runs if the file cannot be written.
    """
    if path is None:
        yield
        return
    file = Path(path)
    file.write_bytes(b"")
    tracer = p.tracer = Tracer(p.loop.time)
    try:
        yield
    finally:
        p.tracer = None
        dropped = tracer.total - len(tracer.events)
        document = {
            "traceEvents": chrome_events(tracer.events),
            "displayTimeUnit": "ns",
            "otherData": {"program": "gmpd.run", "dropped_events": dropped},
        }
        data = json.dumps(document).encode()
        file.write_bytes(gzip.compress(data) if file.suffix == ".gz" else data)
