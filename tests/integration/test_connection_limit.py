"""More connections than the daemon has descriptors for: it serves those it had."""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

import gmpd
from tests.rawclient import RawDaemon
from tests.support import wait_until

#: Few, so that a flood takes no time: libzmq alone would abort the daemon at the last of them.
NOFILE = 512


@pytest.fixture
def daemon(short_tmp: Path) -> Iterator[RawDaemon]:
    made = RawDaemon(short_tmp, nofile=NOFILE)
    try:
        yield made
    finally:
        made.end()


def descriptors(daemon: RawDaemon) -> int:
    return len(os.listdir(f"/proc/{daemon.process.pid}/fd"))


def flood(path: str, attempts: int, kept: list[socket.socket]) -> int:
    """Connect as often as that, and stay; how often the daemon refused."""
    refused = 0
    for _ in range(attempts):
        stranger = socket.socket(socket.AF_UNIX)
        try:
            stranger.connect(path)
            kept.append(stranger)
        except OSError:
            stranger.close()
            refused += 1
    return refused


@pytest.mark.timeout(120)
@pytest.mark.parametrize("whose", ["client.sock", "worker.sock"])
def test_a_flood_of_connections_takes_no_daemon_down(daemon: RawDaemon, whose: str) -> None:
    path = str(daemon.directory / whose)
    kept: list[socket.socket] = []
    with gmpd.Client(daemon.endpoint) as client:
        assert client.submit(pow, 2, 3).result(20) == 8
        try:
            refused = flood(path, 10_000, kept)
            assert refused > 5_000
            assert len(kept) < NOFILE
            assert daemon.process.poll() is None
            assert descriptors(daemon) < NOFILE - 32
            assert client.submit(pow, 2, 4).result(20) == 16, "who was there notices nothing"
        finally:
            for stranger in kept:
                stranger.close()
        wait_until(lambda: os.path.exists(path), "connections are accepted again", timeout=30)
        with gmpd.Client(daemon.endpoint) as late:
            assert late.submit(pow, 2, 5).result(20) == 32
    assert descriptors(daemon) < 100


@pytest.mark.timeout(120)
def test_who_stays_and_says_nothing_has_to_leave(daemon: RawDaemon) -> None:
    """They speak ZeroMQ and never say Hello; clients that did say it stay."""
    path = daemon.directory / "client.sock"
    context = zmq.Context()
    context.set(zmq.MAX_SOCKETS, 4096)
    strangers = []

    def is_shut() -> bool:
        """Or more of them come: where the daemon's backlog is full, libzmq tries only once."""
        for _ in range(16):
            strangers.append(context.socket(zmq.DEALER))
            strangers[-1].set(zmq.LINGER, 0)
            strangers[-1].set(zmq.RECONNECT_IVL, -1)
            strangers[-1].connect(daemon.endpoint)
        return not path.exists()

    try:
        with gmpd.Client(daemon.endpoint) as client:
            wait_until(is_shut, "connections are refused", timeout=30)
            assert client.submit(pow, 2, 4).result(20) == 16
            wait_until(path.exists, "they had to leave", timeout=30)
            with gmpd.Client(daemon.endpoint) as late:
                assert late.submit(pow, 2, 5).result(20) == 32
            assert client.submit(pow, 2, 6).result(20) == 64
            assert client._core.lost is None
    finally:
        context.destroy(linger=0)


def test_what_a_shut_door_leaves_is_removed(short_tmp: Path) -> None:
    """The daemon ends while it is shut: no file is left, which every test here checks."""
    daemon = RawDaemon(short_tmp, nofile=NOFILE)
    kept: list[socket.socket] = []
    try:
        flood(str(daemon.directory / "client.sock"), 2_000, kept)
        shut = daemon.directory / "client.sock.shut"
        wait_until(shut.exists, "connections are refused")
    finally:
        assert daemon.end() == 0
        for stranger in kept:
            stranger.close()


def test_this_process_can_open_as_many() -> None:
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] >= 2 * NOFILE
