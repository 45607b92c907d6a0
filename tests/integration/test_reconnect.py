"""Clients of durable jobs wait on across a restart of the daemon; other jobs end with it."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import gmpd
from gmpd.errors import DaemonUnreachable, GmpdError
from tests import jobs_durable as jobs
from tests.durable_daemon import ROOT, Daemon, words
from tests.support import go_on, stop, wait_until


@pytest.fixture
def daemon(short_tmp: Path) -> Iterator[Daemon]:
    with Daemon(short_tmp) as daemon:
        yield daemon


#: Each waits for a durable job that runs while the daemon is killed, in its own way.
ASYNC = """
import asyncio, gmpd, sys
from tests import jobs_durable as jobs
async def main():
    run, record, go = sys.argv[1:]
    async with gmpd.AsyncClient(run, reconnect=120) as c:
        future = c.options(durable=True).submit(jobs.hold, record, go)
        job_id = await c.enqueue(jobs.hold, record, go)
        volatile = c.submit(jobs.hold, record, go)
        try:
            await volatile
        except gmpd.errors.DaemonUnreachable:
            print("told", flush=True)
        print(await future, await c.job(job_id).result(120), await c.submit(jobs.double, 21))
        assert c._link.lane.is_open
asyncio.run(main())
"""
GREEN = """
import gevent, gmpd, sys
from gmpd.client.green import Client
from tests import jobs_durable as jobs
run, record, go = sys.argv[1:]
with Client(run, reconnect=120) as c:
    turns = []
    def count():
        while True:
            gevent.sleep(0.05)
            turns.append(1)
    others = gevent.spawn(count)
    future = c.options(durable=True).submit(jobs.hold, record, go)
    job_id = c.enqueue(jobs.hold, record, go)
    waiter = gevent.spawn(lambda: c.job(job_id).result(120))
    try:
        c.submit(jobs.hold, record, go).result(120)
    except gmpd.errors.DaemonUnreachable:
        print("told", flush=True)
    before = len(turns)
    print(future.result(120), waiter.get(), c.submit(jobs.double, 21).result(60))
    assert c._link.lane.is_open
    assert len(turns) > before, "greenlets ran meanwhile"
    others.kill()
