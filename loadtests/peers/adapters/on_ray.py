"""Ray: a local cluster, as ``ray.init()`` starts it."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Sequence
from typing import Any

from loadtests.peers.peer import Function, Peer

#: Calls that an asynchronous actor runs at once.
CONCURRENCY = 5000


class Adapter(Peer):
    title = "Ray"
    packages = ("ray", "numpy")
    version_of = "ray"
    settings = (
        "tasks; coroutines: an asynchronous actor for each core with"
        f" `max_concurrency={CONCURRENCY}`; map: four batches for each core, made by hand as its"
        " list of anti-patterns recommends; no dashboard"
    )
    coroutines = True

    def start(self, mode: str) -> None:
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        os.environ["RAY_AUTH_MODE"] = "disabled"
        import ray

        self.ray = ray
        ray.init(
            num_cpus=self.procs, include_dashboard=False, log_to_driver=False,
            _temp_dir=os.environ["PEERS_PLACE"] + "/ray", configure_logging=False,
            object_store_memory=1_000_000_000,
        )  # fmt: skip
        self.remotes: dict[Function, Any] = {}
        self.actors: Any = None

    def stop(self) -> None:
        self.ray.shutdown()

    def submit(self, fn: Function, arg: Any) -> Any:
        if asyncio.iscoroutinefunction(fn):
            if self.actors is None:
                actor = self.ray.remote(Waiting)
                made = [
                    actor.options(max_concurrency=CONCURRENCY, num_cpus=0).remote()
                    for _ in range(self.procs)
                ]
                self.actors = itertools.cycle(made)
            return next(self.actors).run.remote(fn, arg)
        return self._remote(fn).remote(arg)

    def _remote(self, fn: Function) -> Any:
        found = self.remotes.get(fn)
        if found is None:
            found = self.remotes[fn] = self.ray.remote(fn)
        return found

    def result(self, handle: Any, timeout: float) -> Any:
        return self.ray.get(handle, timeout=timeout)

    def run_all(self, fn: Function, args: Sequence[Any], timeout: float) -> list[Any]:
        found: list[Any] = self.ray.get(self.submit_many(fn, args), timeout=timeout)
        return found

    def map(self, fn: Function, items: Sequence[Any]) -> list[Any]:
        size = max(1, len(items) // (4 * self.procs))
        batch = self._remote(run_batch)
        refs = [batch.remote(fn, items[at : at + size]) for at in range(0, len(items), size)]
        return [value for values in self.ray.get(refs) for value in values]


class Waiting:
    """An actor whose calls wait together."""

    async def run(self, fn: Function, arg: Any) -> Any:
        return await fn(arg)


def run_batch(fn: Function, items: Sequence[Any]) -> list[Any]:
    return [fn(item) for item in items]
