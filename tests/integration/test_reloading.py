"""Reloads of a running daemon, by SIGHUP and `gmpd reload`, and `gmpd serve --watch`."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import gmpd
from gmpd import rundir
from gmpd.errors import DaemonUnreachable
from gmpd.protocol import Outcome
from tests.rawclient import RawClient
from tests.support import surroundings, wait_until

ROOT = Path(__file__).parents[2]


class Daemon:
    """`gmpd serve` in a directory with the modules of a project."""

    def __init__(self, directory: Path, *flags: str) -> None:
        self.directory = directory
        self.log = directory / "log"
        self.env = {
            **surroundings(),
            "GMPD_RUNTIME_DIR": str(directory / "run"),
            "GMPD_STATE_DIR": str(directory / "state"),
            "GMPD_CONFIG": str(directory / "gmpd.toml"),
            "GMPD_HTTP__ENABLED": "false",
            "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}:{directory}",
        }
        self.settings()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gmpd.cli", "serve", *flags], env=self.env, cwd=directory,
                stdout=subprocess.DEVNULL, stderr=log,
            )  # fmt: skip
        client = wait_until(self._connected, "it takes clients", timeout=60)
        assert client is not None
        self.client = client

    def settings(self, procs: int = 2, more: str = "") -> None:
        (self.directory / "gmpd.toml").write_text(f"[daemon]\nprocs = {procs}\n{more}\n")

    def _connected(self) -> RawClient | None:
        assert self.process.poll() is None, self.log.read_text()
        try:
            found = rundir.read_discovery(str(self.directory / "run"))
        except DaemonUnreachable:
            return None
        return RawClient(found.endpoints["client"])

    def module(self, text: str, name: str = "app") -> None:
        """As an editor saves it: beside, and then renamed."""
        beside = self.directory / f".{name}.py.swp"
        beside.write_text(text)
        beside.rename(self.directory / f"{name}.py")

    def status(self) -> dict[str, Any]:
        answer: dict[str, Any] = self.client.call("status")
        return answer

    def pids(self) -> list[int | None]:
        return [each["pid"] for each in self.status()["ps"]]

    def run(self, name: str, *args: Any) -> tuple[Outcome, Any]:
        ((outcome, value, _),) = self.client.outcomes(self.client.submit(name, args))
        return outcome, value

    def cli(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "gmpd.cli", *words], env=self.env, cwd=self.directory,
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip

    def close(self) -> None:
        self.client.close()
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(60)


Serve = Callable[..., Daemon]


@pytest.fixture
def serve(short_tmp: Path) -> Iterator[Serve]:
    started: list[Daemon] = []

    def start(text: str = "def version(): return 1\n", *flags: str) -> Daemon:
        (short_tmp / "app.py").write_text(text)
        started.append(Daemon(short_tmp, *flags))
        return started[-1]

    yield start
    for daemon in started:
        daemon.close()


def test_a_hup_under_load_loses_no_job_and_every_worker_is_new(serve: Serve) -> None:
    daemon = serve()
    client, before = daemon.client, daemon.pids()
    seqs: list[int] = []

    def load() -> None:
        for name in ("jobs_recycled:nap", "jobs_recycled:rest"):
            seqs.extend(client.submit(name, (0.0,), (0.1,), (0.5,), (2.0,)))
        client.until(lambda: len(set(seqs) - client.done.keys()) < 30)

    load()
    daemon.process.send_signal(signal.SIGHUP)
    while not set(daemon.pids()).isdisjoint(before) or daemon.status()["recycling"]["reloading"]:
        load()
    load()
    ended = client.outcomes(seqs)
    assert {outcome for outcome, _, _ in ended} == {Outcome.OK}
    ran_in = {value for _, value, _ in ended}
    assert ran_in & set(before)
    assert ran_in - set(before)
    assert all(each["restarts"] == {"reload": 1} for each in daemon.status()["ps"])
    client.until(lambda: not daemon.status()["recycling"]["leaving"])
    assert daemon.process.poll() is None


def test_a_reload_runs_the_code_and_settings_of_now(serve: Serve) -> None:
    daemon = serve("def version(): return 1\n", "--import", "app")
    assert daemon.run("app:version") == (Outcome.OK, 1)
    daemon.module("def version(): return 'two'\n")
    daemon.settings(procs=3, more="[limits]\nsessions = 100\n[recycle]\njobs = 1_000\n")
    done = daemon.cli("reload")
    assert (done.returncode, done.stderr) == (0, "2 workers were replaced\n")
    assert daemon.run("app:version") == (Outcome.OK, "two")
    daemon.client.until(lambda: [each["up"] for each in daemon.status()["ps"]] == [1, 1, 1])
    log = daemon.log.read_text()
    assert "recycle.jobs = 1_000 from now on" in log
    assert "limits.sessions has changed: it needs a restart of the daemon" in log

    # Code that does not import, and settings that are wrong, change nothing.
    daemon.module("def version(: return 3\n")
    pids = daemon.pids()
    refused = daemon.cli("reload", "--json")
    assert refused.returncode == 6
    assert "import of app failed: SyntaxError" in json.loads(refused.stdout)["problem"]
    assert (daemon.run("app:version"), daemon.pids()) == ((Outcome.OK, "two"), pids)
    assert "SyntaxError" in daemon.status()["recycling"]["problem"]
    daemon.settings(procs=3, more="[recycle]\njobs = -1\n")
    wrong = daemon.cli("reload")
    assert wrong.returncode != 0
    assert "recycle.jobs" in wrong.stderr
    assert daemon.pids() == pids

    # The next one mends it; the log that was moved away is made again.
    daemon.settings(procs=3)
    daemon.module("def version(): return 4\n")
    daemon.log.rename(daemon.directory / "log.1")
    assert daemon.cli("reload").returncode == 0
    assert daemon.run("app:version") == (Outcome.OK, 4)
    assert "all workers are new" in daemon.log.read_text()


def test_blocked_jobs_are_tried_again_after_a_reload(serve: Serve) -> None:
    daemon = serve("def version(): return 1\n")
    with gmpd.Client(str(daemon.directory / "run")) as client:
        (daemon.directory / "later.py").write_text("def answer(): return 42\n")
        submitted = daemon.cli("submit", "--durable", "later:answer", "--json")
        assert submitted.returncode == 0, submitted.stderr
        client.job(json.loads(submitted.stdout)["job"]).result(60)

        (daemon.directory / "later.py").rename(daemon.directory / "away.py")
        assert daemon.cli("reload").returncode == 0
        submitted = daemon.cli("submit", "--durable", "later:answer", "--json")
        job = client.job(json.loads(submitted.stdout)["job"])
        wait_until(lambda: job.state == "blocked", "it is blocked", timeout=60)
        (daemon.directory / "away.py").rename(daemon.directory / "later.py")
        began = time.monotonic()
        assert daemon.cli("reload").returncode == 0
        assert job.result(60) == 42
        assert time.monotonic() - began < 55, "it was tried after its minute only"


def test_watched_workers_run_what_was_saved(serve: Serve, short_tmp: Path) -> None:
    gate = short_tmp / "gate"
    daemon = serve(
        "import asyncio, os\n"
        "def version(): return 1\n"
        "async def old(gate):\n"
        "    while not os.path.exists(gate): await asyncio.sleep(0.01)\n"
        "    return version()\n",
        "--watch",
    )
    client = daemon.client
    assert daemon.run("app:version") == (Outcome.OK, 1)
    running = client.submit("app:old", (str(gate),))
    client.until(lambda: set(running) <= client.running)
    time.sleep(0.5)  # that it is reported may take two beats; an editor takes longer

    def saved(text: str, times: int) -> None:
        daemon.module(text)
        told = "app.py has changed: all workers are replaced"
        client.until(lambda: daemon.log.read_text().count(told) == times)

    saved("def version(): return 2\n", 1)
    assert daemon.run("app:version") == (Outcome.OK, 2)
    client.until(lambda: len(daemon.status()["recycling"]["leaving"]) == 1)
    stacks = daemon.cli("stacks")
    assert stacks.returncode == 0, stacks.stderr
    (left,) = daemon.status()["recycling"]["leaving"]
    (dump,) = [each for each in stacks.stdout.split("\nP") if f"worker {left['pid']}," in each]
    assert "which leaves: 1 goroutine\n" in dump
    assert "app.py" in dump
    gate.touch()
    assert client.outcomes(running)[0][:2] == (Outcome.OK, 1)

    time.sleep(0.5)
    saved("def version(: return 3\n", 2)
    outcome, error = daemon.run("app:version")
    assert outcome is Outcome.ERROR
    assert "SyntaxError" in str(error)
    saved("def version(): return 4\n", 3)
    assert daemon.run("app:version") == (Outcome.OK, 4)
    (short_tmp / "other.py").write_text("x = 1\n")  # not imported
    (short_tmp / "app.py~").write_text("x = 1\n")
    pids = daemon.pids()
    time.sleep(1)
    assert daemon.pids() == pids


def test_watched_imports_that_fail_are_mended_by_the_next_save(serve: Serve) -> None:
    daemon = serve("def version(): return 1\n", "--watch", "--import", "app")
    assert daemon.run("app:version") == (Outcome.OK, 1)
    daemon.module("raise ValueError('not yet')\n")
    daemon.client.until(lambda: bool(daemon.status()["stalled"]))
    assert "import of app failed: ValueError: not yet" in daemon.status()["stalled"]
    ((outcome, _, details),) = daemon.client.outcomes(daemon.client.submit("app:version", ()))
    assert (outcome, "not yet" in details["text"]) == (Outcome.LOST, True)
    daemon.module("def version(): return 2\n")
    daemon.client.until(lambda: not daemon.status()["stalled"])
    assert daemon.run("app:version") == (Outcome.OK, 2)


def test_a_terminal_that_closes_drains_the_daemon(short_tmp: Path) -> None:
    pid, terminal = pty.fork()
    if not pid:
        os.environ |= {
            "GMPD_RUNTIME_DIR": str(short_tmp / "run"),
            "GMPD_STATE_DIR": str(short_tmp / "state"),
            "GMPD_HTTP__ENABLED": "false",
            "PYTHONPATH": str(ROOT),
        }
        words = [sys.executable, "-m", "gmpd.cli", "serve", "--procs", "1"]
        os.execv(sys.executable, words)
    said = b""
    while b"serves on 1 Ps" not in said:
        said += os.read(terminal, 1000)
    os.close(terminal)
    wait_until(lambda: os.waitpid(pid, os.WNOHANG)[0] == pid, "it ends", timeout=60)
