"""The trace of a daemon in Go's own format, for ``go tool trace`` of Go 1.22 and newer.

One generation. Each worker is a P and the M that holds it; each job and child is a goroutine, named
by its function, on the stack that it was created with. A G that lost its P is blocked meanwhile by
``beside P`` and the reason; one that ended there has an instant on P once that is free.

The format: a header, then batches of one M, each at most 64 KiB: events are a byte, the time since
the one before, and further numbers, all as varints (Go: ``internal/trace/tracev2``).
"""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from gmpd.daemon.trace_runs import Daemon, Run, Span, Track

HEADER: Final = b"go 1.22 trace\0\0\0"
#: Bytes of events in a batch: less than Go allows, by more than the longest event has.
BATCH_BYTES: Final = (64 << 10) - 256
#: The M of batches that are of none.
_NO_M: Final = (1 << 64) - 1
#: The most bytes of a string.
_STRING_MAX: Final = 1024

# Numbers of events.
_BATCH, _STACKS, _STACK, _STRINGS, _STRING, _FREQUENCY = 1, 2, 3, 4, 5, 8
_PROC_START, _PROC_STOP, _PROC_STATUS = 10, 11, 13
_GO_CREATE, _GO_START, _GO_DESTROY, _GO_STOP, _GO_BLOCK, _GO_UNBLOCK = 14, 16, 17, 19, 20, 21
#: Of a P: it runs.
_RUNNING: Final = 1


class _Event(NamedTuple):
    at: int
    #: Of those of one time: ends first, then what makes Gs runnable, then starts.
    order: int
    kind: int
    args: tuple[int, ...]


_END, _READY, _START = 0, 1, 2


def go_trace(daemon: Daemon) -> bytes:
    """The whole file."""
    return _Writer(daemon).write()


class _Writer:
    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._strings: dict[str, int] = {}
        self._stacks: dict[str, int] = {}
        self._gs = 0

    def write(self) -> bytes:
        out = [HEADER]
        for number, track in enumerate(self._daemon.tracks):
            out += _batches(number + 1, self._daemon.since, self._events(number, track))
        out += [_structural(_STACKS, self._stack_table()), _structural(_STRINGS, self._texts())]
        out.append(_batch(_NO_M, 0, bytes([_FREQUENCY]) + varint(1_000_000_000)))
        return b"".join(out)

    # -- events of one P ---------------------------------------------------------------------------

    def _events(self, p: int, track: Track) -> Iterator[_Event]:
        """In the order in which a reader takes them."""
        since = self._daemon.since
        events = [_Event(since, _END, _PROC_STATUS, (p, _RUNNING))]
        busy = _Busy(track.runs, since)
        for run in track.runs:
            events += self._life(run, busy)
        for n, (began, ended) in enumerate(_clear(track.idle, events)):
            events.append(_Event(began, _READY, _PROC_STOP, ()))
            events.append(_Event(ended, _END, _PROC_START, (p, n + 1)))
        yield from sorted(events, key=lambda event: event[:2])

    def _life(self, run: Run, busy: _Busy) -> Iterator[_Event]:
        """A G from its creation to its end."""
        steps = busy.steps_of(run)
        if not steps:
            return
        self._gs += 1
        g, seq, blocked = self._gs, 0, False
        over = not (run.runs or run.partly)
        beside = over and bool(run.beside) and run.beside[-1].ended == run.ended
        made = max(self._daemon.since, min(run.arrived or run.began, steps[0][0]))
        yield _Event(made, _READY, _GO_CREATE, (g, self._stack(run.name), 0))
        for n, (began, ended) in enumerate(steps):
            if blocked:
                seq += 1
                yield _Event(_woken(run, began), _READY, _GO_UNBLOCK, (g, seq, 0))
            seq += 1
            yield _Event(began, _START, _GO_START, (g, seq))
            reason = _reason_after(run, ended)
            blocked = bool(reason)
            if n == len(steps) - 1 and over and not beside:
                yield _Event(ended, _END, _GO_DESTROY, ())
            elif blocked:
                yield _Event(ended, _END, _GO_BLOCK, (self._string(reason), 0))
            else:
                yield _Event(ended, _END, _GO_STOP, (self._string("runtime.Gosched"), 0))
        if beside:
            at = busy.free(run.ended)
            yield _Event(at, _READY, _GO_UNBLOCK, (g, seq + 1, 0))
            yield _Event(at, _READY, _GO_START, (g, seq + 2))
            yield _Event(at, _READY, _GO_DESTROY, ())

    # -- tables ------------------------------------------------------------------------------------

    def _string(self, text: str) -> int:
        return self._strings.setdefault(text, len(self._strings) + 1)

    def _stack(self, function: str) -> int:
        return self._stacks.setdefault(function, len(self._stacks) + 1)

    def _stack_table(self) -> Iterator[bytes]:
        for function, number in self._stacks.items():
            module, _, _ = function.rpartition(":")
            file = self._string(module or "gmpd")
            numbers = (number, 1, number, self._string(function), file, 1)
            yield bytes([_STACK]) + b"".join(map(varint, numbers))

    def _texts(self) -> Iterator[bytes]:
        for text, number in self._strings.items():
            data = text.encode(errors="replace")[:_STRING_MAX]
            yield bytes([_STRING]) + varint(number) + varint(len(data)) + data


