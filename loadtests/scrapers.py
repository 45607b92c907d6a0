"""The cost of watching: the round trip of one job, without and with ten scrapers.

    gmpd serve --import loadtests.jobs &
    python loadtests/scrapers.py

Rounds with and without scrapers alternate, so that whatever else the machine does meets both. The
scrapers are a process of their own; each of the ten scrapes ten times a second, fifty times as
often as the Prometheus of ``config/prometheus``.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from loadtests import jobs  # noqa: E402 - found from the line above
from loadtests.recorder import Recorder  # noqa: E402


async def scrape(url: str, scrapers: int, interval_s: float) -> None:
    """Scrape until ended; one line when all have had their first answer."""
    import aiohttp

    first = asyncio.Barrier(scrapers + 1)

    async def one(session: aiohttp.ClientSession) -> None:
        waiting = True
        while True:
            async with session.get(f"{url}/metrics") as response:
                assert response.status == 200, response.status
                await response.read()
            if waiting:
                waiting = False
                await first.wait()
            await asyncio.sleep(interval_s)

    async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as group:
        for _ in range(scrapers):
            group.create_task(one(session))
        await first.wait()
        print("scraping", flush=True)


class Scrapers:
    """The scrapers' process, while in the ``with``."""

    def __init__(self, url: str, scrapers: int, interval_s: float) -> None:
        self._command = [sys.executable, __file__, "--scrape", url]
        self._command += ["--scrapers", str(scrapers), "--interval", str(interval_s)]

    def __enter__(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "scraping\n"

    def __exit__(self, *_: object) -> None:
        assert self._process.stdout is not None
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()


def measure(recorder: Recorder, kind: str, submit: object, seconds: float) -> None:
    """One job after the other for so long."""
    end = time.perf_counter() + seconds
    while (began := time.perf_counter()) < end:
        submit(jobs.short, 1).result(30)  # type: ignore[operator]
        recorder.add(kind, int((time.perf_counter() - began) * 1e9))


def main() -> None:
    parser = argparse.ArgumentParser(description="the round trip without and with scrapers")
    parser.add_argument("--scrapers", type=int, default=10)
    parser.add_argument("--interval", type=float, default=0.1, help="seconds between two scrapes")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3, help="for one round of either kind")
    parser.add_argument("--url", default="http://127.0.0.1:7412", help="of the gateway")
    parser.add_argument("--scrape", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.scrape:
        asyncio.run(scrape(options.scrape, options.scrapers, options.interval))
        return
    import gmpd

    recorder = Recorder()
    with gmpd.Client() as client:
        measure(Recorder(), "warm", client.submit, 1)
        for _ in range(options.rounds):
            measure(recorder, "alone", client.submit, options.seconds)
            with Scrapers(options.url, options.scrapers, options.interval):
                measure(recorder, f"{options.scrapers} watch", client.submit, options.seconds)
    print(recorder.table(options.rounds * options.seconds))


if __name__ == "__main__":
    main()
