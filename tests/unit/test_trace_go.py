"""A trace in Go's own format, byte by byte."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from gmpd.daemon.trace_go import HEADER, go_trace, varint
from gmpd.daemon.trace_runs import Beside, Blocked, Daemon, Run, Track

MS = 1_000_000
#: Numbers that follow the time of each kind of event.
ARGS = {13: 2, 10: 2, 11: 0, 14: 3, 16: 2, 17: 0, 19: 2, 20: 2, 21: 3}
NAMES = {
    13: "ProcStatus", 10: "ProcStart", 11: "ProcStop", 14: "GoCreate", 16: "GoStart",
    17: "GoDestroy", 19: "GoStop", 20: "GoBlock", 21: "GoUnblock",
}  # fmt: skip


class Reader:
    """Reads what a file has, and complains where Go's reader would."""

    def __init__(self, data: bytes) -> None:
        assert data.startswith(HEADER)
        self._data, self._at = data, len(HEADER)
        self.strings: dict[int, str] = {}
        self.stacks: dict[int, int] = {}
        self.frequency = 0
        #: By M: time, name, numbers.
        self.events: dict[int, list[tuple[int, str, list[int]]]] = {}
        while self._at < len(data):
            assert self._byte() == 1
            generation, m, at, size = (self._number() for _ in range(4))
            assert (generation, size <= 64 << 10) == (1, True)
            self._batch(m, at, self._at + size)

    def _batch(self, m: int, at: int, end: int) -> None:
        kind = self._data[self._at]
        if kind == 8:
            self._at += 1
            self.frequency = self._number()
        elif kind == 4:
            self._at += 1
            while self._at < end:
                assert self._byte() == 5
                number, size = self._number(), self._number()
                self.strings[number] = self._data[self._at : self._at + size].decode()
                self._at += size
        elif kind == 2:
            self._at += 1
            while self._at < end:
                assert self._byte() == 3
                number, frames, _pc, function, _file, _line = (self._number() for _ in range(6))
                assert frames == 1
                self.stacks[number] = function
        else:
            while self._at < end:
                kind = self._byte()
                at += self._number()
                numbers = [self._number() for _ in range(ARGS[kind])]
                self.events.setdefault(m, []).append((at, NAMES[kind], numbers))
        assert self._at == end

    def _byte(self) -> int:
        self._at += 1
        return self._data[self._at - 1]

    def _number(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value


def told(*runs: Run, idle: list[tuple[int, int]] | None = None) -> Reader:
    track = Track(0, 7, "P0", runs=list(runs), idle=idle or [])
    return Reader(go_trace(Daemon(0, 100 * MS, [track])))


def lines(reader: Reader) -> Iterator[str]:
    for at, name, numbers in reader.events[1]:
        yield f"{at / MS:g} {name} {' '.join(map(str, numbers))}".rstrip()


@pytest.mark.parametrize("number", [0, 127, 128, 300, (1 << 64) - 1])
def test_numbers_are_gos_varints(number: int) -> None:
    data = varint(number)
    assert sum((byte & 0x7F) << 7 * n for n, byte in enumerate(data)) == number
    assert all(byte & 0x80 for byte in data[:-1])
    assert not data[-1] & 0x80


def test_a_g_is_created_blocks_is_unblocked_and_ends() -> None:
    run = Run(0, 6, "m:f", 10 * MS, 40 * MS, arrived=9 * MS)
    run.on_p = [(10 * MS, 12 * MS), (30 * MS, 31 * MS), (35 * MS, 40 * MS)]
    run.blocked = [Blocked(12 * MS, 25 * MS, "sleep")]
    reader = told(run)
    assert list(lines(reader)) == [
        "0 ProcStatus 0 1",
        "9 GoCreate 1 1 0",
        "10 GoStart 1 1",
        "12 GoBlock 1 0",
        "25 GoUnblock 1 2 0",
        "30 GoStart 1 3",
        "31 GoStop 2 0",
        "35 GoStart 1 4",
        "40 GoDestroy",
    ]
    assert reader.frequency == 10**9
    assert [reader.strings[n] for n in (1, 2)] == ["sleep", "runtime.Gosched"]
    assert reader.strings[reader.stacks[1]] == "m:f"


def test_one_without_p_is_blocked_by_that_and_ends_then() -> None:
    run = Run(0, 6, "m:f", 10 * MS, 40 * MS)
    run.on_p, run.beside = [(10 * MS, 20 * MS)], [Beside(20 * MS, 40 * MS, 3, "hog")]
    other = Run(0, 7, "m:g", 22 * MS, 50 * MS)
    other.on_p = [(22 * MS, 50 * MS)]
    reader = told(run, other)
    assert list(lines(reader)) == [
        "0 ProcStatus 0 1",
        "10 GoCreate 1 1 0",
        "10 GoStart 1 1",
        "20 GoBlock 1 0",
        "22 GoCreate 2 2 0",
        "22 GoStart 2 1",
        "50 GoDestroy",
        "50 GoUnblock 1 2 0",
        "50 GoStart 1 3",
        "50 GoDestroy",
    ]
    assert reader.strings[1] == "beside P: hog"


def test_p_stops_while_it_sleeps_as_long_as_nothing_happens() -> None:
    run = Run(0, 6, "m:f", 30 * MS, 32 * MS, arrived=20 * MS)
    run.on_p = [(30 * MS, 32 * MS)]
    assert list(lines(told(run, idle=[(1 * MS, 29 * MS), (40 * MS, 60 * MS)]))) == [
        "0 ProcStatus 0 1",
        "1 ProcStop",
        "20 ProcStart 0 1",
        "20 GoCreate 1 1 0",
        "30 GoStart 1 1",
        "32 GoDestroy",
        "40 ProcStop",
        "60 ProcStart 0 2",
    ]


def test_events_are_split_into_batches_that_go_takes() -> None:
    runs = []
    for n in range(10_000):
        run = Run(0, n, f"m:f{n % 3000}", n * MS, n * MS + 1000)
        run.on_p = [(n * MS, n * MS + 1000)]
        runs.append(run)
    reader = told(*runs)
    assert len(reader.events[1]) == 30_001
    assert len(reader.stacks) == 3000
