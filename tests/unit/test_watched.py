"""The questions of a watcher beside the status."""

from __future__ import annotations

from gmpd import protocol
from gmpd.config import KEYS, Config
from gmpd.daemon import watched
from gmpd.daemon.registry import Registry
from gmpd.sched import events
from gmpd.sched.records import Job, Session
from tests.desk import Desk


def client(desk: Desk, key: str, name: str, owner: str = "") -> Session:
    sid = desk.sched.next_sid
    desk.tell(events.SessionOpened(sid, key, name, False, key, owner))
    desk.next_seq[sid] = 1
    return desk.sched.sessions[sid]


def test_clients_are_told_the_newest_first_with_what_they_have() -> None:
    desk = Desk()
    client(desk, "ab" * 12, "one")
    desk.submit(client(desk, "cd" * 12, "two", owner="key"), 3)
    told = watched.clients(desk.sched)
    assert [(row["name"], row["key"], row["jobs"]) for row in told["clients"]] == [
        ("two", "key", 3), ("one", "", 0),
    ]  # fmt: skip
    assert told["total"] == 2


def test_every_setting_is_told_with_its_origin_and_no_secret() -> None:
    config = Config.load(
        env={"GMPD_KEY": "gmpd-key-1234", "GMPD_DAEMON__PROCS": "3", "HOME": "/nowhere"}, files=[]
    )
    rows = {row["key"]: row for row in watched.settings(config)["settings"]}
    assert set(rows) == set(KEYS)
    assert (rows["daemon.procs"]["value"], rows["daemon.procs"]["where"]) == (
        "3", "GMPD_DAEMON__PROCS",
    )  # fmt: skip
    assert rows["limits.max_ms"]["default"]
    assert "1234" not in str(rows)


def test_registered_functions_are_told_with_their_options() -> None:
    registry = Registry()
    declared = protocol.Declaration(
        name="m:f", is_job=True, options=protocol.Options(retries=2), keep=5.0
    )
    registry.reported(protocol.Info(declared=[declared]))
    assert watched.registered(registry) == {
        "functions": [
            {"name": "m:f", "options": {"retries": 2}, "expires": None, "keep": 5.0, "once": False}
        ],
        "total": 1,
    }


def shown(job: Job) -> str:
    return f"id of {job.seq}"


def test_the_picture_shows_the_first_jobs_of_each_queue_by_function() -> None:
    desk = Desk()
    p, session = desk.ready(0), client(desk, "ab" * 12, "one")
    desk.teach(p, session, "m:f", 1000.0)
    desk.submit(session, 2, "m:f")
    desk.submit(session, 100, "m:g")
    desk.take()
    told = watched.picture(desk.sched, shown)
    (row,) = told["ps"]
    assert len(told["global"]) <= watched.SHOWN
    assert {told["names"][each] for each in [*told["global"], *row["fresh"]]} <= {"m:f", "m:g"}
    assert len(row["fresh"]) == min(len(desk.sched.ps[0].fresh), watched.SHOWN) > 0
    desk.start(p)
    ((number, job_id, age_s),) = watched.picture(desk.sched, shown)["ps"][0]["begun"]
    begun = next(iter(desk.sched.ps[0].started.values()))
    assert (told["names"][number], job_id) == (begun.fn.name, f"id of {begun.seq}")
    assert age_s >= 0
