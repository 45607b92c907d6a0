"""Which values a worker tells a client itself."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from gmpd import protocol
from gmpd.daemon.answers import Answers
from gmpd.daemon.leased import Leased
from gmpd.netpoll import LANE_BYTES
from gmpd.protocol import Outcome


class FakeLane:
    def __init__(self, *, full: bool) -> None:
        self.full = full
        self.sent: list[bytes] = []

    def send(self, message: bytes) -> bool:
        if not self.full:
            self.sent.append(message)
        return not self.full


class World:
    def __init__(self, *, full: bool = False, free: bool = True) -> None:
        self.free = free
        #: Leases whose right to answer was asked for.
        self.asked: list[int] = []
        shm: Any = SimpleNamespace(claims=self)
        self.answers = Answers(shm)
        self.lane = FakeLane(full=full)
        lanes: dict[int, Any] = self.answers._lanes
        lanes[5] = self.lane

    def take_right(self, token: int) -> bool:
        self.asked.append(token)
        return self.free

    def tell(self, client: int | None = 5, **fields: Any) -> bool:
        ids = bytes(12) + b"\0\0\0\x08" + b"\0\0\1\x09"
        assign = protocol.Assign(1, 70, None, [b"", b""], None, 0, ids, None, client)
        attempt: Any = SimpleNamespace(
            leased=Leased(assign), token=71, outcome=Outcome.OK, data=b"x", out_buffers=(),
            has_progress=False,
        )  # fmt: skip
        vars(attempt).update(fields)
        return self.answers.tell(attempt, 9)


def test_a_small_value_goes_by_the_lane_of_its_client_with_the_number_that_it_knows() -> None:
    world = World()
    assert world.tell()
    value = protocol.Value(0x109, b"x", 9)
    assert [protocol.unpack(m, protocol.TO_CLIENT) for m in world.lane.sent] == [value]
    assert world.asked == [71]


@pytest.mark.parametrize(
    "fields",
    [
        {"client": None},
        {"client": 6},
        {"leased": None},
        {"outcome": Outcome.ERROR},
        {"out_buffers": (b"frame",)},
        {"has_progress": True},
        {"data": bytes(LANE_BYTES + 1)},
    ],
)
def test_no_right_is_taken_for_any_other(fields: dict[str, Any]) -> None:
    world = World()
    assert not world.tell(**fields)
    assert (world.asked, world.lane.sent) == ([], [])


def test_without_the_right_nothing_is_told() -> None:
    world = World(free=False)
    assert not world.tell()
    assert not world.lane.sent


def test_a_lane_that_is_full_leaves_the_value_to_the_coordinator() -> None:
    assert not World(full=True).tell()
