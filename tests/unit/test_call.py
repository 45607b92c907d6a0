"""A hand-out in a worker, without one."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace
from typing import Any, cast

import pytest

from gmpd.codec import describe_function, encode_call
from gmpd.daemon.call import Call, Known
from gmpd.protocol import Outcome


async def _park() -> None:
    await asyncio.sleep(60)


class _Bench:
    """A worker of which a call needs no more."""

    def __init__(self) -> None:
        self.loop = SimpleNamespace(forked=False, call_later=lambda *_: None)
        self.interrupts = threading.Lock()
        self.firsts = SimpleNamespace(resolve=lambda _token, _name, resolve: resolve())

    def overruns(self, call: Call) -> None:
        raise AssertionError("it ends in time")

    def begin(self, call: Call) -> bool:
        call.began_ns = 1
        return True


@pytest.mark.parametrize("how", ["cancel", "expire"])
def test_what_ends_a_coroutine_may_come_before_its_first_step(how: str) -> None:
    """P looked at its sockets between the call and the first step: neither too early nor late."""
    known = Known(1, describe_function(_park))
    payload = encode_call("_park", (), {}).data
    call = Call(cast("Any", _Bench()), 1, known, None, payload, ())
    coro = call.start()
    assert coro is not None
    assert getattr(call, how)() in (True, None)
    asyncio.run(asyncio.wait_for(coro, 20))
    assert call.outcome is (Outcome.CANCELLED if how == "cancel" else Outcome.TIMEOUT)
