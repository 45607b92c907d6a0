"""Attempts of jobs, as programs see them: which errors are tried again, after which waits."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.durable_daemon import Daemon

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


@pytest.fixture
def daemon(short_tmp: Path) -> Iterator[Daemon]:
    daemon = Daemon(short_tmp)
    yield daemon
    daemon.close()


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
