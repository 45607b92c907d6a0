"""The JSON API before a real daemon: what it shows is what happens there."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gmpd import Client
from gmpd.codec import FunctionRef
from tests.daemon_process import Daemon
from tests.support import wait_until


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    place = Path(tempfile.mkdtemp(prefix="gmpd-", dir="/tmp"))
    (place / "shop.py").write_text(
        "import asyncio, gmpd\n"
        "@gmpd.job(retries=2)\n"
        "def add(a, b=1): return a + b\n"
        "@gmpd.job\n"
        "def fail(): raise KeyError('k')\n"
        "@gmpd.job\n"
        "async def park(s): await asyncio.sleep(s)\n"
        "async def child(ch): await ch.recv()\n"
        "async def parent():\n"
        "    ch = gmpd.Chan()\n"
        "    await asyncio.sleep(0.01)\n"
        "    await gmpd.go(child, ch)\n"
        "async def hold(path):\n"
        "    import os, time\n"
        "    while not os.path.exists(path): time.sleep(0.01)\n"
    )
    daemon = Daemon(
        place,
        GMPD_DAEMON__IMPORTS="shop",
        GMPD_HTTP__ALLOW="submit,cancel,retry",
        PYTHONPATH=f"{Path(__file__).parents[2]}:{place}",
    ).wait_ready()
    yield daemon
    daemon.close()
    shutil.rmtree(place)


def named(name: str) -> Any:
    """A function of a module that only the daemon has."""
    return FunctionRef("name", name)


def ask(daemon: Daemon, path: str, body: Any = None) -> Any:
    request = urllib.request.Request(
        f"{daemon.url}/api/v1{path}",
        None if body is None else json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=20) as response:
        return json.load(response)


def result(daemon: Daemon, job: str) -> Any:
    def ended() -> Any:
        told = ask(daemon, f"/jobs/{job}/result")
        return told if told["ended"] else None

    return wait_until(ended, "the job has ended")


def test_a_job_that_is_submitted_runs_and_its_end_can_be_read(daemon: Daemon) -> None:
    job = ask(daemon, "/jobs", {"function": "shop:add", "args": [20], "kwargs": {"b": 22}})["id"]
    assert result(daemon, job)["value"] == 42
    failed = ask(daemon, "/jobs", {"function": "shop:fail"})["id"]
    assert result(daemon, failed)["error"]["type"] == "KeyError"
    story = ask(daemon, f"/jobs/{failed}")
    assert "KeyError: 'k'" in story["story"][0]["traceback"]
    assert ask(daemon, f"/jobs/{failed}/retry", {})["changed"]
    assert {job, failed} <= {each["id"] for each in ask(daemon, "/jobs")["jobs"]}


def test_gs_that_wait_are_shown_and_cancelled(daemon: Daemon) -> None:
    job = ask(daemon, "/jobs", {"function": "shop:park", "args": [600]})["id"]

    def waits() -> Any:
        page = ask(daemon, "/gs?state=waiting&function=park")["gs"]
        return page[0] if page else None

    row = wait_until(waits, "its G waits")
    assert row["job"]
    assert row["since_s"] >= 0
    assert ask(daemon, f"/jobs/{job}")["job"]["state"] == "running"
    assert ask(daemon, f"/jobs/{job}/cancel", {})["changed"]
    assert result(daemon, job)["outcome"] == "cancelled"


def test_the_stream_shows_a_job_that_a_client_runs(daemon: Daemon) -> None:
    request = urllib.request.Request(f"{daemon.url}/api/v1/events?period_ms=200")
    with (
        urllib.request.urlopen(request, timeout=30) as stream,
        Client(str(daemon.directory), name="seen") as client,
    ):
        future = client.submit(time.sleep, 1.5)
        stored = client.enqueue(time.sleep, 1.5)
        seen: dict[str, str] = {}
        for line in stream:
            if line.startswith(b"data: {"):
                shown = json.loads(line[6:])["picture"]
                for number, job, _ in (each for p in shown["ps"] for each in p["begun"]):
                    seen[job] = shown["names"][number]
                if {future.job_id, stored} <= seen.keys():
                    break
        assert "sleep" in seen[future.job_id]
        assert "sleep" in seen[stored]
        assert "seen" in {each["name"] for each in ask(daemon, "/clients")["clients"]}
        future.result(30)


def test_what_the_api_shows_is_what_the_status_says(daemon: Daemon) -> None:
    with Client(str(daemon.directory)) as client:
        told = client.call("status")
    shown = ask(daemon, "/snapshot")["snapshot"]
    assert (shown["pid"], shown["procs"], shown["version"]) == (
        told["pid"], told["procs"], told["version"],
    )  # fmt: skip
    settings = {each["key"]: each for each in ask(daemon, "/config")["settings"]}
    assert settings["http.allow"]["value"] == '["submit", "cancel", "retry"]'
    assert settings["http.allow"]["where"] == "GMPD_HTTP__ALLOW"
    assert {each["name"] for each in ask(daemon, "/registered")["functions"]} >= {"shop:add"}
    assert "shop:add" in {each["function"] for each in ask(daemon, "/functions")["functions"]}


def test_the_live_page_has_an_address(daemon: Daemon) -> None:
    found = subprocess.run(
        [sys.executable, "-m", "gmpd.cli", "page", "--print"],
        env=daemon.env, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert found.stdout == f"{daemon.url}/\n"
    opened = subprocess.run(
        [sys.executable, "-m", "gmpd.cli", "up", "--open"],
        env={**daemon.env, "BROWSER": "/bin/echo"}, capture_output=True, text=True, timeout=60,
        check=True,
    )  # fmt: skip
    assert opened.stdout == found.stdout  # a running daemon is left as it is


def test_a_function_that_nobody_registered_is_none(daemon: Daemon) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        ask(daemon, "/jobs", {"function": "os:system", "args": ["true"]})
    assert refused.value.code == 404
    refused.value.close()


def test_a_g_is_shown_with_its_stack_its_job_and_why_it_waits(daemon: Daemon) -> None:
    with Client(str(daemon.directory)) as client:
        job = client.submit(named("shop:parent"))
        waiting = wait_until(
            lambda: ask(daemon, "/gs?state=waiting&function=child")["gs"], "a child that waits"
        )
        (g,) = waiting
        child = ask(daemon, f"/ps/{g['p']}/gs/{g['id']}")
        assert (child["job"], child["story"]) == (job.job_id, [])
        assert child["g"]["why"]["code"] == "receive"
        assert "await ch.recv" not in child["stack"]  # frames and lines, no source
        assert "shop.py:" in child["stack"]
        (own,) = ask(daemon, "/gs?function=parent")["gs"]
        parent = ask(daemon, f"/ps/{own['p']}/gs/{own['id']}?epoch={child['epoch']}")
        assert parent["job"] == job.job_id
        assert (parent["g"]["why"]["code"], parent["g"]["why"]["facts"]["g"]) == ("g", g["id"])
        assert [each["reason"] for each in parent["story"] if each["kind"] == "step"] == [
            "IO wait", "G wait",
        ]  # fmt: skip
        told = ask(daemon, f"/jobs/{job.job_id}")
        (waited,) = told["why"]["facts"]["children"]
        assert (told["why"]["code"], waited["function"]) == ("children", "child")
        job.cancel()


def test_a_deaf_worker_is_named_and_holds_up_nobody(daemon: Daemon) -> None:
    with Client(str(daemon.directory)) as client:
        go = daemon.directory / "go"
        job = client.submit(named("shop:hold"), str(go))
        wait_until(lambda: any(p["running"] == "shop:hold" for p in ask(daemon, "/ps")["ps"]), "it")
        (p,) = [each["p"] for each in ask(daemon, "/ps")["ps"] if each["running"] == "shop:hold"]
        told = ask(daemon, f"/ps/{p}/gs/1")
        assert (told["answered"], told["g"]) == (False, None)
        assert "has been running shop:hold" in told["silence"]
        go.touch()
        job.result(60)
