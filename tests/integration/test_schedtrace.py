"""Go's scheduler trace of a daemon, by its command and by its environment, and of a program."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gmpd.cli.exits import Exit
from tests.shell import Shell, shell_daemon
from tests.support import wait_until
from tests.unit.test_schedtrace import HEADER, LINE, G, M, P

JOBS = """
import gmpd

async def parked(n):
    ch = gmpd.Chan()
    for _ in range(n):
        gmpd.go(ch.recv)
    await ch.recv()
"""


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """A daemon of two Ps that prints its trace into its log."""
    directory = tmp_path_factory.mktemp("t")
    with shell_daemon(directory, JOBS, GMPD_SCHEDTRACE="50") as shell:
        yield shell


def test_serve_prints_lines_at_the_interval_that_the_environment_names(traced: Shell) -> None:
    def lines() -> list[str]:
        logs = (traced.directory / "state").rglob("*.log")
        found = [text for log in logs for text in log.read_text().splitlines()]
        return [text for text in found if text.startswith("SCHED ")]

    seen = wait_until(lambda: found if len(found := lines()) > 3 else None, "four lines are there")
    assert seen is not None
    assert " gomaxprocs=2 " in seen[0]
    assert all(LINE.match(text) for text in seen)


def test_the_command_prints_one_line_or_as_many_as_it_is_told(traced: Shell) -> None:
    once = traced("schedtrace")
    assert once.returncode == 0, once.stderr
    assert LINE.match(once.stdout.rstrip("\n"))
    many = traced("schedtrace", "10", "--count", "3")
    assert [bool(LINE.match(text)) for text in many.stdout.splitlines()] == [True] * 3
    told = json.loads(traced("schedtrace", "--json").stdout)
    assert told["gomaxprocs"] == len(told["queues"]) == 2
    wrong = traced("schedtrace", "0")
    assert wrong.returncode == Exit.USAGE


def test_without_a_count_it_ends_by_ctrl_c(traced: Shell) -> None:
    running = traced.start("schedtrace", "10")
    assert running.stdout is not None
    assert LINE.match(running.stdout.readline().rstrip("\n"))
    running.send_signal(signal.SIGINT)
    _, said = running.communicate(timeout=30)
    assert (running.returncode, "Traceback" in said) == (Exit.INTERRUPTED, False)


def test_details_are_go_s_lines_of_each_p_m_and_g(traced: Shell) -> None:
    waiting = traced.start("submit", "load:parked", "20", "--wait")
    try:

        def look() -> list[str] | None:
            done = traced("schedtrace", "--detail")
            assert done.returncode == 0, done.stderr
            return done.stdout.splitlines() if done.stdout.count("chan receive") >= 21 else None

        lines = wait_until(look, "the Gs are among the details")
    finally:
        waiting.kill()
        waiting.communicate()
    assert lines is not None
    first, *rest = lines
    assert HEADER.match(first)
    assert sum(bool(P.match(text)) for text in rest) == 2
    assert all(P.match(text) or M.match(text) or G.match(text) for text in rest)


PROGRAM = """
import gmpd

async def main():
    for _ in range(20):
        await gmpd.sleep(0.02)
    print("done")

gmpd.run(main())
"""


@pytest.mark.parametrize(("value", "status"), [("10", 0), ("often", 1)])
def test_a_program_without_a_daemon_prints_them_too(
    tmp_path: Path, value: str, status: int
) -> None:
    script = tmp_path / "program.py"
    script.write_text(PROGRAM)
    env = {**os.environ, "GMPD_SCHEDTRACE": value}
    done = subprocess.run(
        [sys.executable, script], env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == status, done.stderr
    if status:
        assert "GMPD_SCHEDTRACE" in done.stderr
        return
    assert done.stdout == "done\n"
    lines = done.stderr.splitlines()
    assert " gomaxprocs=1 " in lines[0]
    assert len(lines) > 3
    assert all(LINE.match(text) for text in lines)
