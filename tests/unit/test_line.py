"""Exchanges that are late, lost, repeated or out of order (gmpd.cluster.line), between two ends
that keep what they say; and when a host may be called lost."""

from __future__ import annotations

import random

import pytest

from gmpd.cluster.batches import Numbered
from gmpd.cluster.exchange import Ask, Told, pack, read_ask, read_told
from gmpd.cluster.line import AGAIN_S, Line
from gmpd.daemon.host_mark import EXIT_S
from gmpd.errors import ProtocolError

LEASE_S = 10.0


def line(now: float = 0.0) -> Line:
    return Line("b", "life", LEASE_S, clock=100.0, now=now)


def only(ask: Ask | None) -> Ask:
    assert ask is not None
    return ask


def test_one_exchange_waits_there_and_another_brings() -> None:
    end = line()
    first = only(end.next_ask(0, 0))
    assert (first.alone, first.messages) == (True, [])
    assert end.next_ask(0, 0) is None, "nothing to say, and one is away"
    end.say([b"a"])
    second = only(end.next_ask(0, 0))
    assert (second.alone, second.first, second.messages) == (False, 0, [[b"a"]])
    end.say([b"b"])
    assert end.next_ask(0, 0) is None, "two are away: it gathers"
    end.answered(first.number, Told("life", 101.0, got=1), 1)
    third = only(end.next_ask(1, 0))
    assert (third.first, third.messages) == (1, [[b"b"]])


def test_what_did_not_arrive_is_said_again() -> None:
    end = line()
    end.say([b"a"])
    ask = only(end.next_ask(0, 0))
    end.failed(ask.number, "cut", 1)
    assert end.next_ask(1, 0) is None, "not at once"
    again = only(end.next_ask(1 + AGAIN_S, 0))
    assert (again.alone, again.first, again.messages) == (True, 0, [[b"a"]])


def test_answers_that_overtake_each_other_are_read_in_order() -> None:
    end = line()
    one = only(end.next_ask(0, 0))
    end.say([b"a"])
    two = only(end.next_ask(0, 0))
    assert end.answered(two.number, Told("life", 102, 1, first=1, messages=[[b"2"]]), 1) == []
    got = end.answered(one.number, Told("life", 101, 1, first=0, messages=[[b"1"]]), 1)
    assert got == [[b"1"], [b"2"]]


def test_the_lease_counts_from_an_answer_that_came() -> None:
    end = line()
    assert not end.is_lost(LEASE_S + EXIT_S - 0.1)
    ask = only(end.next_ask(0, 0))
    end.answered(ask.number, Told("life", 103.0), 6)
    assert only(end.next_ask(6, 0)).echo == 103.0
    assert not end.is_lost(6 + LEASE_S + EXIT_S - 0.1)
    assert end.is_lost(6 + LEASE_S + EXIT_S)


def test_an_old_answer_renews_nothing() -> None:
    end = line()
    one = only(end.next_ask(0, 0))
    end.answered(one.number, Told("life", 105.0), 1)
    two = only(end.next_ask(1, 0))
    end.answered(two.number, Told("life", 104.0), 9)
    assert end.lost_at == 1 + LEASE_S + EXIT_S


def test_a_life_that_has_ended_is_lost_once_its_daemon_must_be_gone() -> None:
    end = line()
    ask = only(end.next_ask(0, 0))
    end.answered(ask.number, Told("life", 0, ended="its daemon has ended"), 1)
    assert end.why == "its daemon has ended"
    assert (end.is_lost(1 + EXIT_S - 0.1), end.is_lost(1 + EXIT_S)) == (False, True)


def test_an_answer_of_another_life_says_nothing() -> None:
    end = line()
    ask = only(end.next_ask(0, 0))
    assert end.answered(ask.number, Told("other", 500, 9, 0, [[b"x"]]), 1) == []
    assert end.lost_at == LEASE_S + EXIT_S


@pytest.mark.parametrize("seed", range(40))
def test_every_message_arrives_once_and_in_order(seed: int) -> None:
    """Exchanges and answers are lost, and answers overtake each other."""
    dice = random.Random(seed)
    end, now = line(), 0.0
    peer_out, peer_told, peer_got = Numbered(), 0, 0
    there: list[bytes] = []
    here: list[bytes] = []
    answers: list[tuple[Ask, Told]] = []
    said = 0
    for step in range(600):
        now += 0.1
        calm = step > 500
        if not calm and dice.random() < 0.5:
            end.say([b"to %d" % said])
            peer_out.add([b"from %d" % said])
            said += 1
        if (ask := end.next_ask(now, 0)) is not None:
            ask = read_ask(pack(ask))
            if not calm and dice.random() < 0.2:
                end.failed(ask.number, "lost", now)
                continue
            peer_out.got(ask.got)
            if ask.first <= peer_got:
                new = ask.messages[peer_got - ask.first :]
                there += [frames[0] for frames in new]
                peer_got += len(new)
            if ask.alone:
                peer_told = ask.got
            messages = peer_out.since(peer_told, dice.choice((1, 1000)))
            told = Told("life", 100 + now, peer_got, peer_told, messages)
            peer_told += len(messages)
            answers.append((ask, told))
        while answers and dice.random() < 0.6:
            ask, told = answers.pop(dice.randrange(len(answers)))
            if not calm and dice.random() < 0.2:
                end.failed(ask.number, "the answer is lost", now)
            else:
                here += [frames[0] for frames in end.answered(ask.number, told, now)]
    assert there == [b"to %d" % n for n in range(said)]
    assert here == [b"from %d" % n for n in range(said)]


def test_bytes_that_are_no_exchange() -> None:
    with pytest.raises(ProtocolError, match="no exchange"):
        read_ask(b"\xc1")
    with pytest.raises(ProtocolError, match="no answer"):
        read_told(b"[1, 2]")


def test_a_host_says_that_it_leaves_and_why_it_has_ended() -> None:
    end = line()
    ask = only(end.next_ask(0, 0))
    end.answered(ask.number, Told("life", 101, leaves="it had SIGTERM"), 1)
    ask = only(end.next_ask(1, 0))
    end.answered(ask.number, Told("life", 102), 2)
    assert end.leaves == "it had SIGTERM", "an answer that overtakes another takes nothing back"
    ask = only(end.next_ask(2, 0))
    end.answered(ask.number, Told("life", 103, ended="it has ended"), 3)
    ask = only(end.next_ask(3, 0))
    end.failed(ask.number, "no way there", 4)
    assert (end.why, end.is_lost(3 + EXIT_S)) == ("it has ended", True)
