"""Findings about a daemon, by its status."""

from __future__ import annotations

import pytest

from gmpd.cli.status import warning_lines
from gmpd.findings import LINTS, Code, Finding, Level, findings, problems
from gmpd.status import (
    Blocked,
    Cluster,
    Durable,
    FunctionTotals,
    Hist,
    HostStatus,
    Isolated,
    Overrun,
    PStatus,
    Queue,
    Recycling,
    Results,
    Schedules,
    Status,
    Steals,
    Unread,
)


def wrong(seen: Status) -> dict[str, Finding]:
    return {each.about: each for each in findings(seen) if each.level is not Level.OK}


def test_nothing_is_wrong_with_a_daemon_that_runs() -> None:
    assert wrong(Status(ps=[PStatus(0, 1, "running")], durable=Durable("open"))) == {}
    assert [each.about for each in findings(Status())] == ["daemon"]


def test_everything_that_it_knows_is_named_with_a_remedy() -> None:
    seen = Status(
        state="degraded",
        stalled="no worker starts",
        queue=Queue(suspects=2),
        results=Results(held_back=3, full=["slow"]),
        durable=Durable("open", blocked=[Blocked("m:f", 4, "no module m")]),
        isolated=Isolated(limit=1, queued=9, oldest_age_s=60),
        cron=Schedules(1, {"nightly": "no such function"}),
        recycling=Recycling(problem="no room"),
        ps=[
            PStatus(0, 1, "deaf", running="m:hog", running_s=3.2),
            PStatus(1, 1, "running", overruns_now=[Overrun("m:late", "c", 7.0)]),
            PStatus(2, 1, "idle", restarts={"signal": 2, "exit": 1, "replaced": 5}),
        ],
    )
    found = wrong(seen)
    assert found["workers"].what == "none is replaced: no room"
    assert found["P0"].what == "its loop stands still: m:hog keeps it, for 3.2 s"
    assert found["P1"].what == "m:late runs on, 7.0 s past its time limit"
    assert found["P2"].what == "its workers ended unasked 3 times"
    assert "slow take no results" in found["clients"].what
    assert "4 blocked: m:f" in found["durable jobs"].what
    assert "nightly" in found["schedule"].what
    assert "9 isolated jobs wait, the oldest for 60 s" in found["isolated"].what
    assert found["daemon"].what == "pid 0, version , is degraded"
    assert found["queue"].level is Level.WARN
    assert [each.what for each in findings(Status(durable=Durable("full")))][1:] == [
        "refused: the disk is full"
    ]
    refused = wrong(Status(durable=Durable("refused", why="its directory is open")))
    assert refused["durable jobs"].level is Level.BAD


def hist(bits: int, n: int) -> Hist:
    """``n`` values of so many bits, in nanoseconds."""
    return Hist([n if k == bits else 0 for k in range(48)], 0, n)


def test_jobs_that_are_too_small_are_named() -> None:
    rows = [
        FunctionTotals("m:tiny", {"ok": 20_000}, Hist(), hist(13, 20_000)),
        FunctionTotals("m:few", {"ok": 100}, Hist(), hist(13, 100)),
        FunctionTotals("m:long", {"ok": 20_000}, Hist(), hist(30, 20_000)),
    ]
    found = wrong(Status(functions=rows))
    assert found.keys() == {"functions"}
    assert "m:tiny: half of its 20,000 jobs" in found["functions"].what
    assert "map(fn, items)" in found["functions"].fix


def test_steals_that_cost_more_than_they_bring_are_named() -> None:
    ps = [PStatus(0, state="idle", up=1, steals=Steals(2000, 5), stolen=2000)]
    cheap = {"steal": hist(20, 2000), "occupied": hist(14, 9000)}
    assert "2,000 steals of" in wrong(Status(ps=ps, hist=cheap))["stealing"].what
    paid = {"steal": hist(14, 2000), "occupied": hist(20, 9000)}
    assert not wrong(Status(ps=ps, hist=paid))


def test_coroutines_that_do_not_await_are_counted() -> None:
    often = PStatus(0, state="idle", up=1, overruns=500, schedtick=1000)
    seldom = PStatus(0, state="idle", up=1, overruns=500, schedtick=1_000_000)
    assert "500 times" in wrong(Status(ps=[often]))["P0"].what
    assert not wrong(Status(ps=[seldom]))


MB = 1_000_000


