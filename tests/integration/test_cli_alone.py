"""The command line where no daemon runs, and where the settings are broken."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gmpd.cli.exits import Exit
from tests.shell import Shell
from tests.support import wait_until


@pytest.fixture
def bare(short_tmp: Path) -> Shell:
    (short_tmp / "words.py").write_text(
        "def shout(text):\n    print('said', text)\n    return text.upper()\n"
    )
    return Shell(short_tmp)


@pytest.mark.parametrize(
    ("words", "stdin", "out"),
    [
        (("submit", "words:shout", "hi"), "", "HI\n"),
        (("map", "words:shout"), "a\nb\n", "A\nB\n"),
        (("run", "--", "echo", "hi"), "", "hi\n"),
    ],
)
def test_a_command_that_starts_jobs_starts_a_private_daemon_and_says_so(
    bare: Shell, words: tuple[str, ...], stdin: str, out: str
) -> None:
    done = bare(*words, stdin=stdin)
    assert (done.returncode, done.stdout) == (0, out), done.stderr
    assert done.stderr.count("started a private daemon (pid ") == 1
    assert str(bare.directory / "run") in done.stderr
    assert done.stderr.count("said") == out.count("\n") * ("words:shout" in words)


def test_a_private_daemon_can_be_forbidden_and_its_line_hidden(bare: Shell) -> None:
    bare.env["GMPD_CLIENT__ANNOUNCE"] = "false"
    quiet = bare("run", "--", "true")
    assert (quiet.returncode, quiet.stdout, quiet.stderr) == (0, "", "")
    bare.env["GMPD_CLIENT__AUTOSTART"] = "false"
    refused = bare("run", "--", "true")
    assert refused.returncode == Exit.UNREACHABLE
    assert "no daemon in" in refused.stderr


def test_a_broken_settings_file_keeps_nobody_from_the_daemon(bare: Shell) -> None:
    up = bare("up", "--procs", "1")
    assert up.returncode == 0, up.stderr
    (bare.directory / "gmpd.toml").write_text("[limits\n")
    try:
        for words in (("status",), ("health",), ("stacks",)):
            done = bare(*words)
            assert done.returncode == 0, done.stderr
            assert "gmpd.toml: not TOML" in done.stderr
        refused = bare("submit", "words:shout", "x")  # it would start work with other settings
        assert refused.returncode == Exit.CONFIG
        assert "gmpd.toml: not TOML" in refused.stderr
    finally:
        down = bare("down")
    assert (down.returncode, "gmpd is down" in down.stderr) == (0, True), down.stderr


HOLD = """
import sys, gmpd
client = gmpd.Client()
client.submit(abs, -1).result()
print(client._daemon.pid, flush=True)
sys.stdin.read()
"""


def test_a_private_daemon_is_listed_and_can_be_looked_at(bare: Shell) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD], env=bare.env, cwd=bare.directory, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    ) as program:  # fmt: skip
        assert program.stdout is not None
        pid = int(program.stdout.readline())
        listed = {each["pid"]: each for each in json.loads(bare("ls", "--json").stdout)}
        assert listed[pid]["owner_pid"] == program.pid
        line = next(row for row in bare("ls").stdout.splitlines() if row.startswith(f"{pid} "))
        assert f"pid {program.pid} alone (" in line
        missing = bare("status")
        assert missing.returncode == Exit.UNREACHABLE
        assert "`gmpd ls` says where" in missing.stderr
        seen = bare("--runtime-dir", listed[pid]["directory"], "status")
        assert f"pid {pid}" in seen.stdout, seen.stderr
        program.communicate(timeout=30)
    wait_until(
        lambda: pid not in {each["pid"] for each in json.loads(bare("ls", "--json").stdout)},
        "the private daemon is gone from the list",
    )


def test_run_prints_what_its_command_writes_as_it_comes(bare: Shell) -> None:
    gate = bare.directory / "gate"
    os.mkfifo(gate)
    with bare.start(
        "run", "--", "sh", "-c", f"echo one; read x < {gate}; echo $x >&2; exit 4"
    ) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == "one\n"  # the command still waits
        gate.write_text("two\n")
        out, errors = run.communicate(timeout=30)
    assert (run.returncode, out, errors.splitlines()[-1]) == (4, "", "two"), errors


def test_run_hands_on_large_output_whole_and_ends_with_its_reader(bare: Shell) -> None:
    whole = bare("run", "--", "seq", "200000")
    assert whole.stdout.split() == [str(n) for n in range(1, 200_001)]
    mark = bare.directory / "pid"
    with bare.start("run", "--", "sh", "-c", f"echo $$ > {mark}; exec yes") as run:
        assert run.stdout is not None
        assert run.stdout.readline() == "y\n"
        run.stdout.close()  # as `| head` does
        assert run.wait(30) == Exit.PIPE
    wait_until(lambda: not Path(f"/proc/{mark.read_text().strip()}").exists(), "yes is ended")


@pytest.mark.parametrize("command", ["up", "serve"])
def test_a_full_disk_keeps_a_daemon_from_starting_in_words(bare: Shell, command: str) -> None:
    done = bare.limited("-f 0", command)
    assert done.returncode == Exit.CONFIG
    assert "cannot be written (File too large): make room there" in done.stderr
    assert "a bug in gmpd" not in done.stderr
    assert bare("status").returncode == Exit.UNREACHABLE


def test_a_module_that_is_missing_keeps_up_from_starting_in_words(bare: Shell) -> None:
    done = bare("up", "--import", "nosuch")
    assert done.returncode == Exit.CONFIG
    assert done.stderr.startswith(
        "error: the daemon could not start:\n  error: no worker can start: import of nosuch failed:"
        " ModuleNotFoundError: No module named 'nosuch'"
    )
    assert str(bare.directory / "state" / "gmpd.log") in done.stderr


def test_doctor_finds_what_keeps_a_daemon_from_starting(bare: Shell) -> None:
    bare.env["GMPD_DAEMON__IMPORTS"] = "words,nosuch"
    done = bare.limited("-f 0", "doctor")
    assert done.returncode == Exit.CONFIG
    bad = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("bad ")]
    assert bad == ["state", "imports"]
    (bare.directory / "run").mkdir(mode=0o700)
    assert "bad  runtime dir" in bare.limited("-f 0", "doctor").stdout
    (bare.directory / "gmpd.toml").write_text("[limits]\nqueue_jobs = 'many'\n")
    broken = bare("doctor")
    assert broken.returncode == Exit.CONFIG
    assert "gmpd.toml:2" in broken.stdout


def test_doctor_asks_a_daemon_how_it_is(bare: Shell) -> None:
    assert bare("up", "--procs", "1").returncode == 0
    try:
        assert ", running\n" in bare("doctor").stdout
    finally:
        assert bare("down").returncode == 0


@pytest.mark.skipif(not hasattr(sys, "remote_exec"), reason="sys.remote_exec came with Python 3.14")
def test_stacks_of_a_worker_that_does_not_answer_are_read_from_outside(bare: Shell) -> None:
    (bare.directory / "busy.py").write_text(
        "import pathlib, time\n"
        "async def compute(path):\n"
        "    pathlib.Path(path).touch()\n"
        "    end = time.monotonic() + 60\n"
        "    while time.monotonic() < end: pass\n"
    )
    assert bare("up", "--procs", "1").returncode == 0
    began = bare.directory / "began"
    try:
        with bare.start("submit", "busy:compute", str(began)) as submit:
            wait_until(began.exists, "the coroutine computes", timeout=30)
            done = bare("stacks", "--timeout", "3")
            assert done.returncode == Exit.TIMEOUT, done.stderr
            assert "did not answer" in done.stderr
            assert "read from outside" in done.stdout
            assert f'{bare.directory / "busy.py"}", line 5 in compute' in done.stdout
            assert bare("down", "--now").returncode == 0
            submit.communicate(timeout=30)
    finally:
        bare("down", "--now")
