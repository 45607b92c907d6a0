"""The gateway as a process: what it serves, what it refuses, how it ends.

Its coordinator here is a thread that speaks the protocol and answers as the test wants, because a
real one cannot be made to be silent, late or wrong at will.
"""

from __future__ import annotations

import http.client
import json
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.client import HTTPMessage
from pathlib import Path
from typing import Any

import pytest

from tests.fake_coordinator import SNAPSHOT, FakeCoordinator
from tests.gateway_process import Gateway
from tests.support import wait_until


@pytest.fixture
def coordinator(short_tmp: Path) -> Iterator[FakeCoordinator]:
    coordinator = FakeCoordinator(f"ipc://{short_tmp}/c")
    yield coordinator
    coordinator.close()


@pytest.fixture
def start() -> Iterator[Callable[..., Gateway]]:
    started: list[Gateway] = []

    def start(settings: dict[str, Any], command: list[str] | None = None) -> Gateway:
        started.append(Gateway(settings, command))
        return started[-1]

    yield start
    for gateway in started:
        gateway.close()


@pytest.fixture
def gateway(start: Callable[..., Gateway], coordinator: FakeCoordinator) -> Gateway:
    settings = {"listen": "127.0.0.1:0", "client_endpoint": coordinator.endpoint}
    gateway: Gateway = start(settings).wait_serving()
    return gateway


def metric(text: str, series: str) -> float:
    for line in text.splitlines():
        if line.startswith(f"{series} "):
            return float(line.rsplit(" ", 1)[1])
    raise AssertionError(f"no {series} in\n{text}")


def answered(gateway: Gateway, path: str, said: str) -> tuple[int, str, HTTPMessage]:
    """The page once the coordinator has answered in time: on a busy machine an answer may
    take longer than the gateway waits, and the next question finds it."""
    found: list[tuple[int, str, HTTPMessage]] = []

    def asked() -> bool:
        found.append(gateway.ask(path))
        return said in found[-1][1]

    wait_until(asked, f"{path} says {said!r}")
    return found[-1]


# -- what it serves ------------------------------------------------------------------------------


def test_metrics_come_from_the_coordinator_and_from_proc(gateway: Gateway) -> None:
    status, text, headers = answered(gateway, "/metrics", "\ngmpd_coordinator_up 1.0\n")
    assert status == 200
    assert headers["Content-Type"].startswith("text/plain")
    assert metric(text, 'gmpd_jobs_finished_total{outcome="ok"}') == 17_900
    assert metric(text, "gmpd_coordinator_up") == 1
    assert metric(text, "gmpd_gateway_process_resident_memory_bytes") > 1 << 20


def test_openmetrics_and_gzip_are_spoken_to_who_asks_for_them(gateway: Gateway) -> None:
    _, text, headers = gateway.ask("/metrics", headers={"Accept": "application/openmetrics-text"})
    assert headers["Content-Type"].startswith("application/openmetrics-text")
    assert text.endswith("# EOF\n")
    connection = http.client.HTTPConnection(gateway.host, timeout=10)
    connection.request("GET", "/metrics", headers={"Accept-Encoding": "gzip"})
    response = connection.getresponse()
    assert response.headers["Content-Encoding"] == "gzip"
    assert response.read()[:2] == b"\x1f\x8b"
    connection.close()


def test_one_metric_can_be_asked_for_by_name(gateway: Gateway) -> None:
    _, text, _ = answered(gateway, "/metrics?name[]=gmpd_procs", "\ngmpd_procs 2.0\n")
    assert [line for line in text.splitlines() if not line.startswith("#")] == ["gmpd_procs 2.0"]


def test_the_snapshot_is_the_declared_status(
    gateway: Gateway, coordinator: FakeCoordinator
) -> None:
    coordinator.snapshot = SNAPSHOT | {"unheard_of": b"\x01\xff", "uptime_s": float("nan")}
    _, text, headers = answered(gateway, "/api/v1/snapshot", '"up":true')
    assert headers["Content-Type"].startswith("application/json")
    body = json.loads(text)
    assert body["up"] is True
    assert body["age_s"] < 5
    assert body["snapshot"]["procs"] == 2
    assert body["snapshot"]["uptime_s"] is None
    assert "unheard_of" not in body["snapshot"]


