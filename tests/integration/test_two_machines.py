"""The guide's walkthrough for clients of other machines, word by word, between two network
namespaces, which are two machines as far as sockets go; and the end of their network."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import wait_until

ROOT = Path(__file__).parents[2]
SECTION = (ROOT / "gmpd/GUIDE.md").read_text().partition("\n## From another machine\n")[2]
BLOCKS = re.findall(r"(?ms)^```(\w+)\n(.*?)^```$", SECTION.partition("\n## ")[0])

JOBS = """
import gmpd

@gmpd.job
def work(a, b):
    return a + b
"""


#: Submits once the network is cut.
CUT = """
import gmpd
from pkg.jobs import work
with gmpd.Client(key="alice.key") as client:
    print("connected", flush=True)
    input()
    print(client.submit(work, 1, 2).exception(60))
"""


def ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no network namespaces: ip {' '.join(words)}: {done.stderr.strip()}")


class Machine:
    """A network namespace, and a directory with a project in it."""

    def __init__(self, name: str, directory: Path, address: str) -> None:
        self.name, self.directory, self.address = name, directory, address
        (directory / "pkg").mkdir(parents=True)
        (directory / "run").mkdir(mode=0o700)
        (directory / "pkg/jobs.py").write_text(JOBS)
        command = directory / "gmpd"
        command.write_text(f'#!/bin/sh\nexec {sys.executable} -m gmpd.cli "$@"\n')
        command.chmod(0o755)
        self.env = {
            **os.environ,
            "PATH": f"{directory}:{os.environ['PATH']}",
            "PYTHONPATH": f"{ROOT}:{directory}",
            "GMPD_RUNTIME_DIR": str(directory / "run"),
            "GMPD_STATE_DIR": str(directory / "state"),
            "GMPD_HTTP__ENABLED": "false",
            "GMPD_DAEMON__PROCS": "1",
            "GMPD_CLIENT__LIVENESS": "2s",
        }

    def start(self, line: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["ip", "netns", "exec", self.name, "sh", "-c", f"exec env {line}"], env=self.env,
            cwd=self.directory, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def run(self, line: str) -> str:
        """Run a command; its output."""
        out, err = self.start(line).communicate(timeout=60)
        print(f"$ {line}\n{out}{err}")
        return out


@pytest.fixture
def machines(short_tmp: Path) -> Iterator[list[Machine]]:
    if os.geteuid() or shutil.which("ip") is None:
        pytest.skip("no network namespaces: they need root and `ip` (iproute2)")
    made = [
        Machine(f"gmpd{os.getpid()}{side}", short_tmp / side, address)
        for side, address in (("a", "192.0.2.7"), ("b", "192.0.2.8"))
    ]
    try:
        for machine in made:
            ip("netns", "add", machine.name)
        a, b = made
        peer = ("peer", "gmpd0", "netns", b.name)
        ip("link", "add", "gmpd0", "netns", a.name, "type", "veth", *peer)
        for machine in made:
            ip("-n", machine.name, "addr", "add", f"{machine.address}/24", "dev", "gmpd0")
            ip("-n", machine.name, "link", "set", "gmpd0", "up")
        yield made
    finally:
        for machine in made:
            subprocess.run(
                ["ip", "netns", "del", machine.name], stderr=subprocess.DEVNULL, check=False
            )


def commands(block: str) -> list[str]:
    return [line.removeprefix("$ ") for line in block.splitlines()]


def test_the_walkthrough_of_the_guide_until_the_network_is_cut(machines: list[Machine]) -> None:
    here, there = machines
    (_, serving), (_, program), (_, calling), *_ = BLOCKS
    *keys, serve = commands(serving)
    for line in keys:
        here.run(line)
    (here.directory / "alice.key").rename(there.directory / "alice.key")
    daemon = here.start(serve)
    try:
        assert daemon.stderr is not None
        served = "clients of other machines with a key: tcp://192.0.2.7:7411"
        assert any(served in line for line in daemon.stderr)
        result = "client.submit(work, 1, 2).result()"
        assert result in program
        (there.directory / "program.py").write_text(program.replace(result, f"print({result})"))
        assert there.run(f"{sys.executable} program.py") == "3\n"
        submit, listing = commands(calling)
        assert there.run(submit) == "3\n"
        assert there.run(f"{submit} --durable")
        wait_until(lambda: "pkg.jobs:work" in there.run(listing), "the job is listed")

        (there.directory / "cut.py").write_text(CUT)
        waiting = there.start(f"{sys.executable} cut.py")
        assert waiting.stdout is not None
        assert waiting.stdout.readline() == "connected\n"
        ip("-n", here.name, "link", "set", "gmpd0", "down")
        told, _ = waiting.communicate("go\n", timeout=60)
        assert "has not answered for client.liveness = 2 s: the network between is cut" in told
    finally:
        daemon.terminate()
        daemon.communicate(timeout=60)
