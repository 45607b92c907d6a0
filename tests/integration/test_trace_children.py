"""A trace shows children of ``gmpd.go`` and tasks: what each did, who made it, and how long."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.chrome_check import check
from tests.shell import Shell, shell_daemon

JOBS = """
import asyncio, time
import gmpd

async def naps(s):
    await gmpd.sleep(s)
    await asyncio.sleep(s)

def computes(s):
    end = time.monotonic() + s
    while time.monotonic() < end:
        pass

async def fails():
    raise LookupError

async def family():
    one, two = gmpd.go(naps, 0.05), gmpd.go(computes, 0.004)
    await two
    await one
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(naps(0.03))
    try:
        await gmpd.go(fails)
    except LookupError:
        pass

async def nothing():
    pass

async def crowd(n):
    for _ in range(n // 100):
        for g in [gmpd.go(nothing) for _ in range(100)]:
            await g

async def parent():
    gs = [gmpd.go(computes, 0.02) for _ in range(40)]
    for g in gs:
        await g
"""


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    directory = tmp_path_factory.mktemp("t")
    with shell_daemon(directory, JOBS) as shell:
        yield shell


def summary(shell: Shell) -> dict[tuple[str, str], dict[str, Any]]:
    told = json.loads(shell("trace", "--last", "600", "--summary", "--json").stdout)
    return {(each["kind"], each["name"]): each for each in told["functions"]}


def test_children_and_tasks_are_summed_up_with_their_known_durations(daemon: Shell) -> None:
    assert daemon("submit", "--wait", "load:family").returncode == 0
    functions = summary(daemon)
    naps = functions["children", "naps"]
    assert (naps["jobs"], naps["failed"], naps["partly"]) == (2, 0, 0)
    slept, io = naps["ways"]["blocked: sleep"], naps["ways"]["blocked: IO wait"]
    assert (slept["count"], io["count"]) == (2, 2)
    # Of 30 and 50 ms: a G that is late to park is woken in time.
    assert slept["min_s"] >= 0.02 <= io["min_s"]
    assert slept["max_s"] >= 0.04 <= io["max_s"]
    assert slept["mean_s"] == pytest.approx((slept["min_s"] + slept["max_s"]) / 2)
    assert slept["p99_s"] == slept["max_s"]
    assert naps["ways"]["execution"]["max_s"] < slept["min_s"]
    computes = functions["children", "computes"]["ways"]
    whole = [each["total_s"] for way, each in computes.items() if way != "scheduling wait"]
    assert sum(whole) >= 0.004
    assert functions["children", "fails"]["failed"] == 1
    family = functions["jobs", "load:family"]["ways"]
    assert family["blocked: G wait"]["min_s"] >= 0.09
    people = daemon("trace", "--last", "600", "--summary").stdout
    assert "naps: 2 children\n" in people


def test_arrows_lead_from_the_maker_to_the_child_and_from_the_waker(daemon: Shell) -> None:
    assert daemon("submit", "--wait", "load:family").returncode == 0
    done = daemon("trace", "--last", "600", "-o", "t.json")
    assert done.returncode == 0, done.stderr
    events = json.loads((daemon.directory / "t.json").read_text())["traceEvents"]
    check(events, procs=2)
    naps = [e for e in events if e["ph"] == "X" and e["name"] == "naps"]
    assert len(naps) >= 6
    assert all(e["args"]["made_by"].startswith("job ") for e in naps)
    starts = {(e["tid"], e["ts"]) for e in events if e["ph"] == "f" and e["name"] == "go"}
    assert starts & {(e["tid"], e["ts"]) for e in naps}
    states = {e["name"] for e in events if e["ph"] == "b"}
    assert {"naps", "waiting (sleep)", "waiting (IO wait)", "waiting (G wait)"} <= states


def test_of_too_many_children_some_are_shown_and_the_pause_is_told(daemon: Shell) -> None:
    assert daemon("submit", "--wait", "load:crowd", "100000").returncode == 0
    done = daemon("trace", "--last", "600", "--summary", "--json", "-v")
    nothing = next(
        each for each in json.loads(done.stdout)["functions"] if each["name"] == "nothing"
    )
    assert 100 < nothing["jobs"] < 60_000
    assert "were left out for" in done.stderr


def test_a_p_that_looks_for_work_is_searching(daemon: Shell) -> None:
    assert daemon("submit", "--wait", "load:parent").returncode == 0
    done = daemon("trace", "--last", "600", "-o", "t.json")
    assert done.returncode == 0, done.stderr
    events = json.loads((daemon.directory / "t.json").read_text())["traceEvents"]
    check(events, procs=2)
    assert {"idle", "searching"} <= {e["name"] for e in events if e["ph"] == "X"}
