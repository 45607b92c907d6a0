"""Hosts in network namespaces: their wire is cut in the middle of a run, and joined again."""

from __future__ import annotations

import os
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import gmpd
from gmpd.errors import WorkerLost
from tests import jobs_hosts as jobs
from tests.engines_of_tests import HANG_S, await_hosts, client_with
from tests.host_namespaces import NamespacedCluster, NoNamespaces
from tests.hosts_of_tests import begun_at, host_of
from tests.support import wait_until

pytest.importorskip("distributed", reason="gmpd[dask] is not installed")


@pytest.fixture
def cluster(short_tmp: Path) -> Iterator[NamespacedCluster]:
    try:
        made = NamespacedCluster(short_tmp)
    except NoNamespaces as error:
        pytest.skip(str(error))
    try:
        made.add("north", 2)
        made.add("south", 3)
        yield made
    finally:
        made.close()
    left = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True)
    assert f"gm{os.getpid()}-" not in left.stdout


@pytest.fixture
def client(cluster: NamespacedCluster) -> Iterator[gmpd.Client]:
    with client_with(cluster) as made:
        yield made


def test_a_wire_that_is_cut_and_joined_loses_and_repeats_nothing_unasked(
    client: gmpd.Client, cluster: NamespacedCluster, tmp_path: Path
) -> None:
    await_hosts(client, 2)
    path = tmp_path / "ran"
    path.touch()
    began = begun_at(client, tmp_path / "one", retries=1)
    name = host_of(tmp_path / "one")
    plain = [client.submit(jobs.note, str(path), f"a{i}", 0.005) for i in range(500)]
    again = client.options(retries=3)
    retried = [again.submit(jobs.note, str(path), f"b{i}", 0.005) for i in range(500)]
    numbers = [client.options(retries=3).submit(jobs.mixed, i) for i in range(1, 89)]
    wait_until(lambda: " north" in path.read_text() and " south" in path.read_text(), "both work")
    cluster.cut(name)
    assert began.result(HANG_S) != name
    for future in retried:
        future.result(HANG_S)
    assert [f.result(HANG_S) for f in numbers] == [jobs.mixed(i) for i in range(1, 89)]
    ended = Counter(type(future.exception(HANG_S)) for future in plain)
    assert set(ended) <= {type(None), WorkerLost}, ended
    cluster.join(name)
    await_hosts(client, 2)
    assert name in set(client.map(jobs.where, [0.02] * 200, chunksize=1))
    runs = Counter(line.split()[0] for line in path.read_text().splitlines())
    assert max(n for job, n in runs.items() if job[0] == "a") == 1
    assert max(n for job, n in runs.items() if job[0] == "b") <= 2, "one host was lost once"
    assert len([job for job in runs if job[0] == "b"]) == 500
    assert len((tmp_path / "one").read_text().splitlines()) == 2
