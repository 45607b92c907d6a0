"""Hosts of a Dask cluster: what other engines lack. Skipped where ``distributed`` is missing."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import gmpd
from gmpd.errors import WorkerLost
from tests import jobs_hosts as jobs
from tests.engines_of_tests import HANG_S, DaskHosts, client_of_two
from tests.hosts_of_tests import begun_at, host_of
from tests.support import wait_until

pytest.importorskip("distributed", reason="gmpd[dask] is not installed")


@pytest.fixture
def cluster(short_tmp: Path) -> Iterator[DaskHosts]:
    made = DaskHosts(short_tmp)
    yield made
    made.close()


@pytest.fixture
def client(cluster: DaskHosts) -> Iterator[gmpd.Client]:
    with client_of_two(cluster) as made:
        yield made


def test_a_host_that_dask_retires_is_lost_as_any_other(
    client: gmpd.Client, cluster: DaskHosts, tmp_path: Path
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
