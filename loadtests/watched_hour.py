"""An hour of a busy daemon with the live page open: no process grows, nor does the page.

    python loadtests/watched_hour.py --record

A daemon with two Ps gets a few hundred jobs a second of every kind: plain ones, some that wait,
block, compute or fail, children that are stolen, durable ones. A Chromium has the page open and
goes through its views; each fifteen seconds `/metrics` is scraped. Twice a minute a look: resident
memory of coordinator, gateway, workers and the page's renderer, and the page's JavaScript heap and
number of nodes after a garbage collection.
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
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import gmpd
from loadtests import jobs, machine
from loadtests.map_lines import rss_mb
from loadtests.watched_daemon import Browser, Watched, children, watched
from tests.jobs_page import family

RESULTS = Path(__file__).parent / "results" / "watched_hour.json"

VIEWS = ("/", "/jobs", "/functions", "/", "/gs", "/clients", "/", "/warnings", "/config", "/")
LOOK_S, VIEW_S, SCRAPE_S, BATCH_S = 30.0, 5.0, 15.0, 0.1
#: Plain jobs of a batch; everything else is a fraction of it.
PLAIN = 24


class Traffic:
    """Jobs at a steady rate, in a thread."""

    def __init__(self, directory: str) -> None:
        self.submitted = self.wrong = self.durable = 0
        self._over = threading.Event()
        self._client = gmpd.Client(directory, name="traffic")
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        batch, next_at = 0, time.monotonic()
        while not self._over.is_set():
            batch += 1
            self._batch(batch)
            next_at = max(next_at + BATCH_S, time.monotonic())
            self._over.wait(next_at - time.monotonic())

    def _batch(self, batch: int) -> None:
        client, n = self._client, batch
        futures = [client.submit(operator.neg, n) for _ in range(PLAIN)]
        futures += [client.submit(jobs.waiting), client.submit(jobs.waiting, 0.2)]
        futures += [client.submit(jobs.blocking), client.submit(jobs.cpu)]
        self.submitted += len(futures)
        if batch % 10 == 0:
            failing = client.submit(jobs.failing, n)
            children_ = client.submit(family, 20, 0.002)
            ids = client.enqueue_many(operator.neg, range(10))
            self.submitted += 12
            self.durable += 10
            self.wrong += failing.exception(60) is None
            children_.result(60)
            self.wrong += any(client.job(id_).result(60) != -k for k, id_ in enumerate(ids))
        self.wrong += any(each.result(60) != -n for each in futures[:PLAIN])

    def end(self) -> None:
        """No more, and those that are under way end."""
        self._over.set()
        self._thread.join()
        self._client.close()


class Looks:
    """The memory of each process, over time."""

    def __init__(self, daemon: Watched, page: Any) -> None:
        self._daemon = daemon
        self._devtools = page.context.new_cdp_session(page)
        self._devtools.send("HeapProfiler.enable")
        self._devtools.send("Performance.enable")
        self.seen: dict[str, list[float]] = {}

    def look(self, client: gmpd.Client) -> None:
        """Once more."""
        status = client.call("status")
        self._add("coordinator, MB", rss_mb(status["pid"]))
        self._add("gateway, MB", rss_mb(self._daemon.gateway))
        for p in status["ps"]:
            if p["up"]:
                self._add(f"worker {p['p']}, MB", rss_mb(p["pid"]))
        self._devtools.send("HeapProfiler.collectGarbage")
        told = self._devtools.send("Performance.getMetrics")["metrics"]
        metrics = {each["name"]: each["value"] for each in told}
        self._add("page: JavaScript heap, MB", metrics["JSHeapUsedSize"] / 1e6)
        self._add("page: nodes", metrics["Nodes"])
        self._add("page: listeners", metrics["JSEventListeners"])
        renderers = [pid for pid, line in children(os.getpid()) if "--type=renderer" in line]
        self._add("page: renderer, MB", max((rss_mb(pid) for pid in renderers), default=0.0))

    def _add(self, name: str, value: float) -> None:
        self.seen.setdefault(name, []).append(round(value, 2))

    def report(self) -> dict[str, Any]:
        """The medians of the second fifth, when all is warm, and of the last one; every minute."""
        found = {}
        for name, seen in self.seen.items():
            part = max(1, len(seen) // 5)
            found[name] = {
                "early": round(statistics.median(seen[part : 2 * part]), 2),
                "late": round(statistics.median(seen[-part:]), 2),
                "most": max(seen),
                "by_minute": seen[::2],
            }
        return found


def run(daemon: Watched, seconds: float) -> dict[str, Any]:
    """Look at the page and at the processes for ``seconds``."""
    browser = Browser(daemon.url)
    traffic = Traffic(daemon.directory)
    page = browser.open()
    said: list[str] = []
    page.on("console", lambda each: said.append(each.text))
    page.on("pageerror", lambda each: said.append(str(each)))
    looks, views, loads = Looks(daemon, page), 0, []
    with gmpd.Client(daemon.directory, name="looks") as client:
        began = time.monotonic()
        look_at = scrape_at = view_at = began
        while (now := time.monotonic()) < began + seconds:
            if now >= view_at:
                views, view_at = views + 1, now + VIEW_S
                page.evaluate("view => { location.hash = `#${view}` }", VIEWS[views % len(VIEWS)])
            if now >= scrape_at:
                scrape_at = now + SCRAPE_S
                with urllib.request.urlopen(f"{daemon.url}/metrics", timeout=60) as answer:
                    answer.read()
            if now >= look_at:
                look_at = now + LOOK_S
                loads.append(os.getloadavg()[0])
                looks.look(client)
            page.wait_for_timeout(500)
        traffic.end()
        status = client.call("status")
        took = time.monotonic() - began
    seq = int(page.evaluate("document.body.dataset.seq"))
    browser.close()
    return {
        "seconds": round(took),
        "jobs": sum(status["jobs"]["finished"].values()),
        "jobs_per_s": round(traffic.submitted / took),
        "durable": traffic.durable,
        "wrong": traffic.wrong,
        "views": views,
        "events": seq,
        "console": said[:5],
        "load": {"median": round(statistics.median(loads), 1), "most": round(max(loads), 1)},
        "memory": looks.report(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--record", action="store_true", help=f"write results/{RESULTS.name}")
    parser.add_argument("--output", type=Path, help="write there")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("it was ended"))  # with its daemon
    about = machine.describe()
    with watched() as daemon:
        figures = run(daemon, args.seconds)
    text = json.dumps({"machine": about, **figures}, indent=1) + "\n"
    if output := RESULTS if args.record else args.output:
        output.write_text(text)
    print(text, end="")
    sys.exit(bool(figures["wrong"] or figures["console"]))


if __name__ == "__main__":
    main()
