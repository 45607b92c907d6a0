"""Attempts of jobs, as programs see them: which errors are tried again, after which waits."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.durable_daemon import Daemon
from tests.support import wait_until

#: All that a script may have: its own exceptions, a lambda for the wait, a function of the module.
#: Every wait that its functions do not choose is an hour.
SCRIPT = """
import asyncio, json, sys, time
import gmpd

class Flaky(Exception): pass
class Busy(Flaky): pass
class Final(Exception): pass

HOUR = gmpd.Backoff(3600, cap=3600, jitter=0)

def note(path):
    with open(path, "a") as file:
        file.write("x")
    return len(open(path).read())

def fail(path, times, error):
    n = note(path)
    if n <= times:
        raise error(n)
    return n

async def fail_later(path, times, error):
    await asyncio.sleep(0)
    return fail(path, times, error)

@gmpd.job(retries=5, retry_on=Flaky, backoff=lambda attempt, error: (attempt - error.args[0]) * 60)
def declared(path, times, error):
    return fail(path, times, error)

def broken(attempt, error):
    raise KeyboardInterrupt

def told(call):
    try:
        return call()
    except Exception as error:
        return type(error).__name__

def main(address, place):
    found = {}
    with gmpd.Client(address) as c:
        mapped = c.options(retries=5, backoff=lambda attempt, error: 0)
        for name, view in (("volatile", c), ("durable", c.options(durable=True))):
            def run(view, fn, times, error, tag, **options):
                path = f"{place}/{name}-{tag}"
                future = view.options(**options).submit(fn, path, times, error)
                result = told(lambda: future.result(60))
                return [result, len(open(path).read())]
            now = view.options(retries=5, backoff=0, retry_on=(Flaky,))
            found[name] = {
                "subclass": run(now, fail, 2, Busy, "subclass"),
                "coroutine": run(now, fail_later, 2, Busy, "coroutine"),
                "another": run(now, fail, 2, Final, "another"),
                "by name": run(now, fail, 2, Final, "name", retry_on="__main__.Final"),
                "declared": run(view, declared, 3, Busy, "declared"),
                "a lambda": run(view, fail, 2, Busy, "lambda", retries=2,
                                backoff=lambda attempt, error: 0.01),
                "until the retries end": run(now, fail, 9, Busy, "ends", retries=1),
            }
        paths = [f"{place}/map-{n}" for n in range(3)]
        done = list(mapped.map(fail, paths, [1] * 3, [Busy] * 3))
        found["map"] = done
        path = f"{place}/story"
        id_ = c.options(retries=1, backoff=broken).enqueue(fail, path, 1, Busy)
        found["story"] = [c.job(id_).result(60), c.job(id_).story()[0].text]
        long = c.options(retries=1, backoff=HOUR).enqueue(fail, f"{place}/long", 1, Busy)
        while not c.job(long).story():
            time.sleep(0.01)
        info = c.job(long).info()
        found["run_at"] = info["run_at"] - c.job(long).story()[0].ended
        c.job(long).cancel()
    print(json.dumps(found))

if __name__ == "__main__":
    main(*sys.argv[1:])
"""

#: Functions that do not stop, beside others in one worker.
KILLER = """
import asyncio, json, os, re, sys, time
import gmpd
from gmpd.errors import GmpdError

def pid():
    return os.getpid()

def first_time(path):
    open(path, "a").write("x")
    return len(open(path).read()) == 1

def sleep(path):
    open(path, "a").write("x")
    time.sleep(600)

def blocks_once(path):
    if first_time(path):
        time.sleep(600)
    return "again"

def holds_the_gil(path):
    open(path, "a").write("x")
    re.match("(a+)+b", "a" * 64)

def swallows(path):
    open(path, "a").write("x")
    while True:
        try:
            while True:
                time.sleep(0.01)
        except GmpdError:
            pass

def loops(path):
    open(path, "a").write("x")
    while True:
        pass

