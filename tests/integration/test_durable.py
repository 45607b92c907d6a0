"""Durable jobs in a real daemon: they outlive clients, workers and the daemon itself."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import gmpd
from gmpd.errors import (
    DaemonUnreachable,
    GmpdError,
    JobCancelled,
    JobExpired,
    JobPoisoned,
    JobTimeout,
)
from tests import jobs_durable as jobs
from tests.durable_daemon import ROOT, Daemon, words
from tests.support import wait_until


@pytest.fixture
def daemon(short_tmp: Path) -> Iterator[Daemon]:
    with Daemon(short_tmp) as daemon:
        yield daemon


def test_a_durable_job_and_its_result_outlive_client_and_daemon(
    daemon: Daemon, record: str
) -> None:
    with daemon.client() as first:
        ended = first.enqueue(jobs.note, record, "one")
        assert first.job(ended).result(30) == "one"
        later = first.options(delay=3600).enqueue(jobs.note, record, "never")
        by_value = first.enqueue(lambda x: [*x, len(x)], [1, 2])
        mine = [first.enqueue(jobs.double, n) for n in range(20)]
    client = daemon.restart()
    assert client.job(ended).result(30) == "one"
    assert client.job(by_value).result(30) == [1, 2, 2]
    assert [client.job(each).result(30) for each in mine] == [2 * n for n in range(20)]
    assert client.job(later).state == "queued"
    assert words(record) == ["one"]
    assert client.job(later).arguments() == ((record, "never"), {})
    with pytest.raises(LookupError, match="not kept: the job is done"):
        client.job(ended).arguments()
    (attempt,) = client.job(ended).story()
    assert (attempt.n, attempt.outcome) == (1, "ok")


def test_what_ran_at_the_crash_runs_again_unless_once(
    daemon: Daemon, record: str, short_tmp: Path
) -> None:
    client = daemon.client()
    go = str(short_tmp / "go")
    again = client.enqueue(jobs.hold, record, go)
    once = client.options(once=True).enqueue(jobs.hold, record, go)
    queued = client.enqueue(jobs.note, record, "queued")
    wait_until(lambda: words(record).count("start") == 2, "both run", timeout=30)
    wait_until(lambda: client.job(again).state == "running", "it is shown to run", timeout=30)
    client = daemon.restart()
    Path(go).touch()
    assert client.job(again).result(60) == "end"
    assert client.job(queued).result(60) == "queued"
    assert client.job(once).state == "unknown"
    with pytest.raises(GmpdError, match="once=True forbids a second run"):
        client.job(once).result(10)
    assert words(record).count("start") == 3
    assert words(record).count("end") == 1


def test_retries_strikes_and_dead_letters(daemon: Daemon, record: str, short_tmp: Path) -> None:
    client = daemon.client()
    retried = client.options(retries=3).enqueue(jobs.fail, record, 2)
    assert client.job(retried).result(60) == "at last"
    assert [each.outcome for each in client.job(retried).story()] == ["error", "error", "ok"]
    deaths = str(short_tmp / "deaths")
    poison = client.enqueue(jobs.die, deaths)
    with pytest.raises(JobPoisoned):
        client.job(poison).result(60)
    assert (client.job(poison).state, words(deaths)) == ("quarantined", ["die"] * 3)
    failing = str(short_tmp / "failing")
    dead = client.enqueue(jobs.fail, failing, 1)
    with pytest.raises(ValueError, match="not yet"):
        client.job(dead).result(30)
    assert client.job(dead).state == "failed"
    log = (short_tmp / "log").read_text
    wait_until(lambda: f"job {poison} tests.jobs_durable:die" in log(), "it is logged", timeout=30)
    assert client.job(dead).retry()
    assert client.job(dead).result(30) == "at last"
    assert not client.job(dead).retry()
    assert client.job(dead).remove()
    with pytest.raises(LookupError, match="knows no job"):
        client.job(dead).result(10)


def test_a_function_beyond_its_limit_gets_no_attempt_beside_it(daemon: Daemon, record: str) -> None:
    client = daemon.client()
    job = client.options(timeout=0.2, retries=5).enqueue(jobs.swallow, record, 1.0)
    with pytest.raises(JobTimeout):
        client.job(job).result(60)
    wait_until(lambda: words(record)[-1] == "end", "the frame has ended", timeout=30)
    assert words(record) == ["start", "end"] * (len(words(record)) // 2)


def test_cancel_unique_at_and_expires(daemon: Daemon, record: str, short_tmp: Path) -> None:
    client = daemon.client()
    go = str(short_tmp / "go")
    holder = client.options(unique="k").enqueue(jobs.hold, record, go)
    assert client.options(unique="k").enqueue(jobs.note, record, "second") == holder
    at = datetime.now(UTC) + timedelta(hours=1)
    later = client.options(at=at).enqueue(jobs.note, record, "later")
    assert client.job(later).cancel()
    assert not client.job(later).cancel()
    with pytest.raises(JobCancelled):
        client.job(later).result(10)
    expired = client.options(at=at, expires=0.1).enqueue(jobs.note, record, "expired")
    with pytest.raises(JobExpired, match="before its expires"):
        client.job(expired).result(30)
    assert client.job(expired).state == "expired"
    Path(go).touch()
    assert client.job(holder).result(30) == "end"
    third = client.options(unique="k").enqueue(jobs.note, record, "third")
    assert (third != holder, client.job(third).result(30)) == (True, "third")


def test_a_job_takes_the_place_of_another_across_a_restart(
    daemon: Daemon, record: str, short_tmp: Path
) -> None:
    newest = gmpd.Unique("k", policy="replace")
    client = daemon.client()
    first = client.options(unique=newest).enqueue(jobs.hold, record, str(short_tmp / "go"))
    wait_until(lambda: words(record) == ["start"], "it runs", timeout=30)
    second = client.options(unique=newest).enqueue(jobs.note, record, "second")
    third = client.options(unique=newest).enqueue(jobs.note, record, "third")
    with pytest.raises(JobCancelled, match=f"replaced by job {third}"):
        client.job(second).result(30)
    assert client.options(unique="k").enqueue(jobs.note, record, "fourth") == third
    assert "another job has its unique key" in str(client.job(third).explain())
    client = daemon.restart()
    assert client.job(third).result(30) == "third"
    assert client.job(first).state == "cancelled"
    assert [each.text for each in client.job(first).story()] == [
        f"replaced by job {third} with the same unique key"
    ]
    assert words(record) == ["start", "third"]
    asleep = client.options(unique=newest).enqueue(asyncio.sleep, 3600)
    wait_until(lambda: client.job(asleep).state == "running", "it sleeps", timeout=30)
    last = client.options(unique=newest).enqueue(jobs.note, record, "last")
    assert client.job(last).result(30) == "last"
    assert client.job(asleep).state == "cancelled"


def test_a_function_that_is_gone_after_a_restart_blocks_its_job_until_it_is_back(
    daemon: Daemon, record: str, short_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = short_tmp / "passing_through.py"
    module.write_text("def here():\n    return 'here'\n")
    monkeypatch.syspath_prepend(short_tmp)
    import passing_through  # type: ignore[import-not-found]

    client = daemon.client()
    at = datetime.now(UTC) + timedelta(seconds=1.5)
    job = client.options(at=at).enqueue(passing_through.here)
    daemon.kill()
    source = module.read_text()
    module.unlink()
    daemon.start()
    client = daemon.client()
    wait_until(lambda: client.job(job).state == "blocked", "it is blocked", timeout=60)
    assert "passing_through" in client.job(job).info()["text"]
    module.write_text(source)
    client = daemon.restart()
    assert client.job(job).result(60) == "here"


def test_a_drained_daemon_leaves_its_queue_to_the_next(
    daemon: Daemon, record: str, short_tmp: Path
) -> None:
    client = daemon.client()
    go = str(short_tmp / "go")
    running = client.enqueue(jobs.hold, record, go)
    wait_until(lambda: "start" in words(record), "it runs", timeout=30)
    queued = [client.enqueue(jobs.note, record, f"job{n}") for n in range(30)]
    daemon.process.send_signal(signal.SIGTERM)
    wait_until(lambda: "draining" in (short_tmp / "log").read_text(), "it drains", timeout=30)
    Path(go).touch()
    assert daemon.process.wait(60) == 0
    ran_before = set(words(record))
    daemon.start()
    client = daemon.client()
    assert client.job(running).result(30) == "end"
    assert [client.job(each).result(30) for each in queued] == [f"job{n}" for n in range(30)]
    assert words(record).count("start") == 1
    assert all(words(record).count(f"job{n}") == 1 for n in range(30))
    assert "end" in ran_before


def test_jobs_of_a_daemon_that_could_start_no_worker_run_in_the_next_one(daemon: Daemon) -> None:
    client = daemon.client(reconnect=300)
    before = client.options(delay=0.01).enqueue_many(jobs.double, range(5))
    daemon.process.kill()
    daemon.process.wait(60)
    # It gives up after the third start in a row, and takes jobs until then.
    daemon.env |= {"GMPD_DAEMON__START_TIMEOUT": "100ms", "GMPD_RESTART__BACKOFF_MIN": "2s"}
    daemon.start()
    with ThreadPoolExecutor(1) as thread:
        meanwhile = thread.submit(client.enqueue_many, jobs.double, range(5, 10))
        assert daemon.process.wait(120) != 0
        daemon.env |= {"GMPD_DAEMON__START_TIMEOUT": "60s"}
        daemon.start()
        ids = [*before, *meanwhile.result(60)]
    assert [client.job(each).result(60) for each in ids] == [2 * n for n in range(10)]


def test_the_future_of_a_durable_job(daemon: Daemon, record: str) -> None:
    client = daemon.client(reconnect=0)
    future = client.options(durable=True).submit(jobs.note, record, "one")
    assert (future.result(30), client.job(future.job_id).state) == ("one", "done")
    with pytest.raises(ValueError, match="needs durable=True"):
        client.options(once=True).submit(jobs.note, record, "x")
    with pytest.raises(ValueError, match="no map"):
        list(client.options(durable=True).map(jobs.double, [1]))
    late = client.options(durable=True, delay=3600).submit(jobs.note, record, "late")
    daemon.kill()
    with pytest.raises(DaemonUnreachable, match="is on disk and continues"):
        late.result(30)


def test_an_async_client_enqueues_and_waits(daemon: Daemon, record: str) -> None:
    daemon.client()

    async def main() -> None:
        async with gmpd.AsyncClient(str(daemon.directory / "run")) as client:
            ids = await asyncio.gather(*[client.enqueue(jobs.double, n) for n in range(50)])
            assert [await client.job(each).result(30) for each in ids] == list(range(0, 100, 2))
            assert await client.job(ids[0]).state() == "done"
            assert await client.options(durable=True).submit(jobs.note, record, "a") == "a"
            assert await client.job(ids[0]).remove()
            with pytest.raises(LookupError):
                await client.job(ids[0]).result(5)

    asyncio.run(main())


def test_many_are_enqueued_at_once_in_order(daemon: Daemon, record: str) -> None:
    client = daemon.client()
    ids = client.enqueue_many(jobs.double, range(3000))
    assert len(set(ids)) == 3000
    assert [client.job(ids[n]).result(60) for n in (0, 1, 1500, 2999)] == [0, 2, 3000, 5998]
    later = client.options(delay=3600).enqueue_many(jobs.note, [record] * 2, ["one", "two"])
    assert [client.job(each).state for each in later] == ["queued", "queued"]
    assert client.enqueue_many(jobs.double, []) == []

    def spoilt() -> Iterator[int]:
        yield from range(1500)
        raise KeyError("no more")

    with pytest.raises(KeyError) as caught:
        client.options(delay=3600).enqueue_many(jobs.double, spoilt())
    assert client.job(client.enqueue(jobs.double, 4)).result(30) == 8, caught

    async def main() -> None:
        async with gmpd.AsyncClient(str(daemon.directory / "run")) as many:
            ids = await many.options(delay=3600).enqueue_many(jobs.double, range(3000))
            states = [await many.job(ids[n]).state() for n in (0, 2999)]
            assert states == ["queued", "queued"]
            with pytest.raises(KeyError):
                await many.enqueue_many(jobs.double, spoilt())

    asyncio.run(main())


def test_a_shut_limit_holds_up_its_own_jobs_only(
    daemon: Daemon, record: str, short_tmp: Path
) -> None:
    """10,000 wait for it, more than the daemon holds; also after a restart."""
    go = str(short_tmp / "go")
    client = daemon.client()
    limited = client.options(limit=gmpd.Limit("shut", at_once=1))
    limited.enqueue(jobs.hold, record, go)
    wait_until(lambda: words(record) == ["start"], "it has begun", timeout=60)
    behind = limited.enqueue_many(jobs.double, range(10_000))
    assert client.job(client.enqueue(jobs.double, 4)).result(60) == 8
    assert client.job(behind[0]).state == "queued"
    for waiting in (behind[0], behind[-1]):  # one is held, the other one is in the store
        limit = client.job(waiting).limit
        assert limit is not None
        assert (limit["key"], limit["inside"], limit["at_once"]) == ("shut", 1, 1)
    daemon.kill()
    daemon.start()
    client = daemon.client()
    wait_until(lambda: words(record) == ["start"] * 2, "it has begun again", timeout=60)
    assert client.job(client.enqueue(jobs.double, 5)).result(60) == 10
    assert client.job(behind[0]).state == "queued"
    Path(go).touch()
    assert client.job(behind[100]).result(60) == 200


def test_the_id_comes_after_the_flush(daemon: Daemon, record: str) -> None:
    """Clients that die as soon as they have the id, and the daemon with them: none is lost."""
    script = textwrap.dedent(
        f"""
        import os, gmpd
        from tests import jobs_durable as jobs
        client = gmpd.Client({str(daemon.directory / "run")!r})
        for n in range(1000):
            print(client.options(delay=3600).enqueue(jobs.note, {record!r}, str(n)), flush=True)
        """
    )
    daemon.client()
    program = subprocess.Popen(
        [sys.executable, "-c", script], env=daemon.env, stdout=subprocess.PIPE, text=True
    )
    assert program.stdout is not None
    ids = [program.stdout.readline().strip() for _ in range(20)]
    daemon.kill()
    program.kill()
    ids += [line for line in program.stdout.read().split("\n") if len(line) == 32]
    program.stdout.close()
    program.wait(30)
    daemon.start()
    client = daemon.client()
    assert {client.job(each).state for each in ids} == {"queued"}


def test_the_command_line_lists_shows_and_steers(daemon: Daemon, record: str) -> None:
    daemon.client()

    def run(*words: str) -> tuple[int, str, str]:
        command = [sys.executable, "-m", "gmpd.cli", *words]
        done = subprocess.run(
            command, env=daemon.env, cwd=ROOT, capture_output=True, text=True, timeout=120,
            check=False,
        )  # fmt: skip
        return done.returncode, done.stdout.strip(), done.stderr

    submit = ("submit", "--durable", "tests.jobs_durable:fail", record, "1")
    code, failed, _ = run(*submit)
    assert (code, len(failed)) == (0, 32)
    wait_until(lambda: words(record) == ["try"], "it has been tried", timeout=30)
    wait_until(lambda: "failed" in run("jobs", "ls")[1], "it has failed", timeout=60)
    code, shown, _ = run("jobs", "show", failed)
    assert code == 0
    assert "attempt 1: error" in shown
    assert "ValueError: not yet" in shown
    assert "Traceback" in shown
    assert run("jobs", "retry", "--failed")[0] == 0
    assert run(*submit[:2], "--wait", *submit[2:])[1] == "at last"
    code, out, _ = run("jobs", "ls", "--json", "--state", "done")
    assert (code, {job["state"] for job in json.loads(out)}) == (0, {"done"})
    assert run("jobs", "cancel", failed)[0] == 4
    assert run("jobs", "show", "ab" * 16)[0] == 4


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda state: state.chmod(0o777), "others may write to"),
        (
            lambda state: (state / "jobs.sqlite").write_bytes(b"x" * 200),
            "is no database of durable",
        ),
    ],
    ids=["writable by others", "garbage"],
)
def test_a_store_that_cannot_be_used_refuses_durable_jobs_with_the_reason(
    short_tmp: Path, record: str, spoil: Callable[[Path], object], says: str
) -> None:
    state = short_tmp / "state"
    state.mkdir(0o700)
    spoil(state)
    with Daemon(short_tmp) as daemon:
        client = daemon.client()
        for _ in range(2):
            with pytest.raises(GmpdError, match=says):
                client.enqueue(jobs.note, record, "x")
        assert client.submit(jobs.note, record, "volatile").result(30) == "volatile"


def test_a_private_daemon_keeps_none(short_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GMPD_RUNTIME_DIR", str(short_tmp / "none"))
    with gmpd.Client() as client, pytest.raises(GmpdError, match="gmpd up"):
        client.enqueue(jobs.double, 1)
