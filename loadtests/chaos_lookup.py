"""When all is quiet, ask the daemon of ``chaos.py`` for the end of each acknowledged job."""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import Callable
from pathlib import Path

import gmpd
from gmpd.client.stored import readable
from gmpd.errors import DaemonUnreachable, GmpdError
from loadtests.chaos_checker import FINAL, UNASKED
from loadtests.chaos_client import state_of

#: Jobs of one question for their states.
ASKED = 1000
#: The look-up asks for the result of one done job in this many.
RESULTS = 4
#: Questions for results at a time.
AT_A_TIME = 200
#: How often jobs that have not ended are looked at (s).
AGAIN_S = 0.5


class LookUp:
    """``keep_alive`` is called all the time: it may start the next daemon."""

    def __init__(
        self, endpoint: str, ledgers: Path, dice: random.Random, keep_alive: Callable[[], object]
    ) -> None:
        self._endpoint = endpoint
        self._dice = dice
        self._keep_alive = keep_alive
        text = "".join(path.read_text() for path in ledgers.glob("client-*"))
        found = re.findall(r"^ok (\S+) (\S+) ", text, re.MULTILINE)
        #: Of ids whose end was not seen yet.
        self.keys = {id_: key for key, id_ in found}
        self.fell: list[str] = []
        self._lines: list[str] = []
        self._end = 0.0

    async def run(self, seconds: float) -> list[str]:
        """Lines for the ledger, once every job has ended or the time is over."""
        self._end = time.monotonic() + seconds
        keeps = asyncio.create_task(self._keep())
        try:
            while self.keys:
                try:
                    async with gmpd.AsyncClient(self._endpoint, reconnect=0) as client:
                        await self._look(client)
                except DaemonUnreachable as error:
                    if time.monotonic() > self._end:
                        self.fell.append(f"the daemon could not be asked: {error}")
                        break
                    await asyncio.sleep(0.1)
        finally:
            keeps.cancel()
        return self._lines

    async def _keep(self) -> None:
        while True:
            self._keep_alive()
            await asyncio.sleep(0.1)

    async def _look(self, client: gmpd.AsyncClient) -> None:
        while self.keys:
            ids = list(self.keys)
            for at in range(0, len(ids), ASKED):
                await self._look_at(client, ids[at : at + ASKED])
            if self.keys:
                await asyncio.sleep(AGAIN_S)

    async def _look_at(self, client: gmpd.AsyncClient, ids: list[str]) -> None:
        is_over = time.monotonic() > self._end
        found = await client.ask_jobs("find", [bytes.fromhex(id_) for id_ in ids], None)
        states = {}
        for id_, job in zip(ids, found, strict=True):
            state = "forgotten" if job is None else readable(job)["state"]
            if state in FINAL or job is None or is_over:
                states[id_] = state
        done = [id_ for id_, state in states.items() if state == "done"]
        asked = [id_ for id_ in done if not self._dice.randrange(RESULTS)]
        waits = asyncio.Semaphore(AT_A_TIME)
        hashes = dict(zip(asked, await asyncio.gather(
            *[self._result(client, id_, waits) for id_ in asked]
        ), strict=True))  # fmt: skip
        for id_ in [id_ for id_, state in states.items() if state == "quarantined"]:
            story = await client.job(id_).story()
            pids = ",".join(str(each.pid) for each in story if each.pid)
            self._lines.append(f"struck {self.keys[id_]} {pids} {time.monotonic_ns()}\n")
        for id_, state in states.items():
            key, hashed = self.keys.pop(id_), hashes.get(id_, UNASKED if state == "done" else "-")
            self._lines.append(f"final {key} {state} {hashed} {time.monotonic_ns()}\n")

    async def _result(self, client: gmpd.AsyncClient, id_: str, waits: asyncio.Semaphore) -> str:
        async with waits:
            try:
                return state_of(None, await client.job(id_).result(60))[1]
            except DaemonUnreachable:
                raise
            except (TimeoutError, LookupError, GmpdError) as error:
                return type(error).__name__
