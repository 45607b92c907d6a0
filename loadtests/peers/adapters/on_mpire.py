"""mpire: ``WorkerPool``, kept alive."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from loadtests.peers.peer import Function, Peer


class Adapter(Peer):
    title = "mpire"
    packages = ("mpire", "numpy")
    version_of = "mpire"
    settings = "`keep_alive=True`; `apply_async` for each job; a second pool for `map`"

    def start(self, mode: str) -> None:
        import mpire

        self.pool = mpire.WorkerPool(n_jobs=self.procs, keep_alive=True)
        # Workers that have run `apply_async` take the items of a map for arguments of that.
        self.mapper = mpire.WorkerPool(n_jobs=self.procs, keep_alive=True)

    def stop(self) -> None:
        self.mapper.terminate()
        self.pool.terminate()

    def submit(self, fn: Function, arg: Any) -> Any:
        return self.pool.apply_async(fn, args=(arg,))

    def result(self, handle: Any, timeout: float) -> Any:
        return handle.get(timeout)

    def map(self, fn: Function, items: Sequence[Any]) -> list[Any]:
        found: list[Any] = self.mapper.map(fn, items)
        return found
