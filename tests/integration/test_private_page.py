"""The live page of a private daemon, for a program that asks, and for others beside it."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import gmpd
from gmpd.cli.exits import Exit
from tests.support import wait_until

#: A program with a private daemon that lives until its input ends.
HOLD = """
import sys, gmpd
client = gmpd.Client(name="nightly")
client.submit(abs, -1).result()
print(client._daemon.pid, client._daemon.directory, flush=True)
sys.stdin.read()
"""

Words = tuple[str, ...]


class Program:
    """It runs."""

    def __init__(self, text: str = HOLD) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", text], text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self.process.stdout is not None
        pid, self.directory = self.process.stdout.readline().split()
        self.daemon = int(pid)

    def end(self) -> None:
        self.process.communicate(timeout=60)


@pytest.fixture
def programs(no_daemon: None) -> Iterator[Callable[[], Program]]:
    started: list[Program] = []

    def start() -> Program:
        started.append(Program())
        return started[-1]

    yield start
    for each in started:
        if each.process.poll() is None:
            each.end()


def cli(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gmpd.cli", *words], env={**os.environ, **env},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def ask(
    url: str, path: str, method: str = "GET", body: str = "", **headers: str
) -> tuple[int, str]:
    connection = http.client.HTTPConnection(url.removeprefix("http://").strip("/\n"), timeout=10)
    try:
        connection.request(method, path, body or None, headers)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def gateways(daemon: int) -> list[int]:
    """The gateways that a daemon has started."""
    found = []
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            words = (status.parent / "cmdline").read_bytes()
            parent = status.read_text().partition("PPid:\t")[2].split()[0]
        except OSError:
            continue
        if int(parent) == daemon and b"gmpd.gateway" in words:
            found.append(int(status.parent.name))
    return found


def is_gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


@pytest.mark.parametrize("end", ["it ends", "it is killed", "its daemon is killed"])
def test_the_page_of_a_program_is_served_while_its_daemon_lives(
    programs: Callable[[], Program], end: str
) -> None:
    program = programs()
    assert gateways(program.daemon) == [], "nobody has asked"
    printed = cli("page", "--of", str(program.process.pid), "--print")
    assert printed.returncode == Exit.OK, printed.stderr
    url = printed.stdout
    assert cli("page", "--of", str(program.daemon), "--print").stdout == url, "one for all"
    status, document = ask(url, "/")
    assert status == 200
    assert "<script" in document
    seen = json.loads(ask(url, "/api/v1/snapshot")[1])["snapshot"]
    assert (seen["pid"], seen["jobs"]["finished"]) == (program.daemon, {"ok": 1})
    (gateway,) = gateways(program.daemon)
    match end:
        case "it ends":
            program.end()
        case "it is killed":
            program.process.kill()
            program.process.communicate(timeout=60)
        case _:
            os.kill(program.daemon, signal.SIGKILL)
    wait_until(lambda: is_gone(gateway), "its gateway ends")
    if end != "its daemon is killed":
        wait_until(lambda: is_gone(program.daemon), "its daemon ends")
        assert not Path(program.directory).exists()
    with pytest.raises(ConnectionRefusedError):
        ask(url, "/")


def test_two_programs_have_a_page_each_by_the_same_rules_as_any(
    programs: Callable[[], Program], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Settings of the daemon of all programs open no private one: neither its address, nor the
    right to change things there."""
    monkeypatch.setenv("GMPD_HTTP__LISTEN", "0.0.0.0:7412")
    monkeypatch.setenv("GMPD_HTTP__ALLOW", "submit,cancel")
    urls = []
    for program in [programs(), programs()]:
        told = cli("page", "--of", str(program.process.pid), "--json")
        urls.append(json.loads(told.stdout)["url"])
        assert json.loads(ask(urls[-1], "/api/v1/snapshot")[1])["snapshot"]["pid"] == program.daemon
    assert len(set(urls)) == 2
    for url in urls:
        assert url.startswith("http://127.0.0.1:")
        assert ask(url, "/", Host="evil.example")[0] == 421
        assert ask(url, "/api/v1/snapshot", Origin="http://evil.example")[0] == 403
        wanted = json.dumps({"function": "builtins:abs", "args": [1]})
        kind = {"Content-Type": "application/json"}
        status, answer = ask(url, "/api/v1/jobs", "POST", wanted, **kind)
        assert status == 403, answer
        assert "http.allow" in answer


