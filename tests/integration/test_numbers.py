"""The numbers agree: what a client counts, and what status, metrics, API, page, top and trace show.

One daemon goes through crashes, steals, retries, cancels and time limits, with volatile jobs,
durable ones, isolated ones, and children that migrate. How each job ended is known by its client.
What is counted, and where views differ on purpose, is in the guide ("What is counted").
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gmpd import Client
from gmpd.errors import JobCancelled, JobExpired, JobTimeout, WorkerLost
from gmpd.status import Status, read
from tests import jobs_numbers as jobs
from tests.daemon_process import Daemon
from tests.support import wait_until

#: On a busy machine.
PATIENT_S = 120.0


def how(error: BaseException | None) -> str:
    """The outcome of a job, by the error of its future."""
    match error:
        case None:
            return "ok"
        case JobTimeout() | JobExpired():
            return "timeout"
        case CancelledError() | JobCancelled():
            return "cancelled"
        case WorkerLost():
            return "lost"
        case _:
            return "error"


class Tally:
    """Counts of the client: the ends of its jobs, by function, and their further attempts."""

    def __init__(self, client: Client, directory: Path) -> None:
        self.client = client
        self.directory = directory
        self.ended: dict[str, Counter[str]] = defaultdict(Counter)
        self.retried: Counter[str] = Counter()
        self.durable: Counter[str] = Counter()
        self._open: list[tuple[str, Any]] = []

    def log(self) -> str:
        """A new file for the attempts of one job."""
        handle, name = tempfile.mkstemp(dir=self.directory)
        os.close(handle)
        return name

    def submit(self, fn: Callable[..., Any], *args: Any, **options: Any) -> Any:
        future = self.client.options(**options).submit(fn, *args)
        self._open.append((self.name(fn), future))
        return future

    def enqueue(self, fn: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """A durable job. One that ends on disk, as it waits there, has no function."""
        job = self.client.job(self.client.options(**options).enqueue(fn, *args))
        on_disk = "delay" in options
        self._open.append(("_other" if on_disk else self.name(fn), job))
        return job

    @staticmethod
    def name(fn: Callable[..., Any]) -> str:
        return f"{fn.__module__}:{fn.__qualname__}"

    def settle(self) -> None:
        """Wait until all have ended, and count them."""
        for name, job in self._open:
            if isinstance(job, Future):
                try:
                    outcome = how(job.exception(PATIENT_S))
                except CancelledError as error:
                    outcome = how(error)
            else:
                outcome = how(self.end_of(job))
                self.durable[job.state] += 1
            self.ended[name][outcome] += 1
        self._open.clear()

    @staticmethod
    def end_of(job: Any) -> BaseException | None:
        try:
            job.result(timeout=PATIENT_S)
        except Exception as error:
            return error
        return None

    @property
    def finished(self) -> Counter[str]:
        return sum(self.ended.values(), Counter())

    @property
    def submitted(self) -> int:
        return self.finished.total()


def live_through(tally: Tally) -> None:
    """All that may happen to jobs."""
    volatile(tally)
    durable(tally)
    deaths(tally)
    tally.settle()
    moves(tally)
    tally.settle()


def volatile(tally: Tally) -> None:
    for n in range(40):
        tally.submit(jobs.steady, n)
    negated = tally.client.map(jobs.steady, range(100), chunksize=10)
    assert list(negated) == [-n for n in range(100)]
    tally.ended[tally.name(jobs.steady)]["ok"] += 10  # a chunk is a job
    for n in range(3):
        tally.submit(jobs.fail, n)
        tally.submit(jobs.flaky, tally.log(), 2, retries=3, backoff=0.01)
        tally.submit(jobs.wait, 600, timeout=0.05)
        tally.submit(jobs.steady, n, isolate=True)
    tally.submit(jobs.fail, 0, retries=1, backoff=0.01)
    tally.submit(jobs.wait, 600, timeout=0.05, retries=1, backoff=0.01)
    tally.retried += Counter(error=3 * 2 + 1, timeout=1)
    for _ in range(2):
        tally.submit(jobs.wait, 0.5, unique="k")  # the second has the end of the first
        later = tally.submit(jobs.steady, 1, delay=600)
        wait_until(lambda: status(tally.client).queue.delayed, "it has arrived")
        assert later.cancel()
        waits = tally.submit(jobs.wait, 600)
        wait_until(waits.running, "it runs", timeout=PATIENT_S)
        assert waits.cancel() or waits.cancelled() or waits.exception(PATIENT_S)
    tally.submit(jobs.steady, 1, delay=600, expires=0.1)


def durable(tally: Tally) -> None:
    for n in range(10):
        tally.enqueue(jobs.steady, n)
    for n in range(2):
        tally.enqueue(jobs.fail, n)
        tally.enqueue(jobs.flaky, tally.log(), 1, retries=2, backoff=0.01)
        tally.enqueue(jobs.wait, 600, timeout=0.05)
        assert tally.enqueue(jobs.steady, n, delay=600).cancel()
    tally.enqueue(jobs.steady, 0, delay=600, expires=0.1)
    tally.retried += Counter(error=2)


def deaths(tally: Tally) -> None:
    tally.settle()
    tally.submit(jobs.deadly, tally.log(), 1)
    tally.settle()
    tally.submit(jobs.deadly, tally.log(), 1, retries=1)
    tally.settle()
    tally.enqueue(jobs.deadly, tally.log(), 1)
    tally.settle()
    tally.enqueue(jobs.deadly, tally.log(), 1, once=True)
    tally.retried += Counter(lost=2)
    tally.settle()
    beside = [tally.submit(jobs.wait, 600) for _ in range(4)]
    for future in beside:
        wait_until(future.running, "it runs", timeout=PATIENT_S)
    for p in status(tally.client).ps:
        if p.pid:
            os.kill(p.pid, signal.SIGKILL)


def moves(tally: Tally) -> None:
    """Until leases were stolen and children have moved."""
    for _ in range(100):
        if any(p.stolen for p in status(tally.client).ps):
            break
        for seconds in (0.0, 0.02):  # what was quick is not any more
            for _ in range(60):
                tally.submit(jobs.spin, seconds)
            tally.settle()
    for _ in range(100):
        if status(tally.client).children:
            return
        tally.submit(jobs.family, 40, 0.005)
        tally.settle()
    raise AssertionError("nothing was stolen, or nothing has moved")


def status(client: Client) -> Status:
    return read(client.call("status"))


# -- the daemon, and the ways to look at it --------------------------------------------------------


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    place = Path(tempfile.mkdtemp(prefix="gmpd-", dir="/tmp"))
    with Daemon(place, GMPD_DAEMON__IMPORTS="tests.jobs_numbers").wait_ready() as daemon:
        yield daemon
    shutil.rmtree(place)


@pytest.fixture(scope="module")
def tally(daemon: Daemon) -> Iterator[Tally]:
    """After the run."""
    with Client(str(daemon.directory), name="tally") as client:
        tally = Tally(client, daemon.directory)
        live_through(tally)
        yield tally


def command(daemon: Daemon, *args: str) -> Any:
    """The JSON that a command prints."""
    done = subprocess.run(
        [sys.executable, "-m", "gmpd.cli", *args, "--json"],
        env=daemon.env, capture_output=True, text=True, timeout=PATIENT_S, check=True,
    )  # fmt: skip
    return json.loads(done.stdout)


def metrics(daemon: Daemon) -> dict[str, dict[tuple[str, ...], float]]:
    """By name and the values of labels, those that are not 0."""
    found: dict[str, dict[tuple[str, ...], float]] = defaultdict(dict)
    for family in text_string_to_metric_families(daemon.get("/metrics")):
        for sample in family.samples:
            if sample.value:
                found[sample.name][tuple(sample.labels.values())] = sample.value
    return found


def nonzero(counts: dict[str, int]) -> dict[str, int]:
    return {name: n for name, n in counts.items() if n}


# -- they agree ------------------------------------------------------------------------------------


def test_the_status_counts_as_the_client_does(daemon: Daemon, tally: Tally) -> None:
    told = command(daemon, "status")
    assert nonzero(told["jobs"]["finished"]) == tally.finished
    assert told["jobs"]["submitted"] == tally.submitted
    assert nonzero(told["jobs"]["retried"]) == tally.retried
    assert told["queue"]["unfinished"] == 0
    assert by_function(told["functions"]) == tally.ended
    assert nonzero(told["durable"]["jobs"]) == tally.durable


def by_function(rows: list[dict[str, Any]], name: str = "name") -> dict[str, dict[str, int]]:
    return {row[name]: nonzero(row["finished"]) for row in rows}


def test_the_metrics_count_as_the_client_does(daemon: Daemon, tally: Tally) -> None:
    seen = metrics(daemon)
    finished = {outcome: int(n) for (outcome,), n in seen["gmpd_jobs_finished_total"].items()}
    assert finished == tally.finished
    assert seen["gmpd_jobs_submitted_total"] == {(): tally.submitted}
    assert {why: int(n) for (why,), n in seen["gmpd_jobs_retried_total"].items()} == tally.retried
    functions: dict[str, dict[str, int]] = defaultdict(dict)
    for (name, outcome), n in seen["gmpd_function_jobs_finished_total"].items():
        functions[name][outcome] = int(n)
    assert functions == tally.ended
    assert {state: int(n) for (state,), n in seen["gmpd_durable_jobs"].items()} == tally.durable


def test_the_histograms_count_attempts_that_ran_to_an_end(daemon: Daemon, tally: Tally) -> None:
    seen = metrics(daemon)
    total = 0.0
    for what in ("wait", "run"):
        (total,) = seen[f"gmpd_job_{what}_seconds_count"].values()
        assert total == sum(seen[f"gmpd_function_{what}_seconds_count"].values())
    ended = tally.finished["ok"] + tally.finished["error"] + tally.retried["error"]
    limited = tally.finished["timeout"] + tally.retried["timeout"] - 2  # two have expired
    cancelled = 2  # as they ran
    assert total == ended + limited + cancelled


def test_the_api_counts_as_the_client_does(daemon: Daemon, tally: Tally) -> None:
    told = json.loads(daemon.get("/api/v1/snapshot"))["snapshot"]
    assert nonzero(told["jobs"]["finished"]) == tally.finished
    assert told["jobs"]["submitted"] == tally.submitted
    functions = json.loads(daemon.get("/api/v1/functions"))["functions"]
    assert by_function(functions, "function") == tally.ended
    listed: Counter[str] = Counter()
    after = ""
    while True:
        page = json.loads(daemon.get(f"/api/v1/jobs?kind=durable&limit=5{after}"))
        listed.update(job["state"] for job in page["jobs"])
        if not page.get("next"):
            break
        after = f"&after={page['next']}"
    assert listed == tally.durable


def test_the_page_counts_as_the_client_does(daemon: Daemon, tally: Tally) -> None:
    from tests.page_browser import chromium  # skips this test where there is no playwright

    with chromium() as browser:
        page = browser.new_page()
        page.set_default_timeout(PATIENT_S * 1000)
        page.goto(f"{daemon.url}/#/")
        page.wait_for_selector("body[data-link=live][data-seq]")
        said = page.locator(".stat.jobs", has_text="so far").inner_text()
        failed = page.locator(".stat.failed").inner_text()
        page.goto(f"{daemon.url}/#/functions")
        page.locator("tbody tr", has_text="steady").wait_for()
        shown = [row.split("\t") for row in page.locator("tbody tr").all_inner_texts()]
    assert f"{tally.submitted:,} so far" in said.replace("\u202f", ",")
    bad = {
        name: ends["error"] + ends["timeout"] + ends["lost"] for name, ends in tally.ended.items()
    }
    assert str(sum(bad.values())) in re.findall(r"\d+", failed)
    rows = {row[0].strip(): (row[1].strip(), row[2].strip()) for row in shown}
    assert rows == {
        name.partition(":")[2] or name: (f"{ends.total():,}", f"{bad[name]:,}")
        for name, ends in tally.ended.items()
    }


def traced_rows(daemon: Daemon) -> dict[str, Any]:
    """The rows of a summary of everything that the rings have, by function."""
    told = command(daemon, "trace", "--last", "3600", "--summary")
    return {row["name"].partition(":")[2]: row for row in told["functions"]}


def test_top_and_trace_count_each_attempt_and_each_child_that_moved(
    daemon: Daemon, tally: Tally
) -> None:
    """Only the ring of a worker that was killed is lost."""
    nothing = {"jobs": 0, "failed": 0}
    earlier = traced_rows(daemon)
    began = time.monotonic()
    ended = tally.ended.copy()
    for n in range(30):
        tally.submit(jobs.steady, n)
        tally.submit(jobs.flaky, tally.log(), 1, retries=1, backoff=0.01)
    tally.settle()
    tally.retried["error"] += 30
    top = command(daemon, "top", "--once")
    took = time.monotonic() - began
    rows = traced_rows(daemon)
    counted = {
        name: tuple(rows[name][each] - earlier.get(name, nothing)[each] for each in nothing)
        for name in ("steady", "flaky")
    }
    assert counted == {"steady": (30, 0), "flaky": (60, 30)}
    children = status(tally.client).children
    assert children > 0
    assert rows["spin"]["jobs"] == ended[tally.name(jobs.spin)].total() + children
    shown = {
        row["function"].partition(":")[2]: round(row["jobs_per_s"] * top["seconds"])
        for row in top["functions"]
    }
    for fn in (jobs.steady, jobs.flaky):
        name, ever = fn.__name__, sum(tally.retried.values()) + tally.ended[tally.name(fn)].total()
        # It counts since its look before, which may be of an earlier test.
        least = 1 if took > top["seconds"] else counted[name][0]
        assert least <= shown[name] <= ever


def test_the_time_on_p_is_without_that_in_which_a_job_blocked(tally: Tally) -> None:
    for _ in range(3):
        for fn in (jobs.block, jobs.wait_for_child):
            tally.submit(fn, 0.4)
            tally.settle()
    rows = {row.name: row for row in status(tally.client).functions}
    for fn in (jobs.block, jobs.wait_for_child):
        row = rows[tally.name(fn)]
        assert row.run.sum_ns > 3 * 0.4e9
        assert row.occupied_s < 0.6, "P passed to another M"
