"""Load on a running daemon, by locust.

    gmpd serve --import loadtests.jobs &
    locust -f loadtests/locustfile.py --headless -u 20 -r 20 -t 30s --html report.html

Each user is a program that submits a job, waits for its result, and continues: a closed loop. With
``--rate R`` each user submits R jobs a second whatever happens (an open loop), and a latency counts
from when the job was *due*, so a daemon that falls behind cannot hide it (and gevent's own
lateness of up to a millisecond is in it).

    --tags short blocking …   only these kinds of job
    --rate R, --think S       open loop; or seconds between a result and the next job
    --clients N               connections to the daemon, shared by the users
    --max-p99 short=50        the run fails (exit code 1) when the p99 of short is above 50 ms;
    --max-fail-ratio --min-rps --min-jobs    and by these. A run without any job fails always.
    --latencies FILE          JSON; latencies to a few percent, also below a millisecond
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import time
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent
from locust import User, events, tag, task
from locust.runners import MasterRunner, WorkerRunner

from gmpd.client.green import Client
from gmpd.errors import GmpdError
from loadtests import jobs
from loadtests.recorder import Limits, Recorder

#: A job that has no result by then has failed: far beyond any that is sent here.
RESULT_TIMEOUT_S = 30

recorder = Recorder()


def assert_gives_way(client: Client) -> None:
    """RuntimeError when waiting for a result holds up the other users of this process.

    A client that blocks in C measures its own queue, and shows *better* percentiles than there are:
    the users behind it do not even begin to count.
    """
    turns = 0

    def another_user() -> None:
        nonlocal turns
        while True:
            gevent.sleep(0.001)
            turns += 1

    other = gevent.spawn(another_user)
    try:
        client.submit(jobs.waiting, 0.05).result(timeout=RESULT_TIMEOUT_S)
    finally:
        other.kill()
    if turns < 5:
        raise RuntimeError("waiting for a job blocks this whole process: nothing can be measured")


class Connections:
    """The clients of this process, dealt out to its users in turn."""

    def __init__(self) -> None:
        self._clients: list[Any] = []
        self._next: Any = itertools.repeat(None)
        self.began = 0.0

    def open(self, count: int) -> None:
        """Connect."""
        self._clients = [Client() for _ in range(count)]
        assert_gives_way(self._clients[0])
        self._next = itertools.cycle(self._clients)
        self.began = time.monotonic()

    def take(self) -> Any:
        """A client for one more user."""
        return next(self._next)

    def close(self) -> None:
        """Disconnect."""
        while self._clients:
            self._clients.pop().close()


connections = Connections()


class Program(User):
    """A program that hands jobs to gmpd and waits for them."""

    def on_start(self) -> None:
        """Join in: the first job is due now."""
        options = self.environment.parsed_options
        self.client = connections.take()
        self.rate: float = options.rate
        self.think_s: float = options.think
        self.due = time.perf_counter()

    def wait_time(self) -> float:
        """Seconds until the next job is due: 0 when it is already late."""
        now = time.perf_counter()
        self.due = self.due + 1 / self.rate if self.rate else now + self.think_s
        return max(0.0, self.due - now)

    def run_job(self, kind: str, fn: Callable[..., Any], *args: Any) -> Any:
        """Submit, wait, record. An open loop counts from when the job was due."""
        began = self.due if self.rate else time.perf_counter()
        error: Exception | None = None
        result = None
        try:
            result = self.client.submit(fn, *args).result(timeout=RESULT_TIMEOUT_S)
        except Exception as failure:
            error = failure
        took_ns = int((time.perf_counter() - began) * 1e9)
        recorder.add(kind, took_ns, failed=error is not None)
        self.environment.events.request.fire(
            request_type="job",
            name=kind,
            response_time=took_ns / 1e6,
            response_length=0,
            exception=error,
            context={},
            response=None,
        )
        return result

    @tag("short")
    @task(20)
    def short(self) -> None:
        """Nothing to do: the way there and back."""
        self.run_job("short", jobs.short, 1)

    @tag("waiting")
    @task(5)
    def waiting(self) -> None:
        """A coroutine that waits."""
        self.run_job("waiting", jobs.waiting)

    @tag("blocking")
    @task(3)
    def blocking(self) -> None:
        """A function that blocks a thread."""
        self.run_job("blocking", jobs.blocking)

    @tag("cpu")
    @task(2)
    def cpu(self) -> None:
        """A function that computes."""
        self.run_job("cpu", jobs.cpu)


# -- options -------------------------------------------------------------------------------------


def _p99_limit(text: str) -> tuple[str, float]:
    kind, _, limit = text.partition("=")
    try:
        return kind, float(limit)
    except ValueError:
        raise ArgumentTypeError(f"{text!r} is not KIND=MILLISECONDS, as in short=50") from None


def _add_options(parser: ArgumentParser, **_: Any) -> None:
    load = parser.add_argument_group("gmpd load")
    load.add_argument("--rate", type=float, default=0.0, help="jobs/s per user: an open loop")
    load.add_argument("--think", type=float, default=0.0, help="seconds from result to next job")
    load.add_argument("--clients", type=int, default=4, help="connections to the daemon")
    limits = parser.add_argument_group("gmpd limits: the exit code is 1 when one is broken")
    limits.add_argument("--max-p99", type=_p99_limit, action="append", default=[])
    limits.add_argument("--max-fail-ratio", type=float, default=0.0)
    limits.add_argument("--min-rps", type=float, default=0.0)
    limits.add_argument("--min-jobs", type=int, default=1)
    limits.add_argument("--latencies", metavar="FILE", help="write latencies as JSON")


# -- the course of a run -------------------------------------------------------------------------


def _on_init(environment: Any, **_: Any) -> None:
    # gevent's timers count from the loop's own time, which stands still while modules are imported:
    # on a slow machine a run of two seconds (-t 2s) would be over before it began.
    gevent.get_hub().loop.update_now()


def _on_start(environment: Any, **_: Any) -> None:
    recorder.kinds.clear()
    connections.began = time.monotonic()
    if isinstance(environment.runner, MasterRunner):
        return
    # A daemon that a load test started for itself would be the wrong one to measure.
    os.environ.setdefault("GMPD_CLIENT__AUTOSTART", "false")
    try:
        connections.open(environment.parsed_options.clients)
    except GmpdError as error:
        sys.stderr.write(f"no load: {error}\n")
        environment.runner.quit()


def _on_stop(environment: Any, **_: Any) -> None:
    connections.close()


def _on_report_to_master(data: dict[str, Any], **_: Any) -> None:
    data["gmpd_latencies"] = recorder.take()


def _on_worker_report(data: dict[str, Any], **_: Any) -> None:
    recorder.put(data.get("gmpd_latencies", {}))


def _on_quitting(environment: Any, **_: Any) -> None:
    if isinstance(environment.runner, WorkerRunner):
        return
    options = environment.parsed_options
    seconds = max(0.001, time.monotonic() - connections.began)
    sys.stderr.write(recorder.table(seconds) + "\n")
    if options.latencies:
        Path(options.latencies).write_text(json.dumps(recorder.report(seconds), indent=1))
    limits = Limits(
        options.max_fail_ratio, options.min_jobs, options.min_rps, dict(options.max_p99)
    )
    broken = limits.broken_by(recorder, seconds)
    for sentence in broken:
        sys.stderr.write(f"limit broken: {sentence}\n")
    environment.process_exit_code = 1 if broken else 0


events.init_command_line_parser.add_listener(_add_options)  # type: ignore[no-untyped-call]
events.init.add_listener(_on_init)  # type: ignore[no-untyped-call]
events.test_start.add_listener(_on_start)  # type: ignore[no-untyped-call]
events.test_stop.add_listener(_on_stop)  # type: ignore[no-untyped-call]
events.report_to_master.add_listener(_on_report_to_master)  # type: ignore[no-untyped-call]
events.worker_report.add_listener(_on_worker_report)  # type: ignore[no-untyped-call]
events.quitting.add_listener(_on_quitting)  # type: ignore[no-untyped-call]
