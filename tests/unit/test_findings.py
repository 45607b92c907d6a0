"""What is wrong with a daemon by its status."""

from __future__ import annotations

from gmpd.findings import Finding, Level, findings
from gmpd.status import (
    Blocked,
    Durable,
    Isolated,
    Overrun,
    PStatus,
    Queue,
    Recycling,
    Results,
    Schedules,
    Status,
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
