"""joblib: ``Parallel`` with its default backend, kept open."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from loadtests.peers import tasks
from loadtests.peers.peer import Function, Peer

ONE_CALL = "a call takes all jobs and ends with the last"


class Adapter(Peer):
    title = "joblib"
    packages = ("joblib", "numpy")
    version_of = "joblib"
    settings = "`with Parallel(n_jobs)`; unbatched: `batch_size=1`; mapped: `batch_size='auto'`"
    cannot: ClassVar[Mapping[str, str]] = {
        "memory": f"{ONE_CALL}: it takes further jobs only as workers have room"
    }
    notes: ClassVar[Mapping[str, str]] = {
        "behind": "the short job is the last of one call, read as results come"
    }

    def start(self, mode: str) -> None:
        import joblib

        self.delayed = joblib.delayed
        self.unbatched = joblib.Parallel(n_jobs=self.procs, batch_size=1).__enter__()
        self.batched = joblib.Parallel(n_jobs=self.procs).__enter__()
        self.lazy = joblib.Parallel(
            n_jobs=self.procs, batch_size=1, pre_dispatch="all", return_as="generator_unordered"
        ).__enter__()

    def stop(self) -> None:
        for parallel in (self.lazy, self.batched, self.unbatched):
            parallel.__exit__(None, None, None)
        from joblib.externals.loky import get_reusable_executor

        get_reusable_executor().shutdown(wait=True, kill_workers=True)

    def run_all(self, fn: Function, args: Sequence[Any], timeout: float) -> list[Any]:
        found: list[Any] = self.unbatched(self.delayed(fn)(arg) for arg in args)
        return found

    def map(self, fn: Function, items: Sequence[Any]) -> list[Any]:
        found: list[Any] = self.batched(self.delayed(fn)(item) for item in items)
        return found

    def behind(self, n: int, seconds: float, timeout: float) -> float:
        calls = [*[self.delayed(tasks.block)(seconds)] * n, self.delayed(tasks.noop)("short")]
        began = time.perf_counter()
        took = 0.0
        for value in self.lazy(calls):
            if value == "short":
                took = time.perf_counter() - began
        return took

    def outcomes(self, fn: Function, args: Sequence[Any], timeout: float) -> Counter[str]:
        seen: Counter[str] = Counter()
        try:
            for _ in self.lazy([self.delayed(fn)(arg) for arg in args]):
                seen["done"] += 1
        except Exception as error:
            seen[type(error).__name__] = len(args) - seen["done"]
        return seen
