"""Lanes: small messages of a link go by datagrams, in the order of all, and to that peer only."""

from __future__ import annotations

import asyncio
import os
import random
import select
import socket
import stat
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import gmpd
from gmpd.netpoll import Dealer, Lane, LentLane, Network, Poller, Router, ZapHandler
from gmpd.netpoll.lane import LANE_BYTES
from tests.support import wait_until

DEADLINE_S = 30.0


class Ends:
    """Both ends of a link, the router's as the coordinator has it."""

    def __init__(self, directory: Path) -> None:
        self.network = Network()
        self.zap = ZapHandler(self.network)
        self.poller = Poller()
        self.router = Router(self.network, f"ipc://{directory}/r")
        self.lanes: list[Lane] = []
        self.router.watch_lane = self._watch
        self.router.unwatch_lane = lambda lane: self.poller.remove(lane.fd)
        self.poller.add(self.zap.answer, self.zap)
        self.poller.add(self._receive, self.router)
        #: The messages of the dealer, as the router has read them.
        self.heard: list[bytes] = []
        self.over_lane = 0
        self.peer = b""
        self.dealer = Dealer(self.network, f"ipc://{directory}/r")
        self.inbox: deque[Any] = deque()

    def _watch(self, lane: Lane) -> None:
        self.lanes.append(lane)
        self.poller.add(partial(self._receive_lane, lane), lane.fd)

    def _receive(self) -> None:
        while (received := self.router.recv()) is not None:
            self.peer, frames = received
            self.heard.append(bytes(frames[0]))

    def _receive_lane(self, lane: Lane) -> None:
        while (received := self.router.recv_lane(lane)) is not None:
            self.heard.append(bytes(received[1][0]))
            self.over_lane += 1

    def turn(self, timeout_s: float = 0.0) -> None:
        for callback in self.poller.wait(timeout_s):
            callback()

    def taken(self) -> list[bytes]:
        """The messages that the dealer has read since the last call."""
        found = []
        while self.dealer.readable:
            self.dealer.take(self.inbox)
            while self.inbox:
                found.append(bytes(self.inbox.popleft().buffer))
        return found

    def greet(self, *, await_router: bool = True) -> bool:
        """Hello and Welcome, each with a lane; whether both ends have opened it."""
        self.dealer.send([b"hello " + self.dealer.offer_lane()])
        self.until(lambda: self.heard)
        name = self.router.open_lane(self.heard.pop().removeprefix(b"hello "))
        self.router.send(self.peer, [b"welcome " + name])
        welcome = wait_until(self.taken, "a Welcome", timeout=DEADLINE_S)
        opened = self.dealer.open_lane(welcome[0].removeprefix(b"welcome "))
        if opened is not None and await_router:
            self.until(lambda: self.lanes[0].is_open)
        return opened is not None

    def until(self, fact: Any) -> None:
        end = time.monotonic() + DEADLINE_S
        while not fact():
            assert time.monotonic() < end
            self.turn(0.01)

    def close(self) -> None:
        self.dealer.close()
        self.router.close()
        self.zap.close()
        self.poller.close()
        self.network.close()


@pytest.fixture
def ends(short_tmp: Path) -> Iterator[Ends]:
    both = Ends(short_tmp)
    yield both
    both.close()


@pytest.mark.parametrize("seed", range(6))
def test_messages_of_both_ways_arrive_in_the_order_in_which_they_were_sent(
    ends: Ends, seed: int
) -> None:
    dice = random.Random(seed)
    assert ends.greet()
    there: list[bytes] = []
    back: list[bytes] = []
    got: list[bytes] = []

    def message(n: int) -> bytes:
        return b"%d " % n + bytes(dice.choice((0, 0, 10, LANE_BYTES, 5_000)))

    for n in range(1_500):
        there.append(message(n))
        ends.dealer.send([there[-1]])
        back.append(message(n))
        assert ends.router.send(ends.peer, [back[-1]])
        if dice.random() < 0.2:
            ends.turn()
        if dice.random() < 0.2:
            got += ends.taken()
    ends.until(lambda: len(ends.heard) == len(there))
    end = time.monotonic() + DEADLINE_S
    while len(got) < len(back) and time.monotonic() < end:
        got += ends.taken()
    assert ends.heard == there
    assert got == back
    assert ends.dealer.lane is not None
    assert ends.dealer.lane.sent < len(there), "some went over the lane"


