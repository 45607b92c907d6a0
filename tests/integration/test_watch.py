"""A real daemon, watched: by systemd, by a real Prometheus under mixed load, while workers die."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

import gmpd
from gmpd.gateway.metrics import METRICS, Kind
from loadtests import jobs
from tests.daemon_process import Daemon
from tests.integration.test_prometheus import (
    Prometheus,
    assert_picture_of_every_panel,
    needs_prometheus,
    queries,
)
from tests.support import go_on, stop, wait_until


@pytest.fixture
def daemon(short_tmp: Path) -> Iterator[Daemon]:
    with Daemon(short_tmp) as daemon:
        yield daemon.wait_ready()


class Values:
    """One scrape."""

    def __init__(self, text: str) -> None:
        self._values: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                self._values[sample.name, frozenset(sample.labels.items())] = sample.value

    @property
    def names(self) -> set[str]:
        return {name for name, _ in self._values}

    def of(self, name: str, **labels: str) -> float:
        return self._values[name, frozenset(labels.items())]

    def sum(self, name: str) -> float:
        return sum(value for (of, _), value in self._values.items() if of == name)

    def totals(self) -> dict[Any, float]:
        return {key: value for key, value in self._values.items() if key[0].endswith("_total")}


def scrape(daemon: Daemon) -> Values:
    return Values(daemon.get("/metrics"))


def mixed_load(client: gmpd.Client) -> None:
    """Some of everything: quick, waiting, blocking, computing, failing; uneven."""
    futures: list[Future[Any]] = [client.submit(jobs.short, i) for i in range(300)]
    futures += [client.submit(jobs.waiting, 0.02) for _ in range(50)]
    futures += [client.submit(jobs.blocking, 0.02) for _ in range(10)]
    futures += [client.submit(jobs.cpu, 20_000) for _ in range(100)]
    futures += [client.submit(jobs.failing, i) for i in range(3)]
    for future in futures:
        future.exception(timeout=30)


class Load:
    """The mixed load, again and again, while in the ``with``."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.error: BaseException | None = None

    def _run(self) -> None:
        try:
            with gmpd.Client(str(self._daemon.directory)) as client:
                client.enqueue(jobs.short, 1)  # a store has metrics once it is open
                while not self._stop.is_set():
                    mixed_load(client)
        except BaseException as error:
            self.error = error

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(40)
        assert not self._thread.is_alive()
        assert self.error is None, self.error


# -- numbers -------------------------------------------------------------------------------------


def test_the_metrics_count_what_was_done(daemon: Daemon) -> None:
    with gmpd.Client(str(daemon.directory)) as client:
        mixed_load(client)
        later = client.options(delay=60).submit(jobs.short, 1)
        wait_until(lambda: scrape(daemon).of("gmpd_delayed_jobs") == 1, "it is seen to be delayed")
        values = scrape(daemon)
        assert later.cancel()
    assert values.of("gmpd_jobs_submitted_total") == 464
    assert values.of("gmpd_jobs_finished_total", outcome="ok") == 460
    assert values.of("gmpd_jobs_finished_total", outcome="error") == 3
    assert values.of("gmpd_jobs_finished_total", outcome="lost") == 0
    assert values.of("gmpd_job_wait_seconds_count") == 463
    assert values.of("gmpd_job_run_seconds_count") == 463
    # Fifty waits and ten blocks of 20 ms each are in the run times, and hold no P.
    assert values.of("gmpd_job_run_seconds_sum") > 60 * 0.02
    assert values.of("gmpd_procs") == 2
    assert values.sum("gmpd_worker_up") == 2


def test_nearly_every_metric_is_there_after_a_mixed_load(daemon: Daemon) -> None:
    expected = {m.name + ("_bucket" if m.kind is Kind.HISTOGRAM else "") for m in METRICS}
    # Only once there is something to count: refusals, retries, deaths, bad messages.
    expected -= {
        "gmpd_jobs_rejected_total",
        "gmpd_jobs_retried_total",
        "gmpd_worker_restarts_total",
        "gmpd_messages_dropped_total",
        # And hosts of a cluster.
        "gmpd_host_up",
        "gmpd_host_cores",
        "gmpd_host_fresh_jobs",
        "gmpd_host_batches_total",
        "gmpd_host_losses_total",
        "gmpd_host_started_jobs",
    }
    with Load(daemon):
        wait_until(lambda: expected <= scrape(daemon).names, f"all of {expected} are there")


