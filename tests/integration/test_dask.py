"""Hosts of a Dask cluster, by Dask's own commands. Skipped where ``distributed`` is missing."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import gmpd
from gmpd.client.discovery import Target
from gmpd.client.private import PrivateDaemon
from gmpd.config import Config
from gmpd.errors import ConfigError, WorkerLost
from tests import jobs_hosts as jobs
from tests.dask_cluster import DaskCluster
from tests.hosts_of_tests import begun_at, host_of, rows
from tests.support import wait_until

pytest.importorskip("distributed", reason="gmpd[dask] is not installed")

ROOT = Path(__file__).parents[2]
HANG_S = 40.0


@pytest.fixture
def cluster(short_tmp: Path) -> Iterator[DaskCluster]:
    made = DaskCluster(short_tmp)
    yield made
    made.close()


@pytest.fixture
def client(cluster: DaskCluster) -> Iterator[gmpd.Client]:
    """One P here, two hosts with two cores each."""
    cluster.add("north", 2)
    cluster.add("south", 3)
    flags = {
        "daemon.procs": 1,
        "daemon.log_level": "warning",
        "cluster.engine": "dask",
        "cluster.address": cluster.address,
        "cluster.lease": "3s",
    }
    config = Config.load(flags=flags, env={}, files=())
    private = PrivateDaemon(config, modules=[str(ROOT)])
    with gmpd.Client(target=Target.of(private.endpoint, config)) as made:
        await_hosts(made, 2)
        yield made
    private.close()


def serving(client: gmpd.Client) -> list[str]:
    return [name for name, row in rows(client).items() if row["state"] in ("idle", "running")]


def await_hosts(client: gmpd.Client, n: int) -> None:
    wait_until(lambda: len(serving(client)) == n, f"{n} hosts serve", timeout=60)


def test_jobs_run_on_all_hosts_and_a_killed_one_is_lost(
    client: gmpd.Client, cluster: DaskCluster, tmp_path: Path
) -> None:
    """One story: to start a cluster takes seconds."""
    assert {row["cores"] for row in rows(client).values()} == {2}
    numbers = [i for i in range(5000) if i % 89]
    futures = [client.submit(jobs.mixed, i) for i in numbers]
    assert [future.result(HANG_S) for future in futures] == [jobs.mixed(i) for i in numbers]
    places = Counter(client.map(jobs.where, [0.01] * 400, chunksize=1))
    assert set(places) == {"", "north", "south"}
    future = begun_at(client, tmp_path / "one")
    name = host_of(tmp_path / "one")
    cluster.workers[name].kill()
    with pytest.raises(WorkerLost, match=r"of host tcp://127\.0\.0\.\d:\d+ was lost"):
        future.result(HANG_S)
    assert name not in set(client.map(jobs.where, [0.01] * 60, chunksize=1))
    cluster.add("third", 4)
    await_hosts(client, 2)
    assert "third" in set(client.map(jobs.where, [0.02] * 200, chunksize=1))


def test_a_host_that_dask_retires_is_lost_as_any_other(
    client: gmpd.Client, cluster: DaskCluster, tmp_path: Path
) -> None:
    """Dask ends the worker at once, with exchanges on their way."""
    future = begun_at(client, tmp_path / "one")
    retire = (
        f"from distributed import Client; Client({cluster.address!r}).retire_workers(names=[%r])"
    )
    done = subprocess.run(
        [sys.executable, "-c", retire % host_of(tmp_path / "one")],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    with pytest.raises(WorkerLost, match=r"of host tcp://127\.0\.0\.\d:\d+ was lost") as lost:
        future.result(HANG_S)
    assert "exit status" not in str(lost.value), "its bridge said why"


def test_a_client_names_its_cluster(cluster: DaskCluster, tmp_path: Path) -> None:
    """As a user writes it, in a script of its own."""
    cluster.add("north", 2)
    script = tmp_path / "program.py"
    script.write_text(
        "import os, time, gmpd\n"
        "def place(x):\n"
        "    time.sleep(0.01)\n"
        f"    return os.environ.get({jobs.NAME!r}, 'here')\n"
        f"with gmpd.Client(cluster='dask://{cluster.address.removeprefix('tcp://')}') as c:\n"
        "    until = time.time() + 40\n"
        "    found = set()\n"
        "    while 'north' not in found and time.time() < until:\n"
        "        found |= set(c.map(place, range(40), chunksize=1))\n"
        "    print(sorted(found))\n"
    )
    run = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=80)
    assert run.stdout == "['here', 'north']\n", run.stderr


def test_an_address_where_nothing_answers(short_tmp: Path) -> None:
    flags = {
        "daemon.procs": 1,
        "daemon.log_level": "error",
        "cluster.engine": "dask",
        "cluster.address": "tcp://127.0.0.1:1",
        "cluster.timeout": "1s",
    }
    config = Config.load(flags=flags, env={}, files=())
    private = PrivateDaemon(config)
    try:
        with gmpd.Client(target=Target.of(private.endpoint, config)) as client:
            assert client.submit(abs, -1).result(HANG_S) == 1
            problem = wait_until(lambda: client.call("cluster")["problem"], "it is missed")
            assert "no Dask scheduler answers at tcp://127.0.0.1:1" in problem
    finally:
        private.close()


def test_a_cluster_is_for_a_private_daemon() -> None:
    with pytest.raises(ConfigError, match="gmpd cluster up dask://head:8786"):
        gmpd.Client("/tmp/somewhere", cluster="dask://head:8786")
    with pytest.raises(ConfigError, match="names no engine"):
        gmpd.Client(cluster="head:")


def test_exchanges_need_no_scheduler_once_a_host_serves(
    client: gmpd.Client, cluster: DaskCluster
) -> None:
    """They call the worker; and to Dask it stays in use, so it is not scaled down."""
    from distributed import Client

    with Client(cluster.address, set_as_default=False) as dask:

        def at_hosts() -> list[str]:
            return [str(key) for keys in dask.processing().values() for key in keys]

        def tasks() -> int:
            return len(dask.run_on_scheduler(lambda dask_scheduler: list(dask_scheduler.tasks)))

        places: set[str] = set()

        def settled() -> bool:
            """Nothing but the tasks that stay, one for each host."""
            places.update(client.map(jobs.where, [0.01] * 40, chunksize=1))
            return len(at_hosts()) == tasks() == 2

        wait_until(settled, "hosts are called directly", timeout=30)
        stay = sorted(at_hosts())
        places.clear()
        wait_until(lambda: settled() and places >= {"north", "south"}, "both get work")
        assert sorted(at_hosts()) == stay
