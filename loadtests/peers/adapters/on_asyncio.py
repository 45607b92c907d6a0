"""asyncio: tasks of one loop, in one process."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, ClassVar

from loadtests.peers import tasks
from loadtests.peers.peer import Function, OnLoop

ONE_PROCESS = "one process: nothing travels"
ONE_CORE = "one core"


class Adapter(OnLoop):
    title = "asyncio"
    settings = "one loop on one core; what blocks a thread: `asyncio.to_thread`"
    coroutines = True
    cannot: ClassVar[Mapping[str, str]] = {
        "mapped": "it has no `map`",
        "skew": ONE_CORE,
        "metg": ONE_CORE,
        "bytes": ONE_PROCESS,
        "numpy": ONE_PROCESS,
        "killed": "it has no workers",
    }

    async def call(self, fn: Function, arg: Any) -> Any:
        if asyncio.iscoroutinefunction(fn):
            return await fn(arg)
        if fn is tasks.block:
            return await asyncio.to_thread(fn, arg)
        return fn(arg)

    def run_all(self, fn: Function, args: Any, timeout: float) -> list[Any]:
        async def all_of_them() -> list[Any]:
            return await asyncio.gather(*[asyncio.create_task(self.call(fn, arg)) for arg in args])

        return self.loop.run_until_complete(all_of_them())