class _Busy:
    """When P runs Gs. Their parts do not overlap: where a clock was read a moment too late, one
    ends as the next begins."""

    def __init__(self, runs: Iterable[Run], since: int) -> None:
        self._since = since
        spans = sorted(span for run in runs for span in run.on_p if span[0] >= since)
        self._begins = [span[0] for span in spans]
        self._next = dict(itertools.pairwise(sorted(set(self._begins))))
        self._ends = {span[0]: self._end(span) for span in spans}

    def _end(self, span: Span) -> int:
        return min(span[1], self._next.get(span[0], span[1]))

    def steps_of(self, run: Run) -> list[Span]:
        """The parts of a G's life on P that are in the trace."""
        return [(span[0], self._end(span)) for span in run.on_p if span[0] >= self._since]

    def free(self, at: int) -> int:
        """When P is free, from then on."""
        n = bisect_right(self._begins, at) - 1
        return at if n < 0 else max(at, self._ends[self._begins[n]])


def _woken(run: Run, began: int) -> int:
    """When a G that was blocked is made ready, before the step that begins then."""
    ends = [wait.ended for wait in run.blocked if wait.ended <= began]
    ends += [part.ended for part in run.beside if part.ended <= began]
    return max(ends, default=began)


def _reason_after(run: Run, ended: int) -> str:
    """The reason for which it waits from then on; empty if it could run."""
    for wait in run.blocked:
        if wait.began == ended:
            return wait.reason
    for part in run.beside:
        if part.began == ended:
            return f"beside P: {part.why}"
    return ""


def _clear(idle: list[Span], events: Iterable[_Event]) -> list[Span]:
    """The sleeps of P in which nothing happens."""
    times = sorted(event.at for event in events)
    found: list[Span] = []
    n = 0
    for began, ended in sorted(idle):
        while n < len(times) and times[n] <= began:
            n += 1
        until = times[n] if n < len(times) and times[n] < ended else ended
        if until > began and (not found or found[-1][1] <= began):
            found.append((began, until))
    return found


# -- bytes -----------------------------------------------------------------------------------------


def varint(number: int) -> bytes:
    """Go's uvarint."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _batch(m: int, at: int, data: bytes) -> bytes:
    head = b"".join(map(varint, (1, m, at, len(data))))
    return bytes([_BATCH]) + head + data


def _batches(m: int, since: int, events: Iterable[_Event]) -> Iterator[bytes]:
    """The events of one M."""
    base = last = since
    data = bytearray()
    for event in events:
        if len(data) > BATCH_BYTES:
            yield _batch(m, base, bytes(data))
            data.clear()
            base = last
        data.append(event.kind)
        data += varint(event.at - last)
        last = event.at
        for number in event.args:
            data += varint(number)
    if data:
        yield _batch(m, base, bytes(data))


def _structural(kind: int, entries: Iterable[bytes]) -> bytes:
    """Batches of a table."""
    out, data = [], bytearray([kind])
    for entry in entries:
        if len(data) + len(entry) > BATCH_BYTES:
            out.append(_batch(_NO_M, 0, bytes(data)))
            data = bytearray([kind])
        data += entry
    return b"".join([*out, _batch(_NO_M, 0, bytes(data))])