async def wait(path, until):
    open(path, "a").write("x")
    while not os.path.exists(until):
        await asyncio.sleep(0.01)
    return "ended"

def until(path):
    while not os.path.exists(path) or not os.path.getsize(path):
        time.sleep(0.01)

def told(future):
    try:
        return future.result(60)
    except Exception as error:
        return [type(error).__name__, str(error)]
    except BaseException as error:
        return [type(error).__name__, ""]

async def by_asyncio(address, path):
    async with gmpd.AsyncClient(address) as c:
        unsent = c.options(durable=True).submit(sleep, path("unsent"))
        assert unsent.cancel(force=True)
        while not unsent.job_id:  # until it is on disk
            await asyncio.sleep(0.01)
        ended = await c.job(unsent.job_id).exception(60)
        left = c.options(durable=True).submit(wait, path("left"), path("never"))
        running = c.options(durable=True).submit(swallows, path("running"))
        await asyncio.to_thread(until, path("running"))
        left.cancel()
        running.cancel(force=True)
        return [unsent.cancelled(), type(ended).__name__, running.cancelled(), running.job_id,
                left.job_id]

def main(address, place, job_id_file):
    found = {}
    path = lambda name: f"{place}/{name}"
    with gmpd.Client(address) as c:
        first = c.submit(pid).result()
        soft = c.options(timeout=0.3, kill_after=60)
        found["soft"] = told(soft.submit(loops, path("loops")))[0]
        found["the worker lives"] = c.submit(pid).result() == first
        killed = c.options(kill_after=0.3)
        for fn in (sleep, holds_the_gil, swallows):
            before = c.submit(pid).result()
            found[fn.__name__] = told(killed.submit(fn, path(fn.__name__)))
            found[fn.__name__ + " replaced"] = c.submit(pid).result() != before
        found["with retries"] = told(killed.options(retries=1).submit(blocks_once, path("again")))
        id_ = killed.options(retries=1, backoff=0).enqueue(blocks_once, path("durable"))
        found["durable"] = [c.job(id_).result(60), [a.outcome for a in c.job(id_).story()]]
        id_ = killed.enqueue(holds_the_gil, path("gil"))
        found["durable at last"] = type(c.job(id_).exception(60)).__name__
        # Neighbours: one that ends while the worker is to be replaced, and ones that do not.
        quick = c.submit(wait, path("quick"), path("go"))
        until(path("quick"))
        before = c.submit(pid).result()
        found["culprit"] = told(killed.submit(sleep, path("culprit")))[0]
        open(path("go"), "w").close()
        found["quick"] = told(quick)
        found["replaced then"] = c.submit(pid).result() != before
        slow = c.submit(wait, path("slow"), path("never"))
        again = c.options(retries=1).submit(wait, path("later"), path("twice"))
        until(path("slow")), until(path("later"))
        told(killed.submit(sleep, path("culprit 2")))
        found["slow"] = told(slow)
        open(path("twice"), "w").close()
        found["neighbour with a retry"] = [told(again), os.path.getsize(path("later"))]
        # Cancels.
        forced = c.submit(sleep, path("forced"))
        until(path("forced"))
        found["without force"] = forced.cancel()
        found["with force"] = [forced.cancel(force=True), told(forced)[0]]
        polite = c.submit(wait, path("polite"), path("never"))
        until(path("polite"))
        before = c.submit(pid).result()
        found["a coroutine"] = [polite.cancel(force=True), c.submit(pid).result() == before]
        handle = c.job(c.enqueue(swallows, path("handle")))
        until(path("handle"))
        found["a handle"] = [handle.cancel(force=True), type(handle.exception(60)).__name__]
        late = c.job(c.options(timeout=0.3).enqueue(swallows, path("late")))
        found["told before"] = type(late.exception(60)).__name__
        found["no attempt beside it"] = not late.retry()
        found["frame ended"] = late.cancel(force=True)
        while not late.retry():
            time.sleep(0.01)
        until(path("late"))
        late.cancel(force=True)
        *found["by asyncio"], running, left = asyncio.run(by_asyncio(address, path))
        found["by asyncio"].append(type(c.job(running).exception(60)).__name__)
        found["left"] = c.job(left).state in ("queued", "running")
        c.job(left).cancel()
        waiting = c.enqueue(sleep, path("for the command"))
        until(path("for the command"))
        open(job_id_file, "w").write(waiting)
        found["by command"] = type(c.job(waiting).exception(60)).__name__
    print(json.dumps(found))

