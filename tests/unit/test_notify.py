"""Words to systemd: what is sent, where to, and what happens without a listener."""

from __future__ import annotations

import configparser
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gmpd.daemon.notify import VARIABLES, Notifier, Watchdog, datagram, watchdog_interval_s

UNIT = Path(__file__).parents[2] / "config" / "systemd" / "gmpd.service"


@pytest.fixture
def systemd() -> Iterator[socket.socket]:
    """A socket such as systemd's, in a short path."""
    directory = tempfile.mkdtemp(dir="/tmp")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(f"{directory}/notify")
        sock.settimeout(5)
        yield sock
    shutil.rmtree(directory)


def test_words_are_lines_in_one_datagram() -> None:
    assert datagram(ready=True, status="2 Ps, 0 queued") == b"READY=1\nSTATUS=2 Ps, 0 queued"
    assert datagram(stopping=True) == b"STOPPING=1"
    assert datagram(watchdog=True) == b"WATCHDOG=1"
    assert datagram() == b""


def test_a_status_cannot_smuggle_in_a_word() -> None:
    assert datagram(status="fine\nREADY=1\r\nMAINPID=1") == b"STATUS=fine READY=1 MAINPID=1"


def test_a_status_of_lone_surrogates_is_sent_all_the_same() -> None:
    assert datagram(status="caf\udce9") == b"STATUS=caf?"


def test_systemd_receives_what_is_sent(systemd: socket.socket) -> None:
    notifier = Notifier(systemd.getsockname())
    assert notifier.send(datagram(ready=True))
    assert systemd.recv(4096) == b"READY=1"
    notifier.close()


def test_a_leading_at_sign_is_the_abstract_namespace() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        name = f"gmpd-test-{os.getpid()}"
        sock.bind(f"\0{name}")
        sock.settimeout(5)
        notifier = Notifier(f"@{name}")
        assert notifier.send(b"WATCHDOG=1")
        assert sock.recv(4096) == b"WATCHDOG=1"
        notifier.close()


def test_without_systemd_nothing_happens() -> None:
    notifier = Notifier.take_environment({})
    assert notifier.watchdog_s is None
    assert not notifier.send(b"READY=1")
    notifier.close()


def test_a_socket_that_is_gone_does_no_harm(systemd: socket.socket) -> None:
    notifier = Notifier(systemd.getsockname())
    os.unlink(systemd.getsockname())
    assert not notifier.send(b"WATCHDOG=1")
    notifier.close()
    assert not notifier.send(b"WATCHDOG=1")


def test_a_full_queue_costs_a_word_and_not_the_loop(systemd: socket.socket) -> None:
    notifier = Notifier(systemd.getsockname())
    began = time.monotonic()
    sent = 0
    while notifier.send(b"WATCHDOG=1"):
        sent += 1
        assert sent < 100_000
    assert time.monotonic() - began < 5
    notifier.close()


def test_workers_do_not_inherit_the_right_to_speak() -> None:
    env = {"NOTIFY_SOCKET": "/run/n", "WATCHDOG_USEC": "10000000", "PATH": "/bin"}
    notifier = Notifier.take_environment(env)
    assert env == {"PATH": "/bin"}
    assert notifier.watchdog_s == 5.0
    notifier.close()


@pytest.mark.parametrize(
    ("env", "seconds"),
    [
        ({"WATCHDOG_USEC": "10000000"}, 5.0),
        ({"WATCHDOG_USEC": "10000000", "WATCHDOG_PID": "42"}, 5.0),
        ({"WATCHDOG_USEC": "10000000", "WATCHDOG_PID": "41"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_the_watchdog_is_fed_twice_as_often_as_systemd_asks(
    env: dict[str, str], seconds: float | None
) -> None:
    assert watchdog_interval_s(env, 42) == seconds


def test_the_unit_speaks_the_same_words() -> None:
    unit = configparser.ConfigParser(interpolation=None, strict=True)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read(UNIT)
    service = unit["Service"]
    assert service["Type"] == "notify"
    assert service["NotifyAccess"] == "main"
    assert service["KillMode"] == "mixed"
    assert service["ExecStart"].endswith("/gmpd serve")
    assert "AF_UNIX" in service["RestrictAddressFamilies"]
    assert set(VARIABLES) == {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"}


def test_the_watchdog_is_fed_from_the_loop_no_oftener_than_asked(systemd: socket.socket) -> None:
    notifier = Notifier(systemd.getsockname(), watchdog_s=5.0)
    feed = Watchdog(notifier, 5.0, lambda: "2 Ps")
    for now_s in (100, 101, 104, 105, 106):
        feed(int(now_s * 1e9))
    systemd.settimeout(0)
    assert [systemd.recv(4096) for _ in range(2)] == [b"WATCHDOG=1\nSTATUS=2 Ps"] * 2
    with pytest.raises(BlockingIOError):
        systemd.recv(4096)
    notifier.close()
