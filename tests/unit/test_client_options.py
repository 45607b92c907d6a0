"""Options that a client takes, and those that it must refuse."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest

from gmpd.client.aio import AsyncClient
from gmpd.client.calls import wire_options
from gmpd.client.reference import FOR_GMPD
from gmpd.client.sync import Client
from gmpd.errors import ConfigError
from gmpd.keys import ClientKey

KEY = ClientKey("me", b"s" * 32, b"c" * 32, "tcp://host:7411").text


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: Client("ipc:///x", key="k"), "leave the key out"),
        (lambda: Client("tcp://host:7411"), "needs a key"),
        (lambda: Client("tcp://host:7411", key="/no/such/file"), "no key file /no/such/file"),
        (lambda: Client("tcp://host", key="gmpd-key-1:x:y"), "this is none"),
        (lambda: Client("tcp://host", key=KEY), "write it as tcp://host:7411"),
    ],
    ids=["local", "none", "missing", "damaged", "no port"],
)
def test_a_key_that_cannot_be_used_is_refused_at_once(
    make: Callable[[], object], told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        make()


@pytest.mark.parametrize("options", [{"once": True}, {"keep": 5}], ids=str)
def test_an_option_of_durable_jobs_alone_is_refused_for_others(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=rf"{next(iter(options))}=.* needs durable=True"):
        wire_options(math.sqrt, options)
    wire_options(math.sqrt, {**options, "durable": True})


def test_a_moment_without_a_time_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="has no time zone"):
        wire_options(math.sqrt, {"at": datetime(2030, 1, 1), "durable": True})  # noqa: DTZ001


def test_dir_shows_what_a_user_calls() -> None:
    half_made = Client.__new__(Client)
    names = {name for name in dir(half_made) if not name.startswith("_")}
    assert names >= {"submit", "map", "stream", "options", "enqueue", "job", "close"}
    assert {name for name in dir(Client) if not name.startswith("_")} >= names
    assert not names & {"busy_poll", "cancel_seqs", "submit_ref"}
    green = {"wake_due"}
    clients = Client, AsyncClient
    assert all(any(hasattr(c, name) for c in clients) for name in FOR_GMPD - green)


def test_options_reach_the_wire() -> None:
    assert wire_options(math.sqrt, {"retries": 2, "plain": True}) == (
        {"retries": 2, "plain": True},
        True,
        (),
    )
    assert wire_options(math.sqrt, None) == (None, False, ())


@pytest.mark.parametrize("make", [Client, AsyncClient])
@pytest.mark.parametrize(
    ("wrong", "error", "text"),
    [
        ({"name": 5}, TypeError, "name=5: must be a text"),
        ({"name": None}, TypeError, "name=None"),
        ({"name": b"x"}, TypeError, "name=b'x'"),
        ({"name": "\ud800"}, ValueError, "printable"),
        ({"name": "two\nlines"}, ValueError, "printable"),
        ({"name": "n" * 300}, ValueError, "at most 256"),
        ({"pending_max": 0}, ValueError, "at least 1"),
        ({"pending_max": True}, TypeError, "whole number"),
        ({"pending_max": 1.5}, TypeError, "whole number"),
    ],
)
def test_a_client_that_cannot_be_made_starts_no_daemon(
    make: Any,
    wrong: dict[str, Any],
    error: type[Exception],
    text: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if make is AsyncClient and "name" not in wrong:
        pytest.skip("it has no such argument")
    monkeypatch.setattr("gmpd.client.sync.find", lambda *_: pytest.fail("looked for a daemon"))
    with pytest.raises(error, match=text):
        make(**wrong)
