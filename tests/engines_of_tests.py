"""A daemon that uses the hosts of a cluster of Dask or Ray."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

import gmpd
from gmpd.client.discovery import Target
from gmpd.client.private import PrivateDaemon
from gmpd.config import Config
from tests import jobs_hosts as jobs
from tests.dask_cluster import DaskCluster
from tests.hosts_of_tests import rows
from tests.ray_cluster import RayCluster
from tests.support import wait_until

ROOT = Path(__file__).parents[1]
#: A cluster of Ray starts eight interpreters.
HANG_S = 90.0


class DaskHosts(DaskCluster):
    """As ``RayCluster``."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.url = f"dask://{self.address.removeprefix('tcp://')}"
        self._last = 1

    def name_of(self, name: str) -> str:
        """A pattern for the name of a host in texts of gmpd."""
        return r"tcp://127\.0\.0\.\d+:\d+"

    def host(self, name: str, cores: int = 2, words: tuple[str, ...] = ("--no-nanny",)) -> None:
        """One more. ``words``: see ``add``."""
        self._last += 1
        self.add(name, self._last, cores, words)

    def kill(self, name: str) -> None:
        """End it as a loss of power does."""
        self.workers[name].kill()


Cluster: TypeAlias = DaskHosts | RayCluster


@contextmanager
def client_with(cluster: DaskCluster | RayCluster) -> Iterator[gmpd.Client]:
    """One P here, and the hosts of a cluster."""
    flags = {
        "daemon.procs": 1,
        "daemon.log_level": "warning",
        "cluster.engine": cluster.engine,
        "cluster.address": cluster.address,
        "cluster.lease": "8s",
    }
    config = Config.load(flags=flags, env={}, files=())
    private = PrivateDaemon(config, modules=[str(ROOT)])
    with gmpd.Client(target=Target.of(private.endpoint, config)) as made:
        yield made
    private.close()


@contextmanager
def client_of_two(cluster: Cluster) -> Iterator[gmpd.Client]:
    """One P here, and two hosts with two cores each."""
    cluster.host("north")
    cluster.host("south")
    with client_with(cluster) as made:
        await_hosts(made, 2)
        yield made


def serving(client: gmpd.Client) -> list[str]:
    return [name for name, row in rows(client).items() if row["state"] in ("idle", "running")]


def await_hosts(client: gmpd.Client, n: int) -> None:
    wait_until(lambda: len(serving(client)) == n, f"{n} hosts serve", timeout=HANG_S)


def places_of(client: gmpd.Client, n: int, pause_s: float = 0.01) -> Counter[str]:
    return Counter(client.map(jobs.where, [pause_s] * n, chunksize=1))
