"""The cost of watching: round trips and rates beside pages, readers and top; without a trace.

    python loadtests/watching.py --minutes 12 --record

Two daemons with two Ps, of which the second keeps no trace (``trace.enabled = false``). A client
runs one job after the other for a while, and then a batch of no-ops, with each kind of watcher and
with none in turns, so that whatever else the machine does meets all; each turn is divided by those
without a watcher before and after it. CPU time is that of coordinator, workers and gateway.

- *page*: a Chromium on the same machine with the live page open; *ten pages*: ten tabs of it;
- *ten readers*: ten connections that read the events as the page does, and do not draw;
- *top*: `gmpd top` in a terminal; *no trace*: no watcher, and the second daemon.

Then the bytes that one page gets, as its browser counts them, beside an idle daemon and a busy one.
"""

from __future__ import annotations

import argparse
import json
import operator
import os
import signal
import statistics
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import gmpd
from loadtests import machine
from loadtests.recorder import Latencies
from loadtests.watched_daemon import Browser, Top, Watched, children, watched

RESULTS = Path(__file__).parent / "results" / "watching.json"

#: Seconds of round trips, and jobs of the batch.
TRIPS_S, BATCH = 1.0, 4_000
#: So that there are quartiles.
ROUNDS_MIN = 2
#: Seconds for which bytes are counted, and jobs a second of a busy daemon.
BYTES_S, BUSY_RATE = 10.0, 2_000
VIEWS = {"the picture": "/", "jobs": "/jobs", "Gs": "/gs"}

Turn = dict[str, float]


def turn(client: gmpd.Client, daemon: Watched) -> Turn:
    """The figures of one turn."""
    trips, end = Latencies(), time.perf_counter() + TRIPS_S
    cpu = _cpu_s(daemon)
    while (began := time.perf_counter()) < end:
        client.submit(operator.neg, 1).result(60)
        trips.add(int((time.perf_counter() - began) * 1e9))
    trip_cpu = _cpu_s(daemon) - cpu
    began, cpu = time.perf_counter(), _cpu_s(daemon)
    for future in [client.submit(operator.neg, n) for n in range(BATCH)]:
        future.result(60)
    took = time.perf_counter() - began
    return {
        "p50_ms": trips.quantile_ms(0.5),
        "p99_ms": trips.quantile_ms(0.99),
        "trip_cpu_us": trip_cpu / trips.count * 1e6,
        "jobs_per_s": BATCH / took,
        "job_cpu_us": (_cpu_s(daemon) - cpu) / BATCH * 1e6,
    }


def _cpu_s(daemon: Watched) -> float:
    """CPU time of the daemon's processes."""
    total = 0
    for pid in (daemon.pid, *(pid for pid, _ in children(daemon.pid))):
        for task in Path(f"/proc/{pid}/task").iterdir():
            total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9


class Readers:
    """Connections that read events as the page does, in threads, while in the ``with``."""

    def __init__(self, url: str, n: int) -> None:
        self._url, self._n = f"{url}/api/v1/events", n

    def __enter__(self) -> None:
        self._over = False
        heard = threading.Barrier(self._n + 1)
        self._threads = [threading.Thread(target=self._read, args=(heard,)) for _ in range(self._n)]
        for thread in self._threads:
            thread.start()
        heard.wait(60)

    def _read(self, heard: threading.Barrier) -> None:
        with urllib.request.urlopen(self._url, timeout=60) as answer:
            answer.readline()
            heard.wait(60)
            while not self._over:
                answer.readline()

    def __exit__(self, *_: object) -> None:
        self._over = True
        for thread in self._threads:
            thread.join()


@contextmanager
def shown(browser: Browser, pages: list[Any]) -> Iterator[None]:
    """Tabs show the daemon's page."""
    for page in pages:
        browser.show(page)
    yield
    for page in pages:
        browser.blank(page)


