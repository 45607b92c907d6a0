"""RQ: a worker pool that forks for each job, as ``rq worker-pool`` does."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any

from loadtests.peers import tasks
from loadtests.peers.peer import Function, OnBroker


class Adapter(OnBroker):
    title = "RQ"
    packages = ("rq", "numpy")
    version_of = "rq"
    settings = (
        "`rq worker-pool`, the default worker, which forks for each job; mapped: `enqueue_many`"
    )

    def command(self, mode: str) -> list[list[str]]:
        url = os.environ["PEERS_REDIS"]
        return [["rq", "worker-pool", "-n", str(self.procs), "-q", "-u", url]]

    def start(self, mode: str) -> None:
        super().start(mode)
        import redis
        import rq

        self.queue_class = rq.Queue
        self.queue = rq.Queue(connection=redis.Redis.from_url(os.environ["PEERS_REDIS"]))

    def submit(self, fn: Function, arg: Any) -> Any:
        return self.queue.enqueue(fn, arg)

    def result(self, handle: Any, timeout: float) -> Any:
        ends = time.monotonic() + timeout
        while (found := handle.latest_result(timeout=1 if timeout >= 1 else 0)) is None:
            if time.monotonic() > ends:
                raise TimeoutError(handle.id)
        if found.type.name != "SUCCESSFUL":
            raise RuntimeError(found.exc_string)
        return found.return_value

    def map(self, fn: Function, items: Sequence[Any]) -> list[Any]:
        prepare = self.queue_class.prepare_data
        jobs = self.queue.enqueue_many([prepare(fn, (item,)) for item in items])
        return [self.result(job, 30.0) for job in jobs]

    def workers(self) -> list[int]:
        return sorted(set(self.run_all(tasks.parent_pid, range(8 * self.procs), 20.0)))
