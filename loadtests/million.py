"""A million Gs parked in one worker of a running daemon, which keeps answering.

    python loadtests/million.py                       # on a channel, then asleep; about a minute
    python loadtests/million.py --gs 50000 --json -   # smaller, as JSON on stdout

Starts a daemon of its own with one P. A job spawns the Gs, 1,000 at a time; meanwhile, while they
are parked, and while all wake at once, a client submits short jobs to the same P and asks for the
daemon's status, and times both. Memory is what the worker has resident in the end, less before.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from gmpd.client.discovery import Target
from gmpd.client.private import PrivateDaemon
from gmpd.client.sync import Client
from gmpd.config import Config
from loadtests import jobs, machine, million_jobs

RESULTS = Path(__file__).parent / "results" / "million.json"

#: Between two pings (seconds): they show delays, and are no load themselves.
PING_EVERY_S = 0.005
#: How long everything is left parked, so that pings show what that costs (seconds).
PARKED_S = 5.0
#: Seconds until sleepers wake, per million: they all must be asleep before, on a slow machine too.
SLEEP_S_PER_MILLION = 45.0


class Pings:
    """Round trips of short jobs and of status, in a thread of their own, by phase."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.phase = ""
        self.times: dict[str, dict[str, list[float]]] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._over.wait(PING_EVERY_S):
            phase = self.phase
            for kind, ping in (("job", self._job), ("status", self._status)):
                began = time.perf_counter()
                ping()
                took = time.perf_counter() - began
                self.times.setdefault(phase, {}).setdefault(kind, []).append(took)

    def _job(self) -> None:
        self._client.submit(jobs.short, 1).result(timeout=120)

    def _status(self) -> None:
        self._client.call("status", timeout=120)

    @contextmanager
    def running(self) -> Iterator[None]:
        self._thread.start()
        try:
            yield
        finally:
            self._over.set()
            self._thread.join()

    def figures(self) -> dict[str, Any]:
        """Milliseconds, by phase and kind."""
        return {
            phase: {kind: _quantiles(times) for kind, times in kinds.items()}
            for phase, kinds in self.times.items()
        }


def _quantiles(times: list[float]) -> dict[str, float]:
    ordered = sorted(times)
    at = [ordered[min(len(ordered) - 1, int(q * len(ordered)))] for q in (0.5, 0.99, 1.0)]
    names = ("p50_ms", "p99_ms", "max_ms")
    return {"count": len(ordered)} | {
        name: round(value * 1e3, 3) for name, value in zip(names, at, strict=True)
    }


def experiment(gs: int, asleep: bool) -> dict[str, Any]:
    """One run with a daemon of its own."""
    config = Config().override({"daemon.procs": 1, "daemon.imports": ("loadtests.million_jobs",)})
    daemon = PrivateDaemon(config)
    sleep_s = max(3.0, SLEEP_S_PER_MILLION * gs / 1e6) if asleep else None
    target = Target(daemon.endpoint, config.client.connect_timeout, daemon)
    with Client(target=target) as client, Client(target=Target(daemon.endpoint, 10.0)) as second:
        second.submit(jobs.short, 1).result(timeout=60)  # the worker is there, and has the module
        pings = Pings(second)
        pings.phase = "spawning"
        with pings.running():
            events = client.stream(million_jobs.park, gs, sleep_s)
            parked = next(events)
            pings.phase = "parked"
            time.sleep(PARKED_S if gs > 100_000 else PARKED_S / 5)
            pauses = client.call("status")["hist"].get("gc_pause")
            pings.phase = "waking"
            if not asleep:
                parked["close_s"] = client.submit(million_jobs.close_gate).result(timeout=120)
            woken = next(events)
            pings.phase = "after"
            time.sleep(0.5)
        seen = client.call("status")
        (p,) = seen["ps"]
        assert list(events) == []
    return {
        **parked, **woken, "pings": pings.figures(), "gc": p["gc"],
        "gc_pause_max_ms": _longest_ms(seen["hist"]["gc_pause"]),
        "gc_pause_until_parked_max_ms": _longest_ms(pauses),
        "gc_total_s": round(seen["hist"]["gc_pause"]["sum_ns"] / 1e9, 3),
    }  # fmt: skip


def _longest_ms(histogram: dict[str, Any] | None) -> float | None:
    """The upper bound of the last bucket in use."""
    if not histogram or not histogram["count"]:
        return None
    last = max(i for i, count in enumerate(histogram["buckets"]) if count)
    return round((1 << last) / 1e6, 3)


def told(what: str, run: dict[str, Any]) -> str:
    """A run in lines for people."""
    lines = [
        f"{run['gs']:,} Gs, {what}",
        f"  spawned and parked in {run['spawn_and_park_s']:.2f} s, woken in {run['wake_s']:.2f} s"
        f" ({run['woken']:,} of them)",
        f"  {run['bytes_per_g']:,.0f} bytes resident per G; its objects: "
        + ", ".join(f"{name} {size}" for name, size in run["parts"].items()),
        f"  garbage collection: {run['gc']}, {run['gc_total_s']} s in all, no pause longer than"
        f" {run['gc_pause_until_parked_max_ms']} ms until parked, {run['gc_pause_max_ms']} ms ever",
    ]
    for phase, kinds in run["pings"].items():
        for kind, each in kinds.items():
            lines.append(
                f"  {phase:9} {kind:7} p50 {each['p50_ms']:8.2f}  p99 {each['p99_ms']:8.2f}"
                f"  max {each['max_ms']:8.2f} ms   ({each['count']})"
            )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--gs", type=int, default=1_000_000)
    parser.add_argument("--json", metavar="FILE", help="write the figures there; - is stdout")
    parser.add_argument("--record", action="store_true", help=f"write {RESULTS.name} in results/")
    args = parser.parse_args()
    found: dict[str, Any] = {"machine": machine.describe(), "gs": args.gs}
    for name, what, asleep in (
        ("channel", "each receiving from a channel", False),
        ("sleep", "each asleep until the same moment", True),
    ):
        found[name] = experiment(args.gs, asleep)
        print(told(what, found[name]), file=sys.stderr)
    text = json.dumps(found, indent=1) + "\n"
    if args.json == "-":
        print(text, end="")
    elif args.json:
        Path(args.json).write_text(text)
    if args.record:
        RESULTS.write_text(text)
    complete = all(found[name]["woken"] == args.gs for name in ("channel", "sleep"))
    return 0 if complete else 1


if __name__ == "__main__":
    sys.exit(main())
