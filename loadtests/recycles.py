"""Two hundred recycles with jobs going on: no job is lost, and no process grows.

    python loadtests/recycles.py --record

A daemon of its own with two Ps, whose workers are replaced after some hundred jobs each
(``recycle.jobs``). One client keeps volatile jobs in flight, plain and waiting ones, and has
durable ones stored; each value is checked. Meanwhile it looks at the resident memory of the
coordinator, and of each worker while it serves.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import operator
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import gmpd
from loadtests import machine
from loadtests.map_lines import rss_mb, wait_for

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results" / "recycles.json"

#: Jobs after which a worker is replaced, and jobs in flight.
JOBS, IN_FLIGHT = 500, 300
#: Between two looks (s).
LOOK_S = 0.2
#: Durable jobs that are stored at each look.
DURABLE = 50
#: A job that has no value after this is lost (s).
LOST_S = 120.0


class Looks:
    """The memory of each process at the last look, in the order in which they began."""

    def __init__(self) -> None:
        self.coordinator: list[float] = []
        self.workers: dict[int, float] = {}
        self.recycles = 0

    def look(self, client: gmpd.Client) -> None:
        """Look at the coordinator and at the workers that serve."""
        status = client.call("status")
        self.coordinator.append(rss_mb(status["pid"]))
        for p in status["ps"]:
            if p["up"] and (rss := rss_mb(p["pid"])):
                self.workers[p["pid"]] = rss
        self.recycles = sum(p["restarts"].get("jobs", 0) for p in status["ps"])

    def report(self) -> dict[str, Any]:
        """The medians of the second fifth, when all is warm, and of the last one, MB."""
        found = {}
        for name, seen in (
            ("coordinator", self.coordinator),
            ("worker", list(self.workers.values())),
        ):
            part = len(seen) // 5
            found[name] = {
                "early_mb": round(statistics.median(seen[part : 2 * part]), 1),
                "late_mb": round(statistics.median(seen[-part:]), 1),
                "max_mb": round(max(seen), 1),
            }
        return found


def submitted(client: gmpd.Client) -> Iterator[tuple[Future[Any], int]]:
    """Volatile jobs without end, and what each is to return."""
    n = 0
    while True:
        n += 1
        if n % 10:
            yield client.submit(operator.neg, n), -n
        else:
            yield client.submit(asyncio.sleep, 0.05, n), n


def run(client: gmpd.Client, recycles: int) -> dict[str, Any]:
    """Submit jobs until ``recycles`` workers were replaced."""
    looks, jobs = Looks(), submitted(client)
    flying: deque[tuple[Future[Any], int]] = deque()
    stored: list[tuple[str, int]] = []
    done, lost, began, look_at = 0, [], time.monotonic(), 0.0
    while looks.recycles < recycles or flying:
        if time.monotonic() >= look_at:
            looks.look(client)
            numbers = range(len(stored), len(stored) + DURABLE)
            stored += zip(client.enqueue_many(operator.neg, numbers), numbers, strict=True)
            look_at = time.monotonic() + LOOK_S
        while looks.recycles < recycles and len(flying) < IN_FLIGHT:
            flying.append(next(jobs))
        future, wanted = flying.popleft()
        lost += _faults(future, wanted)
        done += 1
    for id_, number in stored:
        lost += _faults(client.job(id_), -number)
    return {
        "recycles": looks.recycles, "seconds": round(time.monotonic() - began, 1),
        "jobs": done, "durable": len(stored), "lost": len(lost), "examples": lost[:5],
        "memory": looks.report(),
    }  # fmt: skip


def _faults(job: Any, wanted: int) -> list[str]:
    try:
        value = job.result(LOST_S)
    except Exception as error:
        return [f"{type(error).__name__}: {error}"]
    return [] if value == wanted else [f"{value!r}, not {wanted!r}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--recycles", type=int, default=200)
    parser.add_argument("--record", action="store_true", help=f"write results/{RESULTS.name}")
    args = parser.parse_args()
    about = machine.describe()
    with tempfile.TemporaryDirectory(prefix="gl-", dir="/tmp") as directory:
        env = {
            **os.environ,
            "GMPD_RUNTIME_DIR": directory,
            "GMPD_STATE_DIR": f"{directory}/state",
            "GMPD_HTTP__ENABLED": "false",
            "GMPD_RECYCLE__JOBS": str(JOBS),
            "GMPD_RECYCLE__GRACE": "200ms",
        }
        daemon = subprocess.Popen(
            [sys.executable, "-m", "gmpd.cli", "serve", "--procs", "2"],
            env=env, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            wait_for(Path(directory) / "gmpd.json", daemon)
            with gmpd.Client(directory) as client:
                figures = run(client, args.recycles)
        finally:
            daemon.terminate()
            daemon.wait()
    text = json.dumps({"machine": about, "after_jobs": JOBS, **figures}, indent=1) + "\n"
    if args.record:
        RESULTS.write_text(text)
    print(text, end="")
    sys.exit(bool(figures["lost"]))


if __name__ == "__main__":
    main()
