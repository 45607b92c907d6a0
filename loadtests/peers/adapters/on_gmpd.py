"""gmpd: a client with a private daemon."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from typing import Any

from loadtests.peers.peer import Function, OnExecutor


class Adapter(OnExecutor):
    title = "gmpd"
    packages = ("gmpd", "numpy")
    version_of = "gmpd"
    settings = "a private daemon; `pending_max` of two million; a worker killed: `retries=2`"
    coroutines = True
    modes = frozenset({"kill"})

    def start(self, mode: str) -> None:
        import gmpd
        from gmpd.client.hints import PerformanceHint

        warnings.simplefilter("ignore", PerformanceHint)  # small jobs are what is measured
        os.environ["GMPD_RUNTIME_DIR"] = os.environ["PEERS_PLACE"] + "/gmpd"  # not one that runs
        os.environ["GMPD_DAEMON__PROCS"] = str(self.procs)
        self.client = gmpd.Client(pending_max=2_000_000)
        self.pool = self.client.options(retries=2) if mode == "kill" else self.client

    def stop(self) -> None:
        self.client.close(cancel=True)

    def map(self, fn: Function, items: Sequence[Any]) -> list[Any]:
        return list(self.client.map(fn, items))