def test_the_order_holds_before_the_router_has_seen_the_greeting(ends: Ends) -> None:
    assert ends.greet(await_router=False)
    ends.dealer.send([b"over the lane"])
    ends.dealer.send([b"over", b"ZeroMQ"])
    heard: list[bytes] = []
    end = time.monotonic() + DEADLINE_S
    while len(heard) < 2 and time.monotonic() < end:
        if (received := ends.router.recv()) is not None:
            heard.append(bytes(received[1][0]))
    assert heard == [b"over the lane", b"over"]


def test_a_lane_does_not_overtake_messages_that_are_still_to_be_taken(ends: Ends) -> None:
    """The coordinator takes so many of them in a turn, then looks at the lane."""
    assert ends.greet()
    ends.dealer.send([b"1"])
    ends.dealer.send([b"2", b"over ZeroMQ"])
    received = None
    end = time.monotonic() + DEADLINE_S
    while received is None and time.monotonic() < end:
        received = ends.router.recv()
    assert received is not None
    assert bytes(received[1][0]) == b"1"
    ends.dealer.send([b"3"])
    assert ends.router.recv_lane(ends.lanes[0]) is None
    ends.until(lambda: len(ends.heard) == 2)
    assert ends.heard == [b"2", b"3"]


def test_a_peer_that_does_not_read_costs_its_sender_nothing(ends: Ends) -> None:
    """The queue of the lane is full at some time; the rest goes over ZeroMQ."""
    assert ends.greet()
    sent = [b"%d " % n + bytes(200) for n in range(5_000)]
    for each in sent:
        ends.dealer.send([each])
    ends.until(lambda: len(ends.heard) == len(sent))
    assert ends.heard == sent
    assert ends.dealer.lane is not None
    assert 1 < ends.dealer.lane.sent < len(sent)


def test_frames_beside_the_first_go_over_zeromq(ends: Ends) -> None:
    assert ends.greet()
    ends.dealer.send([b"small"])
    ends.dealer.send([b"with", b"a buffer"])
    ends.dealer.send([b"small again"])
    ends.until(lambda: len(ends.heard) == 3)
    assert ends.heard == [b"small", b"with", b"small again"]
    assert ends.dealer.lane is not None
    assert ends.dealer.lane.sent == 2, "Hello, and the one with a buffer"


def test_a_lane_that_is_dropped_leaves_the_link(ends: Ends) -> None:
    assert ends.greet()
    ends.router.drop_lane(ends.peer)
    ends.dealer.send([b"1"])
    assert ends.router.send(ends.peer, [b"2"])
    ends.until(lambda: ends.heard)
    assert ends.heard == [b"1"]
    assert wait_until(ends.taken, "the answer") == [b"2"]


def test_a_name_that_is_nowhere_makes_no_lane(ends: Ends) -> None:
    ends.dealer.send([b"hello"])
    ends.until(lambda: ends.heard)
    assert ends.router.open_lane(bytes(8)) == b""
    assert ends.router.open_lane(b"../../../run/systemd/notify") == b""
    assert ends.dealer.offer_lane()
    assert ends.dealer.open_lane(bytes(8)) is None
    assert ends.dealer.fds == (ends.dealer.fd,)


def test_nothing_of_another_process_is_taken(short_tmp: Path) -> None:
    """Before the ends are connected this user's processes can send to them, after it none can."""
    endpoint = f"ipc://{short_tmp}/r"
    near, far = Lane(endpoint), Lane(endpoint)
    other = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        for lane in (near, far):
            path = short_tmp / f"l-{lane.name.hex()}"
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            os.link(path, short_tmp / lane.name.hex())
            other.sendto(bytes(8) + b"planted", str(path))
        assert far.connect(near.name)
        assert near.connect(far.name)
        for lane in (near, far):
            with pytest.raises(PermissionError):
                other.sendto(bytes(8) + b"planted", str(short_tmp / lane.name.hex()))
        assert near.greet()
        assert far.greet()
        assert near.take() is None
        assert far.send(b"own")
        assert near.take() == b"own"
        assert far.take() is None
        assert not list(short_tmp.glob("l-*"))
    finally:
        for each in (near, far, other):
            each.close()
        for lane in (near, far):
            (short_tmp / lane.name.hex()).unlink()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be another user for a moment")
