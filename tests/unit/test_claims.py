"""Claims: one of two sides has each lease, whatever the order (gmpd.daemon.claims)."""

from __future__ import annotations

import mmap
import random
from collections.abc import Iterator

import pytest

from gmpd.daemon.claims import CLAIMS, CLAIMS_BYTES, Claims

AT = 512


@pytest.fixture
def claims() -> Iterator[Claims]:
    with mmap.mmap(-1, AT + CLAIMS_BYTES + 64) as shared:
        shared[:] = b"\xa5" * len(shared)
        made = Claims(shared, AT)
        made.clear()
        yield made
        made.close()
        assert shared[:AT] == b"\xa5" * AT, "it wrote before its place"
        assert shared[AT + CLAIMS_BYTES :] == b"\xa5" * 64, "it wrote behind its place"


def test_what_is_claimed_cannot_be_revoked(claims: Claims) -> None:
    assert claims.offer(1, 3) == []
    assert claims.claim(2)
    assert claims.revoke([1, 2, 3]) == [1, 3]
    assert [claims.is_claimed(2), claims.claim(1), claims.claim(3)] == [True, False, False]


def test_what_is_revoked_cannot_be_claimed_and_nothing_is_taken_twice(claims: Claims) -> None:
    claims.offer(7, 1)
    assert not claims.is_claimed(7)
    assert claims.revoke([7]) == [7]
    assert claims.revoke([7]) == []
    assert not claims.claim(7)
    claims.offer(8, 1)
    assert [claims.claim(8), claims.claim(8)] == [True, False]


def test_what_was_never_offered_can_be_had_by_nobody(claims: Claims) -> None:
    assert not claims.claim(5)
    assert claims.revoke(range(CLAIMS)) == []


@pytest.mark.parametrize("first", [CLAIMS - 2, 2**32 - 3, 2**32 - CLAIMS, 2**40 - 1, 2**63])
def test_tokens_rise_for_ever_and_places_come_round(claims: Claims, first: int) -> None:
    assert claims.offer(first, 5) == []
    assert claims.revoke([first + 1]) == [first + 1]
    assert [claims.claim(first + i) for i in range(5)] == [True, False, True, True, True]


def test_a_place_that_comes_round_revokes_what_lay_there_unclaimed(claims: Claims) -> None:
    claims.offer(10, 4)
    assert claims.claim(11)
    assert claims.offer(CLAIMS + 9, 4) == [10, 12]
    assert claims.offer(3 * CLAIMS + 13, 1) == [13]
    assert not claims.claim(10)
    assert claims.claim(CLAIMS + 10)


def test_an_old_hand_out_does_not_take_a_new_ones_word(claims: Claims) -> None:
    """A worker may find a revoked lease in its queue long after its place was used again."""
    claims.offer(10, 1)
    assert claims.revoke([10]) == [10]
    claims.offer(10 + CLAIMS, 1)
    assert not claims.claim(10)
    assert not claims.is_claimed(10 + CLAIMS)
    assert claims.claim(10 + CLAIMS)


def test_all_places_at_once_and_not_one_more(claims: Claims) -> None:
    assert claims.offer(5, CLAIMS) == []
    with pytest.raises(ValueError, match=str(CLAIMS + 1)):
        claims.offer(5 + CLAIMS, CLAIMS + 1)
    assert len(claims.revoke(range(5, 5 + CLAIMS))) == CLAIMS
    assert claims.offer(5 + CLAIMS, 0) == []


@pytest.mark.parametrize("seed", range(4))
def test_against_a_model(claims: Claims, seed: int) -> None:
    """Offers, claims and revocations in any order, old tokens and new: as a plain dict has it."""
    dice = random.Random(seed)
    free: dict[int, int] = {}  # place -> token
    first = token = dice.choice((0, 2**32 - CLAIMS, 2**32 + 100))
    for _ in range(300):
        n = dice.choice((1, 5, 64, 300))
        new = range(token, token + n)
        lain = {free[t % CLAIMS] for t in new if t % CLAIMS in free}
        assert set(claims.offer(token, n)) == lain
        free |= {t % CLAIMS: t for t in new}
        token += n
        for _ in range(n):
            each = dice.randrange(max(first, token - 2 * CLAIMS), token)
            is_free = free.get(each % CLAIMS) == each
            if dice.random() < 0.5:
                assert claims.claim(each) == is_free
            elif is_free:  # the coordinator revokes only what it knows to be leased
                assert claims.revoke([each]) == [each]
            if is_free:
                del free[each % CLAIMS]


def test_one_side_has_the_right_to_answer(claims: Claims) -> None:
    assert not claims.take_right(3), "there is none before it is given"
    claims.offer(1, 4)
    claims.may_answer(2, 2)
    assert [claims.take_right(token) for token in (1, 2, 3, 4)] == [False, True, True, False]
    assert [claims.take_right(token) for token in (2, 3)] == [False, False]
    assert claims.claim(2), "it is no claim"


def test_an_old_lease_has_no_right_at_a_place_that_has_come_round(claims: Claims) -> None:
    claims.offer(5, 1)
    claims.may_answer(5, 1)
    claims.offer(CLAIMS + 5, 1)
    claims.may_answer(CLAIMS + 5, 1)
    assert not claims.take_right(5)
    assert claims.take_right(CLAIMS + 5)
