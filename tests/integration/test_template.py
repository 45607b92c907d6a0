"""Bridges fork from the process that has imported the engine (gmpd.cluster.template): whose
children they are, how they end, and how hosts join when it is gone, silent, or forks nothing."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

import gmpd
from tests import jobs_hosts as jobs
from tests.hosts_of_tests import Hosts, await_hosts, begun_at, daemon, daemon_and_host, rows
from tests.support import go_on, stop, wait_until

#: No host is lost here, however busy the machine is.
LEASE = "30s"


@pytest.fixture
def hosts(short_tmp: Path) -> Iterator[Hosts]:
    made = Hosts(short_tmp)
    yield made
    made.close()


@pytest.fixture
def client(hosts: Hosts) -> Iterator[gmpd.Client]:
    """One P here, and host north."""
    hosts.start("north")
    with daemon(hosts.directory, lease=LEASE) as target, gmpd.Client(target=target) as made:
        await_hosts(made, "north")
        yield made


def programs(client: gmpd.Client) -> dict[int, str]:
    """The children of the coordinator, by their command lines."""
    parent = client.call("status")["pid"]
    found: dict[int, str] = {}
    for task in Path(f"/proc/{parent}/task").iterdir():
        for pid in map(int, (task / "children").read_text().split()):
            found[pid] = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    return found


def bridge_of(client: gmpd.Client, name: str) -> int:
    return int(rows(client)[name]["pid"])


def template_of(client: gmpd.Client) -> int:
    bridges = {row["pid"] for row in rows(client).values()}
    (pid,) = (
        pid
        for pid, words in programs(client).items()
        if "gmpd.cluster.template" in words and pid not in bridges
    )
    return pid


def test_a_bridge_is_a_fork_whose_parent_is_the_coordinator(
    client: gmpd.Client, hosts: Hosts
) -> None:
    hosts.start("south")  # by now the template has imported the engine
    await_hosts(client, "south")
    pid = bridge_of(client, "south")
    assert "gmpd.cluster.template" in programs(client)[pid]
    assert os.getpgid(pid) == pid
    assert "south" in set(client.map(jobs.where, [0.02] * 100, chunksize=1))
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: rows(client)["south"]["losses"] == 1, "its death is told")
    assert "SIGKILL" in rows(client)["south"]["loss"]
    await_hosts(client, "south")


def test_a_host_serves_on_when_the_template_dies_and_others_join(
    client: gmpd.Client, hosts: Hosts, tmp_path: Path
) -> None:
    hosts.start("south")
    await_hosts(client, "south")
    template, bridges = template_of(client), [bridge_of(client, n) for n in ("north", "south")]
    os.kill(template, signal.SIGKILL)
    hosts.start("late")
    await_hosts(client, "north", "south", "late")
    assert [bridge_of(client, n) for n in ("north", "south")] == bridges
    assert template_of(client) != template


def test_a_host_joins_while_the_template_is_silent(client: gmpd.Client, hosts: Hosts) -> None:
    """Its watcher is another process, so the host is known; the bridge is a fresh interpreter."""
    template = template_of(client)
    stop(template)
    hosts.start("late")
    await_hosts(client, "late")
    assert "gmpd.cluster.bridge" in programs(client)[bridge_of(client, "late")]
    go_on(template)
    assert "late" in set(client.map(jobs.where, [0.02] * 100, chunksize=1))
    hosts.start("later")
    await_hosts(client, "later")


@pytest.mark.parametrize(
    "engine", ["tests.loopback_engine:FreshEngine", "tests.threaded_engine:ThreadedEngine"]
)
def test_engines_that_do_not_fork_have_fresh_interpreters(hosts: Hosts, engine: str) -> None:
    hosts.start("north")
    with (
        daemon(hosts.directory, lease=LEASE, cluster__engine=engine) as target,
        gmpd.Client(target=target) as client,
    ):
        await_hosts(client, "north")
        hosts.start("south")
        await_hosts(client, "south")
        assert "gmpd.cluster.bridge" in programs(client)[bridge_of(client, "south")]
        assert "south" in set(client.map(jobs.where, [0.02] * 100, chunksize=1))


def test_hosts_that_join_together_serve(client: gmpd.Client, hosts: Hosts) -> None:
    names = [f"h{n}" for n in range(4)]
    for name in names:
        hosts.start(name, cores=1)
    await_hosts(client, *names)
    assert set(client.map(jobs.where, [0.03] * 300, chunksize=1)) >= set(names)


def test_a_host_that_leaves_at_once_leaves_no_process(hosts: Hosts) -> None:
    with daemon(hosts.directory, lease=LEASE) as target, gmpd.Client(target=target) as client:
        for n in range(3):
            hosts.start(f"h{n}")
            hosts.leave(f"h{n}")
        hosts.start("north")
        await_hosts(client, "north")
        bridge = bridge_of(client, "north")
        template = template_of(client)
        wait_until(
            lambda: (
                not [
                    pid
                    for pid, words in programs(client).items()
                    if "gmpd.cluster" in words and pid not in (bridge, template)
                ]
            ),
            "no other process of hosts is left",
        )


def test_no_process_is_left_of_a_daemon_that_was_killed(short_tmp: Path, tmp_path: Path) -> None:
    with daemon_and_host(short_tmp, LEASE) as (server, _):
        client = server.client()
        begun_at(client, tmp_path / "one")
        pids = [pid for pid, words in programs(client).items() if "gmpd.cluster" in words]
        assert len(pids) == 2
        children = [
            int(child)
            for pid in pids
            for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        ]
        assert len(children) == 1, "the watcher"
        os.kill(client.call("status")["pid"], signal.SIGKILL)
        wait_until(
            lambda: not [pid for pid in (*pids, *children) if Path(f"/proc/{pid}/exe").exists()],
            "they have ended",
        )