def test_a_peer_of_another_user_is_not_greeted(short_tmp: Path) -> None:
    endpoint = f"ipc://{short_tmp}/r"
    near = Lane(endpoint)
    program = """
import os, sys
from gmpd.netpoll import Lane
far = Lane(sys.argv[1])
os.setreuid(65534, 0)
assert far.connect(bytes.fromhex(sys.argv[2]))
print(far.name.hex(), flush=True)
sys.stdin.read()
"""
    command = [sys.executable, "-c", program, endpoint, near.name.hex()]
    far = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert far.stdout is not None
        assert near.connect(bytes.fromhex(far.stdout.readline().strip()))
        assert not near.greet()
        assert not near.is_open
    finally:
        far.communicate("")
        near.close()


def test_without_a_peer_the_file_goes_with_the_lane(ends: Ends, short_tmp: Path) -> None:
    ends.dealer.send([b"hello " + ends.dealer.offer_lane()])
    assert len(list(short_tmp.glob("l-*"))) == 1
    ends.dealer.close()
    assert not list(short_tmp.glob("l-*"))


def test_files_of_ends_that_died_early_go_with_the_daemon(short_tmp: Path) -> None:
    for name in ("l-0123456789abcdef", "l-0123456789abcdef.txt", "l-other"):
        (short_tmp / name).touch()
    ends = Ends(short_tmp)
    assert not (short_tmp / "l-0123456789abcdef").exists(), "left by the last one"
    (short_tmp / "l-fedcba9876543210").touch()
    ends.close()
    left = {path.name for path in short_tmp.iterdir()}
    assert left == {"l-0123456789abcdef.txt", "l-other"}
    for name in left:
        (short_tmp / name).unlink()


def test_an_end_that_is_there_before_the_daemon_keeps_its_file(short_tmp: Path) -> None:
    early = Lane(f"ipc://{short_tmp}/r")  # of a worker that was quicker than the coordinator
    ends = Ends(short_tmp)
    late = Lane(f"ipc://{short_tmp}/r")
    try:
        assert late.connect(early.name)
        assert early.connect(late.name)
        assert early.greet()
    finally:
        for each in (early, late, ends):
            each.close()


def test_a_path_that_is_too_long_for_a_lane_is_no_reason_to_fail(short_tmp: Path) -> None:
    directory = short_tmp / ("d" * (99 - len(str(short_tmp))))
    directory.mkdir()
    network = Network()
    dealer = Dealer(network, f"ipc://{directory}/r")
    try:
        assert dealer.offer_lane() == b""
    finally:
        dealer.close()
        network.close()
        directory.rmdir()


def test_datagrams_that_wait_for_a_message_keep_nobody_awake(ends: Ends) -> None:
    """Their sender has counted a message over ZeroMQ that is still on its way."""
    assert ends.greet()
    lane, (far,) = ends.dealer.lane, ends.lanes
    assert lane is not None
    lane.sent += 1
    for n in range(100):
        ends.dealer.send([b"%d" % n])
    ends.turn(0.1)
    assert far.is_held
    assert not ends.heard
    assert not ends.poller.wait(0)
    lane.sent -= 1
    ends.dealer.send([b"first", b"of all"])
    ends.until(lambda: len(ends.heard) == 101)
    assert ends.heard == [b"first", *(b"%d" % n for n in range(100))]


def test_of_a_peer_that_dies_only_messages_in_order_are_heard(ends: Ends) -> None:
    assert ends.greet()
    lane = ends.dealer.lane
    assert lane is not None
    ends.dealer.send([b"heard"])
    lane.sent += 1
    ends.dealer.send([b"after one that was lost"])
    ends.dealer.close()
    ends.until(lambda: ends.heard)
    ends.router.drop_lane(ends.peer)
    assert ends.heard == [b"heard"]


def test_jobs_go_over_lanes_and_a_fork_or_a_second_client_has_its_own(no_daemon: None) -> None:
    with gmpd.Client() as one, gmpd.Client(one.endpoint) as other:
        for client in (one, other):
            lane = client._link.lane
            assert lane is not None
            before = lane.sent
            assert [client.submit(abs, -n).result() for n in range(50)] == list(range(50))
            assert lane.sent - before <= 3, "submits of one job go over the lane"
        assert sum(one.map(abs, range(1_000))) == 499_500
        assert one.submit(abs, -1).result() == 1


