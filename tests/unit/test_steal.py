"""Stealing: the order of victims, and what the ledger takes from which P (gmpd.sched.steal)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from math import gcd

import pytest

from gmpd.protocol import Finished, Outcome
from gmpd.sched.instructions import (
    CancelAt,
    Instruction,
    LeaseJobs,
    NotifyRunning,
    Probe,
    RecoverOutcomes,
    Revoke,
)
from gmpd.sched.random_order import RandomOrder, coprimes
from gmpd.sched.records import PROBE_AFTER_NS, PROBE_EVERY_MAX_NS, PRecord, Session
from gmpd.sched.steal import STALE_NS
from tests.desk import MS, Desk, handed, only, payloads

# ------------------------------------------------------------------------------ the P to ask


def test_a_search_visits_every_p_once() -> None:
    order = RandomOrder(7)
    for n in range(1, 40):
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


# --------------------------------------------------------------------------------- revocation


class Scene:
    """A victim (P1) that holds four fresh jobs of half a millisecond, and what happens next."""

    def __init__(self) -> None:
        self.desk = Desk()
        self.client: Session = self.desk.client()
        self.victim: PRecord = self.desk.ready(1)
        self.desk.teach(self.victim, self.client, "m:f", 0.5)
        self.seqs = self.desk.submit(self.client, 4, "m:f")
        self.desk.take()
        self.tokens = list(self.victim.fresh)
        assert len(self.tokens) == 4

    def thief(self) -> tuple[PRecord, Revoke]:
        record = self.desk.ready(2)
        (revoke,) = only(self.desk.take(), Revoke)
        return record, revoke

    def revoked(self, revoke: Revoke, got: list[int]) -> None:
        self.desk.revoked(revoke, got)


@pytest.fixture
def scene() -> Iterator[Scene]:
    made = Scene()
    yield made
    made.desk.take()
    made.desk.sched.validate()


def test_an_idle_p_takes_the_older_half(scene: Scene) -> None:
    thief, revoke = scene.thief()
    assert (revoke.p, revoke.thief) == (scene.victim, thief)
    assert revoke.tokens == scene.tokens[:2]


def test_nothing_moves_before_it_is_revoked(scene: Scene) -> None:
    thief, _ = scene.thief()
    assert len(scene.victim.fresh) == 4
    assert not thief.fresh


def test_what_is_revoked_moves_under_new_tokens(scene: Scene) -> None:
    thief, revoke = scene.thief()
    scene.revoked(revoke, revoke.tokens)
    instructions = scene.desk.take()
    assert handed(instructions) == [(2, 2)]
    assert payloads(instructions) == [b"1", b"2"]
    assert (thief.steal_hits, thief.steal_misses) == (1, 0)
    assert (thief.stolen_to, scene.victim.stolen_from) == (2, 2)
    assert scene.desk.sched.counters.steal.count == 1
    assert [each.stolen for each in only(instructions, LeaseJobs)] == [2], "the thief counts them"
    # The old tokens are burnt: an outcome under them would be a second run.
    scene.desk.finish(scene.victim, scene.tokens[:2], payload=b"twice")
    assert scene.desk.sched.counters.dropped["unknown_token"] == 2
    scene.desk.finish(thief, payload=b"once")
    scene.desk.finish(scene.victim)
    scene.desk.take()
    assert [scene.desk.ended(scene.client, seq) for seq in scene.seqs] == [Outcome.OK] * 4
    assert scene.desk.outcomes[scene.client.sid, scene.seqs[0]][0][1] == b"once"


def test_tokens_are_never_used_twice(scene: Scene) -> None:
    _, revoke = scene.thief()
    scene.revoked(revoke, revoke.tokens)
    scene.desk.take()
    assert not set(scene.victim.fresh) & set(revoke.tokens)
    assert scene.victim.next_token > max(scene.tokens)


def test_what_was_claimed_shows_as_started_and_the_rest_is_tried(scene: Scene) -> None:
    """No message of the victim is needed for it, and its own comes too late to be news."""
    thief, revoke = scene.thief()
    scene.revoked(revoke, [])
    instructions = scene.desk.take()
    assert list(scene.victim.started) == scene.tokens[:2]
    assert [each.seqs for each in only(instructions, NotifyRunning)] == [scene.seqs[:2]]
    assert (thief.steal_hits, thief.steal_misses) == (0, 1)
    (again,) = only(instructions, Revoke)
    assert again.tokens == scene.tokens[2:3]
    scene.revoked(again, again.tokens)
    assert handed(scene.desk.take()) == [(2, 1)]
    scene.desk.start(scene.victim, scene.tokens[:2])
    assert not scene.desk.sched.counters.dropped


def test_a_steal_that_meets_a_cancel_takes_nothing_twice(scene: Scene) -> None:
    """Both in one batch: the second finds tokens that are gone, and concludes nothing from that."""
    thief = scene.desk.ready(2)
    scene.desk.cancel(scene.client, scene.seqs[:3])
    cancel, steal = only(scene.desk.take(), Revoke)
    assert (cancel.tokens, cancel.thief) == (scene.tokens[:3], None)
    assert (steal.tokens, steal.thief) == (scene.tokens[:2], thief)
    scene.revoked(cancel, cancel.tokens)
    scene.revoked(steal, [])  # the words are taken: by us
    scene.desk.take()
    ended = [scene.desk.ended(scene.client, seq) for seq in scene.seqs]
    assert ended == [Outcome.CANCELLED] * 3 + [None]
    assert not scene.victim.started
    assert list(scene.victim.fresh) == scene.tokens[3:]


def test_a_cancel_of_what_was_claimed_goes_to_the_worker(scene: Scene) -> None:
    scene.desk.cancel(scene.client, scene.seqs[:2])
    (revoke,) = only(scene.desk.take(), Revoke)
    scene.revoked(revoke, scene.tokens[1:2])
    assert only(scene.desk.take(), CancelAt) == [CancelAt(scene.victim, scene.tokens[:1])]
    assert scene.desk.ended(scene.client, scene.seqs[0]) is None
    assert scene.desk.ended(scene.client, scene.seqs[1]) is Outcome.CANCELLED


def test_a_cancel_is_not_lost_when_its_job_is_said_to_have_started_meanwhile(scene: Scene) -> None:
    """The Cancel, then a worker's Started, in one turn; then the revocation that finds it taken."""
    scene.desk.cancel(scene.client, scene.seqs[:1])
    scene.desk.start(scene.victim, scene.tokens[:1])
    (revoke,) = only(scene.desk.take(), Revoke)
    scene.revoked(revoke, [])
    assert only(scene.desk.take(), CancelAt) == [CancelAt(scene.victim, scene.tokens[:1])]


