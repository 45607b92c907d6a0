"""A trace of a daemon: what the numbers of its rings say, as Perfetto's JSON and as a summary."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any

import pytest
from msgspec.msgpack import encode

from gmpd.daemon.trace_chrome import chrome_document, missing_of
from gmpd.daemon.trace_runs import Daemon, Run, read
from gmpd.daemon.trace_summary import EXECUTION, SCHEDULING, summarize
from gmpd.protocol import Outcome
from gmpd.runtime.ring import NAME_SHIFT, YIELDED, Event, Kind, RingDump
from tests.chrome_check import check

MS = 1_000_000
NOW = 1000 * MS
SINCE = 0
#: Codes of ``REASONS``.
REASONS = ["ended", "yield", "sleep", "IO wait"]
SLEEP = 2


def packed(rows: Sequence[Event]) -> bytes:
    return array("q", [number for row in rows for number in row]).tobytes()


def ring(events: Sequence[Event] = (), jobs: Sequence[Event] = (), **more: Any) -> bytes:
    names = {1: "app:plain", 2: "app:parks"}
    dump = RingDump(packed(events), packed(jobs), b"", 0, names, REASONS)
    for name, value in more.items():
        setattr(dump, name, value)
    return encode(dump)


def told(*rings: bytes | None, coordinator: Sequence[Event] = ()) -> Daemon:
    """The daemon whose Ps have these rings; None: its worker did not answer."""
    ps = [
        {"p": p, "answered": each is not None, "status": {"pid": 7, "state": "deaf"}}
        | ({} if each is None else {"ring": each})
        for p, each in enumerate(rings)
    ]
    return read({"ps": ps, "since": SINCE, "now": NOW, "coordinator": ring(coordinator)})


def leased(at: int, first: int, count: int, to: int, stolen: int = 0) -> Event:
    return Kind.LEASED | (count | stolen << 24) << 8, at, to, first


def the_run(daemon: Daemon) -> Run:
    (track,) = daemon.tracks
    (run,) = track.runs
    return run


def test_a_plain_job_waits_and_runs() -> None:
    daemon = told(ring([leased(2 * MS, 5, 3, 1)], [(6, 5 * MS, 2000, 1)]))
    run = the_run(daemon)
    assert (run.name, run.arrived, run.is_async, run.runs) == ("app:plain", 2 * MS, False, False)
    assert run.ready == [(2 * MS, 5 * MS)]
    assert run.on_p == [(5 * MS, 7 * MS)]


def test_a_job_that_lost_p_is_on_its_m_until_it_is_back() -> None:
    events = [
        (Kind.HANDOFF | (4 | 1 << 24) << 8, 5 * MS, 15 * MS, 6),
        (Kind.BACK | 4 << 8, 40 * MS, 0, 6),
        (Kind.HANDOFF | (4 | 2 << 24) << 8, 5 * MS, 50 * MS, 6),
        (Kind.FAILED | Outcome.ERROR << 8, 60 * MS, 0, 6),
    ]
    daemon = told(ring(events, [(6, 5 * MS, 55_000, 1)]))
    run = the_run(daemon)
    assert run.on_p == [(5 * MS, 15 * MS), (40 * MS, 50 * MS)]
    assert run.beside == [(15 * MS, 40 * MS, 4, "blocked"), (50 * MS, 60 * MS, 4, "hog")]
    assert run.outcome is Outcome.ERROR
    document = chrome_document(daemon, "1")
    check(document["traceEvents"])
    on_m = [e for e in document["traceEvents"] if e["ph"] == "X" and e["tid"] == 100_000_004]
    assert [e["args"]["why"] for e in on_m] == ["blocked", "hog"]
    arrows = [e for e in document["traceEvents"] if e["ph"] == "f"]
    assert [e["name"] for e in arrows] == ["hand-off", "hand-off"]


def steps() -> list[Event]:
    return [
        (Kind.STEP | SLEEP << 8, 10 * MS, 11 * MS, 6),
        (Kind.WAKE, 30 * MS, 0, 6),
        (Kind.STEP | YIELDED << 8, 34 * MS, 35 * MS, 6),
        (Kind.STEP, 36 * MS, 37 * MS, 6),
    ]


def test_an_async_job_is_its_steps_and_what_is_between_them() -> None:
    other = (9, 29 * MS, 2000, 1)  # it wakes the first one
    daemon = told(ring([leased(MS, 6, 1, 2), *steps()], [(6, 5 * MS, 32_000, ~2), other]))
    run = next(run for run in daemon.tracks[0].runs if run.is_async)
    assert run.on_p == [(10 * MS, 11 * MS), (34 * MS, 35 * MS), (36 * MS, 37 * MS)]
    assert run.blocked == [(11 * MS, 30 * MS, "sleep")]
    assert run.ready == [(MS, 10 * MS), (30 * MS, 34 * MS), (35 * MS, 36 * MS)]
    events = chrome_document(daemon, "1")["traceEvents"]
    check(events)
    states = {e["name"] for e in events if e["ph"] == "b"}
    assert {"runnable", "running", "waiting (sleep)", "app:parks"} <= states
    assert [e["ts"] for e in events if e["name"] == "wake"] == [30_000, 34_000]


@pytest.mark.parametrize("ended", [False, True])
def test_what_still_runs_goes_on_to_the_end_of_the_trace(ended: bool) -> None:
    running = packed([(6, 5 * MS, -1, ~2), (8, 40 * MS, -1, 1)])
    daemon = told(ring(steps()[: 4 if ended else 1], running=running))
    parked, plain = daemon.tracks[0].runs
    assert (parked.runs, plain.runs) == (True, True)
    assert plain.on_p == [(40 * MS, NOW)]
    if not ended:
        assert parked.blocked == [(11 * MS, NOW, "sleep")]
    check(chrome_document(daemon, "1")["traceEvents"])


def test_a_steal_leads_from_the_victim_to_the_first_stolen_job() -> None:
    coordinator = [
        (Kind.TURN | 9 << 8, 19 * MS, 22 * MS, 12),
        (Kind.REVOKED | (0 | 2 << 24) << 8, 19 * MS, 20 * MS, 3),
        leased(21 * MS, 50, 3, 1, stolen=3),
        (Kind.DIED | 1 << 8, 80 * MS, 0, 4),
    ]
    victim = ring([], [(6, 10 * MS, 50_000, 1)])
    thief = ring([leased(22 * MS, 50, 3, 1, 3)], [(50, 23 * MS, 1000, 1)])
    daemon = told(victim, thief, coordinator=coordinator)
    assert daemon.steals == [(20 * MS, 0, 1, 3)]
    events = chrome_document(daemon, "1")["traceEvents"]
    check(events, procs=2)
    arrow = [(e["ph"], e["tid"], e["ts"]) for e in events if e["name"] == "steal"]
    assert arrow == [("s", 1000, 20_000), ("t", 4, 20_000), ("f", 1001, 23_000)]
    named = {e["name"] for e in events if e["ph"] == "i"}
    assert named == {"3 to P1, 3 stolen", "worker of P1, epoch 4, died"}


def test_workers_that_serve_no_p_have_tracks_of_their_own() -> None:
    job = [(6, 5 * MS, 2000, 1)]
    late = [(9, 5 * MS, 20_000, 1)]
    still = packed([(8, 6 * MS, -1, 1)])

    def row(p: int, state: str, ring: bytes | None, pid: int, **more: Any) -> dict[str, Any]:
        status = {"pid": pid, "epoch": pid, "state": state}
        named = {} if ring is None else {"ring": ring}
        return {"p": p, "answered": True, "status": status, **named, **more}

    ps = [
        row(0, "running", ring([], job), 7),
        row(0, "leaving", ring([], late), 8),
        row(0, "dead", ring([], job, running=still), 9, ended=50 * MS),
        row(0, "dead", None, 10, ended=60 * MS, missing="its events are lost"),
        row(1 << 16, "running", ring([], job), 11, isolated=True),
        row(1 << 16 | 1, "running", ring(), 12, isolated=True),
    ]
    daemon = read({"ps": ps, "since": SINCE, "now": NOW, "coordinator": ring()})
    titles = [track.title for track in daemon.tracks]
    assert titles == [
        "P0", "P0, leaving worker 8", "P0, former worker 9", "P0, former worker 10",
        "isolated worker 11",
    ]  # fmt: skip
    former = daemon.tracks[2].runs
    assert [run.ended for run in former] == [7 * MS, 50 * MS]
    document = chrome_document(daemon, "1")
    check(document["traceEvents"], procs=5)
    assert document["otherData"]["missing"] == {"P0, former worker 10": "its events are lost"}
    slices = [e["tid"] for e in document["traceEvents"] if e["ph"] == "X"]
    assert len(set(slices)) == 4


def test_a_p_without_events_is_said_to_have_none() -> None:
    daemon = told(None, ring([], [(6, 5 * MS, 2000, 1)]), ring(keeps=False))
    said = missing_of(daemon.tracks)
    assert said == [
        "P0 has no track: its worker did not answer: its state is deaf",
        "P2 has no track: its worker keeps no events: trace.enabled is false",
    ]
    document = chrome_document(daemon, "1")
    check(document["traceEvents"])
    assert set(document["otherData"]["missing"]) == {"P0", "P2"}


def test_an_empty_trace_is_one() -> None:
    check(chrome_document(told(), "1")["traceEvents"])
    check(chrome_document(told(ring()), "1")["traceEvents"])


def test_jobs_that_began_before_the_trace_begin_with_it() -> None:
    daemon = told(ring([], [(6, -5 * MS, 9000, 1), (7, -9 * MS, 1000, 1)]))
    assert the_run(daemon).on_p == [(-5 * MS, 4 * MS)]
    check(chrome_document(daemon, "1")["traceEvents"])


def test_the_summary_has_each_functions_ways_per_job() -> None:
    jobs = [(n, n * MS, 100 * n, 1) for n in range(1, 101)]
    rows = [*jobs, (600, 5 * MS, 32_000, ~2)]
    moved = [(kind, one, two, 600) for kind, one, two, _ in steps()]
    plain, parks = summarize(told(ring(moved, rows)).tracks[0].runs)
    assert (plain.name, plain.jobs, parks.name) == ("app:plain", 100, "app:parks")
    execution = plain.ways[EXECUTION]
    assert (execution.count, execution.min_s, execution.max_s) == (100, 0.0001, 0.01)
    assert execution.mean_s == pytest.approx(0.00505)
    assert execution.p99_s == pytest.approx(0.01)
    assert list(parks.ways) == [EXECUTION, SCHEDULING, "blocked: sleep"]
    assert parks.ways["blocked: sleep"].total_s == pytest.approx(0.019)
    assert summarize([]) == []


def child_events() -> list[Event]:
    """G 4 is made by job 6 and sleeps; G 5 is a call that loses P; of G 8 the rest is not known."""
    ended = Kind.STEP | (1 << NAME_SHIFT) << 8
    return [
        (Kind.CHILD | 1 << 8, 10 * MS, 6, ~4),
        (Kind.STEP | SLEEP << 8, 12 * MS, 13 * MS, ~4),
        (Kind.WAKE, 30 * MS, 0, ~4),
        (ended, 31 * MS, 32 * MS, ~4),
        (Kind.FAILED | Outcome.CANCELLED << 8, 32 * MS, 0, ~4),
        (Kind.CHILD | 2 << 8, 14 * MS, ~4, ~5),
        (Kind.HANDOFF | (4 | 1 << 24) << 8, 15 * MS, 25 * MS, ~5),
        (Kind.STEP | (2 << NAME_SHIFT) << 8, 15 * MS, 29 * MS, ~5),
        (Kind.CHILD | 1 << 8, 33 * MS, 6, ~8),
        (Kind.STEP | SLEEP << 8, 34 * MS, 35 * MS, ~8),
        (Kind.LEFT, 50 * MS, 0, ~8),
        (Kind.CHILD | 1 << 8, 60 * MS, 6, ~9),
        (Kind.LEFT | 1 << 8, 61 * MS, 0, ~9),
    ]


def test_children_are_runs_of_their_own() -> None:
    names = ["", "naps", "call"]
    job = [(6, 9 * MS, 2000, 1)]
    daemon = told(ring(child_events(), job, children=names))
    naps, call, partly = sorted(
        (run for run in daemon.tracks[0].runs if run.child), key=lambda run: -run.token
    )
    assert (naps.name, naps.maker, naps.arrived, naps.outcome) == (
        "naps", 6, 10 * MS, Outcome.CANCELLED,
    )  # fmt: skip
    assert naps.ready == [(10 * MS, 12 * MS), (30 * MS, 31 * MS)]
    assert naps.on_p == [(12 * MS, 13 * MS), (31 * MS, 32 * MS)]
    assert naps.blocked == [(13 * MS, 30 * MS, "sleep")]
    assert (call.name, call.maker, call.on_p) == ("call", ~4, [(15 * MS, 25 * MS)])
    assert call.beside == [(25 * MS, 29 * MS, 4, "blocked")]
    assert (partly.partly, partly.runs, partly.ended) == (True, False, 50 * MS)
    assert partly.blocked == [(35 * MS, 50 * MS, "sleep")]
    events = chrome_document(daemon, "1")["traceEvents"]
    check(events)
    assert [e["ts"] for e in events if e["name"] == "go"] == [10_000, 12_000]
    found = {(about.children, about.name): about for about in summarize(daemon.tracks[0].runs)}
    assert set(found) == {(False, "app:plain"), (True, "naps"), (True, "call")}
    of_naps = found[True, "naps"]
    assert (of_naps.name, of_naps.jobs, of_naps.partly, of_naps.failed) == ("naps", 2, 1, 1)
    assert of_naps.ways[EXECUTION].total_s == pytest.approx(0.002)
    assert of_naps.ways["blocked: sleep"].count == 1


def test_what_a_child_does_now_is_told_too() -> None:
    events = [(Kind.CHILD | 1 << 8, 10 * MS, 6, ~4), (Kind.STEP | SLEEP << 8, 12 * MS, 13 * MS, ~4)]
    alive = [(Kind.CHILD | 1 << 8, 0, 0, ~4), (Kind.CHILD | 2 << 8, 70 * MS, 0, ~5)]
    daemon = told(ring(events, children=["", "naps", "call"], alive=packed(alive)))
    naps, call = daemon.tracks[0].runs
    assert (naps.runs, naps.blocked) == (True, [(13 * MS, NOW, "sleep")])
    assert (call.name, call.runs, call.on_p) == ("call", True, [(70 * MS, NOW)])


def test_a_p_without_work_searches_while_others_are_asked() -> None:
    idle = [(Kind.IDLE, 10 * MS, 40 * MS, 0), (Kind.IDLE, 50 * MS, 60 * MS, 0)]
    asked = [
        (Kind.SEARCH, 5 * MS, 12 * MS, 0), (Kind.SEARCH, 20 * MS, 25 * MS, 0),
        (Kind.SEARCH, 55 * MS, 70 * MS, 0),
    ]  # fmt: skip
    paused = (Kind.PAUSED, 1 * MS, 3 * MS, 0)
    daemon = told(ring([*idle, paused], paused_ns=90 * MS), coordinator=asked)
    events = chrome_document(daemon, "1")["traceEvents"]
    check(events)
    found = [(e["name"], e["ts"] / 1000, e["dur"] / 1000) for e in events if e["ph"] == "X"]
    assert [each for each in found if each[0] in ("idle", "searching")] == [
        ("searching", 10, 2), ("idle", 12, 8), ("searching", 20, 5), ("idle", 25, 15),
        ("idle", 50, 5), ("searching", 55, 5),
    ]  # fmt: skip
    assert daemon.tracks[0].paused == [(1 * MS, 3 * MS), (90 * MS, NOW)]