"""


def test_every_client_waits_on_across_a_restart(
    daemon: Daemon, record: str, short_tmp: Path
) -> None:
    """One daemon is killed while five kinds of waiting are under way, and one enqueue that it has
    not read; the next one comes after a pause."""
    pytest.importorskip("gevent")
    client, go, run = daemon.client(reconnect=120), str(short_tmp / "go"), str(short_tmp / "run")
    programs = [
        subprocess.Popen(
            command, env=daemon.env, cwd=ROOT, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for command in (
            [sys.executable, "-c", ASYNC, run, record, go],
            [sys.executable, "-c", GREEN, run, record, go],
            [
                sys.executable, "-m", "gmpd.cli", "submit", "--durable", "--wait",
                "tests.jobs_durable:hold", record, go,
            ],
        )
    ]  # fmt: skip
    future = client.options(durable=True).submit(jobs.hold, record, go)
    job_id = client.enqueue(jobs.hold, record, go)
    volatile = client.submit(jobs.hold, record, go)
    with ThreadPoolExecutor() as threads:
        waiting = threads.submit(client.job(job_id).result, 120)
        wait_until(lambda: words(record).count("start") == 10, "all of them run", timeout=60)
        stop(daemon.process.pid)
        enqueued = threads.submit(client.enqueue, lambda x: 2 * x, 21)
        daemon.kill()
        with pytest.raises(DaemonUnreachable):
            volatile.result(20)
        wait_until(lambda: "reconnecting" in repr(client), "it looks for a daemon")
        with pytest.raises(DaemonUnreachable):
            client.submit(jobs.double, 1)
        assert not any((future.done(), waiting.done(), enqueued.done()))
        daemon.start()
        stored = enqueued.result(120)
        Path(go).touch()
        assert (future.result(120), waiting.result(120)) == ("end", "end")
    # The session serves as before, with functions that the next daemon has never seen.
    assert client.job(stored).result(60) == 42
    assert client.submit(lambda x: 3 * x, 7).result(60) == 21
    assert "open" in repr(client)
    assert client._link.lane is not None
    assert client._link.lane.is_open
    outs = [program.communicate(timeout=120) for program in programs]
    assert [program.returncode for program in programs] == [0, 0, 0], outs
    assert [out for out, _ in outs] == ["told\nend end 42\n"] * 2 + ["end\n"]
    assert "waiting up to 60 s for the next one" in outs[2][1]


def test_a_client_waits_on_across_down_and_up(daemon: Daemon, record: str) -> None:
    """A daemon that ends in order says so; what it still takes is stored for the next one."""
    client = daemon.client(reconnect=120)
    go = str(daemon.directory / "go")
    running = client.options(durable=True).submit(jobs.hold, record, go)
    later = client.options(durable=True, delay=3).submit(jobs.note, record, "later")
    wait_until(lambda: "start" in words(record), "it runs", timeout=30)
    daemon.process.send_signal(signal.SIGTERM)
    log = daemon.directory / "log"
    wait_until(lambda: "draining" in log.read_text(), "it drains", timeout=30)
    stored = client.enqueue(jobs.note, record, "stored")
    Path(go).touch()
    assert running.result(60) == "end"  # before it ends: the client waits for no other daemon
    assert daemon.process.wait(60) == 0
    daemon.start()
    assert later.result(120) == "later"
    assert client.job(stored).result(60) == "stored"
    assert sorted(words(record)) == ["end", "later", "start", "stored"]


def test_a_daemon_that_was_stopped_is_found_again(
    daemon: Daemon, record: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given up as silent, it comes back with the job still running: that is not run twice."""
    go, run = str(daemon.directory / "go"), str(daemon.directory / "run")
    monkeypatch.setenv("GMPD_CLIENT__LIVENESS", "500ms")
    client = daemon.client(reconnect=120)
    future = client.options(durable=True).submit(jobs.hold, record, go)
    wait_until(lambda: "start" in words(record), "it runs", timeout=30)
    stop(daemon.process.pid)
    wait_until(lambda: "reconnecting" in repr(client), "it is given up", timeout=60)
    go_on(daemon.process.pid)
    Path(go).touch()
    assert future.result(60) == "end"
    assert words(record) == ["start", "end"]
    with gmpd.Client(run) as other:
        assert other.job(future.job_id).state == "done"


def test_no_daemon_comes_back_or_one_with_another_store(daemon: Daemon, record: str) -> None:
    client, patient = daemon.client(reconnect=0.5), daemon.client(reconnect=120)
    far = client.options(durable=True, delay=3600)
    future, other = far.submit(jobs.note, record, "x"), far.enqueue(jobs.note, record, "y")
    waits = patient.options(durable=True, delay=3600).submit(jobs.note, record, "z")
    daemon.kill()
    continues = f"client.reconnect = 0.5 s.*Job {future.job_id} is on disk and continues"
    with pytest.raises(DaemonUnreachable, match=continues):
        future.result(60)
    with pytest.raises(DaemonUnreachable, match="Nothing was stored"):
        client.enqueue(jobs.note, record, "z")
    with pytest.raises(DaemonUnreachable, match=f"Job {other} is on disk"):
        client.job(other).result(60)
    assert not waits.done()
    shutil.rmtree(daemon.directory / "state")
    daemon.start()
    with pytest.raises(GmpdError, match=f"knows no job {waits.job_id}.*another store"):
        waits.result(120)
    # The client that gave up looks again when it is asked again.
    wait_until(lambda: "open" in repr(patient), "it serves")
    with pytest.raises(LookupError, match="another store"):
        client.job(other).result(60)