def test_a_little_work_stays_unless_something_long_is_before_it() -> None:
    desk = Desk()
    client, victim = desk.client(), desk.ready(1)
    desk.teach(victim, client, "m:tiny", 0.01)
    desk.submit(client, 5, "m:tiny")
    desk.take()
    desk.ready(2)
    assert not only(desk.take(), Revoke)
    desk.start(victim, list(victim.fresh)[:1])  # the first turns out to be long
    (revoke,) = only(desk.take(), Revoke)
    assert len(revoke.tokens) == 2


def test_the_last_fresh_job_is_not_carried_between_two_that_run_something_long() -> None:
    desk = Desk()
    client, one, two = desk.client(), desk.ready(1), desk.ready(2)
    desk.submit(client, 2, "m:long")
    desk.take()
    desk.start(one)
    desk.start(two)
    desk.submit(client, 1, "m:long")
    desk.take()
    assert len(one.fresh) + len(two.fresh) == 1
    assert not only(desk.log, Revoke)


def test_nothing_is_revoked_from_a_draining_or_dead_p(scene: Scene) -> None:
    scene.desk.drain_p(1)
    scene.desk.ready(2)
    assert [each.thief for each in only(scene.desk.take(), Revoke)] == [None]
    assert not only(scene.desk.take(after_ms=1000), Revoke)


# ----------------------------------------------------------------------------------- deafness


def given(instructions: list[Instruction]) -> Counter[int]:
    """How many jobs each P got."""
    total = Counter[int]()
    for p, n in handed(instructions):
        total[p] += n
    return total


