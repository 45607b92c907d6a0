"""How much is sent to a host, and which messages are kept (gmpd.cluster.batches)."""

from __future__ import annotations

from gmpd.cluster.batches import AHEAD_JOBS, AHEAD_NS, GATHER_MAX_S, Ahead, Numbered

MS = 1_000_000


def send(ahead: Ahead, fid: int, n: int) -> None:
    ahead.sent(ahead.est_ns(fid) * n, n)


def test_an_unknown_function_is_sent_once_for_each_core() -> None:
    ahead = Ahead(4)
    assert ahead.room(1) == 4
    send(ahead, 1, 4)
    assert ahead.room(1) == 0


def test_known_work_is_sent_until_the_next_batch_can_come() -> None:
    ahead = Ahead(2)
    ahead.learn(1, MS)
    assert ahead.room(1) == 2 * AHEAD_NS // MS
    most = 2 * AHEAD_NS // MS
    send(ahead, 1, most // 2)
    assert ahead.room(1) == most // 2
    send(ahead, 1, most // 2 - 1)
    assert ahead.room(1) == 0, "it has most of that: the next batch is to be worth an exchange"
    ahead.begun(most // 2 * MS, most // 2)
    assert ahead.room(1) == most // 2 + 1


def test_a_long_job_for_each_core_waits_there() -> None:
    ahead = Ahead(3)
    ahead.learn(1, 60_000 * MS)
    send(ahead, 1, 2)
    assert ahead.room(1) == 1
    send(ahead, 1, 1)
    assert ahead.room(1) == 0
    ahead.begun(ahead.est_ns(1), 1)
    assert ahead.room(1) == 1, "one has begun, so another may wait"


def test_a_full_queue_of_short_jobs_keeps_room_for_a_core_that_has_none() -> None:
    ahead = Ahead(2)
    ahead.sent(10 * AHEAD_NS, 1)
    assert ahead.room(9) == 1


def test_quick_jobs_are_bounded_by_their_number() -> None:
    ahead = Ahead(64)
    ahead.learn(1, 0)
    assert ahead.room(1) == AHEAD_JOBS


def test_what_is_learned_follows_and_is_forgotten() -> None:
    ahead = Ahead(1)
    ahead.learn(1, 8 * MS)
    ahead.learn(1, 16 * MS)
    assert ahead.est_ns(1) == 9 * MS
    ahead.forget(1)
    assert ahead.est_ns(1) == AHEAD_NS


def test_outcomes_gather_while_there_is_work_and_not_for_long() -> None:
    ahead = Ahead(2)
    assert ahead.gather_s() == 0
    ahead.sent(12 * MS, 8)
    assert ahead.gather_s() == 0.002
    ahead.sent(8_000 * MS, 8)
    assert ahead.gather_s() == GATHER_MAX_S


def test_messages_are_kept_until_the_other_end_has_them() -> None:
    out = Numbered()
    for n in range(5):
        out.add([b"%d" % n])
    assert out.since(3, 100) == [[b"3"], [b"4"]]
    out.got(2)
    assert (out.first, out.end) == (2, 5)
    assert out.since(0, 100) == [[b"2"], [b"3"], [b"4"]]
    out.got(9)
    assert (out.first, out.end) == (5, 5)


def test_a_batch_has_one_message_at_least_and_about_so_many_bytes() -> None:
    out = Numbered()
    for _ in range(3):
        out.add([b"x" * 100])
    assert len(out.since(0, 10)) == 1
    assert len(out.since(0, 250)) == 2