if __name__ == "__main__":
    main(*sys.argv[1:])
"""


@pytest.fixture
def daemon(short_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Daemon]:
    monkeypatch.setenv("GMPD_RESTART__GRACE", "1s")
    with Daemon(short_tmp) as daemon:
        yield daemon


def test_a_script_chooses_what_is_tried_again_and_when(daemon: Daemon, tmp_path: Path) -> None:
    daemon.client()
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, str(script), str(daemon.directory / "run"), str(tmp_path)],
        env=daemon.env, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert not done.returncode, done.stderr
    found = json.loads(done.stdout)
    expected = {
        "subclass": [3, 3],
        "coroutine": [3, 3],
        "another": ["Final", 1],
        "by name": [3, 3],
        "declared": [4, 4],
        "a lambda": [3, 3],
        "until the retries end": ["Busy", 2],
    }
    assert found["volatile"] == expected
    assert found["durable"] == expected
    assert found["map"] == [2, 2, 2]
    value, text = found["story"]
    assert value == 2
    assert (
        text
        == "__main__.Busy: 1 (backoff=__main__:broken raised KeyboardInterrupt: the usual wait)"
    )
    assert found["run_at"] == pytest.approx(3600, abs=1)


def test_functions_that_do_not_stop_end_with_their_worker(daemon: Daemon, tmp_path: Path) -> None:
    daemon.client()
    script, job_id = tmp_path / "script.py", tmp_path / "job_id"
    script.write_text(KILLER)
    with subprocess.Popen(
        [sys.executable, str(script), str(daemon.directory / "run"), str(tmp_path), str(job_id)],
        env=daemon.env, stdout=subprocess.PIPE, text=True,
    ) as running:  # fmt: skip
        try:
            id_ = wait_until(lambda: job_id.exists() and job_id.read_text(), "a job", timeout=120)
            cancel = [sys.executable, "-m", "gmpd.cli", "jobs", "cancel", "--force", str(id_)]
            done = subprocess.run(
                cancel, env=daemon.env, capture_output=True, text=True, timeout=60, check=False
            )
            assert (done.returncode, done.stderr) == (0, "1 cancelled\n"), done
            out, _ = running.communicate(timeout=60)
        finally:
            running.kill()
    found = json.loads(out)
    killed = "its worker is replaced"
    for name in ("sleep", "holds_the_gil", "swallows"):
        kind, text = found.pop(name)
        assert (kind, killed in text, found.pop(f"{name} replaced")) == ("JobTimeout", True, True)
    kind, text = found.pop("slow")
    assert kind == "WorkerLost"
    assert "was replaced: __main__:sleep ran beyond kill_after=0.3" in text
    assert found == {
        "soft": "JobTimeout",
        "the worker lives": True,
        "with retries": "again",
        "durable": ["again", ["timeout", "ok"]],
        "durable at last": "JobTimeout",
        "culprit": "JobTimeout",
        "quick": "ended",
        "replaced then": True,
        "neighbour with a retry": ["ended", 2],
        "without force": False,
        "with force": [True, "CancelledError"],
        "a coroutine": [True, True],
        "a handle": [True, "JobCancelled"],
        "told before": "JobTimeout",
        "no attempt beside it": True,
        "frame ended": True,
        "by asyncio": [True, "JobCancelled", True, "JobCancelled"],
        "left": True,
        "by command": "JobCancelled",
    }
