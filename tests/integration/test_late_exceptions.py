"""Exceptions that a watchdog of the user's sends to a thread whose call has ended: they cost no M,
and no call that runs there next.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest

import gmpd
from gmpd.runtime.frames import frame_of
from gmpd.runtime.poller import Poller


def raise_in(ident: int) -> None:
    error = ctypes.py_object(KeyError)
    assert ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(ident), error) == 1


async def parked(p: Any, ident: int) -> bool:
    """Wait until the M of that thread sleeps."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for m in p.idle_ms:
            frame = frame_of(m)
            if m.ident == ident and frame is not None and frame.f_code.co_name == "_park":
                return True
        await asyncio.sleep(0.001)
    return False


def test_a_parked_m_runs_the_next_call_all_the_same(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        p: Any = asyncio.get_running_loop().p  # type: ignore[attr-defined]
        for _ in range(20):
            ident = await asyncio.wait_for(gmpd.go(threading.get_ident), 60)
            assert await parked(p, ident)
            raise_in(ident)
            assert await asyncio.wait_for(gmpd.go(threading.get_ident), 60) == ident

    with caplog.at_level(logging.WARNING):
        gmpd.run(main())
    assert "KeyError was raised in gmpd-M1 by another thread" in caplog.text


class Interrupted:
    """A selector whose waits end by exceptions."""

    def __init__(self, *raised: BaseException | None) -> None:
        self.raised = list(raised)

    def select(self, _timeout: float | None) -> list[Any]:
        if (error := self.raised.pop(0)) is not None:
            raise error
        return []


def poller(selector: Interrupted, *, is_worker: bool) -> Poller:
    """The poller of a P that has nothing to do, and whose M0 is elsewhere."""
    nothing = {"inbox": (), "ready": (), "p_callbacks": SimpleNamespace(ready=()), "runq": ()}
    p: Any = SimpleNamespace(**nothing, checkdead=None, status_slots=[0] * 3, rounds=1)
    p.stats, p.on_poll, p.ring, p.m0 = SimpleNamespace(idle_ns=0), None, None, object()
    p.is_worker, p.loop = is_worker, SimpleNamespace(_selector=selector)
    sysmon: Any = SimpleNamespace(asleep=False)
    ms: Any = None
    return Poller(p, ms, sysmon)


def test_a_waiting_p_goes_on_unless_it_comes_twice_in_a_row() -> None:
    selector = Interrupted(KeyError(), None, KeyError(), KeyError())
    waits, m = poller(selector, is_worker=True), SimpleNamespace()
    for _ in range(3):
        waits.idle(1, m)  # type: ignore[arg-type]
    with pytest.raises(KeyError):
        waits.idle(1, m)  # type: ignore[arg-type]


def test_a_program_of_its_own_gets_it() -> None:
    waits = poller(Interrupted(KeyError()), is_worker=False)
    with pytest.raises(KeyError):
        waits.idle(1, SimpleNamespace())  # type: ignore[arg-type]
