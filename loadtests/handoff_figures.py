"""The cost of a blocked or hogging job to others: hand-off latency, and short jobs beside a crowd.

    python loadtests/handoff_figures.py --output loadtests/results/handoff.json

Runs a daemon of its own with two Ps. Short jobs are submitted one after the other, from submit to
result, while

- nothing else runs;
- 200 jobs of time.sleep(1) and 200 of a blocking HTTP client run, whose aiohttp server is a job on
  one of the same two Ps;
- a job of pure Python runs on each P for two seconds.

And one short job is submitted right behind 100 that sleep for 0.1 s: here, and to a
ProcessPoolExecutor with as many processes.
"""

from __future__ import annotations

import argparse
import json
import socket
import statistics
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from math import ceil
from multiprocessing import get_context
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from gmpd.cli.app import App  # noqa: E402 - found from the line above
from gmpd.cli.private import private_client  # noqa: E402
from loadtests import handoff_jobs as jobs  # noqa: E402
from loadtests.machine import describe  # noqa: E402

PROCS = 2
#: Between the end of one short job and the next: it measures waiting, not throughput.
PAUSE_S = 0.002
#: What a job sleeps that stands before a short one.
BEHIND_S = 0.1
#: The server's job has this long to listen.
START_S = 20.0


def percentiles(values_ms: Sequence[float]) -> dict[str, float]:
    """p50, p99, the worst, and of how many."""
    ordered = sorted(values_ms)
    return {
        "p50_ms": round(statistics.median(ordered), 3),
        "p99_ms": round(ordered[ceil(len(ordered) * 0.99) - 1], 3),
        "max_ms": round(ordered[-1], 3),
        "count": len(ordered),
    }


def of_rounds(by_round: Sequence[Sequence[float]]) -> dict[str, Any]:
    """The medians of the rounds' percentiles, the worst of all, and every round's p99: one round
    in which something else had the cores does not speak for the others.
    """
    rounds = [percentiles(times) for times in by_round]
    return {
        "p50_ms": statistics.median(each["p50_ms"] for each in rounds),
        "p99_ms": statistics.median(each["p99_ms"] for each in rounds),
        "max_ms": max(each["max_ms"] for each in rounds),
        "count": sum(each["count"] for each in rounds),
        "p99_ms_of_rounds": [each["p99_ms"] for each in rounds],
    }


def short_jobs(client: Any, go_on: Callable[[], bool]) -> list[float]:
    """Short jobs one after the other while ``go_on``; the time of each in ms."""
    times = []
    while go_on():
        began = time.perf_counter()
        client.submit(jobs.short, 1).result(60)
        times.append((time.perf_counter() - began) * 1e3)
        time.sleep(PAUSE_S)
    return times


def beside(client: Any, load: Sequence[Future[Any]]) -> list[float]:
    """Short jobs while any of ``load`` is unfinished; raises what a job of it raised."""
    times = short_jobs(client, lambda: not all(future.done() for future in load))
    for future in load:
        future.result()
    return times


def alone(client: Any, seconds: float) -> list[float]:
    end = time.perf_counter() + seconds
    return short_jobs(client, lambda: time.perf_counter() < end)


class Server:
    """An aiohttp server that is a job of the daemon."""

    def __init__(self, client: Any):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}/"
        self._job = client.submit(jobs.serve, self._port)
        deadline = time.monotonic() + START_S
        while not self._listens():
            if self._job.done() or time.monotonic() > deadline:
                raise SystemExit(f"the server did not start: {self._job}")
            time.sleep(0.02)

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self._port)) == 0

    def stop(self) -> int:
        with urllib.request.urlopen(f"{self.url}stop", timeout=60):
            return int(self._job.result(60))


def blocking_crowd(client: Any, url: str, crowd: int, nap_s: float) -> list[float]:
    naps = [client.submit(jobs.nap, nap_s) for _ in range(crowd)]
    return beside(client, naps + [client.submit(jobs.fetch, url) for _ in range(crowd)])


def hogs(client: Any, seconds: float) -> tuple[list[float], int]:
    """Hogs one after the other, so that each P has one: the second goes where nothing runs. Also
    on how many Ps they were in the end.
    """
    load = []
    for _ in range(PROCS):
        load.append(client.submit(jobs.hog, seconds))
        time.sleep(0.1)
    times = beside(client, load)
    return times, len({hog.result() for hog in load})


