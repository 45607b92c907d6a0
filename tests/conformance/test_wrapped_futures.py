"""A client's futures in the hands of the standard library, on every Python: it gets values and
exceptions in each way that it reads them."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Iterator

import pytest

import gmpd


@pytest.fixture
def pool(no_daemon: None) -> Iterator[gmpd.Executor]:
    with gmpd.Executor(1) as pool:
        yield pool


def test_values_and_exceptions_get_through(pool: gmpd.Executor) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert await loop.run_in_executor(pool, abs, -3) == 3
        assert await asyncio.wrap_future(pool.submit(divmod, 7, 2)) == (3, 1)
        with pytest.raises(ZeroDivisionError):
            await loop.run_in_executor(pool, divmod, 1, 0)
        done = pool.submit(abs, -4)
        concurrent.futures.wait([done])
        assert await asyncio.wrap_future(done) == 4
        both = await asyncio.gather(*(loop.run_in_executor(pool, abs, -n) for n in range(3)))
        assert both == [0, 1, 2]

    asyncio.run(main())
    gmpd.run(main())


def test_cancelled_ones_are_cancelled(pool: gmpd.Executor) -> None:
    async def main() -> None:
        future = pool.submit(abs, 1)
        future.result(30)
        never: concurrent.futures.Future[int] = type(future)()
        never.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wrap_future(never)

    asyncio.run(main())


def test_waiting_and_completing(pool: gmpd.Executor) -> None:
    futures = [pool.submit(abs, -n) for n in range(5)]
    assert sorted(each.result() for each in concurrent.futures.as_completed(futures)) == [
        0, 1, 2, 3, 4,
    ]  # fmt: skip
    assert list(pool.map(abs, [-1, -2])) == [1, 2]