def test_commands_look_at_a_private_daemon_by_pid(programs: Callable[[], Program]) -> None:
    program = programs()
    pid = str(program.process.pid)
    assert f"pid {program.daemon}, up" in cli("status", "--of", pid).stdout
    assert f"pid {program.daemon}, up" in cli("--of", pid, "status").stdout
    assert len(json.loads(cli("top", "--json", "--of", pid).stdout)["ps"]) >= 1
    rows = {each["pid"]: each for each in json.loads(cli("ls", "--json").stdout)}
    assert rows[program.daemon]["http"] is None


def test_a_pid_that_is_no_daemon_gets_a_sentence(programs: Callable[[], Program]) -> None:
    mine = cli("page", "--of", str(os.getpid()))
    assert mine.returncode == Exit.UNREACHABLE
    assert f"pid {os.getpid()} is no daemon of yours, nor a program that has a private one" in (
        " ".join(mine.stderr.split())
    )
    with subprocess.Popen(["true"]) as ended:
        ended.wait()
    none = cli("status", "--of", str(ended.pid))
    assert none.returncode == Exit.UNREACHABLE
    assert "is no process of this machine" in none.stderr
    assert cli("top", "--of", "nightly").returncode == Exit.USAGE


def test_a_program_with_two_daemons_has_to_name_one() -> None:
    with gmpd.Executor(1) as one, gmpd.Executor(1) as two:
        assert [each.submit(abs, -1).result() for each in (one, two)] == [1, 1]
        told = cli("status", "--of", str(os.getpid()))
        assert told.returncode == Exit.UNREACHABLE
        assert "has 2 daemons: name one of" in " ".join(told.stderr.split())


def test_where_no_gateway_is_wanted_there_is_none(
    programs: Callable[[], Program], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GMPD_HTTP__ENABLED", "false")
    program = programs()
    told = cli("page", "--of", str(program.process.pid))
    assert told.returncode == Exit.REJECTED
    assert "http.enabled is false" in told.stderr
    assert gateways(program.daemon) == []


@pytest.mark.usefixtures("no_daemon")
def test_a_client_knows_the_page_of_its_private_daemon() -> None:
    with gmpd.Client() as client:
        url = client.page_url
        assert url is not None
        assert ask(url, "/readyz") == (200, "ready: running\n")
        assert client.page_url == url
        daemon = client._daemon
        assert daemon is not None
        (gateway,) = gateways(daemon.pid)
        os.kill(gateway, signal.SIGKILL)
        wait_until(lambda: is_gone(gateway), "it is gone")
        again = wait_until(lambda: answering(client), "another one serves")
        assert gateways(daemon.pid) != [gateway], again
    assert client.page_url is None


def answering(client: gmpd.Client) -> str | None:
    url = client.page_url
    try:
        return url if url is not None and ask(url, "/readyz")[0] == 200 else None
    except OSError:  # it was the one that is gone, which the daemon does not know yet
        return None


@pytest.mark.usefixtures("no_daemon")
def test_an_asyncio_client_has_it_once_it_serves() -> None:
    async def main() -> Any:
        async with gmpd.AsyncClient() as client:
            assert not client.page_url
            async with asyncio.timeout(60):
                while (url := client.page_url) is None:
                    await asyncio.sleep(0.01)
            return await asyncio.to_thread(ask, url, "/healthz")

    assert asyncio.run(main()) == (200, "ok\n")