def test_ready_says_what_keeps_it_from_being_ready(
    gateway: Gateway, coordinator: FakeCoordinator
) -> None:
    assert answered(gateway, "/readyz", "ready: running")[:2] == (200, "ready: running\n")
    coordinator.snapshot = SNAPSHOT | {"state": "draining"}
    assert answered(gateway, "/readyz", "drains")[:2] == (503, "not ready: the daemon drains\n")
    assert gateway.ask("/healthz")[:2] == (200, "ok\n")


def test_the_front_page_says_what_is_here(gateway: Gateway) -> None:
    status, text, headers = answered(gateway, "/", "is running")
    assert (status, headers["X-Frame-Options"]) == (200, "DENY")
    assert "gmpd 0.1.0 is running: 2 Ps" in text
    assert "href=/metrics" in text


# -- it never waits long -------------------------------------------------------------------------


def test_a_silent_coordinator_delays_nobody(gateway: Gateway, coordinator: FakeCoordinator) -> None:
    answered(gateway, "/metrics", "\ngmpd_coordinator_up 1.0\n")
    coordinator.silent = True
    text = ""

    def is_stale() -> bool:
        nonlocal text
        text = gateway.ask("/metrics")[1]
        return metric(text, "gmpd_coordinator_up") == 0

    wait_until(is_stale, "a silent coordinator is noticed")
    began = time.monotonic()
    text = gateway.ask("/metrics")[1]
    # 50 ms are waited; the rest is for a busy machine.
    assert time.monotonic() - began < 5
    assert metric(text, 'gmpd_jobs_finished_total{outcome="ok"}') == 17_900
    assert metric(text, "gmpd_snapshot_age_seconds") > 0.05
    assert gateway.ask("/readyz")[1] == "not ready: the coordinator did not answer within 800 ms\n"


def test_a_coordinator_that_is_busy_for_a_moment_is_ready(
    gateway: Gateway, coordinator: FakeCoordinator
) -> None:
    answered(gateway, "/readyz", "ready: running")
    coordinator.busy_s = 0.2
    for _ in range(3):
        assert gateway.ask("/readyz")[:2] == (200, "ready: running\n")


def test_a_coordinator_that_speaks_again_is_believed_again(
    gateway: Gateway, coordinator: FakeCoordinator
) -> None:
    coordinator.silent = True
    assert gateway.ask("/readyz")[0] == 503
    coordinator.silent = False
    wait_until(lambda: gateway.ask("/readyz")[0] == 200, "ready again")


def test_many_scrapers_ask_the_coordinator_at_most_ten_times_a_second(
    gateway: Gateway, coordinator: FakeCoordinator
) -> None:
    gateway.ask("/metrics")
    began, before = time.monotonic(), coordinator.questions
    scrapers = [
        threading.Thread(target=lambda: [gateway.ask("/metrics") for _ in range(5)])
        for _ in range(10)
    ]
    for scraper in scrapers:
        scraper.start()
    for scraper in scrapers:
        scraper.join()
    assert coordinator.questions - before <= (time.monotonic() - began) / 0.1 + 1


def test_without_a_coordinator_it_serves_what_it_knows(
    start: Callable[..., Gateway], short_tmp: Path
) -> None:
    settings = {"listen": "127.0.0.1:0", "client_endpoint": f"ipc://{short_tmp}/nobody"}
    gateway = start(settings).wait_serving()
    assert metric(gateway.ask("/metrics")[1], "gmpd_coordinator_up") == 0
    status, text, _ = gateway.ask("/api/v1/snapshot")
    assert status == 503
    assert "did not answer" in json.loads(text)["error"]
    assert "No snapshot yet" in gateway.ask("/")[1]


def test_a_coordinator_that_refuses_is_quoted(
    start: Callable[..., Gateway], coordinator: FakeCoordinator
) -> None:
    coordinator.refuse = "this daemon speaks versions 7 to 9"
    settings = {"listen": "127.0.0.1:0", "client_endpoint": coordinator.endpoint}
    gateway = start(settings).wait_serving()
    wait_until(lambda: "versions 7 to 9" in gateway.ask("/readyz")[1], "the refusal is quoted")


# -- what it refuses -----------------------------------------------------------------------------


def test_a_host_that_is_not_its_own_is_refused_and_named(gateway: Gateway) -> None:
    for host in ("evil.example", "127.0.0.1", "127.0.0.1:1", "localhost", ""):
        status, text, _ = gateway.ask("/metrics", headers={"Host": host})
        assert status == 421
        assert repr(host) in text
        assert gateway.host in text


