"""A private daemon: what it looks up, what it says, and that it leaves nothing, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gmpd.client.private import PrivateDaemon
from gmpd.config import Config
from gmpd.errors import DaemonUnreachable
from tests.support import wait_until

pytestmark = pytest.mark.usefixtures("no_daemon")

OPEN = """
import sys, time
import gmpd
client = gmpd.Client()
print(client.endpoint, client._daemon.pid, flush=True)
{then}
"""


def program(place: Path, text: str, cwd: Path | None = None) -> subprocess.Popen[str]:
    """A script of its own, as a user would start it."""
    script = place / "program.py"
    script.write_text(text)
    return subprocess.Popen(
        [sys.executable, str(script)], cwd=cwd or place, text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def directory_of(line: str) -> Path:
    """Where the daemon of a client with this endpoint lives."""
    return Path(line.split()[0].removeprefix("ipc://")).parent


ASYNC = """
import asyncio, gmpd
async def main():
    async with gmpd.AsyncClient() as client:
        print(await client.submit(abs, -1))
asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("import gmpd\nwith gmpd.Client() as c: print(c.submit(abs, -1).result())\n", 1),
        ("import gmpd\nwith gmpd.Executor(1) as e: print(e.submit(abs, -1).result())\n", 0),
        ("import sys\nsys.stderr = None\nimport gmpd\nwith gmpd.Client(): print(1)\n", 0),
        (ASYNC, 1),
    ],
    ids=["Client", "Executor", "no stderr", "AsyncClient"],
)
def test_a_private_daemon_is_announced_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, lines: int
) -> None:
    """An Executor has a daemon of its own by contract: that is no news."""
    monkeypatch.delenv("GMPD_CLIENT__ANNOUNCE")
    with program(tmp_path, text) as run:
        out, errors = run.communicate(timeout=30)
    assert (run.returncode, out) == (0, "1\n"), errors
    assert errors.count("\n") == errors.count("started a private daemon (pid ") == lines, errors


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_nothing_is_left_of_a_program_that_is_killed(tmp_path: Path, number: int) -> None:
    with program(tmp_path, OPEN.format(then="time.sleep(100)")) as run:
        assert run.stdout is not None
        directory = directory_of(run.stdout.readline())
        assert directory.is_dir()
        run.send_signal(number)
        run.wait(20)
        wait_until(lambda: not directory.exists(), "the directory is gone", timeout=20)
        assert run.communicate()[1] == ""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_nothing_is_left_of_a_daemon_that_is_ended(tmp_path: Path, number: int) -> None:
    with program(tmp_path, OPEN.format(then="sys.stdin.read(); time.sleep(100)")) as run:
        assert run.stdout is not None
        line = run.stdout.readline()
        os.kill(int(line.split()[1]), number)
        wait_until(lambda: not directory_of(line).exists(), "the directory is gone", timeout=20)
        run.kill()


def test_nothing_is_left_of_a_client_that_is_never_closed(tmp_path: Path) -> None:
    text = (
        "import asyncio, gmpd, math\n"
        "async def main():\n"
        "    client = await gmpd.AsyncClient().connect()\n"
        "    print(client.endpoint, flush=True)\n"
        "    assert await client.submit(math.sqrt, 4) == 2\n"
        "asyncio.run(main())\n"
    )
    with program(tmp_path, text) as run:
        out, errors = run.communicate(timeout=30)
    assert run.returncode == 0, errors
    wait_until(lambda: not directory_of(out).exists(), "the directory is gone", timeout=20)


def test_a_program_that_ends_while_its_daemon_starts_hears_nothing_of_it(tmp_path: Path) -> None:
    """The daemon finds its client gone, and ends without a word."""
    text = (
        "import os, gmpd\n"
        "from gmpd.client.private import PrivateDaemon\n"
        "def gone(daemon, wait_s):\n"
        "    print(daemon.directory, flush=True)\n"
        "    os._exit(0)\n"
        "PrivateDaemon._answer = gone\n"
        "gmpd.Client()\n"
    )
    with program(tmp_path, text) as run:
        out, errors = run.communicate(timeout=30)  # the end of stderr is the daemon's end
    assert errors == ""
    wait_until(lambda: not Path(out.strip()).exists(), "the directory is gone", timeout=20)


def test_a_lost_worker_that_was_caught_is_not_told_beside(tmp_path: Path) -> None:
    then = (
        "import os\n"
        "try: client.submit(os._exit, 3).result(30)\n"
        "except gmpd.errors.WorkerLost as error: print(error)\n"
        "client.close()\n"
    )
    with program(tmp_path, OPEN.format(then=then)) as run:
        out, errors = run.communicate(timeout=40)
    assert (run.returncode, errors) == (0, "")
    assert out.count("exit status 3") == 1


def test_who_asked_for_the_log_gets_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GMPD_DAEMON__LOG_LEVEL", "info")
    with program(tmp_path, OPEN.format(then="client.submit(abs, -1).result(30)")) as run:
        _, errors = run.communicate(timeout=40)
    assert "is ready, epoch 1" in errors


def test_modules_that_lie_about_are_no_part_of_the_daemon(tmp_path: Path) -> None:
    """A file named as one of the standard library, and another gmpd, in the current directory; a
    module of the user's beside the script is found."""
    cwd, code = tmp_path / "cwd", tmp_path / "code"
    (cwd / "gmpd").mkdir(parents=True)
    code.mkdir()
    for name in ("random.py", "logging.py", "msgpack.py", "gmpd/__init__.py"):
        (cwd / name).write_text("raise SystemExit('a stray module was imported')\n")
    (code / "mine.py").write_text("def double(x): return 2 * x\n")
    then = "import mine; print(client.submit(mine.double, 4).result(30)); client.close()"
    with program(code, OPEN.format(then=then), cwd) as run:
        out, errors = run.communicate(timeout=40)
    assert (run.returncode, errors) == (0, ""), errors
    assert out.splitlines()[1] == "8"


def test_a_daemon_that_cannot_start_is_said_with_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\ncat > /dev/null &\necho no such library\nexit 3\n")
    broken.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(broken))
    with pytest.raises(DaemonUnreachable) as raised:
        PrivateDaemon(Config.load())
    text = str(raised.value)
    assert "exit status 3" in text
    assert "'no such library'" in text
    assert "30 s" not in text