async def _jobs_one_by_one(client: gmpd.AsyncClient, loop: Any) -> int:
    """The messages that went over ZeroMQ."""
    lane = client._link.lane
    assert lane is not None
    assert lane.fd in {key.fd for key in loop._selector.get_map().values()}
    before = lane.sent
    assert [await client.submit(abs, -n) for n in range(50)] == list(range(50))
    return lane.sent - before


def test_an_asyncio_client_has_a_lane_and_leaves_nothing_watched(no_daemon: None) -> None:
    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        async with gmpd.AsyncClient() as one, gmpd.AsyncClient(one.endpoint) as other:
            for client in (one, other):
                assert await _jobs_one_by_one(client, loop) <= 3
            assert sum([n async for n in one.map(abs, range(1_000))]) == 499_500
        (own,) = loop._selector.get_map()  # asyncio's own socket
        assert own == loop._ssock.fileno()

    asyncio.run(main())


GREEN = """
import gevent, time
from gmpd.client.green import Client
if __name__ == "__main__":
    with Client() as client:
        lane, ticks = client._link.lane, []
        def tick():
            while True:
                ticks.append(1)
                gevent.sleep(0.005)
        ticking = gevent.spawn(tick)
        before = lane.sent
        assert [client.submit(abs, -n).result(50) for n in range(50)] == list(range(50))
        assert lane.sent - before <= 3, lane.sent - before
        client.submit(time.sleep, 0.5).result(50)
        assert len(ticks) > 10, "the other greenlets ran"
        ticking.kill()
"""


@pytest.mark.parametrize("patch", ["", "import gevent.monkey; gevent.monkey.patch_all()"])
def test_a_gevent_client_has_a_lane(patch: str, no_daemon: None) -> None:
    pytest.importorskip("gevent")
    done = subprocess.run(
        [sys.executable, "-c", patch + GREEN], capture_output=True, text=True, timeout=110
    )
    assert done.returncode == 0, done.stderr


def test_an_answer_that_comes_while_submit_sends_is_read_by_submit(no_daemon: None) -> None:
    """As on a busy core: the IO thread sleeps on, and the descriptor is watched again after it."""
    with gmpd.Client() as client:
        assert client.submit(abs, -1).result() == 1
        lane = client._link.lane
        assert lane is not None
        wait_until(lambda: client._asleep and not client._core.busy, "the IO thread sleeps")
        send = lane._send

        def send_and_wait(data: Any, flags: int = 0) -> int:
            sent = send(data, flags)
            select.select([lane.fd], [], [], DEADLINE_S)
            return sent

        turns = client._turns
        lane._send = send_and_wait
        future = client.submit(abs, -2)
        assert future.done()
        assert client._turns == turns
        assert future.result() == 2
        lane._send = send
        later = client.submit(abs, -3)
        wait_until(later.done, "the IO thread reads")
        with pytest.raises(ZeroDivisionError):
            client.submit(divmod, 1, 0).result()


def test_a_lane_that_is_lent_reaches_its_peer_and_waits_for_nothing(
    ends: Ends, short_tmp: Path
) -> None:
    (short_tmp / "b").mkdir()
    others = Ends(short_tmp / "b")
    try:
        assert ends.greet()
        assert others.greet()
        ends.dealer.borrow()
        before = len(os.listdir("/proc/self/fd"))
        assert not ends.router.lend(b"none", b"lend", others.lanes[0])
        assert ends.router.lend(ends.peer, b"lend", others.lanes[0])
        ends.router.send(ends.peer, [b"next"])
        frames: Any = wait_until(ends.dealer.recv_lane, "the message", timeout=DEADLINE_S)
        assert (frames[0], ends.dealer.recv_lane()) == (b"lend", [b"next"])
        lent = LentLane(frames[1])
        assert lent.send(b"value")
        assert others.taken() == [b"value"]
        assert not lent.send(bytes(LANE_BYTES + 1))
        while lent.send(b"more"):
            pass  # it is not read: it is full at some time, and says so
        assert others.router.send(others.peer, [b"over ZeroMQ"])
        found = wait_until(others.taken, "all of them", timeout=DEADLINE_S)
        assert {*found} <= {b"more", b"over ZeroMQ"}
        others.dealer.close()
        assert not lent.send(b"value")
        lent.close()
        assert ends.router.lend(ends.peer, b"not taken", others.lanes[0])
    finally:
        others.close()
    ends.dealer.close()
    assert len(os.listdir("/proc/self/fd")) <= before
