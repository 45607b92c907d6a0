"""aiomultiprocess: its ``Pool`` of event loops."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Sequence
from typing import Any

from loadtests.peers import tasks
from loadtests.peers.peer import Function, OnLoop


class Adapter(OnLoop):
    title = "aiomultiprocess"
    packages = ("aiomultiprocess", "numpy")
    version_of = "aiomultiprocess"
    settings = "plain functions in a coroutine; jobs that wait: `childconcurrency=5000`"
    coroutines = True
    modes = frozenset({"io"})

    def start(self, mode: str) -> None:
        super().start(mode)
        import aiomultiprocess

        more = {"childconcurrency": 5000} if mode == "io" else {}

        async def pool() -> Any:
            return aiomultiprocess.Pool(self.procs, **more)

        self.pool = self.loop.run_until_complete(pool())

    def stop(self) -> None:
        self.pool.terminate()
        super().stop()

    async def call(self, fn: Function, arg: Any) -> Any:
        return await self.pool.apply(_coroutine(fn), (arg,))

    def map(self, fn: Function, items: Sequence[Any]) -> list[Any]:
        async def mapped() -> list[Any]:
            return list(await self.pool.map(_coroutine(fn), items))

        return self.loop.run_until_complete(mapped())


def _coroutine(fn: Function) -> Function:
    if asyncio.iscoroutinefunction(fn):
        return fn
    return functools.partial(tasks.called, fn)
