"""Progress and output of jobs while they run, in a real daemon with two Ps."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import gmpd
from gmpd.cli.app import App
from gmpd.cli.private import private_client
from gmpd.errors import GmpdError
from gmpd.explain import Reason
from tests import jobs_seen as jobs
from tests.durable_daemon import Daemon, serving
from tests.support import wait_until


@pytest.fixture(scope="module")
def served() -> Iterator[Daemon]:
    with serving(procs=2) as daemon:
        yield daemon


@pytest.fixture
def client(served: Daemon) -> gmpd.Client:
    return served.clients[0]


@pytest.fixture
def go(short_tmp: Path) -> Iterator[Path]:
    """A file that ends the jobs that wait for it; it is there after the test."""
    path = short_tmp / "go"
    yield path
    path.touch()


def last(future: Any) -> object:
    """Its progress; by a call, as a type checker believes that an attribute stays."""
    return future.progress


# -- progress ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fn", [jobs.reach, jobs.reach_async, jobs.parent, jobs.parent_async], ids=lambda fn: fn.__name__
)
def test_a_future_shows_how_far_its_job_is(
    client: gmpd.Client, go: Path, fn: Callable[..., Any]
) -> None:
    future = client.submit(fn, 3, str(go))
    wait_until(lambda: future.progress == (3, 10, ""), "its progress")
    go.touch()
    future.result(60)
    assert last(future) == (10, 10, "over")


def test_an_isolated_job_shows_how_far_it_is(go: Path) -> None:
    with private_client(App(), 1, ["tests.jobs_seen"]) as client:
        future = client.options(isolate=True).submit(jobs.reach, 4, str(go), "alone")
        wait_until(lambda: future.progress == (4, 10, "alone"), "its progress")
        go.touch()
        assert future.result(60) == 4


def test_an_asyncio_client_shows_it_too(served: Daemon, go: Path) -> None:
    async def main() -> None:
        async with gmpd.AsyncClient(str(served.directory / "run")) as client:
            future = client.submit(jobs.reach, 2, str(go), "x")
            async with asyncio.timeout(60):
                while last(future) != (2, 10, "x"):
                    await asyncio.sleep(0.01)
            go.touch()
            assert await future == 2
            assert last(future) == (10, 10, "over")

    asyncio.run(main())


def test_progress_is_sent_some_times_a_second_however_often_it_is_told(
    client: gmpd.Client,
) -> None:
    def messages() -> int:
        n: int = client.call("status")["messages"]["in"].get("progress", 0)
        return n

    before = messages()
    futures = [client.submit(jobs.count, 100_000) for _ in range(4)]
    assert [each.result(120) for each in futures] == [100_000] * 4
    assert [each.progress for each in futures] == [(99_999, 100_000, "")] * 4
    # At the end of each, and a few while they ran, however slow this machine is: each takes a tenth
    # of a second at least, and telling it 100,000 times less than 50 of them.
    assert 1 <= messages() - before <= 4 + 200


# -- output --------------------------------------------------------------------------------------


def test_the_output_of_a_durable_job_is_seen_while_it_runs_and_kept_with_its_story(
    served: Daemon, client: gmpd.Client, go: Path
) -> None:
    job = client.job(client.enqueue(jobs.talk, "one", str(go)))
    wait_until(lambda: "waits" in job.logs(), "its output")
    followed = subprocess.Popen(
        [sys.executable, "-m", "gmpd.cli", "jobs", "logs", "-f", job.id], env=served.env,
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert followed.stdout is not None
    assert followed.stdout.readline() == "one begins\n"
    go.touch()
    assert job.result(60) == "one"
    rest = followed.stdout.read()
    followed.stdout.close()
    assert followed.wait(60) == 0
    first, second = rest.splitlines()
    assert first.endswith(" WARNING jobs.seen: one waits")
    assert second == "one ends"
    assert job.logs() == f"one begins\n{rest}"
    told = served.cli("jobs", "logs", job.id)
    assert (told.returncode, told.stdout) == (0, job.logs())
    assert "one ends" not in (served.directory / "log").read_text()
    assert served.cli("jobs", "logs", "0" * 32).returncode == 4


def test_each_attempt_has_its_own_output(served: Daemon, client: gmpd.Client, go: Path) -> None:
    go.touch()
    failing = client.job(client.options(retries=1).enqueue(jobs.talk, "twice", str(go), True))
    assert isinstance(failing.exception(60), ValueError)
    assert failing.logs(1).splitlines()[::2] == ["twice begins", "twice ends"]
    assert failing.logs(2) == failing.logs() != failing.logs(1)
    assert failing.logs(3) == ""
    shown = served.cli("jobs", "logs", failing.id, "--attempt", "1")
    assert shown.stdout == failing.logs(1)


def test_the_output_of_an_attempt_that_ended_its_worker_is_kept(short_tmp: Path) -> None:
    with Daemon(short_tmp) as daemon:  # of its own: the next worker would seem to be left behind
        client = daemon.client()
        dying = client.job(client.enqueue(jobs.talk_and_die, str(short_tmp / "died")))
        assert dying.result(60) == "done"
        assert (dying.logs(1), dying.logs(2)) == ("first\n", "second\n")


def test_coroutines_that_take_turns_have_their_own_output(
    client: gmpd.Client,
) -> None:
    words = [f"w{n}" for n in range(20)]
    ids = {word: client.enqueue(jobs.talk_async, word, 10) for word in words}
    for word, id_ in ids.items():
        assert client.job(id_).result(60) == word
        expected = [f"{word} {n}" for n in (*range(10), "task", "thread", "child")]
        assert client.job(id_).logs().splitlines() == expected


def test_children_in_another_worker_print_to_their_job(client: gmpd.Client) -> None:
    def both_workers() -> bool:
        job = client.job(client.enqueue(jobs.talk_by_children, "a", 40))
        workers: int = job.result(60)
        first, *rest = job.logs().splitlines()
        assert first == "a begins"
        assert rest == ["a child"] * 40
        return workers == 2

    wait_until(both_workers, "some children ran in the other worker", timeout=120)


def test_much_output_keeps_its_last_bytes(client: gmpd.Client) -> None:
    job = client.job(client.enqueue(jobs.flood, 20_000))
    assert job.result(120) is None
    first, *rest = job.logs().splitlines()
    assert first.endswith(" bytes left out]")
    assert rest[-1] == "x" * 100 + " 19999"
    assert 50_000 < sum(map(len, rest)) <= 64 << 10


def test_a_job_that_is_not_captured_prints_where_the_daemon_does(
    served: Daemon, client: gmpd.Client, go: Path
) -> None:
    go.touch()
    client.submit(jobs.talk, "volatile", str(go)).result(60)
    job = client.job(client.options(capture=False).enqueue(jobs.talk, "loose", str(go)))
    assert job.result(60) == "loose"
    assert job.logs() == ""
    log = served.directory / "log"
    wait_until(lambda: "loose ends" in log.read_text(), "what went to stderr")
    assert "volatile ends" in log.read_text()


# -- volatile jobs of others ---------------------------------------------------------------------


def test_failures_are_kept_with_their_tracebacks_and_functions_are_counted(
    served: Daemon, client: gmpd.Client
) -> None:
    name = f"{jobs.__name__}:{jobs.fails.__name__}"
    for error in [client.submit(jobs.fails, "one \x1b[2J").exception(60)]:
        assert isinstance(error, ValueError)
    with pytest.raises(ValueError, match="two"):
        client.job(client.enqueue(jobs.fails, "two")).result(60)
    told = served.cli("failures", "--fn", name, "-n", "2", "--json").stdout
    kinds = {row["message"]: (row["outcome"], row["client"]) for row in json.loads(told)}
    assert kinds["two"] == ("error", "durable jobs")
    assert "one \\x1b[2J" in kinds
    shown = served.cli("failures", "--fn", name).stdout
    assert "raise ValueError(text)" in shown
    assert "\x1b" not in shown
    (row,) = [
        row
        for row in json.loads(served.cli("jobs", "top", "--json").stdout)
        if row["function"] == name
    ]
    assert row["finished"] == {"error": 2}
    # Jobs of another test have failed as often.
    top = served.cli("jobs", "top", "--sort", "failed", "-n", "2").stdout
    assert name in top
    assert client.page_url is None


def test_volatile_jobs_are_listed_shown_and_cancelled_by_others(
    served: Daemon, client: gmpd.Client, go: Path
) -> None:
    future = client.submit(jobs.reach, 6, str(go), "half")
    waiting = client.options(delay=600).submit(jobs.count, 1)
    durable = client.enqueue(jobs.reach, 7, str(go))
    with gmpd.Client(str(served.directory / "run")) as other:
        job = other.job(future.job_id)
        wait_until(lambda: job.progress == (6, 10, "half"), "its progress")
        wait_until(lambda: other.job(durable).progress == (7, 10, ""), "that of the durable one")
        assert job.state == "running"
        reasons = [other.job(id_).explain().reason for id_ in (future.job_id, durable)]
        assert reasons == [Reason.RUNNING, Reason.RUNNING]
        assert other.job(waiting.job_id).explain().reason is Reason.DELAYED
        assert "`delay` or `at` asks" in served.cli("explain", waiting.job_id).stdout
        ((n, outcome, *_),) = other.job(durable).story()
        assert (n, outcome) == (1, "running")
        with pytest.raises(GmpdError, match="its result goes to the client that submitted it"):
            job.result(1)
        listed = json.loads(served.cli("jobs", "ls", "--json").stdout)
        states = {row["id"]: (row["durable"], row["state"]) for row in listed}
        assert states[future.job_id] == (False, "running")
        assert states[waiting.job_id] == (False, "queued")
        assert states[durable] == (True, "running")
        running = served.cli("jobs", "ls", "--state", "running", "--kind", "durable").stdout
        assert running.splitlines()[1:] == [
            line for line in running.splitlines() if durable in line
        ]
        shown = served.cli("jobs", "show", future.job_id).stdout
        assert "progress  6 of 10 half" in shown
        assert "attempt 1: running" in shown
        told = served.cli("jobs", "cancel", waiting.job_id, "00" * 16)
        assert (told.returncode, waiting.cancelled()) == (4, True)
    go.touch()
    assert future.result(60) == 6
    client.job(durable).result(60)
    (ended,) = client.job(durable).story()
    assert (ended.outcome, ended.p in (0, 1), ended.pid is not None) == ("ok", True, True)
    assert ended.began is not None
    assert ended.ended is not None
    assert ended.began <= ended.ended
    with pytest.raises(LookupError):
        _ = client.job(future.job_id).state