def behind(submit: Callable[..., Future[Any]], naps: int) -> float:
    """One short job right behind so many that sleep: ms until it is done."""
    load = [submit(jobs.nap, BEHIND_S) for _ in range(naps)]
    began = time.perf_counter()
    submit(jobs.short, 1).result(300)
    took = (time.perf_counter() - began) * 1e3
    wait(load)
    return took


def beside_peer(client: Any, rounds: int, naps: int) -> dict[str, dict[str, float]]:
    """``behind``, here and in a pool of processes, in turn."""
    times: dict[str, list[float]] = {"gmpd": [], "ProcessPoolExecutor": []}
    with ProcessPoolExecutor(PROCS, mp_context=get_context("spawn")) as pool:
        pool.submit(jobs.short, 1).result()  # it has started
        for _ in range(rounds):
            times["gmpd"].append(behind(client.submit, naps))
            times["ProcessPoolExecutor"].append(behind(pool.submit, naps))
    return {name: percentiles(values) for name, values in times.items()}


def measure(client: Any, rounds: int, crowd: int, nap_s: float, hog_s: float, times: int) -> Any:
    """All figures; rounds alternate between the loads."""
    latency = {
        kind: percentiles(
            [ns / 1e6 for ns in client.submit(jobs.handoffs, kind, times).result(300)]
        )
        for kind in ("unknown", "learned", "known")
    }
    seen: dict[str, list[list[float]]] = {"alone": [], "blocking": [], "hogs": []}
    hogs_on: list[int] = []
    server = Server(client)
    for number in range(rounds):
        print(f"round {number + 1} of {rounds}", file=sys.stderr)
        seen["alone"].append(alone(client, nap_s))
        seen["blocking"].append(blocking_crowd(client, server.url, crowd, nap_s))
        times_beside, ps_with_hogs = hogs(client, hog_s)
        seen["hogs"].append(times_beside)
        hogs_on.append(ps_with_hogs)
    pages = server.stop()
    assert pages == rounds * crowd, (pages, rounds, crowd)
    ps = client.call("status")["ps"]
    return {
        "handoff": latency,
        "short_jobs": {load: of_rounds(by_round) for load, by_round in seen.items()},
        "hogs_on_ps": hogs_on,
        "handoffs": sum((Counter(p.get("handoffs", {})) for p in ps), Counter()),
        "pages_served": pages,
        "behind": beside_peer(client, rounds, crowd // 2),
    }


def table(figures: dict[str, Any]) -> str:
    lines = [f"{'':<34}{'p50 ms':>10}{'p99 ms':>10}{'max ms':>10}{'count':>8}"]
    rows = [(f"hand-off, {kind}", row) for kind, row in figures["handoff"].items()]
    rows += [(f"short job, {load}", row) for load, row in figures["short_jobs"].items()]
    rows += [(f"behind sleepers, {name}", row) for name, row in figures["behind"].items()]
    for name, row in rows:
        numbers = "".join(f"{row[key]:>10.2f}" for key in ("p50_ms", "p99_ms", "max_ms"))
        lines.append(f"{name:<34}{numbers}{row['count']:>8}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--crowd", type=int, default=200, help="sleeping, and fetching jobs, each")
    parser.add_argument("--nap", type=float, default=1.0, help="seconds that a sleeping job sleeps")
    parser.add_argument("--hog", type=float, default=2.0, help="seconds that a hog computes")
    parser.add_argument("--times", type=int, default=100, help="hand-offs of each kind")
    parser.add_argument("--output", help="write the report there, as JSON")
    options = parser.parse_args()
    machine = describe()
    with private_client(App(), PROCS, ["aiohttp.web", "loadtests.handoff_jobs"]) as client:
        figures = measure(
            client, options.rounds, options.crowd, options.nap, options.hog, options.times
        )
    report = {
        "machine": machine,
        "rounds": options.rounds,
        "load": {"crowd": options.crowd, "nap_s": options.nap, "hog_s": options.hog},
        **figures,
    }
    print(table(figures))
    if options.output:
        Path(options.output).write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
