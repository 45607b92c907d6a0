"""Taskiq: streams of Redis, its own workers."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from loadtests.peers.peer import Function, OnBroker, OnLoop

APP = "loadtests.peers.adapters.taskiq_app:broker"
#: Calls of the client that are on their way at once.
AT_ONCE = 100
#: Coroutines that a worker runs at once, for jobs that wait.
TASKS_AT_ONCE = 5000
NO_MAP = "it has no call for many jobs"
JSON = "messages are JSON unless configured otherwise"


class Adapter(OnLoop, OnBroker):
    title = "Taskiq"
    packages = ("taskiq", "taskiq-redis", "uvloop", "numpy")
    version_of = "taskiq"
    settings = (
        f"`RedisStreamBroker`; {AT_ONCE} calls of the client at once; results polled every 5 ms"
        f" (default: 200); jobs that wait: `--max-async-tasks {TASKS_AT_ONCE}`"
    )
    coroutines = True
    modes = frozenset({"io"})
    cannot: ClassVar[Mapping[str, str]] = {
        "mapped": NO_MAP,
        "skew": NO_MAP,
        "bytes": JSON,
        "numpy": JSON,
    }

    def command(self, mode: str) -> list[list[str]]:
        more = ["--max-async-tasks", str(TASKS_AT_ONCE)] if mode == "io" else []
        words = ["taskiq", "worker", APP, "-w", str(self.procs), "--log-level", "CRITICAL"]
        return [[*words, *more]]

    def start(self, mode: str) -> None:
        OnBroker.start(self, mode)
        OnLoop.start(self, mode)
        from loadtests.peers.adapters import taskiq_app

        self.registered = taskiq_app.registered
        self.broker = taskiq_app.broker
        self.loop.run_until_complete(self.broker.startup())

    def stop(self) -> None:
        OnBroker.stop(self)
        self.loop.run_until_complete(self.broker.shutdown())
        OnLoop.stop(self)

    async def call(self, fn: Function, arg: Any) -> Any:
        return await self._value(await self.registered[fn].kiq(arg), -1.0)

    async def _value(self, task: Any, timeout: float) -> Any:
        found = await task.wait_result(check_interval=0.005, timeout=timeout)
        found.raise_for_error()
        return found.return_value

    def run_all(self, fn: Function, args: Sequence[Any], timeout: float) -> list[Any]:
        async def all_of_them() -> list[Any]:
            begun = await self._kick(fn, args)
            values = []
            for at in range(0, len(begun), AT_ONCE):
                some = begun[at : at + AT_ONCE]
                values += await asyncio.gather(*[self._value(task, timeout) for task in some])
            return values

        return self.loop.run_until_complete(all_of_them())

    async def _kick(self, fn: Function, args: Sequence[Any]) -> list[Any]:
        begun: list[Any] = []
        kick = self.registered[fn].kiq
        for at in range(0, len(args), AT_ONCE):
            begun += await asyncio.gather(*[kick(arg) for arg in args[at : at + AT_ONCE]])
        return begun

    def begin(self, fn: Function, args: Sequence[Any]) -> object:
        return self.loop.run_until_complete(self._kick(fn, args))

    def submit(self, fn: Function, arg: Any) -> Any:
        return self.loop.run_until_complete(self.registered[fn].kiq(arg))

    def result(self, handle: Any, timeout: float) -> Any:
        return self.loop.run_until_complete(self._value(handle, timeout))
