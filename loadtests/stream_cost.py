"""The cost of the task stream while pages show it: CPU time of the daemon by process.

    gmpd serve &
    python loadtests/stream_cost.py [ROUNDS]

Turns with no page, one, and ten alternate, under a steady load and under as many jobs as fit. A
page here asks ``GET /api/v1/trace`` as the live page does, twice a second, and draws nothing. Told
are the seconds of CPU that each second costs, the bytes to a page, and with the full load the CPU
time of a job.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import time
from collections import defaultdict, deque
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import gmpd  # noqa: E402 - found from the line above
from gmpd.status import read  # noqa: E402

#: Of one turn.
SECONDS = 5.0
PAGES = (0, 1, 10)


def short(n: int) -> int:
    """Some ten microseconds."""
    return sum(range(n))


async def parks(n: int) -> int:
    """A coroutine that parks twice."""
    await gmpd.sleep(0.002)
    await asyncio.sleep(0)
    return n


async def look(url: str, pages: int) -> None:
    """Ask as ``pages`` pages do, until stdin has a line; then print how many bytes came."""
    import aiohttp

    async def page(session: aiohttp.ClientSession, count: list[int]) -> None:
        after = 0
        while True:
            async with session.get(f"{url}/api/v1/trace", params={"after": after}) as response:
                told = await response.json()
                after = told["next"]
                count[0] += int(response.headers.get("Content-Length", 0))
            await asyncio.sleep(0.5)

    count = [0]
    async with aiohttp.ClientSession() as session:
        tasks = [asyncio.create_task(page(session, count)) for _ in range(pages)]
        await asyncio.sleep(1.0)
        count[0] = 0
        print("looking", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        for task in tasks:
            task.cancel()
    print(count[0], flush=True)


class Pages:
    """The process of the pages; ``bytes`` is known after the ``with``."""

    def __init__(self, url: str, pages: int) -> None:
        self._command = [sys.executable, __file__, "--look", url, str(pages)]
        self.bytes = 0

    def __enter__(self) -> Pages:
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "looking\n"
        return self

    def __exit__(self, *_exc: object) -> None:
        told, _ = self._process.communicate("\n", timeout=60)
        self.bytes = int(told)


def steady(client: gmpd.Client) -> int:
    """3,000 short jobs and 300 coroutines a second."""
    begin = time.perf_counter()
    futures: deque[Future[Any]] = deque()
    done = tick = 0
    while (now := time.perf_counter() - begin) < SECONDS:
        while tick * 0.01 <= now:
            tick += 1
            futures += [client.submit(short, 500) for _ in range(30)]
            futures += [client.submit(parks, 1) for _ in range(3)]
        while futures and futures[0].done():
            futures.popleft().result()
            done += 1
        time.sleep(0.002)
    return done + sum(future.result() is not None for future in futures)


def full(client: gmpd.Client) -> int:
    """As many jobs of two functions as fit."""
    end = time.perf_counter() + SECONDS
    done = 0
    while time.perf_counter() < end:
        futures = [client.submit(short if n % 2 else abs, 100) for n in range(2000)]
        done += sum(future.result() is not None for future in futures)
    return done


def cpu_s(pids: set[int]) -> float:
    """Of all threads of these processes."""
    total = 0
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9


def children(pid: int) -> set[int]:
    """Of a process."""
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return {int(each) for each in text.split()}


def main(rounds: int) -> None:
    with gmpd.Client() as client:
        status = read(client.call("status"))
        workers = {p.pid for p in status.ps if p.pid}
        roles = {
            "workers": workers, "coordinator": {status.pid},
            "gateway": children(status.pid) - workers,
        }  # fmt: skip
        assert client.page_url is not None
        url = client.page_url.rstrip("/")
        for load in (steady, full):
            load(client)
            measure(client, url, load, roles, rounds)
    print(f"load of the machine: {os.getloadavg()[0]:.0f}")


def measure(
    client: gmpd.Client,
    url: str,
    load: Callable[[gmpd.Client], int],
    roles: dict[str, set[int]],
    rounds: int,
) -> None:
    """Print a line for each number of pages."""
    found: dict[int, list[dict[str, float]]] = defaultdict(list)
    for n in range(rounds):
        for pages in PAGES[n % 3 :] + PAGES[: n % 3]:
            with Pages(url, pages) as looking:
                before = {role: cpu_s(pids) for role, pids in roles.items()}
                began = time.perf_counter()
                jobs = load(client)
                took = time.perf_counter() - began
                used = {role: cpu_s(pids) - before[role] for role, pids in roles.items()}
            row = {role: each / took for role, each in used.items()}
            row["us per job"] = (used["workers"] + used["coordinator"]) / jobs * 1e6
            row["jobs/s"] = jobs / took
            row["kB/s"] = looking.bytes / took / max(1, pages) / 1000
            found[pages].append(row)
    print(f"{load.__name__}, {rounds} rounds, medians:")
    for pages in PAGES:
        rows = found[pages]
        told = {key: statistics.median(row[key] for row in rows) for key in rows[0]}
        print(
            f"  {pages:2} pages " + "  ".join(f"{k} {v:,.4g}" for k, v in told.items()), flush=True
        )
        if pages:
            more = {
                key: statistics.median(
                    row[key] - none[key] for row, none in zip(rows, found[0], strict=True)
                )
                for key in roles
            }
            print("           more " + "  ".join(f"{k} {v * 100:+.2f} %" for k, v in more.items()))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--look"]:
        asyncio.run(look(sys.argv[2], int(sys.argv[3])))
    else:
        main(int(sys.argv[1]) if sys.argv[1:] else 8)
