"""Clients that nobody closes: the garbage collector ends them, their jobs come first."""

from __future__ import annotations

import gc
import threading
import time
import weakref

import pytest

import gmpd
from tests.rawclient import DEADLINE_S, Boot
from tests.support import wait_until


def io_threads() -> int:
    return sum(thread.name == "gmpd-io" for thread in threading.enumerate())


def test_a_dropped_client_leaves_its_daemon(boot: Boot) -> None:
    """At once, without a pass of the collector: nothing of it refers to itself."""
    daemon, raw = boot()
    client = gmpd.Client(daemon.endpoint)
    assert client.submit(pow, 2, 3).result(DEADLINE_S) == 8
    assert raw.call("status")["sessions"] == 2
    with pytest.warns(ResourceWarning, match=r"unclosed <gmpd\.Client open .*, 0 jobs>"):  # noqa: PT031 - its thread may be the last to let go
        del client
        wait_until(lambda: io_threads() == 0, "its thread ends", timeout=DEADLINE_S)
    wait_until(lambda: io_threads() == 0, "its thread ends", timeout=DEADLINE_S)
    raw.until(lambda: raw.call("status")["sessions"] == 1)


def test_jobs_of_a_dropped_client_are_not_lost(boot: Boot) -> None:
    """Their callbacks come; then it ends."""
    daemon, raw = boot()
    got: list[object] = []
    client = gmpd.Client(daemon.endpoint)
    for _ in range(20):
        client.submit(time.sleep, 0.3).add_done_callback(lambda f: got.append(f.exception()))
    del client
    with pytest.warns(ResourceWarning, match="unclosed"):  # noqa: PT031 - its thread may be the last to let go
        gc.collect()
        wait_until(lambda: io_threads() == 0, "its thread ends", timeout=DEADLINE_S)
    wait_until(lambda: len(got) == 20, "all callbacks have come", timeout=DEADLINE_S)
    assert got == [None] * 20
    wait_until(lambda: io_threads() == 0, "its thread ends", timeout=DEADLINE_S)
    raw.until(lambda: raw.call("status")["sessions"] == 1)


def test_a_future_keeps_its_client(boot: Boot) -> None:
    """Who waits for a result needs the client that brings it."""
    daemon, _ = boot()
    client = gmpd.Client(daemon.endpoint)
    gone = weakref.ref(client)
    future = client.submit(time.sleep, 0.2)
    del client
    gc.collect()
    assert gone() is not None
    assert future.result(DEADLINE_S) is None
    with pytest.warns(ResourceWarning, match="unclosed"):  # noqa: PT031 - its thread may be the last to let go
        del future
        wait_until(lambda: io_threads() == 0, "its thread ends", timeout=DEADLINE_S)
    wait_until(lambda: io_threads() == 0, "its thread ends", timeout=DEADLINE_S)


def test_a_dropped_private_daemon_ends(no_daemon: None) -> None:
    """That nothing of it is left is checked after every test."""
    client = gmpd.Client()
    assert client.submit(pow, 2, 3).result(DEADLINE_S) == 8
    with pytest.warns(ResourceWarning, match="private"):  # noqa: PT031 - its thread may be the last to let go
        del client
        wait_until(lambda: io_threads() == 0, "its thread ends", timeout=DEADLINE_S)
    wait_until(lambda: io_threads() == 0, "its thread ends", timeout=DEADLINE_S)


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_many_clients_are_dropped_while_they_work(boot: Boot) -> None:
    """Each at another moment of its life; none keeps its thread, none its session."""
    daemon, raw = boot()
    for i in range(30):
        client = gmpd.Client(daemon.endpoint)
        for _ in range(i % 4):
            client.submit(pow, 2, i)
        del client
        if i % 3 == 0:
            gc.collect()
    gc.collect()
    wait_until(lambda: io_threads() == 0, "all threads end", timeout=DEADLINE_S)
    raw.until(lambda: raw.call("status")["sessions"] == 1)


def test_a_closed_client_says_nothing(boot: Boot, recwarn: pytest.WarningsRecorder) -> None:
    daemon, _ = boot()
    client = gmpd.Client(daemon.endpoint)
    client.close()
    gone = weakref.ref(client)
    del client
    gc.collect()
    assert gone() is None
    assert not recwarn.list
