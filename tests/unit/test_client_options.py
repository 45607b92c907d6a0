"""Options that a client takes, and those that it must refuse."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from gmpd.client.aio import AsyncClient
from gmpd.client.calls import wire_options
from gmpd.client.sync import _FOR_GMPD, Client


@pytest.mark.parametrize(
    ("ask", "instead"),
    [
        (lambda c: wire_options(math.sqrt, {"durable": True}), "submit again what has no outcome"),
        (lambda c: wire_options(math.sqrt, {"unique": "k"}), "in a dict by key"),
        (lambda c: c.enqueue(math.sqrt, 4), "use submit"),
        (lambda c: c.job("01ab"), "keep the future"),
        (lambda c: Client("ipc:///x", key="k"), "leave it out"),
        (lambda c: AsyncClient(key="k"), "leave it out"),
        (lambda c: Client("tcp://host:7411"), "run the client there"),
    ],
    ids=["durable", "unique", "enqueue", "job", "key", "async key", "tcp"],
)
def test_what_is_not_there_yet_says_what_to_do_instead(
    ask: Callable[[Client], object], instead: str
) -> None:
    half_made = Client.__new__(Client)
    with pytest.raises(NotImplementedError, match=instead):
        ask(half_made)


def test_dir_shows_what_a_user_calls() -> None:
    half_made = Client.__new__(Client)
    names = {name for name in dir(half_made) if not name.startswith("_")}
    assert names >= {"submit", "map", "stream", "options", "enqueue", "job", "close"}
    assert {name for name in dir(Client) if not name.startswith("_")} >= names
    assert not names & {"lead", "cancel_seqs", "submit_ref"}
    assert all(hasattr(Client, name) for name in _FOR_GMPD)


def test_options_reach_the_wire() -> None:
    assert wire_options(math.sqrt, {"retries": 2, "plain": True}) == (
        {"retries": 2, "plain": True},
        True,
    )
    assert wire_options(math.sqrt, None) == (None, False)
