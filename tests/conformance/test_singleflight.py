"""``gmpd.SingleFlight`` after Go's ``x/sync/singleflight``, under its names."""

from __future__ import annotations

import asyncio
import time

import pytest

import gmpd
from gmpd.runtime.run import run
from tests.support import wait_until


async def settle() -> None:
    """Let every G that can run do so: it goes behind them each time."""
    for _ in range(10):
        await gmpd.gosched()


def test_TestDo() -> None:
    async def main() -> tuple[object, bool]:
        return await gmpd.SingleFlight().do("key", lambda: "bar")

    assert run(main()) == ("bar", False)


def test_TestDoErr() -> None:
    async def main() -> None:
        flights = gmpd.SingleFlight()

        async def fail() -> None:
            await settle()
            raise LookupError("lost")

        asked = [gmpd.go(flights.do, "key", fail) for _ in range(3)]
        got = await asyncio.gather(*asked, return_exceptions=True)
        assert [type(each) for each in got] == [LookupError] * 3

    run(main())


@pytest.mark.parametrize("plain", [False, True])
def test_TestDoDupSuppress(plain: bool) -> None:
    calls = begun = 0

    def slow() -> int:
        nonlocal calls
        calls += 1
        wait_until(lambda: begun == 10, "all have asked")
        time.sleep(0.2)  # between that and their call of `do` there are a few lines
        return calls

    async def main() -> list[tuple[int, bool]]:
        flights = gmpd.SingleFlight()

        async def ask() -> tuple[int, bool]:
            nonlocal begun
            begun += 1
            return await flights.do("key", slow)

        def ask_plain() -> tuple[int, bool]:
            nonlocal begun
            begun += 1
            return flights.sync.do("key", slow)

        gs = [gmpd.go(ask_plain if plain else ask) for _ in range(10)]
        got = [await g for g in gs]
        again = await flights.do("key", slow)
        other = await flights.do("other", slow)
        return [*got, again, other]

    got = run(main())
    assert got == [(1, True)] * 10 + [(2, False), (3, False)]


def test_TestForget() -> None:
    async def main() -> list[tuple[str, bool]]:
        flights, gate = gmpd.SingleFlight(), gmpd.Chan[int]()

        async def first() -> str:
            await gate.recv_ok()
            return "first"

        one = gmpd.go(flights.do, "key", first)
        await settle()
        flights.forget("key")
        second = await flights.do("key", lambda: "second")
        gate.close()
        return [second, await one]

    assert run(main()) == [("second", False), ("first", False)]


def test_TestDoChan_who_is_cancelled_takes_nothing_from_the_others() -> None:
    async def main() -> tuple[str, bool]:
        flights, gate = gmpd.SingleFlight(), gmpd.Chan[int]()
        ended: list[str] = []

        async def call() -> str:
            try:
                await gate.recv_ok()
            except asyncio.CancelledError:
                ended.append("cancelled")
                raise
            return "value"

        one, two = gmpd.go(flights.do, "key", call), gmpd.go(flights.do, "key", call)
        await settle()
        one.cancel()
        await settle()
        gate.close()
        got: tuple[str, bool] = await two
        gate = gmpd.Chan()
        alone = gmpd.go(flights.do, "key", call)
        await settle()
        alone.cancel()  # its callers want it no more
        await settle()
        assert ended == ["cancelled"]
        return got

    assert run(main()) == ("value", True)
