"""``concurrent.futures.ProcessPoolExecutor``."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from loadtests.peers.peer import Function, OnExecutor


class Adapter(OnExecutor):
    title = "ProcessPoolExecutor"
    packages = ("numpy",)
    settings = "`map` with four chunks for each process: its documentation recommends large chunks"

    def start(self, mode: str) -> None:
        self.pool = ProcessPoolExecutor(self.procs)

    def stop(self) -> None:
        self.pool.shutdown(wait=False, cancel_futures=True)

    def map(self, fn: Function, items: Sequence[Any]) -> list[Any]:
        return list(self.pool.map(fn, items, chunksize=self.chunk(items)))