class Silence:
    """P1 holds five jobs of ten microseconds and says nothing; P2 is idle."""

    def __init__(self) -> None:
        self.desk = Desk()
        self.client: Session = self.desk.client()
        self.one: PRecord = self.desk.ready(1)
        self.desk.teach(self.one, self.client, "m:tiny", 0.01)
        self.seqs = self.desk.submit(self.client, 5, "m:tiny")
        self.desk.take()
        self.tokens = list(self.one.fresh)
        self.two: PRecord = self.desk.ready(2)
        assert not only(self.desk.take(), Revoke)

    def look(self, *, moves: bool = False, asleep: bool = False) -> None:
        """The next look is due, and this is seen."""
        due = self.one.probe_at_ns - self.desk.now
        (look,) = only(self.desk.take(after_ms=due / MS), Probe)
        self.desk.probed(look.p, moves=moves, asleep=asleep)

    def steal(self, claimed: int = 1) -> None:
        """As the shell would: all but the first ``claimed`` is given back."""
        self.look()
        (revoke,) = only(self.desk.take(), Revoke)
        assert revoke.tokens == list(self.one.fresh)
        self.desk.revoked(revoke, revoke.tokens[claimed:])


@pytest.fixture
def silence() -> Silence:
    return Silence()


def test_a_deaf_p_loses_all_that_it_did_not_claim(silence: Silence) -> None:
    assert silence.desk.sched.next_deadline() == silence.desk.now + PROBE_AFTER_NS
    assert not only(silence.desk.take(after_ms=PROBE_AFTER_NS / MS - 0.5), Probe)
    (look,) = only(silence.desk.take(after_ms=0.5), Probe)
    assert look.p is silence.one
    silence.desk.probed(silence.one, moves=False, asleep=False)
    instructions = silence.desk.take()
    assert only(instructions, RecoverOutcomes) == [RecoverOutcomes(silence.one)]
    (revoke,) = only(instructions, Revoke)
    assert revoke.tokens == silence.tokens
    silence.desk.revoked(revoke, revoke.tokens[1:])
    assert given(silence.desk.take()) == {2: 4}
    assert list(silence.one.started) == silence.tokens[:1]


def test_what_it_stored_and_could_not_send_is_used_once(silence: Silence) -> None:
    silence.look()
    took = [10, 10]
    message = Finished(silence.tokens[:2], [b"a", b"b"], took, took, None, None)
    silence.desk.recovered(silence.one, message)
    (revoke,) = only(silence.desk.take(), Revoke)
    silence.desk.revoked(revoke, [])
    silence.desk.finish(silence.one, silence.tokens[:3], payload=b"late")
    silence.desk.take()
    got = silence.desk.outcomes
    values = [got[silence.client.sid, seq][0][1] for seq in silence.seqs[:3]]
    assert values == [b"a", b"b", b"late"]
    assert not silence.desk.sched.counters.dropped
    silence.desk.finish(silence.one, silence.tokens[:1])
    assert silence.desk.sched.counters.dropped == {"unknown_token": 1}


def test_a_beginning_that_is_told_after_its_outcome_was_recovered_is_no_news(
    silence: Silence,
) -> None:
    """It was on its way while the coordinator read the outcome in shared memory."""
    silence.look()
    token = silence.tokens[0]
    silence.desk.recovered(silence.one, Finished([token], [b"a"], [10], [10], None, None))
    silence.desk.start(silence.one, [token])
    silence.desk.finish(silence.one, [token], payload=b"late")
    assert not silence.desk.sched.counters.dropped
    silence.desk.start(silence.one, [token])
    assert silence.desk.sched.counters.dropped == {"unknown_token": 1}


def test_without_an_idle_thief_the_jobs_stay(silence: Silence) -> None:
    other = silence.desk.submit(silence.client, 1, "m:other")
    silence.desk.take()
    assert len(silence.two.fresh) == 1
    silence.desk.probed(silence.one, moves=False, asleep=False)
    assert not only(silence.desk.take(after_ms=10_000), Revoke)
    assert silence.desk.ended(silence.client, other[0]) is None


