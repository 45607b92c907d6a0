"""Hosts of a Dask and of a Ray cluster, by the commands of each. An engine that is not installed is
skipped: `pip install 'gmpd[ray]'` brings Ray, which CI leaves out (200 MB, and half a minute for
each cluster on two cores)."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import gmpd
from gmpd.client.discovery import Target
from gmpd.client.private import PrivateDaemon
from gmpd.config import Config
from gmpd.errors import ConfigError, WorkerLost
from tests import jobs_hosts as jobs
from tests.engines_of_tests import (
    HANG_S,
    Cluster,
    DaskHosts,
    await_hosts,
    client_of_two,
    client_with,
    places_of,
    serving,
)
from tests.hosts_of_tests import begun_at, host_of, rows
from tests.ray_cluster import RayCluster
from tests.support import wait_until

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.timeout(300)


def needs(library: str, extra: str) -> pytest.MarkDecorator:
    missing = find_spec(library) is None
    return pytest.mark.skipif(missing, reason=f"gmpd[{extra}] is not installed")


DASK = pytest.param(DaskHosts, id="dask", marks=needs("distributed", "dask"))
RAY = pytest.param(RayCluster, id="ray", marks=needs("ray", "ray"))


@pytest.fixture(params=[DASK, RAY])
def cluster(request: pytest.FixtureRequest, short_tmp: Path) -> Iterator[Cluster]:
    made = request.param(short_tmp)
    yield made
    made.close()


@pytest.fixture
def client(cluster: Cluster) -> Iterator[gmpd.Client]:
    with client_of_two(cluster) as made:
        yield made


def test_jobs_run_on_all_hosts_and_a_killed_one_is_lost(
    client: gmpd.Client, cluster: Cluster, tmp_path: Path
) -> None:
    """One story: to start a cluster takes seconds."""
    assert {row["cores"] for row in rows(client).values()} == {2}
    numbers = [i for i in range(5000) if i % 89]
    futures = [client.submit(jobs.mixed, i) for i in numbers]
    assert [future.result(HANG_S) for future in futures] == [jobs.mixed(i) for i in numbers]
    assert set(places_of(client, 400)) == {"", "north", "south"}
    future = begun_at(client, tmp_path / "one")
    name = host_of(tmp_path / "one")
    cluster.kill(name)
    with pytest.raises(WorkerLost, match=rf"of host {cluster.name_of(name)} was lost"):
        future.result(HANG_S)
    assert name not in places_of(client, 60)
    cluster.host("third")
    await_hosts(client, 2)
    assert "third" in places_of(client, 200, 0.02)


def test_a_client_names_its_cluster(cluster: Cluster, tmp_path: Path) -> None:
    """As a user writes it, in a script of its own."""
    cluster.host("north")
    script = tmp_path / "program.py"
    script.write_text(
        "import os, time, gmpd\n"
        "def place(x):\n"
        "    time.sleep(0.01)\n"
        f"    return os.environ.get({jobs.NAME!r}, 'here'), bytes(300_000)\n"
        f"with gmpd.Client(cluster={cluster.url!r}) as c:\n"
        f"    until = time.time() + {HANG_S}\n"
        "    found = set()\n"
        "    while 'north' not in found and time.time() < until:\n"
        "        found |= {name for name, _ in c.map(place, range(40), chunksize=1)}\n"
        "    print(sorted(found))\n"
    )
    run = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=200)
    assert run.stdout == "['here', 'north']\n", run.stderr


@pytest.mark.parametrize(
    ("engine", "address"),
    [
        pytest.param("dask", "tcp://127.0.0.1:1", marks=needs("distributed", "dask")),
        pytest.param("ray", "ray://127.0.0.1:1", marks=needs("ray", "ray")),
        pytest.param("ray", "127.0.0.1:1", marks=needs("ray", "ray")),
    ],
)
def test_an_address_where_nothing_answers(engine: str, address: str) -> None:
    flags = {
        "daemon.procs": 1,
        "daemon.log_level": "error",
        "cluster.engine": engine,
        "cluster.address": address,
        "cluster.timeout": "1s",
    }
    config = Config.load(flags=flags, env={}, files=())
    private = PrivateDaemon(config)
    try:
        with gmpd.Client(target=Target.of(private.endpoint, config)) as client:
            assert client.submit(abs, -1).result(HANG_S) == 1
            problem = wait_until(lambda: client.call("cluster")["problem"], "it is missed")
            assert re.match(rf"no (Dask scheduler|Ray cluster) answers at {address} ", problem)
    finally:
        private.close()


def test_a_cluster_is_for_a_private_daemon() -> None:
    with pytest.raises(ConfigError, match="gmpd cluster up dask://head:8786"):
        gmpd.Client("/tmp/somewhere", cluster="dask://head:8786")
    with pytest.raises(ConfigError, match="names no engine"):
        gmpd.Client(cluster="head:")


# --------------------------------------------------------------------------------- Ray's own ways


@needs("ray", "ray")
def test_a_node_of_ray_leaves_or_is_refused_and_keeps_its_cpus(
    short_tmp: Path, tmp_path: Path
) -> None:
    """One story: see above."""
    (tmp_path / "sitecustomize.py").write_text(
        "import gmpd.versions as v\nv.python = lambda: '3.99.1'\n"
    )
    cluster = RayCluster(short_tmp, head_cores=1)
    cluster.host("north")
    with client_with(cluster) as client:
        await_hosts(client, 1)
        (name,) = rows(client)
        assert re.fullmatch(cluster.name_of("north"), name), "the node of the daemon is no host"
        assert "north" in places_of(client, 100, 0.02)
        assert asked(cluster, CPUS) == [3.0, 3.0], "gmpd takes none of Ray's CPUs"

        cluster.host("odd", PYTHONPATH=f"{tmp_path}:{ROOT}")
        problem = wait_until(problem_of(client, "odd"), "a host is refused", timeout=HANG_S)
        assert "3.99.1" in problem

        future = begun_by(client, tmp_path / "one", 6.0)
        drain(cluster, asked(cluster, NODES)["north"])
        assert future.result(HANG_S) == "north"
        wait_until(lambda: not serving(client), "its bridge ends", timeout=HANG_S)
        assert set(places_of(client, 40)) == {""}
    states = wait_until(lambda: ended(asked(cluster, ACTORS)), "actors end", timeout=HANG_S)
    assert set(states.values()) == {"DEAD"}, "an actor ends with its bridge"
    free, size = asked(cluster, OBJECTS)
    assert free == size, "no object is left in Ray's store"
    cluster.close()


@needs("ray", "ray")
def test_without_the_head_of_ray_this_machine_goes_on(short_tmp: Path) -> None:
    cluster = RayCluster(short_tmp)
    with client_of_two(cluster) as client:
        futures = [client.options(retries=1).submit(jobs.where, 0.01) for _ in range(300)]
        wait_until(lambda: futures[50].done(), "some have ended")
        cluster.kill_head()
        for future in futures:
            future.result(HANG_S)
        wait_until(lambda: client.call("cluster")["problem"], "it is missed", timeout=HANG_S)
        wait_until(lambda: set(places_of(client, 20)) == {""}, "hosts are given up", timeout=HANG_S)
    cluster.close()


def ended(states: dict[str, str]) -> dict[str, str]:
    return states if set(states.values()) == {"DEAD"} else {}


def problem_of(client: gmpd.Client, name: str) -> Callable[[], Any]:
    return lambda: next(
        (row["problem"] for host, row in rows(client).items() if host.startswith(name)), ""
    )


def begun_by(client: gmpd.Client, path: Path, pause_s: float) -> Any:
    """A job that runs on a host for a while, once it has begun there."""
    client.submit(time.sleep, 2.0)
    future = client.submit(jobs.note, str(path), "begun", pause_s)
    wait_until(lambda: path.exists() and "\n" in path.read_text(), "it has begun")
    return future


CPUS = "[ray.available_resources()['CPU'], ray.cluster_resources()['CPU']]"
OBJECTS = "[x()['object_store_memory'] for x in (ray.available_resources, ray.cluster_resources)]"
NODES = "{row['NodeName']: row['NodeID'] for row in ray.nodes()}"
ACTORS = (
    "{a['ActorID']: a['State'] for a in __import__('ray._private.state', fromlist='x').actors()"
    ".values() if a['ActorClassName'] == 'HostActor'}"
)


def asked(cluster: RayCluster, expression: str) -> Any:
    """The value of an expression in a program that uses that cluster."""
    program = (
        "import json, ray; ray.init(%r, log_to_driver=False, logging_level='error');"
        "print(json.dumps(%s))"
    )
    run = subprocess.run(
        [sys.executable, "-c", program % (cluster.address, expression)],
        capture_output=True, text=True, timeout=HANG_S,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def drain(cluster: RayCluster, node_id: str) -> None:
    """As a cloud does before it takes a machine away."""
    ray = Path(sys.executable).with_name("ray")
    words = ("--address", cluster.address, "--node-id", node_id, "--reason-message", "a test")
    reason = ("--reason", "DRAIN_NODE_REASON_PREEMPTION", "--deadline-remaining-seconds", "600")
    subprocess.run([str(ray), "drain-node", *words, *reason], check=True, timeout=HANG_S)