def test_its_own_names_are_answered(gateway: Gateway) -> None:
    port = gateway.host.rpartition(":")[2]
    for host in (f"127.0.0.1:{port}", f"localhost:{port}", f"LOCALHOST:{port}", f"[::1]:{port}"):
        assert gateway.ask("/healthz", headers={"Host": host})[0] == 200


def test_a_listed_name_is_answered(
    start: Callable[..., Gateway], coordinator: FakeCoordinator
) -> None:
    settings = {
        "listen": "127.0.0.1:0",
        "client_endpoint": coordinator.endpoint,
        "hosts": ["gmpd:7412"],
    }
    gateway = start(settings).wait_serving()
    assert gateway.ask("/healthz", headers={"Host": "gmpd:7412"})[0] == 200


def test_nothing_can_be_changed_here(gateway: Gateway) -> None:
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"):
        for path in ("/metrics", "/", "/nowhere"):
            status, _, headers = gateway.ask(path, method=method)
            assert (status, headers["Allow"]) == (405, "GET, HEAD")


def test_head_and_unknown_paths(gateway: Gateway) -> None:
    assert gateway.ask("/metrics", method="HEAD")[:2] == (200, "")
    assert gateway.ask("/nowhere")[:2] == (404, "Not Found\n")


def test_garbage_on_the_port_ends_that_connection_only(gateway: Gateway) -> None:
    host, _, port = gateway.host.rpartition(":")
    tls = b"\x16\x03\x01\x02\x00"
    for garbage in (b"\x00" * 2_000, b"GET / HTTP/9.9\r\n\r\n", b"GET " + b"a" * 20_000, tls):
        with socket.create_connection((host, int(port)), timeout=10) as sock:
            sock.sendall(garbage)
            sock.shutdown(socket.SHUT_WR)
            answer = sock.recv(4_096)
        assert answer == b"" or answer.startswith(b"HTTP/1.")
        assert gateway.ask("/healthz")[0] == 200


# -- how it starts and ends ----------------------------------------------------------------------


def test_a_taken_port_is_said_with_its_holder(
    start: Callable[..., Gateway], coordinator: FakeCoordinator
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        gateway = start({"listen": listen, "client_endpoint": coordinator.endpoint})
        text = gateway.stderr()
        assert gateway.process.stdout is not None
        told = json.loads(gateway.process.stdout.readline())
    assert gateway.process.returncode == 1
    assert told["problem"] in text
    assert f"cannot listen on {listen}: process {os.getpid()} (" in text
    assert "choose another port" in text


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "client_endpoint"),
        ([1], "client_endpoint"),
        ({"client_endpoint": "ipc:///x", "lisen": "a"}, "['lisen']"),
    ],
)
def test_bad_settings_are_said(start: Callable[..., Gateway], settings: Any, said: str) -> None:
    gateway = start(settings)
    assert said in gateway.stderr()
    assert gateway.process.returncode == 78


@pytest.mark.parametrize(
    ("listen", "said"),
    [
        ("7412", "not host:port"),
        ("127.0.0.1:99999", "not host:port"),
        ("no-such-host.invalid:1", "cannot listen on no-such-host.invalid:1"),
        ("0.0.0.0:0", "list in http.hosts"),
    ],
)
def test_an_address_that_will_not_do_is_said(
    start: Callable[..., Gateway], listen: str, said: str
) -> None:
    gateway = start({"listen": listen, "client_endpoint": "ipc:///tmp/none"})
    assert said in gateway.stderr()
    assert gateway.process.returncode == 1


def test_term_ends_it_and_interrupt_does_not(gateway: Gateway) -> None:
    gateway.process.send_signal(signal.SIGINT)
    assert gateway.ask("/healthz")[0] == 200
    gateway.process.terminate()
    assert gateway.process.wait(30) == 0


def test_it_ends_with_its_parent_however_that_ends(
    start: Callable[..., Gateway], coordinator: FakeCoordinator
) -> None:
    # A parent that starts the gateway, hands its own standard input on, and is killed.
    parent = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-m', 'gmpd.gateway'])\n"
        "child.wait()\n"
    )
    settings = {"listen": "127.0.0.1:0", "client_endpoint": coordinator.endpoint}
    gateway = start(settings, [sys.executable, "-c", parent])
    assert gateway.process.stdout is not None
    pid = json.loads(gateway.process.stdout.readline())["pid"]
    gateway.process.kill()
    gateway.process.wait(30)
    # Its end of the pipe closes when the process has gone, reaped or not.
    assert select.select([gateway.process.stdout], [], [], 10)[0], f"{pid} outlives its parent"
    assert gateway.process.stdout.read() == b""
