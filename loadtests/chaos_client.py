"""One client of ``chaos.py``, in a process of its own, until the file ``stop`` is there.

    python loadtests/chaos_client.py ENDPOINT LEDGERS SEED

It has jobs stored, many at a time, waits for some, cancels some, and writes into its ledger what it
asked and what it was told. Its calls go on at the next daemon when one goes away; some clients look
for that one themselves.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))

import gmpd  # noqa: E402 - found from the line above
from gmpd.errors import (  # noqa: E402
    DaemonUnreachable,
    GmpdError,
    JobCancelled,
    JobPoisoned,
    WorkerLost,
)
from loadtests import chaos_jobs as jobs  # noqa: E402
from loadtests.chaos_checker import RETRIES  # noqa: E402

#: A call that has not returned after this many seconds hangs: every daemon comes back sooner.
HANG_S = 120.0
#: Jobs of a batch, at most; most batches are smaller.
BATCH_MAX = 400
#: Jobs whose ends one client waits for at a time.
WAITED_MAX = 200
#: How often a batch goes in one call, its jobs at most, and batches that are waited for at a time.
WHOLE, WHOLE_MAX, WHOLE_WAITED = 0.6, 6000, 2
#: What such a batch is of: all its jobs have the same function and options.
WHOLE_KINDS = {"quick": 70, "parked": 18, "nap": 4, "flaky": 4, "once": 4}

#: Of 1,000 jobs, on average.
KINDS = {
    "quick": 700, "nap": 60, "parked": 90, "spin": 20, "flaky": 40, "once": 30, "oncenap": 10,
    "big": 6, "exits": 1, "delayed": 20, "cancelled": 10, "volatile": 13,
}  # fmt: skip


class Notebook:
    """The ledger of this process."""

    def __init__(self, directory: str, name: str) -> None:
        path = os.path.join(directory, f"client-{name}")
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._file = os.open(path, flags, 0o600)

    def write(self, *words: object) -> None:
        """Append a line with the time at its end."""
        text = " ".join(map(str, (*words, time.monotonic_ns())))
        os.write(self._file, f"{text}\n".encode())

    def write_many(self, lines: list[tuple[object, ...]]) -> None:
        """Append lines at once."""
        now = time.monotonic_ns()
        text = "".join(" ".join(map(str, (*words, now))) + "\n" for words in lines)
        os.write(self._file, text.encode())


def state_of(error: BaseException | None, value: Any) -> tuple[str, str]:
    """A job's end as the checker knows it: state, and hash of the result."""
    match error:
        case None if isinstance(value, str):
            return "done", value if len(value) == 16 else _shrunk(value)
        case None:
            return "done", repr(type(value))
        case JobCancelled():
            return "cancelled", "-"
        case JobPoisoned():
            return "quarantined", "-"
        case WorkerLost():
            return "lost", "-"
        case ValueError():
            return "failed", "-"
        case _:
            text = str(error)
            return ("unknown" if "once=True" in text else type(error).__name__), "-"


def _shrunk(value: str) -> str:
    head = value[:16]
    return head if value == head * jobs.BIG else f"damaged:{len(value)}"


