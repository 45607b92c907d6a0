"""How smooth the live page is beside 100,000 Gs that wait: its frames in a real Chromium.

    python loadtests/page_frames.py --record

Starts a daemon of its own with two Ps, and opens the picture and the table of Gs in turn, with no G
and with all of them: a job on each P makes half of them, which wait on a channel. In each view it
counts, for some seconds, the time from one frame to the next (``requestAnimationFrame``), the CPU
time of the page's thread, and its elements. The CPU times say more than the frames do when the
machine is busy: a frame is late, too, when others have the cores.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
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
from loadtests import machine
from tests.jobs_page import parked

RESULTS = Path(__file__).parent / "results" / "page_frames.json"

VIEWS = {"picture": "/", "Gs": "/gs?state=waiting"}
#: For a page to settle before it is measured.
SETTLE_MS = 3000
PATIENT_MS = 60_000

#: Times between frames (ms) for ``s`` seconds.
FRAMES = """(s) => new Promise((over) => {
  const times = [], end = performance.now() + 1000 * s;
  let before = null;
  const frame = (now) => {
    if (before !== null) times.push(now - before);
    before = now;
    performance.now() < end ? requestAnimationFrame(frame) : over(times);
  };
  requestAnimationFrame(frame);
})"""


def gs_of(client: Client) -> int:
    """Gs that wait, as the status has it."""
    return sum(p["gs"].get("waiting", 0) for p in client.call("status")["ps"])


class Page:
    """A view of the live page, measured."""

    def __init__(self, page: Any) -> None:
        self._page = page
        self._devtools = page.context.new_cdp_session(page)
        self._devtools.send("Performance.enable", {"timeDomain": "threadTicks"})

    def measure(self, url: str, view: str, seconds: float) -> dict[str, float]:
        """Its frames, and the CPU time of its thread for each second."""
        self._page.goto(f"{url}/#{view}")
        self._page.wait_for_selector("body[data-link=live][data-seq]", timeout=PATIENT_MS)
        self._page.wait_for_timeout(SETTLE_MS)
        before = self._cpu()
        frames = sorted(self._page.evaluate(FRAMES, seconds))
        cpu_s = self._cpu() - before
        return {
            "frames": len(frames), "median_ms": statistics.median(frames),
            "p99_ms": frames[int(len(frames) * 0.99) - 1], "longest_ms": frames[-1],
            "cpu_percent": 100 * cpu_s / seconds,
            "elements": self._page.evaluate("document.querySelectorAll('*').length"),
        }  # fmt: skip

    def _cpu(self) -> float:
        """Seconds of CPU that the page's thread has used in tasks."""
        told = self._devtools.send("Performance.getMetrics")["metrics"]
        return float(next(each["value"] for each in told if each["name"] == "TaskDuration"))


@contextmanager
def opened() -> Iterator[Page]:
    """A page in a browser."""
    from playwright.sync_api import sync_playwright

    path = shutil.which("chromium") or shutil.which("chromium-browser")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, timeout=PATIENT_MS,
            args=["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"],
        )  # fmt: skip
        yield Page(browser.new_page(viewport={"width": 1440, "height": 900}))
        browser.close()


def measure(gs: int, seconds: float, rounds: int) -> dict[str, Any]:
    """Each view without Gs and with them, in turn, round by round."""
    config = Config().override({"daemon.procs": 2})
    daemon = PrivateDaemon(config)
    target = Target(daemon.endpoint, config.client.connect_timeout, daemon)
    found: dict[str, list[dict[str, float]]] = {}
    with Client(target=target) as client, opened() as page:
        url = (client.page_url or "").rstrip("/")
        for _ in range(rounds):
            for n in (0, gs):
                jobs = [client.submit(parked, n // 2) for _ in range(2 if n else 0)]
                while gs_of(client) < n:
                    time.sleep(0.1)
                for name, view in VIEWS.items():
                    row = page.measure(url, view, seconds)
                    found.setdefault(f"{name}, {n:,} Gs", []).append(row)
                for job in jobs:
                    job.cancel()
                while gs_of(client):
                    time.sleep(0.1)
    return {name: middle(rows) for name, rows in found.items()}


def middle(rows: list[dict[str, float]]) -> dict[str, float]:
    """The medians of the rounds, and the longest frame of all."""
    found = {key: round(statistics.median(row[key] for row in rows), 2) for key in rows[0]}
    return found | {"longest_ms": round(max(row["longest_ms"] for row in rows), 1)}


def told(views: dict[str, Any]) -> str:
    """A table for people."""
    lines = [f"{'':24} median    p99  longest ms   CPU %  elements"]
    for name, row in views.items():
        lines.append(
            f"{name:24} {row['median_ms']:6.1f} {row['p99_ms']:6.1f} {row['longest_ms']:11.1f}"
            f" {row['cpu_percent']:7.1f} {row['elements']:9,.0f}"
        )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--gs", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", metavar="FILE", help="write the figures there")
    parser.add_argument("--record", action="store_true", help=f"write {RESULTS.name} in results/")
    args = parser.parse_args()
    found: dict[str, Any] = {"machine": machine.describe(), "gs": args.gs, "rounds": args.rounds,
                             "seconds": args.seconds}  # fmt: skip
    found["views"] = measure(args.gs, args.seconds, args.rounds)
    print(told(found["views"]))
    text = json.dumps(found, indent=1) + "\n"
    for path in filter(None, (args.output, RESULTS if args.record else None)):
        Path(path).write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
