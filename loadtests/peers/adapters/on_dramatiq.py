"""Dramatiq: worker processes with threads, gevent for jobs that wait."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from loadtests.peers.peer import Function, OnBroker

APP = "loadtests.peers.adapters.dramatiq_app"
#: Greenlets of each process for jobs that wait.
GREENLETS = 1000
JSON = "messages are JSON unless configured otherwise"


class Adapter(OnBroker):
    title = "Dramatiq"
    packages = ("dramatiq[redis]", "gevent", "numpy")
    version_of = "dramatiq"
    settings = (
        "the `Results` middleware; 8 threads in each process, its default; jobs that wait:"
        f" `dramatiq-gevent` with {GREENLETS:,} greenlets in each; 5,000 connections to Redis"
        " (default: 100); mapped: `group`"
    )
    modes = frozenset({"io"})
    cannot: ClassVar[Mapping[str, str]] = {"bytes": JSON, "numpy": JSON}

    def command(self, mode: str) -> list[list[str]]:
        procs = ["-p", str(self.procs)]
        if mode == "io":
            return [["dramatiq-gevent", APP, *procs, "-t", str(GREENLETS), "--skip-logging"]]
        return [["dramatiq", APP, *procs, "--skip-logging"]]

    def start(self, mode: str) -> None:
        super().start(mode)
        import dramatiq
        import dramatiq.results

        from loadtests.peers.adapters import dramatiq_app

        self.registered = dramatiq_app.registered
        self.group = dramatiq.group
        self.timeout = dramatiq.results.ResultTimeout

    def submit(self, fn: Function, arg: Any) -> Any:
        return self.registered[fn].send(arg)

    def result(self, handle: Any, timeout: float) -> Any:
        ends = time.monotonic() + timeout
        while True:  # the client of Redis ends a read that blocks for long
            left = max(0.001, ends - time.monotonic())
            try:
                return handle.get_result(block=True, timeout=max(1, int(min(2.0, left) * 1000)))
            except self.timeout:
                if time.monotonic() >= ends:
                    raise

    def map(self, fn: Function, items: Sequence[Any]) -> list[Any]:
        actor = self.registered[fn]
        group = self.group([actor.message(item) for item in items]).run()
        return list(group.get_results(block=True, timeout=30_000))
