"""`gmpd trace` of a daemon: what it shows of real jobs, and of workers that do not answer."""

from __future__ import annotations

import gzip
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gmpd.cli.exits import Exit
from tests.chrome_check import check
from tests.shell import Shell, shell_daemon
from tests.support import go_on, stop, wait_until

JOBS = """
import asyncio, time
import gmpd

def blocks(s):
    time.sleep(s)

async def parks():
    await gmpd.sleep(0.002)
    await asyncio.sleep(0.001)

def fails():
    raise LookupError
"""


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """A daemon of two Ps that has run a job of each kind."""
    directory = tmp_path_factory.mktemp("t")
    with shell_daemon(directory, JOBS) as shell:
        assert shell("submit", "--wait", "load:blocks", "0.5").returncode == 0
        assert shell("submit", "--wait", "load:fails").returncode == Exit.JOB_FAILED
        assert shell("submit", "--wait", "load:parks").returncode == 0
        yield shell


def test_it_writes_a_trace_for_perfetto(daemon: Shell) -> None:
    done = daemon("trace", "--last", "600", "-o", "t.json.gz")
    assert done.returncode == 0, done.stderr
    document = json.loads(gzip.decompress((daemon.directory / "t.json.gz").read_bytes()))
    events = document["traceEvents"]
    check(events, procs=2)
    assert document["otherData"]["missing"] == {}
    slices: dict[str, set[int]] = {}
    for event in events:
        if event["ph"] == "X":
            slices.setdefault(event["name"], set()).add(event["pid"])
    assert slices["load:blocks"] == {1, 2}  # on P, then on an M
    assert {"idle", "turn", "load:parks", "load:fails"} <= slices.keys()
    states = {e["name"] for e in events if e["ph"] == "b"}
    assert {"waiting (sleep)", "waiting (IO wait)", "without P (blocked)"} <= states


def test_the_summary_says_where_the_time_went(daemon: Shell) -> None:
    told = json.loads(daemon("trace", "--last", "600", "--summary", "--json").stdout)
    functions: dict[str, Any] = {each["name"]: each for each in told["functions"]}
    blocks = functions["load:blocks"]["ways"]
    assert blocks["beside P: blocked"]["max_s"] > 0.01
    assert functions["load:fails"]["failed"] == 1
    parks = functions["load:parks"]["ways"]
    assert parks["blocked: sleep"]["min_s"] >= 0.0019
    assert "scheduling wait" in parks
    people = daemon("trace", "--last", "600", "--summary")
    assert "load:blocks: 1 job\n" in people.stdout


def test_go_reads_a_trace_in_its_format(daemon: Shell) -> None:
    done = daemon("trace", "--last", "600", "--format", "go", "-o", "t.gotrace")
    assert done.returncode == 0, done.stderr
    path = daemon.directory / "t.gotrace"
    assert path.read_bytes().startswith(b"go 1.22 trace\0\0\0")
    go = shutil.which("go")
    if go is None:
        pytest.skip("there is no go")
    version = subprocess.run([go, "env", "GOVERSION"], capture_output=True, text=True, check=True)
    if tuple(map(int, version.stdout.removeprefix("go").split(".")[:2])) < (1, 23):
        pytest.skip("it is older than the format")
    words = [go, "tool", "trace", "-d=parsed", str(path)]
    parsed = subprocess.run(words, capture_output=True, text=True, check=False)
    assert parsed.returncode == 0, parsed.stderr
    assert "load:blocks" in parsed.stdout
    assert 'Reason="beside P: blocked"' in parsed.stdout


def test_a_stopped_worker_has_no_track_and_is_named(daemon: Shell) -> None:
    pid = json.loads(daemon("status", "--json").stdout)["ps"][1]["pid"]
    stop(pid)
    try:
        done = daemon("trace", "--timeout", "3", "-o", "t.json")
    finally:
        go_on(pid)
    assert done.returncode == Exit.TIMEOUT
    assert "P1 has no track: its worker did not answer" in done.stderr
    document = json.loads((daemon.directory / "t.json").read_text())
    check(document["traceEvents"], procs=2)
    assert set(document["otherData"]["missing"]) == {"P1"}


