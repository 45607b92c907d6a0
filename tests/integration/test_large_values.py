"""Large values: what each process needs for one at most, and that it comes back."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import zmq

import gmpd
from tests.support import wait_until

pytestmark = pytest.mark.usefixtures("no_daemon")

MB = 1_000_000
SIZE = 100 * MB
#: Beside values: what a process takes for this and that.
SLACK = 25 * MB


class Memory:
    """Resident memory of every process of a daemon, and of this one; what it was before."""

    def __init__(self, client: gmpd.Client) -> None:
        status = client.call("status")
        self.pids = {"coordinator": status["pid"], "client": os.getpid()}
        self.pids |= {f"worker {p['p']}": p["pid"] for p in status["ps"]}
        self.before = self.now()
        self.peak = dict(self.before)

    def now(self) -> dict[str, int]:
        page = os.sysconf("SC_PAGE_SIZE")
        return {
            name: int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * page
            for name, pid in self.pids.items()
        }

    def more(self, than: dict[str, int]) -> dict[str, int]:
        """The megabytes by which each process has grown."""
        return {name: (than[name] - self.before[name]) // MB for name in than}

    @contextmanager
    def watched(self) -> Iterator[None]:
        over = threading.Event()

        def watch() -> None:
            while not over.wait(0.002):
                now = self.now()
                self.peak = {name: max(now[name], most) for name, most in self.peak.items()}

        thread = threading.Thread(target=watch)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def is_back(self) -> bool:
        return max(self.more(self.now()).values()) * MB < SLACK


@pytest.fixture(scope="module", autouse=True)
def _zero_copy() -> None:
    """Start the thread that pyzmq keeps from the first message without a copy to the end."""
    with zmq.Context() as context, context.socket(zmq.PAIR) as a, context.socket(zmq.PAIR) as b:
        a.bind("inproc://warm")
        b.connect("inproc://warm")
        a.send(bytes(2 * MB), copy=False)
        b.recv()


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Iterator[gmpd.Client]:
    monkeypatch.setenv("GMPD_DAEMON__PROCS", "1")
    with gmpd.Client() as client:
        client.submit(len, b"x").result(20)
        yield client


def argument(client: gmpd.Client) -> None:
    assert client.submit(len, b"x" * SIZE).result(60) == SIZE


def result(client: gmpd.Client) -> None:
    assert len(client.submit(bytes, SIZE).result(60)) == SIZE


def text(client: gmpd.Client) -> None:
    assert len(client.submit(str.upper, "x" * SIZE).result(60)) == SIZE


@pytest.mark.parametrize("job", [argument, result, text])
def test_nobody_needs_much_more_than_the_value_and_gives_all_back(
    client: gmpd.Client, job: object
) -> None:
    assert callable(job)
    memory = Memory(client)
    with memory.watched():
        job(client)
    peak = memory.more(memory.peak)
    # A text is two values, argument and result, and one of them in bytes.
    most = 3.4 if job is text else 2.4
    assert max(peak.values()) * MB < most * SIZE, peak
    assert peak["coordinator"] * MB < 1.3 * SIZE * (2 if job is text else 1), peak
    wait_until(memory.is_back, "all that it took is free", timeout=20)


def test_many_of_a_megabyte_come_back_too(client: gmpd.Client) -> None:
    memory = Memory(client)
    del memory.pids["client"]  # its allocator is its program's
    for _ in range(3):
        futures = [client.submit(bytes.upper, b"x" * MB) for _ in range(60)]
        assert sum(len(future.result(60)) for future in futures) == 60 * MB
        del futures
    memory.before.pop("client")
    wait_until(memory.is_back, "all that it took is free", timeout=20)


def test_clients_that_have_sent_large_values_leave_one_context_together() -> None:
    """It is pyzmq's, and all of the process have it: see ``ZERO_COPY_BYTES``."""
    left = []
    for _ in range(3):
        with gmpd.Client() as own:
            assert own.submit(len, bytes(2 * MB)).result() == 2 * MB
        left.append(len(os.listdir("/proc/self/fd")))
    assert left[1:] == left[:-1]
