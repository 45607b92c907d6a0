"""Work that costs more than it has to, named: after a map, by the status, for programs and people.
In scripts with a private daemon, as users have it."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

import gmpd
from gmpd.findings import Code, problems
from gmpd.status import read
from tests.durable_daemon import Daemon
from tests.support import go_on, stop, wait_until

SMALL = """
import asyncio, sys, gmpd
def double(x): return 2 * x
async def main():
    async with gmpd.AsyncClient() as c:
        print(sum([x async for x in c.map(double, range(20_000))]))
if sys.argv[1] == "async":
    asyncio.run(main())
else:
    with gmpd.Client() as c:
        for _ in range(2):
            print(sum(c.map(double, range(20_000), ordered=sys.argv[1] == "ordered")))
"""
LARGE = """
import gmpd
def frame(i): return bytes(1_500_000)
def size(frame): return len(frame)
with gmpd.Client() as c:
    print(sum(map(len, c.map(frame, range(12)))))
    print(sum(c.map(size, [bytes(1_500_000)] * 12)))
"""


def script(
    place: Path, text: str, *args: str, options: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    path = place / "program.py"
    path.write_text(text)
    return subprocess.run(
        [sys.executable, *options, str(path), *args], text=True, capture_output=True, timeout=100
    )


def hints(ran: subprocess.CompletedProcess[str]) -> list[str]:
    """The lines of a program's standard error that have one."""
    codes = [code.value for code in Code]
    return [
        line for line in ran.stderr.splitlines() if any(f"{code}: map" in line for code in codes)
    ]


@pytest.mark.usefixtures("no_daemon")
@pytest.mark.parametrize("how", ["ordered", "unordered", "async"])
def test_a_map_of_small_items_ends_with_a_hint_at_its_line(tmp_path: Path, how: str) -> None:
    ran = script(tmp_path, SMALL, how)
    assert set(ran.stdout.split()) == {"399980000"}
    (hint,) = hints(ran)
    assert f"{tmp_path / 'program.py'}:" in hint
    assert "PerformanceHint: small_jobs: map of" in hint
    assert "double: its 20,000 calls ran" in hint


@pytest.mark.usefixtures("no_daemon")
def test_where_warnings_are_errors_the_results_are_there_and_the_hint_is_logged(
    tmp_path: Path,
) -> None:
    ran = script(tmp_path, SMALL, "ordered", options=("-W", "error"))
    assert (ran.returncode, ran.stdout.split()) == (0, ["399980000"] * 2)
    (hint,) = hints(ran)
    assert hint.startswith("small_jobs: map of")


@pytest.mark.usefixtures("no_daemon")
def test_large_results_and_arguments_are_told_and_can_be_ignored(tmp_path: Path) -> None:
    ran = script(tmp_path, LARGE)
    assert ran.stdout.split() == ["18000000", "18000000"]
    assert [line.split(": ")[2] for line in hints(ran)] == ["large_results", "large_arguments"]
    quiet = script(
        tmp_path,
        f"import warnings, gmpd\nwarnings.simplefilter('ignore', gmpd.PerformanceHint)\n{LARGE}",
    )
    assert hints(quiet) == []


@pytest.mark.usefixtures("no_daemon")
def test_gmpd_map_of_short_lines_ends_with_a_hint() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "gmpd.cli", "map", "builtins:len"],
        input="1\n" * 10_000, text=True, capture_output=True, timeout=100, check=True,
    )  # fmt: skip
    assert ran.stdout == "1\n" * 10_000
    (hint,) = hints(ran)
    assert hint.startswith("hint: small_jobs: map of builtins:len: its 10,000 calls ran")


def warnings_of(client: gmpd.Client) -> dict[Any, Any]:
    return {each.code: each for each in problems(read(client.call("status")))}


STOPPED = """
import gmpd, os, sys, time
def frame(i, begin):
    while not os.path.exists(begin):
        time.sleep(0.05)
    return bytes(300_000)
c = gmpd.Client(sys.argv[1], name="stopped")
print("ready", flush=True)
sys.stdin.readline()
futures = [c.submit(frame, i, sys.argv[2]) for i in range(20)]
print("sent", flush=True)
sys.stdin.readline()
print(sum(len(f.result()) for f in futures), flush=True)
c.close()
"""


def test_large_and_unread_results_are_seen_in_the_status(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that is stopped reads nothing; it is not named any more once it continues."""
    monkeypatch.setattr("gmpd.findings.UNREAD_S", 1.0)
    with (
        tempfile.TemporaryDirectory(prefix="hints", dir="/tmp") as directory,
        Daemon(Path(directory), GMPD_DAEMON__PROCS="1") as daemon,
    ):
        stopped = Path(directory, "stopped")
        client = daemon.client()
        for _ in range(12):
            client.submit(bytes, 1_500_000).result(60)
        assert warnings_of(client)[Code.LARGE_RESULTS].facts["results"] == 12
        slow = subprocess.Popen(
            [sys.executable, "-c", STOPPED, str(daemon.directory / "run"), str(stopped)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert slow.stdin is not None
        assert slow.stdout is not None
        assert slow.stdout.readline() == "ready\n"
        slow.stdin.write("\n")
        slow.stdin.flush()
        assert slow.stdout.readline() == "sent\n"
        wait_until(lambda: client.call("status")["queue"]["unfinished"] == 20, "all have come")
        stop(slow.pid)
        stopped.touch()
        found = wait_until(lambda: warnings_of(client).get(Code.UNREAD_RESULTS), "it is named")
        assert found is not None
        assert "stopped has not read results for" in found.what
        go_on(slow.pid)
        wait_until(lambda: Code.UNREAD_RESULTS not in warnings_of(client), "it reads again")
        assert slow.communicate("\n", timeout=60)[0] == "6000000\n"
        told = json.loads(daemon.cli("status", "--json").stdout)
        assert [each["code"] for each in told["warnings"]] == ["large_results"]
        assert "results of 1.5 MB" in daemon.cli("status").stdout