def test_bad_requests_are_refused_before_anything_is_recorded(daemon: Shell) -> None:
    assert daemon("trace").returncode == Exit.USAGE
    both = daemon("trace", "--last", "1", "--seconds", "1", "-o", "t.json")
    assert both.returncode == Exit.USAGE
    nowhere = daemon("trace", "--seconds", "600", "-o", "no/such/place.json")
    assert nowhere.returncode != 0
    assert "no/such/place.json" in nowhere.stderr


def test_a_daemon_that_keeps_no_events_says_so(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    shell.env["GMPD_TRACE__ENABLED"] = "false"
    assert shell("up", "--procs", "1").returncode == 0
    try:
        done = shell("trace", "--summary")
        assert done.returncode == Exit.CONFIG
        assert "trace.enabled is false" in done.stderr
    finally:
        shell("down", "--now")


@pytest.mark.parametrize("whom", ["daemon", "worker"])
def test_sigusr2_leaves_a_file_that_the_command_converts(daemon: Shell, whom: str) -> None:
    status = json.loads(daemon("status", "--json").stdout)
    before = dumps(daemon)
    os.kill(status["pid"] if whom == "daemon" else status["ps"][0]["pid"], signal.SIGUSR2)
    (file,) = wait_until(lambda: dumps(daemon) - before, "a file is there", timeout=30)
    done = daemon("trace", "--of", str(file), "-o", "t.json")
    assert done.returncode == 0, done.stderr
    check(json.loads((daemon.directory / "t.json").read_text())["traceEvents"], procs=2)
    bad = daemon("trace", "--of", "load.py", "--summary")
    assert bad.returncode == Exit.USAGE
    assert "no trace that a daemon wrote" in bad.stderr
    after = json.loads(daemon("status", "--json").stdout)
    assert [p["pid"] for p in after["ps"]] == [p["pid"] for p in status["ps"]]


def dumps(shell: Shell) -> set[Path]:
    return set((shell.directory / "state").rglob("*.gmpdtrace"))


def test_top_prints_once_without_a_terminal(daemon: Shell) -> None:
    done = daemon("top")
    assert done.returncode == 0, done.stderr
    assert "\nP0 " in done.stdout
    assert "\x1b" not in done.stdout
    told = json.loads(daemon("top", "--json").stdout)
    assert [p["p"] for p in told["ps"]] == [0, 1]
    assert told["procs"] == 2


def test_top_watches_in_a_terminal_and_ends_at_ctrl_c(daemon: Shell) -> None:
    ours, theirs = os.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    before = termios.tcgetattr(theirs)
    words = [sys.executable, "-m", "gmpd.cli", "top", "--plain", "--interval", "0.5"]
    env = {**daemon.env, "TERM": "xterm"}
    process = subprocess.Popen(words, env=env, stdin=theirs, stdout=theirs, stderr=theirs)
    shown = bytearray()

    def shows(text: bytes) -> bool:
        while select.select([ours], [], [], 0)[0]:
            shown.extend(os.read(ours, 1 << 16))
        return text in shown

    try:
        wait_until(lambda: shows(b"q quit"), "the tables are there", timeout=40)
        os.write(ours, b"?")
        wait_until(lambda: shows(b"invert the order"), "a key is heard", timeout=40)
        process.send_signal(signal.SIGINT)
        wait_until(lambda: shows(b"\x1b[?1049l"), "the screen from before is back", timeout=40)
        assert process.wait(40) == Exit.OK
        assert termios.tcgetattr(theirs) == before
    finally:
        process.kill()
        process.wait()
        os.close(ours)
        os.close(theirs)