def alternate(
    daemon: Watched, silent: Watched, browser: Browser, minutes: float
) -> dict[str, list[tuple[Turn, Turn]]]:
    """Turns of each kind of watcher, each with the mean of those without around it."""
    pages = [browser.open() for _ in range(10)]
    for page in pages:
        browser.blank(page)
    watchers: dict[str, Callable[[], AbstractContextManager[None]]] = {
        "none, again": nullcontext,
        "page": lambda: shown(browser, pages[:1]),
        "ten pages": lambda: shown(browser, pages),
        "ten readers": lambda: Readers(daemon.url, 10),
        "top": lambda: Top(daemon),
        "no trace": nullcontext,
    }
    found: dict[str, list[tuple[Turn, Turn]]] = {name: [] for name in watchers}
    with gmpd.Client(daemon.directory) as client, gmpd.Client(silent.directory) as other:
        for each, of in ((client, daemon), (other, silent)):
            turn(each, of)
        before = turn(client, daemon)
        end, number = time.monotonic() + 60 * minutes, 0
        while number < ROUNDS_MIN or time.monotonic() < end:
            number += 1
            for name, watch in watchers.items():
                with watch():
                    args = (other, silent) if name == "no trace" else (client, daemon)
                    seen = turn(*args)
                after = turn(client, daemon)
                found[name].append((seen, {k: (before[k] + after[k]) / 2 for k in before}))
                before = after
            print(f"round {number}, load {os.getloadavg()[0]:.1f}", file=sys.stderr)
    return found


def ratios(turns: list[tuple[Turn, Turn]]) -> dict[str, Any]:
    """Medians and quartiles over the turns."""
    out: dict[str, Any] = {}
    for key in turns[0][0]:
        each = [seen[key] / alone[key] for seen, alone in turns]
        low, median, high = statistics.quantiles(each, n=4)
        out[key] = {
            "median": round(statistics.median(seen[key] for seen, _ in turns), 3),
            "alone": round(statistics.median(alone[key] for _, alone in turns), 3),
            "ratio": round(median, 3),
            "quartiles": [round(low, 3), round(high, 3)],
        }
    return out


class Busy:
    """Jobs at a steady rate while in the ``with``."""

    def __init__(self, daemon: Watched) -> None:
        self._directory, self._over = daemon.directory, threading.Event()

    def __enter__(self) -> None:
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        with gmpd.Client(self._directory) as client:
            while not self._over.wait(0.05):
                for future in [client.submit(operator.neg, n) for n in range(BUSY_RATE // 20)]:
                    future.result(60)

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


def bytes_per_s(daemon: Watched, browser: Browser) -> dict[str, dict[str, float]]:
    """Of one page, by view."""
    found: dict[str, dict[str, float]] = {}
    for load in ("idle", "busy"):
        with ExitStack() as stack:
            if load == "busy":
                stack.enter_context(Busy(daemon))
            for name, view in VIEWS.items():
                page, got = browser.open(view), [0]
                devtools = page.context.new_cdp_session(page)
                devtools.on("Network.dataReceived", _adding(got))
                devtools.send("Network.enable")
                browser.show(page, view)
                page.wait_for_timeout(2_000)
                began, got[0] = time.monotonic(), 0
                page.wait_for_timeout(BYTES_S * 1000)
                rate = got[0] / (time.monotonic() - began)
                found.setdefault(name, {})[load] = round(rate)
                page.context.close()
    return found


def _adding(got: list[int]) -> Callable[[dict[str, Any]], None]:
    def add(event: dict[str, Any]) -> None:
        got[0] += event["dataLength"]

    return add


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=12, help="for the turns")
    parser.add_argument("--record", action="store_true", help=f"write results/{RESULTS.name}")
    parser.add_argument("--output", type=Path, help="write there")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("it was ended"))  # with its daemon
    about, loads = machine.describe(), []
    with watched() as daemon, watched(GMPD_TRACE__ENABLED="false") as silent:
        browser = Browser(daemon.url)
        page_bytes = bytes_per_s(daemon, browser)
        loads.append(os.getloadavg()[0])
        found = alternate(daemon, silent, browser, args.minutes)
        loads.append(os.getloadavg()[0])
        browser.close()
    report = {
        "machine": about, "rounds": len(found["page"]), "load": [round(each, 1) for each in loads],
        "watchers": {name: ratios(turns) for name, turns in found.items()},
        "page_bytes_per_s": page_bytes, "busy_jobs_per_s": BUSY_RATE,
    }  # fmt: skip
    text = json.dumps(report, indent=1) + "\n"
    if output := RESULTS if args.record else args.output:
        output.write_text(text)
    print(text, end="")


if __name__ == "__main__":
    main()