def test_who_moves_is_not_deaf_and_is_looked_at_ever_more_rarely(silence: Silence) -> None:
    began = silence.desk.now
    looks = []
    for _ in range(10):
        silence.look(moves=True)
        looks.append((silence.desk.now - began) // MS)
        assert not silence.one.deaf
    assert looks[:4] == [10, 20, 40, 80]
    assert silence.one.probe_every_ns == PROBE_EVERY_MAX_NS
    silence.desk.heard(silence.one, 1)
    assert silence.one.probe_every_ns == PROBE_AFTER_NS
    silence.desk.heard(silence.one, 0)  # of an epoch that is over
    assert silence.one.probe_at_ns == silence.desk.now + PROBE_AFTER_NS


def test_who_sleeps_is_looked_at_once_a_second_until_it_is_given_work(silence: Silence) -> None:
    """A parked G wakes by itself, and its worker may stop before it has told of its end."""
    desk, one = silence.desk, silence.one
    desk.start(one)
    desk.take()
    for _ in range(3):
        silence.look(asleep=True)
        desk.take()
        assert desk.sched.next_deadline() == desk.now + PROBE_EVERY_MAX_NS
    silence.look(moves=True)
    desk.take()
    assert desk.sched.next_deadline() == desk.now + PROBE_AFTER_NS
    silence.look(asleep=True)
    desk.submit(silence.client, 2, "m:other")
    desk.take()
    assert desk.sched.next_deadline() == desk.now + PROBE_AFTER_NS


def test_new_leases_are_looked_after_soon_however_rarely_their_p_is_probed(
    silence: Silence,
) -> None:
    """It runs a long job that moves on, and has not been heard of for long."""
    desk, one = silence.desk, silence.one
    desk.start(one)
    desk.start(silence.two, [])
    desk.take()
    for _ in range(10):
        silence.look(moves=True)
        desk.take()
    desk.died(2)
    for _ in range(3):  # more leases do not put it off
        desk.submit(silence.client, 1, "m:tiny")
        desk.take(after_ms=3)
    assert one.fresh
    assert one.probe_at_ns == desk.now - 6 * MS + PROBE_AFTER_NS
    for after_ms in (10, 20, 40):
        silence.look(moves=True)
        assert one.probe_at_ns == desk.now + after_ms * MS


def test_who_holds_nothing_is_not_looked_at(silence: Silence) -> None:
    silence.desk.finish(silence.one)
    silence.desk.take()
    assert silence.desk.sched.next_deadline() is None
    assert not only(silence.desk.take(after_ms=10_000), Probe)


def test_what_lies_for_long_is_taken_one_by_one_and_has_longer_each_time(silence: Silence) -> None:
    """The P moves, but does not come to it: it is a hog's, behind a hog."""
    silence.desk.start(silence.one, silence.tokens[:1])
    silence.desk.start(silence.two, [])
    busy = silence.desk.submit(silence.client, 1, "m:busy")
    silence.desk.take()
    silence.desk.start(silence.two)  # P2 has something started: it is not free
    silence.desk.take()
    assert silence.desk.sched.next_deadline() is not None
    for record in (silence.one, silence.two):
        silence.desk.probed(record, moves=False, asleep=True)
    silence.desk.take()
    oldest = next(iter(silence.one.fresh.values()))
    assert silence.desk.sched.next_deadline() == oldest.leased_ns + STALE_NS
    assert not only(silence.desk.take(after_ms=STALE_NS / MS - 1), Revoke)
    (revoke,) = only(silence.desk.take(after_ms=1), Revoke)
    assert revoke.tokens == [oldest.token]
    silence.desk.revoked(revoke, revoke.tokens)
    assert given(silence.desk.take()) == {2: 1}
    assert oldest.moves == 1
    assert busy


def test_a_deaf_p_gets_nothing_while_another_hears(silence: Silence) -> None:
    """Or the stopped worker, which holds nothing now, would be the best place for its own jobs."""
    silence.steal(claimed=0)
    assert given(silence.desk.take()) == {2: 5}
    silence.desk.submit(silence.client, 50, "m:other")
    assert handed(silence.desk.take()) == []
    silence.desk.finish(silence.two)
    assert given(silence.desk.take()).keys() == {2}
    silence.desk.heard(silence.one, 1)
    assert given(silence.desk.take()).keys() == {1}


def test_a_deaf_p_is_better_than_none(silence: Silence) -> None:
    silence.steal(claimed=0)
    silence.desk.take()
    silence.desk.died(2)
    assert given(silence.desk.take()) == {1: 5}


def test_two_deaf_ps_do_not_play_ball(silence: Silence) -> None:
    """A deaf P steals nothing, so a job moves at most once between two of them."""
    silence.steal()
    silence.desk.take()
    before = len(only(silence.desk.log, Revoke))
    for _ in range(20):
        for look in only(silence.desk.take(after_ms=1000), Probe):
            silence.desk.probed(look.p, moves=False, asleep=False)
    assert silence.one.deaf
    assert silence.two.deaf
    assert len(only(silence.desk.log, Revoke)) == before


def test_a_new_worker_is_not_deaf(silence: Silence) -> None:
    silence.steal()
    silence.desk.take()
    silence.desk.died(1)
    silence.desk.ready(1, 2)
    assert not silence.one.deaf
