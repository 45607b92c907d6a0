"""``multiprocessing.Pool``."""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from typing import Any

from loadtests.peers.peer import Function, Peer


class Adapter(Peer):
    title = "multiprocessing.Pool"
    packages = ("numpy",)
    settings = "`apply_async` for each job"

    def start(self, mode: str) -> None:
        self.pool = multiprocessing.Pool(self.procs)

    def stop(self) -> None:
        self.pool.terminate()

    def submit(self, fn: Function, arg: Any) -> Any:
        return self.pool.apply_async(fn, (arg,))

    def result(self, handle: Any, timeout: float) -> Any:
        return handle.get(timeout)

    def map(self, fn: Function, items: Sequence[Any]) -> list[Any]:
        return self.pool.map(fn, items)
