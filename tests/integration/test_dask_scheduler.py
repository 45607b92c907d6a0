"""Dask's scheduler dies under load, and comes back. Skipped where ``distributed`` is missing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import gmpd
from gmpd.errors import WorkerLost
from tests import jobs_hosts as jobs
from tests.dask_cluster import DaskCluster
from tests.engines_of_tests import HANG_S, await_hosts, client_with
from tests.hosts_of_tests import begun_at
from tests.support import wait_until

pytest.importorskip("distributed", reason="gmpd[dask] is not installed")


@pytest.fixture
def cluster(short_tmp: Path) -> Iterator[DaskCluster]:
    made = DaskCluster(short_tmp)
    made.add("north", 2)
    made.add("south", 3)
    yield made
    made.close()


@pytest.fixture
def client(cluster: DaskCluster) -> Iterator[gmpd.Client]:
    with client_with(cluster) as made:
        yield made


def test_a_scheduler_that_dies_under_load_costs_what_had_begun_and_hosts_come_back(
    client: gmpd.Client, cluster: DaskCluster, tmp_path: Path
) -> None:
    await_hosts(client, 2)
    path = tmp_path / "ran"
    path.touch()
    began = begun_at(client, tmp_path / "one")
    plain = [client.submit(jobs.note, str(path), f"a{i}", 0.01) for i in range(400)]
    again = client.options(retries=1)
    retried = [again.submit(jobs.note, str(path), f"b{i}", 0.01) for i in range(400)]
    wait_until(lambda: " north" in path.read_text() and " south" in path.read_text(), "both work")
    cluster.scheduler.kill()
    with pytest.raises(WorkerLost, match=r"of host tcp://127\.0\.0\.\d:\d+ was lost"):
        began.result(HANG_S)
    places = {future.result(HANG_S) for future in retried}
    assert "" in places
    ended = Counter(type(future.exception(HANG_S)) for future in plain)
    assert set(ended) <= {type(None), WorkerLost}, ended
    runs = Counter(line.split()[0] for line in path.read_text().splitlines())
    assert len(runs) >= 400 + ended[type(None)]
    assert max(n for name, n in runs.items() if name[0] == "a") == 1
    assert max(n for name, n in runs.items() if name[0] == "b") <= 2
    wait_until(lambda: client.call("cluster")["problem"], "the scheduler is missed")
    assert set(client.map(jobs.where, [0.01] * 20, chunksize=1)) == {""}

    cluster.restart_scheduler()
    for n, name in enumerate(("north", "south"), 2):
        cluster.workers[name].wait(HANG_S)  # it has ended with its scheduler
        cluster.add(name, n)  # as a service manager starts it again
    await_hosts(client, 2)
    assert not client.call("cluster")["problem"]
    assert {"north", "south"} <= set(client.map(jobs.where, [0.02] * 200, chunksize=1))
