"""A store of durable jobs that fails under a daemon, or has lost jobs, and what people are told."""

from __future__ import annotations

import resource
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gmpd.errors import GmpdError
from tests import jobs_durable as jobs
from tests.durable_daemon import Daemon
from tests.support import wait_until


@pytest.fixture
def daemon(short_tmp: Path) -> Iterator[Daemon]:
    with Daemon(short_tmp) as daemon:
        yield daemon


def test_a_write_that_fails_ends_the_daemon_with_75_and_the_next_one_has_every_job(
    daemon: Daemon, short_tmp: Path
) -> None:
    record, go = str(short_tmp / "record"), str(short_tmp / "go")
    client = daemon.client(reconnect=120)
    known = client.enqueue(jobs.note, record, "known")
    assert client.job(known).result(60) == "known"
    running = client.options(durable=True).submit(jobs.hold, record, go)
    wait_until(lambda: "start" in Path(record).read_text(), "it runs", timeout=60)
    # The kernel refuses to make the log of the database longer, as a disk does that fails.
    size = (short_tmp / "state" / "jobs.sqlite-wal").stat().st_size
    resource.prlimit(daemon.process.pid, resource.RLIMIT_FSIZE, (size, size))
    with ThreadPoolExecutor() as threads:
        stored = threads.submit(client.enqueue, jobs.note, record, "stored")
        assert daemon.process.wait(60) == 75
        *_, last = (short_tmp / "log").read_text().splitlines()
        assert last.startswith("error: the store of durable jobs failed: ")
        assert "start the daemon again" in last
        code, _, said = daemon.run("status")
        assert code == 3
        assert "the last one ended: the store of durable jobs failed" in said
        assert daemon.run("submit", "--durable", "math:sqrt", "4")[0] == 3
        assert not stored.done()
        daemon.start()
        again = stored.result(120)
    Path(go).touch()
    assert client.job(again).result(60) == "stored"
    assert running.result(60) == "end"
    assert Path(record).read_text().split().count("stored") == 1
    assert client.job(known).state == "done"
    assert daemon.end() == 0
    assert "the last one ended" not in daemon.run("status")[2]


def test_a_store_that_has_lost_jobs_is_used_only_when_asked_for(
    daemon: Daemon, short_tmp: Path
) -> None:
    record, state = str(short_tmp / "record"), short_tmp / "state"
    first = daemon.client().options(delay=3600).enqueue(jobs.note, record, "first")
    assert daemon.end() == 0
    shutil.copy(state / "jobs.sqlite", short_tmp / "old")
    daemon.start()
    second = daemon.client().options(delay=3600).enqueue(jobs.note, record, "second")
    assert daemon.end() == 0
    shutil.copy(short_tmp / "old", state / "jobs.sqlite")
    daemon.start()
    with pytest.raises(GmpdError, match=r"has lost \d+ commits.*gmpd serve --accept-loss"):
        daemon.client().enqueue(jobs.note, record, "x")
    code, _, said = daemon.run("submit", "--durable", "math:sqrt", "4")
    assert (code, "--accept-loss" in said) == (6, True)
    assert daemon.end() == 0
    daemon.start("--accept-loss")
    client = daemon.client()
    assert client.job(first).state == "queued"
    with pytest.raises(LookupError):
        client.job(second).info()
    assert "is used all the same" in (short_tmp / "log").read_text()
    assert daemon.end() == 0
    daemon.start()  # it is not asked for again
    assert daemon.client().job(first).state == "queued"


def test_blocked_jobs_are_named_and_run_once_their_function_can_be_imported(
    daemon: Daemon, short_tmp: Path
) -> None:
    client = daemon.client()
    assert client.call("status")["durable"]["state"] == "none"
    blocked = [daemon.run("submit", "--durable", "gone_for_now:here")[1] for _ in range(2)]

    def counts() -> dict[str, int]:
        found: dict[str, int] = client.call("status")["durable"]["jobs"]
        return found

    wait_until(lambda: counts()["blocked"] == 2, "both are blocked", timeout=60)
    _, shown, _ = daemon.run("status")
    shown = " ".join(shown.split())
    assert "durable jobs: 2 blocked" in shown
    assert "blocked: gone_for_now:here: 2 jobs wait, as it cannot be imported" in shown
    assert "it is tried every 5 s, without a restart" in shown
    text = "2 blocked: gone_for_now:here cannot be imported"
    wait_until(lambda: text in daemon.run("doctor")[1], "neither is being tried", timeout=60)
    (short_tmp / "gone_for_now.py").write_text("def here():\n    return 'here'\n")
    assert [client.job(each).result(120) for each in blocked] == ["here", "here"]
    assert all(len(client.job(each).story()) == 2 for each in blocked)
    wait_until(lambda: counts()["done"] == 2, "the status counts them", timeout=60)
    assert client.call("status")["durable"]["blocked"] == []
