"""Options that a client takes, and those that it must refuse."""

from __future__ import annotations

import math

import pytest

from gmpd.client.core import wire_options


@pytest.mark.parametrize(
    "option", [{"durable": True}, {"unique": "k"}], ids=lambda o: next(iter(o))
)
def test_a_promise_that_nobody_keeps_is_refused(option: dict[str, object]) -> None:
    with pytest.raises(NotImplementedError, match=next(iter(option))):
        wire_options(math.sqrt, option)


def test_options_reach_the_wire() -> None:
    assert wire_options(math.sqrt, {"retries": 2, "plain": True}) == (
        {"retries": 2, "plain": True},
        True,
    )
    assert wire_options(math.sqrt, None) == (None, False)