class Caller:
    """One process that submits, waits, cancels and reconnects, to one daemon after the other."""

    def __init__(self, endpoint: str, ledgers: str, seed: str) -> None:
        self.endpoint = endpoint
        self.ledgers = ledgers
        self.dice = random.Random(seed)
        self.name = f"{seed}-{os.getpid()}"
        self.note = Notebook(ledgers, self.name)
        self.note.write("client", os.getpid())
        self.n = 0
        self.reconnect = self.dice.choice((HANG_S / 2, HANG_S / 2, 0))
        self.waited: set[asyncio.Task[None]] = set()
        #: Of these the last jobs of whole batches.
        self.last_ones: list[asyncio.Task[None]] = []
        #: Jobs whose ends were not told, as the daemon went: key and id.
        self.untold: list[tuple[str, str]] = []

    @property
    def stopped(self) -> bool:
        """Whether no more jobs are to be submitted."""
        return os.path.exists(os.path.join(self.ledgers, "stop"))

    def new_job(self) -> tuple[str, str]:
        """A key, and a kind."""
        self.n += 1
        kind = self.dice.choices(list(KINDS), list(KINDS.values()))[0]
        return f"{self.name}-{self.n}", kind

    def call_of(self, key: str, kind: str) -> tuple[dict[str, Any], tuple[Any, ...]]:
        """Options, and function with arguments."""
        dice = self.dice
        match kind:
            case "nap":
                return {}, (jobs.nap, key, dice.uniform(0.001, 0.05))
            case "parked":
                return {}, (jobs.parked, key, 3 * dice.random() ** 2)
            case "spin":
                return {}, (jobs.spin, key, 0.005)
            case "flaky":
                return {"retries": RETRIES}, (jobs.flaky, key)
            case "once":
                return {"once": True}, (jobs.quick, key)
            case "oncenap":
                return {"once": True}, (jobs.nap, key, dice.uniform(0.001, 0.1))
            case "big":
                return {}, (jobs.big, key, "x" * dice.randrange(200_000))
            case "exits":
                return {}, (jobs.exits, key)
            case "delayed":
                return {"delay": dice.uniform(0.01, 2)}, (jobs.quick, key)
            case "cancelled":
                return {"delay": dice.choice((0, 0.2))}, (jobs.nap, key, 0.05)
            case _:
                return {}, (jobs.quick, key)

    # -- one daemon

    async def serve(self) -> None:
        """Until told to stop."""
        while not self.stopped:
            try:
                async with gmpd.AsyncClient(
                    self.endpoint, name=self.name, reconnect=self.reconnect
                ) as client:
                    untold, self.untold = self.untold, []
                    for key, id_ in untold:
                        self.wait(key, client.job(id_).result(), id_)
                    await self.submit_to(client)
                    await self.end_waits()
            except DaemonUnreachable:
                await self.end_waits()
                await asyncio.sleep(0.02)
        self.note.write("bye", os.getpid())

    async def submit_to(self, client: gmpd.AsyncClient) -> None:
        """Batches of jobs, until told to stop or the daemon goes."""
        while not self.stopped:
            if self.dice.random() < WHOLE:
                await self.put_whole(client)
                continue
            n = 1 + int(self.dice.random() ** 3 * BATCH_MAX)
            batch = [self.new_job() for _ in range(n)]
            named = [
                (key, kind.removesuffix("nap") if kind == "oncenap" else kind)
                for key, kind in batch
            ]
            self.note.write_many([("invoke", key, kind) for key, kind in named])
            told = await asyncio.gather(*[self.put(client, key, kind) for key, kind in batch])
            if not all(told):
                raise DaemonUnreachable("some calls were not answered")
            while len(self.waited) > WAITED_MAX:
                await asyncio.wait(self.waited, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.sleep(self.dice.random() ** 2 * 0.1)

    async def put_whole(self, client: gmpd.AsyncClient) -> None:
        """Jobs that are alike, in one call."""
        kind = self.dice.choices(list(WHOLE_KINDS), list(WHOLE_KINDS.values()))[0]
        most = WHOLE_MAX if kind == "quick" else BATCH_MAX
        n = 1 + int(self.dice.random() ** 2 * most)
        keys = [f"{self.name}-{self.n + row}" for row in range(1, n + 1)]
        self.n += n
        options, (fn, _, *args) = self.call_of(keys[0], kind)
        self.note.write_many([("invoke", key, kind) for key in keys])
        view = client.options(**options) if options else client
        call = view.enqueue_many(fn, keys, *([each] * n for each in args))
        try:
            ids = await self.bounded(keys[0], call)
        except DaemonUnreachable:
            self.note.write_many([("unknown", key) for key in keys])
            raise
        except GmpdError:
            self.note.write_many([("refused", key) for key in keys])
            await asyncio.sleep(0.05)
            return
        self.note.write_many([("ok", key, id_) for key, id_ in zip(keys, ids, strict=True)])
        for row in self.dice.choices(range(n - 1), k=2) if n > 1 else ():
            self.wait(keys[row], client.job(ids[row]).result(), ids[row])
        self.last_ones.append(self.wait(keys[-1], client.job(ids[-1]).result(), ids[-1]))
        while len(self.last_ones) > WHOLE_WAITED:
            await asyncio.wait([self.last_ones.pop(0)])

    async def put(self, client: gmpd.AsyncClient, key: str, kind: str) -> bool:
        """One job; False when the daemon went before it answered."""
        options, call = self.call_of(key, kind)
        view = client.options(**options) if options else client
        if kind == "volatile":
            try:
                self.wait(key, view.submit(*call))
                return True
            except DaemonUnreachable:  # it is between two daemons
                self.note.write("unknown", key)
                return True
        try:
            id_ = await self.bounded(key, view.enqueue(*call))
        except DaemonUnreachable:
            self.note.write("unknown", key)
            return False
        except GmpdError:
            self.note.write("refused", key)
            await asyncio.sleep(0.05)
            return True
        self.note.write("ok", key, id_)
        job = client.job(id_)
        if kind == "cancelled":
            self.note.write("cancel", key)
            self.wait(key, job.result(), id_, first=job.cancel)
        elif self.dice.random() < 0.1:
            self.wait(key, job.result(), id_)
        return True

    # -- waiting

    def wait(
        self,
        key: str,
        ended: Awaitable[Any],
        id_: str = "",
        first: Callable[[], Awaitable[Any]] | None = None,
    ) -> asyncio.Task[None]:
        """Have the end of a job written, beside other work."""
        task = asyncio.ensure_future(self.await_end(key, ended, id_, first))
        self.waited.add(task)
        task.add_done_callback(self.waited.discard)
        return task

    async def await_end(
        self, key: str, ended: Awaitable[Any], id_: str,
        first: Callable[[], Awaitable[Any]] | None,
    ) -> None:  # fmt: skip
        """Write how it ended; if the daemon goes, the next one is asked, when there is an id."""
        try:
            if first is not None:
                await self.bounded(key, first())
            state = state_of(None, await self.bounded(key, ended, "late"))
        except DaemonUnreachable:
            if asyncio.iscoroutine(ended):
                ended.close()
            if id_:
                self.untold.append((key, id_))
            return
        except Exception as error:
            state = state_of(error, None)
        except asyncio.CancelledError:
            state = "cancelled", "-"
        self.note.write("told", key, *state)

    async def bounded(self, key: str, call: Awaitable[Any], otherwise: str = "hung") -> Any:
        """A call that must return; else that word is written."""
        try:
            return await asyncio.wait_for(call, HANG_S)
        except DaemonUnreachable:
            raise
        except TimeoutError:
            self.note.write(otherwise, key)
            raise DaemonUnreachable(f"no answer about {key}") from None

    async def end_waits(self) -> None:
        """All that is waited for has ended, or the daemon went."""
        if self.waited:
            await asyncio.wait(self.waited)


def client(endpoint: str, ledgers: str, seed: str) -> None:
    """All of it."""
    asyncio.run(Caller(endpoint, ledgers, seed).serve())


if __name__ == "__main__":
    client(*sys.argv[1:4])