def test_totals_never_go_down_when_workers_die(daemon: Daemon) -> None:
    with gmpd.Client(str(daemon.directory)) as client:
        mixed_load(client)
        before = scrape(daemon).totals()
        for _ in range(2):
            lost = client.submit(os._exit, 3).exception(timeout=30)
            assert isinstance(lost, gmpd.errors.WorkerLost)
            mixed_load(client)
            after = scrape(daemon).totals()
            fallen = {key: (before[key], after.get(key)) for key in before}
            assert {k: v for k, v in fallen.items() if v[1] is None or v[1] < v[0]} == {}
            before = after
    assert scrape(daemon).sum("gmpd_worker_restarts_total") == 2


@needs_prometheus
def test_under_mixed_load_every_panel_has_data_and_every_rule_works(
    daemon: Daemon, tmp_path: Path
) -> None:
    prometheus = Prometheus(tmp_path, daemon.url.removeprefix("http://"))

    def empty_panels() -> set[str]:
        """Without those of hosts, of which this daemon has none."""
        asked = [(panel, query) for panel, query in queries() if "gmpd_host_" not in query]
        answered = {panel for panel, query in asked if prometheus.values(query)}
        return {panel for panel, _ in asked} - answered

    try:
        wait_until(prometheus.is_ready, "Prometheus serves", timeout=30)
        with Load(daemon):
            wait_until(lambda: not empty_panels(), "every panel has data", timeout=45)
            rules = [r for group in prometheus.api("rules")["groups"] for r in group["rules"]]
            assert {r["name"] for r in rules if r["health"] != "ok"} == set()
            firing = [r["name"] for r in rules if r.get("state") == "firing"]
            assert firing == []
            assert_picture_of_every_panel(prometheus)
    finally:
        prometheus.close()


# -- the gateway's fate --------------------------------------------------------------------------


def test_a_killed_gateway_costs_no_job(daemon: Daemon) -> None:
    gateways = [int(pid) for pid in _children_of(daemon.process.pid, "gmpd.gateway")]
    assert len(gateways) == 1
    with Load(daemon):
        os.kill(gateways[0], signal.SIGKILL)
        wait_until(lambda: not _children_of(daemon.process.pid, "gmpd.gateway"), "it is gone")
        with gmpd.Client(str(daemon.directory)) as client:
            mixed_load(client)


@pytest.mark.kills_daemon
def test_the_gateway_ends_with_a_killed_daemon(short_tmp: Path) -> None:
    daemon = Daemon(short_tmp).wait_ready()
    (gateway,) = _children_of(daemon.process.pid, "gmpd.gateway")
    daemon.process.kill()
    daemon.close()
    wait_until(lambda: not Path(f"/proc/{gateway}/exe").exists(), "the gateway has ended")


def _children_of(pid: int, module: str) -> list[str]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    found = []
    for child in children:
        try:
            command = Path(f"/proc/{child}/cmdline").read_text().split("\0")
        except OSError:
            continue
        if module in command:
            found.append(child)
    return found


# -- systemd -------------------------------------------------------------------------------------


@pytest.fixture
def systemd() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(f"\0gmpd-test-{os.getpid()}")
        sock.settimeout(30)
        yield sock


def assert_silent_at_last(systemd: socket.socket) -> None:
    """At most the messages on their way come, then none."""
    for _ in range(10):
        try:
            systemd.recv(4096)
        except TimeoutError:
            return
    pytest.fail("a stopped daemon still says that it lives")


def test_systemd_hears_of_readiness_life_and_end(systemd: socket.socket, short_tmp: Path) -> None:
    name = systemd.getsockname()[1:].decode()
    with Daemon(short_tmp, NOTIFY_SOCKET=f"@{name}", WATCHDOG_USEC="200000") as daemon:
        heard = systemd.recv(4096)
        while b"READY=1" not in heard:
            heard = systemd.recv(4096)
        assert heard.splitlines() == [b"READY=1", b"STATUS=2 Ps, 0 jobs queued, 0 unfinished"]
        # An idle daemon's loop has nothing to do but to say that it lives.
        for _ in range(3):
            assert systemd.recv(4096).startswith(b"WATCHDOG=1\nSTATUS=2 Ps")
        daemon.wait_ready()
        # A loop that is stopped is not alive, however well its process sleeps.
        stop(daemon.process.pid)
        systemd.settimeout(0.5)
        assert_silent_at_last(systemd)
        go_on(daemon.process.pid)
        systemd.settimeout(30)
        daemon.process.terminate()
        heard = systemd.recv(4096)
        while not heard.startswith(b"STOPPING=1"):
            heard = systemd.recv(4096)
    assert daemon.process.returncode == 0
