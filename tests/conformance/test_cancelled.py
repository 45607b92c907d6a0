"""``gmpd.cancelled()``: how a plain function sees that it is not wanted any more."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

import gmpd
from gmpd.runtime.run import run


def until_cancelled(begun: threading.Event) -> bool:
    begun.set()
    end = time.monotonic() + 20
    while not gmpd.cancelled() and time.monotonic() < end:
        time.sleep(0.001)
    return gmpd.cancelled()


async def event(begun: threading.Event) -> None:
    while not begun.is_set():
        await gmpd.sleep(0.001)


@pytest.mark.parametrize("how", ["go", "group", "blocking", "main returns"])
def test_a_plain_function_sees_that_it_was_cancelled(how: str) -> None:
    begun, ended = threading.Event(), threading.Event()
    seen: list[bool] = []

    def child() -> None:
        seen.append(until_cancelled(begun))
        ended.set()

    async def main() -> None:
        if how == "group":
            group = gmpd.Group()
            await group.go(child)
            await event(begun)
            group.cancel()
        elif how == "main returns":
            gmpd.go(child)
            await event(begun)
            return
        else:
            g = gmpd.go(child) if how == "go" else gmpd.blocking(child)
            await event(begun)
            g.cancel()
        while not ended.is_set():
            await gmpd.sleep(0.001)

    run(main())
    assert ended.wait(20)
    assert seen == [True]


def test_a_coroutine_sees_it_while_it_cleans_up_and_nobody_else_does() -> None:
    seen: list[bool] = []

    async def child() -> None:
        seen.append(gmpd.cancelled())
        try:
            await gmpd.sleep(60)
        finally:
            seen.append(gmpd.cancelled())

    async def main() -> None:
        g = gmpd.go(child)
        await gmpd.sleep(0.001)
        g.cancel()
        with pytest.raises(asyncio.CancelledError):
            await g
        seen.append(gmpd.cancelled())
        seen.append(await gmpd.go(gmpd.cancelled))

    run(main())
    assert seen == [False, True, False, False]
    assert not gmpd.cancelled()  # outside of Gs, none was cancelled
