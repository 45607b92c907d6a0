"""An attempt, without its worker."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace
from typing import Any, cast

import pytest

from gmpd.codec import describe_function, encode_call, resolve_function
from gmpd.daemon.attempt import Attempt
from gmpd.daemon.definitions import RemoteFunction
from gmpd.protocol import Outcome


async def _park() -> None:
    await asyncio.sleep(60)


class _Bench:
    """A worker of which an attempt needs no more."""

    def __init__(self) -> None:
        self.loop = SimpleNamespace(
            p=SimpleNamespace(forked=False, turns=[], ring=None), call_later=lambda *_: None
        )
        self.interrupts = threading.Lock()
        self.firsts = SimpleNamespace(resolve=lambda _token, fn: resolve_function(fn.ref))

    def overruns(self, attempt: Attempt) -> None:
        raise AssertionError("it ends in time")

    def begin(self, attempt: Attempt) -> bool:
        attempt.began_ns = 1
        return True


@pytest.mark.parametrize("how", ["cancel", "expire"])
def test_what_ends_a_coroutine_may_come_before_its_first_step(how: str) -> None:
    """P looked at its sockets between the attempt and the first step: neither too early nor
    late."""
    known = RemoteFunction(1, describe_function(_park))
    payload = encode_call("_park", (), {}).data
    attempt = Attempt(cast("Any", _Bench()), 1, known, None, payload, ())
    coro = attempt.start()
    assert coro is not None
    assert getattr(attempt, how)() in (True, None)
    asyncio.run(asyncio.wait_for(coro, 20))
    assert attempt.outcome is (Outcome.CANCELLED if how == "cancel" else Outcome.TIMEOUT)
