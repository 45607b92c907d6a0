"""Dask.distributed: a ``LocalCluster``."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from loadtests.peers.peer import Function, OnExecutor

#: Threads of each worker for jobs that wait.
THREADS = 1000


class Adapter(OnExecutor):
    title = "Dask"
    packages = ("distributed", "numpy")
    version_of = "distributed"
    settings = (
        "`LocalCluster` with a process of one thread for each core, `pure=False`; jobs that"
        f" wait: {THREADS:,} threads in each"
    )
    modes = frozenset({"io"})

    def start(self, mode: str) -> None:
        from distributed import Client, LocalCluster

        self.cluster = LocalCluster(
            n_workers=self.procs, threads_per_worker=THREADS if mode == "io" else 1,
            dashboard_address=None, silence_logs=logging.CRITICAL,
        )  # fmt: skip
        self.pool = Client(self.cluster)

    def stop(self) -> None:
        self.pool.close(timeout=3)
        self.cluster.close(timeout=3)

    def submit(self, fn: Function, arg: Any) -> Any:
        return self.pool.submit(fn, arg, pure=False)

    def run_all(self, fn: Function, args: Sequence[Any], timeout: float) -> list[Any]:
        found: list[Any] = self.pool.gather(self.submit_many(fn, args))
        return found

    def map(self, fn: Function, items: Sequence[Any]) -> list[Any]:
        found: list[Any] = self.pool.gather(self.pool.map(fn, items, pure=False))
        return found
