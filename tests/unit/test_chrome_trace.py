"""The trace of a program for Perfetto: its rules, on programs of every kind of wait."""

from __future__ import annotations

import gzip
import json
import time
from pathlib import Path
from typing import Any

import pytest

import gmpd
from gmpd.runtime.chrome_trace import chrome_events
from gmpd.runtime.trace import TraceEvent
from gmpd.sched.g import GEvent
from tests.chrome_check import check

Json = dict[str, Any]


async def producer(ch: gmpd.Chan[int]) -> None:
    for i in range(5):
        await ch.send(i)
        await gmpd.sleep(0.001)
    ch.close()


async def consumer(ch: gmpd.Chan[int], done: list[int]) -> None:
    async for value in ch:
        done.append(value)
        await gmpd.gosched()


async def program() -> list[int]:
    ch, done = gmpd.Chan[int](2), list[int]()
    gs = [gmpd.go(producer, ch), gmpd.go(consumer, ch, done), gmpd.go(sorted, [3, 1, 2])]
    for g in gs:
        await g
    gmpd.go(gmpd.sleep, 60)  # it outlives the program
    await gmpd.gosched()
    return done


@pytest.mark.parametrize("name", ["t.json", "t.json.gz"])
def test_a_program_under_run_leaves_a_trace(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    assert gmpd.run(program(), deterministic_seed=3, trace=file) == [0, 1, 2, 3, 4]
    data = file.read_bytes()
    document = json.loads(gzip.decompress(data) if name.endswith(".gz") else data)
    events = document["traceEvents"]
    check(events)
    assert document["otherData"]["dropped_events"] == 0
    ran = {e["name"].partition(" ")[2] for e in events if e["ph"] == "X"}
    assert {"program", "producer", "consumer", "sorted"} <= {
        name.rpartition(".")[2] for name in ran
    }
    states = {e["name"] for e in events if e["ph"] == "b"}
    assert {"runnable", "running", "waiting (chan receive)", "waiting (sleep)"} <= states
    assert any(e["ph"] == "f" for e in events)


def test_the_trace_of_a_program_that_fails_is_written_too(tmp_path: Path) -> None:
    async def fails() -> None:
        await gmpd.sleep(0.001)
        raise LookupError("of the program")

    file = tmp_path / "t.json"
    with pytest.raises(LookupError):
        gmpd.run(fails(), trace=file)
    check(json.loads(file.read_text())["traceEvents"])


def test_a_file_that_cannot_be_written_is_refused_before_anything_runs(tmp_path: Path) -> None:
    began = []

    async def main() -> None:
        began.append(1)

    coro = main()
    with pytest.raises(FileNotFoundError, match="nowhere"):
        gmpd.run(coro, trace=tmp_path / "nowhere" / "t.json")
    coro.close()
    assert not began


def test_a_blocking_call_moves_to_the_track_of_its_m(tmp_path: Path) -> None:
    release = gmpd.Chan[int](0)

    def blocks() -> None:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and not handed:
            time.sleep(0.02)

    handed: list[int] = []

    async def main() -> None:
        g = gmpd.go(blocks)
        await gmpd.gosched()  # continues once P was handed off
        handed.append(1)
        await g
        release.close()

    file = tmp_path / "t.json"
    gmpd.run(main(), trace=file)
    events = json.loads(file.read_text())["traceEvents"]
    check(events)
    on_ms = [e["name"] for e in events if e["ph"] == "X" and e["tid"] >= 2000]
    assert any("blocks" in name for name in on_ms)


def test_gs_that_began_before_the_trace_have_no_start(tmp_path: Path) -> None:
    def event(at: float, kind: GEvent, g: int, detail: str = "") -> TraceEvent:
        return TraceEvent(at, kind, g, f"f{g}", detail)

    events = chrome_events([
        event(5.0, GEvent.BLOCK, 1, "sleep"),
        event(5.1, GEvent.UNBLOCK, 2),
        event(5.2, GEvent.START, 2),
        event(5.3, GEvent.SYSCALL_BEGIN, 2, "M4"),
        event(5.4, GEvent.UNBLOCK, 1),
        event(5.5, GEvent.SYSCALL_END, 2),
        event(5.6, GEvent.END, 2),
    ])  # fmt: skip
    check(events)
    assert chrome_events([]) != []
    check(chrome_events([]))
