"""loky: the executor that can be used again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from loadtests.peers.peer import Function, OnExecutor


class Adapter(OnExecutor):
    title = "loky"
    packages = ("loky", "numpy")
    version_of = "loky"
    settings = "`get_reusable_executor`; `map` with four chunks for each process"

    def start(self, mode: str) -> None:
        import loky

        self.pool = loky.get_reusable_executor(max_workers=self.procs)

    def stop(self) -> None:
        self.pool.shutdown(wait=True, kill_workers=True)

    def map(self, fn: Function, items: Sequence[Any]) -> list[Any]:
        return list(self.pool.map(fn, items, chunksize=self.chunk(items)))
