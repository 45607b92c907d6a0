"""Celery: prefork workers for jobs that compute, gevent workers for jobs that wait."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from loadtests.peers.peer import Function, OnBroker

APP = "loadtests.peers.adapters.celery_app"
#: Greenlets of each gevent worker.
GREENLETS = 1000


class Adapter(OnBroker):
    title = "Celery"
    packages = ("celery[redis]", "gevent", "numpy")
    version_of = "celery"
    settings = (
        "prefork workers; jobs that wait: a gevent worker for each core with"
        f" {GREENLETS:,} greenlets; mapped: `chunks`, four for each core; a worker killed:"
        " `acks_late`, `reject_on_worker_lost`"
    )
    modes = frozenset({"io", "kill"})
    cannot: ClassVar[Mapping[str, str]] = {"numpy": "messages are JSON unless configured otherwise"}

    def command(self, mode: str) -> list[list[str]]:
        words = [
            "celery",
            "-A",
            APP,
            "worker",
            "--without-gossip",
            "--without-mingle",
            "-l",
            "CRITICAL",
        ]
        if mode != "io":
            return [[*words, "-P", "prefork", "-c", str(self.procs)]]
        io = ["-P", "gevent", "-c", str(GREENLETS)]
        return [[*words, *io, "-n", f"io{n}@%h"] for n in range(self.procs)]

    def start(self, mode: str) -> None:
        super().start(mode)
        from loadtests.peers.adapters import celery_app

        self.registered = celery_app.registered

    def submit(self, fn: Function, arg: Any) -> Any:
        return self.registered[fn].delay(arg)

    def result(self, handle: Any, timeout: float) -> Any:
        return handle.get(timeout=timeout)

    def map(self, fn: Function, items: Sequence[Any]) -> list[Any]:
        size = max(1, len(items) // (4 * self.procs))
        chunks = self.registered[fn].chunks([(item,) for item in items], size)
        return [value for values in chunks().get(timeout=30) for value in values]
