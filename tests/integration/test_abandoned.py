"""What a program drops without closing it: the collector frees it anywhere, and nothing hangs."""

from __future__ import annotations

import gc
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import gmpd
from tests.support import wait_until

pytestmark = pytest.mark.usefixtures("no_daemon")


def endless() -> Iterator[int]:
    while True:
        yield 1


def streams(client: gmpd.Client) -> Iterator[Any]:
    return client.stream(endless)


def maps(client: gmpd.Client) -> Iterator[Any]:
    return client.map(abs, itertools.count())


class Cycle:
    """Only the collector frees it, and what it holds."""

    def __init__(self, held: Iterator[Any]) -> None:
        self.me = self
        self.held = held


@pytest.mark.timeout(60)
@pytest.mark.parametrize("begin", [streams, maps])
def test_the_collector_frees_one_while_this_thread_has_the_lock(
    begin: Callable[[gmpd.Client], Iterator[Any]],
) -> None:
    with gmpd.Client() as client:
        for _ in range(3):
            next(Cycle(begin(client)).held)
            with client._lock:
                gc.collect()
        wait_until(lambda: client._core.busy == 0, "nothing is left of what was dropped")
        assert client.submit(abs, -2).result(20) == 2


@pytest.mark.parametrize("begin", [streams, maps])
def test_one_that_outlives_its_client_is_freed_in_silence(
    begin: Callable[[gmpd.Client], Iterator[Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    with gmpd.Client() as client:
        left = begin(client)
        next(left)
        client.close(wait=False)
    del left
    gc.collect()
    assert capsys.readouterr().err == ""
