"""How late others come beside a busy P: a thread of the user's, a plain G that sleeps, sysmon.

    python loadtests/lateness.py --output loadtests/results/lateness.json

Each load runs for some seconds: under ``gmpd.run`` in a process of its own, and in the one worker
of a private daemon, where the load is a job, or the link is busy with jobs that do nothing.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import gmpd  # noqa: E402 - found from the line above
from loadtests import lateness_jobs as jobs  # noqa: E402

#: Loads of the P itself.
OF_P = ("coroutines", "children", "callbacks", "channels", "timers", "sockets", "plain")
#: Loads of a worker's link.
OF_LINK = {"link": jobs.no_op, "async link": jobs.async_no_op}
#: Jobs in flight on a busy link.
WINDOW = 2_000
#: A worker has this long to begin with what it is told, in seconds.
START_S = 0.3


def in_worker(client: Any, load: str, seconds: float) -> dict[str, Any]:
    until = time.monotonic() + seconds + START_S
    seen = client.submit(jobs.watch, until)
    began, done = time.monotonic(), 0
    if load in OF_LINK:
        while time.monotonic() < until:
            for future in [client.submit(OF_LINK[load], 1) for _ in range(WINDOW)]:
                future.result(60)
            done += WINDOW
    else:
        done = client.submit(jobs.busy, load, until).result(60 + seconds)
    result: dict[str, Any] = seen.result(60)
    result["per_s"] = round(done / (time.monotonic() - began))
    return result


def measure(loads: Sequence[str], seconds: float, *, workers: bool) -> dict[str, Any]:
    from gmpd.cli.app import App  # not for --inside: it needs nothing but gmpd.runtime
    from gmpd.cli.private import private_client

    figures: dict[str, Any] = {"run": {}, "worker": {}}
    for load in loads:
        if load not in OF_LINK and not workers:
            words = [sys.executable, __file__, "--inside", load, "--seconds", str(seconds)]
            done = subprocess.run(words, check=True, capture_output=True, text=True)
            figures["run"][load] = json.loads(done.stdout)
    with private_client(App(), 1, ["loadtests.lateness_jobs"]) as client:
        for load in loads:
            figures["worker"][load] = in_worker(client, load, seconds)
    return figures


def table(figures: dict[str, Any]) -> str:
    lines = [f"{'':<22}{'thread p50':>12}{'p99':>8}{'plain G p50':>14}{'p99':>8}{'sysmon/s':>10}"]
    for where, loads in figures.items():
        for load, row in loads.items():
            thread, g = row["thread"], row["g"]
            lines.append(
                f"{where + ', ' + load:<22}{thread['p50_ms']:>12.1f}{thread['p99_ms']:>8.1f}"
                f"{g['p50_ms']:>14.1f}{g['p99_ms']:>8.1f}{row['sysmon_looks_per_s']:>10}"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=3.0, help="how long each load runs")
    parser.add_argument("--only", nargs="+", choices=[*OF_P, *OF_LINK], help="these loads")
    parser.add_argument("--workers", action="store_true", help="in a worker alone")
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    parser.add_argument("--output", help="write the report there, as JSON")
    options = parser.parse_args()
    if options.inside:
        print(json.dumps(gmpd.run(jobs.under_run(options.inside, options.seconds))))
        return
    from loadtests.machine import describe

    machine = describe()
    figures = measure(options.only or [*OF_P, *OF_LINK], options.seconds, workers=options.workers)
    print(table(figures))
    report = {"machine": machine, "seconds": options.seconds, **figures}
    if options.output:
        Path(options.output).write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
