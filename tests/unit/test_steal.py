"""Stealing: the order of victims, and its two phases in the ledger (gmpd.sched.steal)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from math import gcd

import pytest

from gmpd.protocol import Outcome
from gmpd.sched.instructions import AskBack
from gmpd.sched.records import PRecord, Session
from gmpd.sched.steal import PAUSE_MAX_NS, PAUSE_MIN_NS, RandomOrder, coprimes
from tests.desk import KILLED, MS, Desk, handed, only, payloads

# ------------------------------------------------------------------------------ whom to ask


@pytest.mark.parametrize("n", range(1, 40))
def test_a_search_visits_every_p_once(n: int) -> None:
    order = RandomOrder(7)
    for _ in range(20):
        assert sorted(order.positions(n)) == list(range(n))


def test_no_ps_no_search() -> None:
    assert list(RandomOrder(1).positions(0)) == []


def test_strides_are_coprime() -> None:
    assert coprimes(12) == (1, 5, 7, 11)
    assert all(gcd(k, 30) == 1 for k in coprimes(30))


def test_the_same_seed_gives_the_same_victims() -> None:
    one, two, other = RandomOrder(5), RandomOrder(5), RandomOrder(6)
    first = [list(one.positions(8)) for _ in range(10)]
    assert first == [list(two.positions(8)) for _ in range(10)]
    assert first != [list(other.positions(8)) for _ in range(10)]


def test_no_victim_is_favoured() -> None:
    order = RandomOrder(3)
    first = Counter(next(iter(order.positions(8))) for _ in range(8000))
    assert len(first) == 8
    assert min(first.values()) > 850
    assert max(first.values()) < 1150


@pytest.mark.parametrize("seed", [0, -1, 2**70])
def test_any_seed_will_do(seed: int) -> None:
    order = RandomOrder(seed)
    assert len({order.next() for _ in range(100)}) == 100


# --------------------------------------------------------------------------------- two phases


class Scene:
    """A victim (P1) that holds four fresh jobs of half a millisecond, and what happens next."""

    def __init__(self) -> None:
        self.desk = Desk()
        self.client: Session = self.desk.client()
        self.victim: PRecord = self.desk.sched.p_ready(1, 1)
        self.desk.teach(self.victim, self.client, "m:f", 0.5)
        self.seqs = self.desk.submit(self.client, 4, "m:f")
        self.desk.take()
        self.tokens = list(self.victim.fresh)
        assert len(self.tokens) == 4

    def thief(self) -> tuple[PRecord, AskBack]:
        record = self.desk.sched.p_ready(2, 1)
        (ask,) = only(self.desk.take(), AskBack)
        return record, ask

    def give(self, ask: AskBack, tokens: list[int], epoch: int = 1) -> None:
        self.desk.sched.surrendered(self.victim, epoch, ask.request, tokens, self.desk.now)


@pytest.fixture
def scene() -> Iterator[Scene]:
    made = Scene()
    yield made
    made.desk.take()
    made.desk.sched.validate()


def test_an_idle_p_asks_for_the_older_half(scene: Scene) -> None:
    _, ask = scene.thief()
    assert (ask.p, ask.n) == (scene.victim, 2)
    assert scene.victim.stealing == ask.request


def test_nothing_moves_before_the_victim_has_given_it_up(scene: Scene) -> None:
    thief, _ = scene.thief()
    assert len(scene.victim.fresh) == 4
    assert not thief.fresh
    assert scene.desk.take() == []  # and it is asked only once


def test_what_is_given_up_moves_under_new_tokens(scene: Scene) -> None:
    thief, ask = scene.thief()
    scene.give(ask, scene.tokens[:2])
    instructions = scene.desk.take()
    assert handed(instructions) == [(2, 2)]
    assert payloads(instructions) == [b"1", b"2"]
    assert (scene.victim.hits, scene.victim.lost, scene.victim.stealing) == (1, 2, 0)
    assert scene.desk.sched.tally.steal.count == 1
    # The old tokens are burnt: an outcome under them would be a second run.
    scene.desk.finish(scene.victim, scene.tokens[:2], payload=b"twice")
    assert scene.desk.sched.tally.dropped["unknown_token"] == 2
    scene.desk.finish(thief, payload=b"once")
    scene.desk.finish(scene.victim)
    scene.desk.take()
    assert [scene.desk.ended(scene.client, seq) for seq in scene.seqs] == [Outcome.OK] * 4
    assert scene.desk.outcomes[scene.client.sid, scene.seqs[0]][0][1] == b"once"


def test_tokens_are_never_used_twice(scene: Scene) -> None:
    _, ask = scene.thief()
    scene.give(ask, scene.tokens)
    scene.desk.take()
    assert not set(scene.victim.fresh) & set(scene.tokens)
    assert scene.victim.next_token > max(scene.tokens)


def test_an_empty_handed_victim_is_left_alone_longer_and_longer(scene: Scene) -> None:
    _, ask = scene.thief()
    pause = PAUSE_MIN_NS
    for misses in range(1, 9):
        scene.give(ask, [])
        assert scene.desk.take() == []
        assert scene.victim.misses == misses
        assert scene.desk.sched.next_deadline() == scene.desk.now + pause
        assert not only(scene.desk.take(after_ms=pause / MS - 0.5), AskBack)
        (ask,) = only(scene.desk.take(after_ms=0.5), AskBack)
        pause = min(PAUSE_MAX_NS, 2 * pause)
    scene.give(ask, scene.tokens[:1])
    assert scene.victim.steal_pause_ns == 0


def test_an_answer_of_another_request_ends_nothing(scene: Scene) -> None:
    _, ask = scene.thief()
    scene.desk.sched.surrendered(scene.victim, 1, ask.request + 1, [], scene.desk.now)
    assert scene.victim.stealing == ask.request


def test_an_answer_of_a_dead_worker_is_dropped(scene: Scene) -> None:
    thief, ask = scene.thief()
    scene.desk.sched.p_died(1, (), None, KILLED, scene.desk.now)
    scene.give(ask, scene.tokens[:2], epoch=0)
    scene.give(ask, scene.tokens[:2])
    scene.desk.take()
    assert len(thief.fresh) == 4
    assert scene.desk.sched.tally.dropped == {"stale_epoch": 1, "unknown_token": 2}
    assert not scene.desk.sched._steal_asked_ns


def test_work_that_is_not_worth_two_messages_stays_unless_something_long_is_before_it() -> None:
    desk = Desk()
    client, victim = desk.client(), desk.sched.p_ready(1, 1)
    desk.teach(victim, client, "m:tiny", 0.01)
    desk.submit(client, 5, "m:tiny")
    desk.take()
    desk.sched.p_ready(2, 1)
    assert not only(desk.take(), AskBack)
    desk.start(victim, list(victim.fresh)[:1])  # the first turns out to be long
    (ask,) = only(desk.take(), AskBack)
    assert ask.n == 2


def test_the_last_fresh_job_is_not_carried_between_two_that_run_something_long() -> None:
    desk = Desk()
    client, one, two = desk.client(), desk.sched.p_ready(1, 1), desk.sched.p_ready(2, 1)
    desk.submit(client, 2, "m:long")
    desk.take()
    desk.start(one)
    desk.start(two)
    desk.submit(client, 1, "m:long")
    desk.take()
    assert len(one.fresh) + len(two.fresh) == 1
    assert not only(desk.log, AskBack)


def test_a_pause_that_is_over_is_no_deadline_while_nobody_is_free() -> None:
    """Or the coordinator would wake at once, do nothing, and wake again."""
    desk = Desk()
    client, one = desk.client(), desk.sched.p_ready(1, 1)
    desk.submit(client, 2, "m:long")
    desk.take()
    desk.start(one)
    desk.take()
    two = desk.sched.p_ready(2, 1)
    (ask,) = only(desk.take(), AskBack)
    desk.sched.surrendered(one, 1, ask.request, [], desk.now)
    desk.submit(client, 1, "m:other")
    desk.take()
    desk.start(two)
    assert not only(desk.take(after_ms=100), AskBack)
    assert desk.sched.next_deadline() is None


def test_a_draining_or_dead_p_is_not_robbed(scene: Scene) -> None:
    scene.desk.sched.drain_p(1)
    scene.desk.sched.p_ready(2, 1)
    assert not only(scene.desk.take(), AskBack)
