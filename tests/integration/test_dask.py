"""Hosts of a Dask cluster: what other engines lack. Skipped where ``distributed`` is missing."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import gmpd
from tests import jobs_hosts as jobs
from tests.engines_of_tests import HANG_S, DaskHosts, await_hosts, client_of_two, client_with
from tests.hosts_of_tests import rows
from tests.support import wait_until

pytest.importorskip("distributed", reason="gmpd[dask] is not installed")

from gmpd.cluster.dask import DaskEngine
from gmpd.cluster.port import ClusterError, Host

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def cluster(short_tmp: Path) -> Iterator[DaskHosts]:
    made = DaskHosts(short_tmp)
    yield made
    made.close()


@pytest.fixture
def client(cluster: DaskHosts) -> Iterator[gmpd.Client]:
    with client_of_two(cluster) as made:
        yield made


def retire(cluster: DaskHosts, name: str) -> None:
    """As an adaptive cluster does that has too many workers."""
    _have(cluster, f"client.retire_workers(names=[{name!r}])")


def close_gracefully(cluster: DaskHosts, name: str) -> None:
    """As a worker does that has reached its lifetime."""
    ends = "dask_worker.loop.add_callback(dask_worker.close_gracefully)"
    _have(cluster, f"client.run(lambda dask_worker: {ends} and None)")


def terminate(cluster: DaskHosts, name: str) -> None:
    """As Kubernetes, Slurm or systemd end it."""
    cluster.workers[name].terminate()


def _have(cluster: DaskHosts, words: str) -> None:
    program = f"from distributed import Client; client = Client({cluster.address!r}); {words}"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=HANG_S, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("words", "end"),
    [
        pytest.param(("--nanny",), retire, id="retired"),
        pytest.param(("--no-nanny",), close_gracefully, id="lifetime"),
        # With a nanny Dask waits for 8 s at most, which a busy machine may need.
        pytest.param(("--no-nanny",), terminate, id="SIGTERM"),
    ],
)
def test_a_host_that_dask_ends_is_drained(
    cluster: DaskHosts,
    tmp_path: Path,
    words: tuple[str, ...],
    end: Callable[[DaskHosts, str], None],
) -> None:
    """No job has retries: none is lost, and none begins twice."""
    path = tmp_path / "ran"
    path.touch()
    cluster.host("north", words=words)
    with client_with(cluster) as client:
        await_hosts(client, 1)
        await_calls(cluster)
        (name,) = rows(client)
        futures = [client.submit(jobs.note, str(path), str(i), 1.5) for i in range(12)]
        wait_until(lambda: rows(client)[name]["started"] > 2, "more were sent than cores")
        wait_until(lambda: " north" in path.read_text(), "some have begun there")
        end(cluster, "north")
        places = [future.result(HANG_S) for future in futures]
        assert cluster.workers["north"].wait(HANG_S) is not None
        runs = Counter(line.split()[0] for line in path.read_text().splitlines())
        assert runs == dict.fromkeys(map(str, range(12)), 1)
        assert "north" in places
        wait_until(lambda: not rows(client), "it has left", timeout=HANG_S)


def await_calls(cluster: DaskHosts) -> None:
    """Exchanges call the workers, as they do a moment after a host serves: the only tasks are those
    that stay."""
    from distributed import Client

    with Client(cluster.address, set_as_default=False) as dask:

        def keys() -> set[str]:
            return {str(key) for keys in dask.processing().values() for key in keys}

        def settled() -> bool:
            before = keys()
            time.sleep(0.3)
            return len(before) == len(cluster.workers) and before == keys()

        wait_until(settled, "hosts are called directly", timeout=HANG_S)


def test_exchanges_need_no_scheduler_once_a_host_serves(
    client: gmpd.Client, cluster: DaskHosts
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


def test_a_worker_that_comes_or_goes_is_told_at_once(cluster: DaskHosts) -> None:
    """By the scheduler's events: it is not asked meanwhile."""
    engine = DaskEngine({"address": cluster.address, "scheduler_file": "", "timeout_s": HANG_S})
    try:
        engine.await_change(0.0)
        assert engine.hosts() == []
        cluster.host("north")
        (host,) = _after(engine, [])
        assert host.cores == 2
        cluster.kill("north")
        assert _after(engine, [host]) == []
    finally:
        engine.close()


def _after(engine: DaskEngine, before: list[Host]) -> list[Host]:
    """The hosts once they are others than before. At the first event a worker may not serve yet."""
    while (hosts := engine.hosts()) == before:
        began = time.monotonic()
        engine.await_change(HANG_S)
        assert time.monotonic() - began < HANG_S / 2, "nobody told of a change"
    return hosts


def test_a_worker_that_is_about_to_serve_is_looked_at_again_at_once(
    cluster: DaskHosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of its new status the scheduler tells nobody but those that ask for that worker's events."""
    worker = {"nthreads": 2, "status": "init"}

    async def identity() -> dict[str, Any]:
        return {"workers": {"tcp://127.0.0.1:1": worker}}

    engine = DaskEngine({"address": cluster.address, "scheduler_file": "", "timeout_s": HANG_S})
    monkeypatch.setattr(engine, "_identity", identity)
    try:
        began = time.monotonic()
        assert engine.hosts() == []
        engine.await_change(HANG_S)
        assert time.monotonic() - began < HANG_S / 2
        worker["status"] = "running"
        assert [host.leaves for host in engine.hosts()] == [False]
    finally:
        engine.close()


def test_an_engine_that_reaches_no_scheduler_leaves_nothing_open() -> None:
    """Descriptors are counted after each test."""
    with socket.socket() as bound:  # and not listening
        bound.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{bound.getsockname()[1]}"
        with pytest.raises(ClusterError, match="no Dask scheduler answers"):
            DaskEngine({"address": address, "scheduler_file": "", "timeout_s": 1.0})
