"""A short run of the fuzzer, always with the same seeds: nothing but a counter may come of it."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from loadtests.fuzz import Daemon, fuzz_core, fuzz_network, fuzz_policy, fuzz_sockets


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Silence the log: it has a line for each refusal, a thousand a second."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("seed", range(4))
def test_the_policy_and_its_doors_stand_it(seed: int) -> None:
    """With an audit of the ledger after each message."""
    dropped = fuzz_policy(seed, 1500)
    assert dropped["bad_client_message"] > 100
    assert dropped["bad_worker_message"] > 100


@pytest.mark.parametrize("seed", range(2))
def test_the_core_of_a_client_stands_it(seed: int) -> None:
    heard = fuzz_core(seed, 2000)
    assert heard["taken"] > 100
    assert heard["refused"] > 100


def test_a_daemon_stands_it_at_every_door() -> None:
    daemon = Daemon()
    try:
        dropped = fuzz_sockets(daemon, 1, 400)
        assert dropped["bad_client_message"] > 50
        assert dropped["bad_worker_message"] > 50
        dropped = fuzz_network(daemon, 1, 400)
        assert dropped["bad_handshake"] > 10
        assert dropped["not_allowed"] > 20
    finally:
        daemon.close()
