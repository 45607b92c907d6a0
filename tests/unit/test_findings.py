"""What is wrong with a daemon by its status."""

from __future__ import annotations

from gmpd.findings import Finding, Level, findings
from gmpd.status import (
    Blocked,
    Durable,
    FunctionTotals,
    Hist,
    Isolated,
    Overrun,
    PStatus,
    Queue,
    Recycling,
    Results,
    Schedules,
    Status,
    Steals,
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
