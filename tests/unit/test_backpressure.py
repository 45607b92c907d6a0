"""Results that workers keep are asked for as their client takes them (gmpd.sched.backpressure)."""

from __future__ import annotations

import pytest

from gmpd.sched.backpressure import RELEASE_BYTES, RELEASE_MAX
from gmpd.sched.instructions import CancelAt, Instruction, Withhold
from gmpd.sched.records import PRecord, Session
from tests.desk import Desk

MB = 1 << 20


@pytest.fixture
def desk() -> Desk:
    return Desk(credit_max=1000)


def kept(desk: Desk, client: Session, p: PRecord, jobs: int, nbytes: int) -> list[int]:
    """Jobs that have ended, and whose results their worker keeps; their tokens."""
    desk.submit(client, jobs, "m:large")
    while len(p.started) < jobs:
        desk.take()
        desk.start(p)
    tokens = list(p.started)
    desk.withheld(p, tokens, nbytes)
    return tokens


def asked(instructions: list[Instruction]) -> list[int]:
    return [
        token
        for each in instructions
        if isinstance(each, Withhold) and not each.on
        for token in each.tokens
    ]


def test_they_are_asked_for_in_portions(desk: Desk) -> None:
    p, client = desk.ready(0), desk.client()
    tokens = kept(desk, client, p, 20, MB)
    got = asked(desk.take())
    assert got == tokens[:4]
    assert asked(desk.take()) == [], "nothing of that has come"
    desk.finish(p, got[:1], payload=bytes(MB))
    assert asked(desk.take()) == [], "it is on its way to the client"
    desk.ack(client, client.delivered)
    assert asked(desk.take()) == tokens[4:5]
    received = tokens[1:5]
    for at in range(5, 25, 4):
        desk.finish(p, received, payload=bytes(MB))
        desk.take()
        desk.ack(client, client.delivered)
        received = asked(desk.take())
        assert received == tokens[at : at + 4]
    assert not client.jobs
    assert not desk.sched._ledger.releasing


def test_one_that_is_larger_than_a_portion_comes_alone(desk: Desk) -> None:
    p, client = desk.ready(0), desk.client()
    tokens = kept(desk, client, p, 3, 2 * RELEASE_BYTES)
    assert asked(desk.take()) == tokens[:1]


def test_small_ones_come_in_bounded_numbers(desk: Desk) -> None:
    p, client = desk.ready(0), desk.client()
    kept(desk, client, p, RELEASE_MAX + 50, 2000)
    assert len(asked(desk.take())) == RELEASE_MAX


def test_what_the_client_has_not_acknowledged_counts(desk: Desk) -> None:
    p, client = desk.ready(0), desk.client()
    desk.submit(client, 4, "m:f")
    while len(p.started) < 4:
        desk.take()
        desk.start(p)
    desk.finish(p, payload=bytes(MB))
    desk.take()
    tokens = kept(desk, client, p, 2, MB)
    assert asked(desk.take()) == []
    desk.ack(client, client.delivered)
    assert asked(desk.take()) == tokens


def test_a_death_makes_room(desk: Desk) -> None:
    p, client = desk.ready(0), desk.client()
    tokens = kept(desk, client, p, 6, MB)
    assert asked(desk.take()) == tokens[:4]
    desk.died(0)
    desk.take()
    assert not client.asked
    assert not client.kept
    assert not desk.sched._ledger.releasing


def test_of_a_client_that_is_gone_they_end_in_portions_too(desk: Desk) -> None:
    p, client = desk.ready(0), desk.client()
    tokens = kept(desk, client, p, 20, MB)
    desk.take()
    desk.leave(client)
    assert not [each for each in desk.take() if isinstance(each, CancelAt)]
    for at in range(0, 20, 4):
        desk.finish(p, tokens[at : at + 4], payload=bytes(MB))
        assert asked(desk.take()) == tokens[at + 4 : at + 8]
    assert not desk.sched.unfinished
    assert not desk.sched._ledger.releasing


def test_the_end_of_a_frame_after_its_time_limit_is_asked_for(desk: Desk) -> None:
    """Else its worker would keep the result, and another attempt would wait for it, for ever."""
    p, client = desk.ready(0), desk.client()
    desk.submit(client, 1, "m:f", timeout=1.0)
    desk.take()
    (token,) = desk.start(p)
    desk.expired(p, [token])
    desk.take()
    assert token in p.overrunning
    desk.withheld(p, [token], MB)
    assert asked(desk.take()) == [token]
    desk.finish(p, [token], payload=bytes(MB))
    desk.take()
    assert not p.overrunning