@pytest.mark.parametrize(
    ("results", "mb_each", "largest_mb", "run_s", "named"),
    [
        (20, 2, 2, 0.1, True),  # 40 MB take longer than the jobs ran
        (20, 2, 2, 60.0, False),  # and are nothing beside a minute of work
        (3, 2, 2, 0.1, False),  # a few
        (1, 80, 80, 60.0, True),  # one that is huge
        (0, 0, 0, 60.0, False),
    ],
)
def test_results_that_are_too_large_are_named(
    results: int, mb_each: int, largest_mb: int, run_s: float, named: bool
) -> None:
    run = Hist([0] * 30 + [20], int(run_s * 1e9), 20)
    row = FunctionTotals(
        "m:frames", {"ok": 20}, Hist(), run, large_results=results,
        large_bytes=results * mb_each * MB, largest_bytes=largest_mb * MB,
    )  # fmt: skip
    found = problems(Status(functions=[row]))
    assert [each.code for each in found] == [Code.LARGE_RESULTS] * named
    if named:
        plural = "s" if results > 1 else ""
        assert f"m:frames: {results} result{plural} of {mb_each} MB" in found[0].what
        assert "return the path" in found[0].fix
        assert found[0].facts["bytes"] == results * mb_each * MB


def test_a_client_that_reads_no_results_is_named() -> None:
    late = Unread("nightly", 31.0, 1200, 3 * MB)
    seen = Status(results=Results(unread=[late, Unread("quick", 2.0, 5, 2 * MB)]))
    (found,) = problems(seen)
    assert found.what == "nightly has not read results for 31 s: 1,200 of 3 MB wait for it"
    assert found.code is Code.UNREAD_RESULTS


def test_lost_and_refused_hosts_are_named() -> None:
    hosts = [
        HostStatus("a", 4, "running"),
        HostStatus("b", 4, "lost", "no way", losses=1, lost_at=170.0, loss="no way", lost_jobs=1),
        HostStatus("c", 4, "refused", "it has Python 3.12"),
        HostStatus("d", 4, "idle", losses=3, lost_at=80.0, loss="it ended"),
        HostStatus("e", 4, "idle", losses=1, lost_at=80.0, loss="it ended"),
        HostStatus("f", 4, "joining"),
        HostStatus("g", 4, "lost", "lost, waiting for the end of its lease until 12:00:00", p=9),
    ]
    cluster = Cluster("dask", "tcp://a:1", "nothing answers at tcp://a:1", hosts)
    found = wrong(Status(started_at=100.0, uptime_s=100.0, cluster=cluster))
    assert {name: each.what for name, each in found.items()} == {
        "cluster": "nothing answers at tcp://a:1",
        "host b": "lost 30 s ago, with 1 begun job: no way",
        "host c": "it takes no work: it has Python 3.12",
        "host d": "lost 3 times, the last time 120 s ago: it ended",
        "host g": "lost, waiting for the end of its lease until 12:00:00",
    }
    assert "retries=" in found["host b"].fix
    assert found["host b"].code is Code.HOST_LOST


def every_problem() -> Status:
    return Status(
        stalled="no worker starts",
        functions=[FunctionTotals("m:tiny", {"ok": 20_000}, Hist(), hist(13, 20_000))],
        ps=[
            PStatus(0, 1, "deaf", running="m:hog", running_s=3.2, overruns=500, schedtick=1000),
            PStatus(1, 1, "idle", restarts={"signal": 3}),
        ],
    )


def test_each_finding_has_a_code_and_facts_for_programs() -> None:
    found = problems(every_problem())
    assert found[0].code is Code.STALLED, "bad ones come first"
    assert {each.code for each in found[1:]} == {
        Code.SMALL_JOBS, Code.NEVER_YIELDS, Code.BLOCKS_P, Code.DEATHS,
    }  # fmt: skip
    told = {each["code"]: each for each in (each.as_map() for each in found)}
    assert told["never_yields"]["facts"] == {"p": 0, "function": "m:hog", "for_s": 3.2}
    assert told["stalled"]["level"] == "bad"
    assert all(each["what"] and each["about"] for each in told.values())


def test_the_status_ends_with_lints_and_repeats_no_other_finding() -> None:
    found = problems(every_problem())
    lines = warning_lines(found)
    assert lines[1] == "warnings: 3"
    assert "its loop stands still" in (text := " ".join(" ".join(lines).split()))
    assert "no worker starts" not in text
    assert max(map(len, "\n".join(lines).splitlines())) <= 80
    assert warning_lines([each for each in found if each.code not in LINTS]) == []
    many = warning_lines([each for each in found if each.code is Code.BLOCKS_P] * 7)
    assert many[-1] == "  2 more: gmpd doctor"
