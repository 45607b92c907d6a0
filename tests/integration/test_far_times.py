"""Times beyond what one wait of the kernel takes: refused by name, or they work; nothing ends."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import Any

import pytest

import gmpd
from tests.rawclient import Boot

DAY = 86_400.0
#: A year is the most that an option may be.
FAR: list[dict[str, Any]] = [
    {"delay": 25 * DAY},
    {"delay": 366 * DAY},
    {"isolate": True, "timeout": 30 * DAY},
    {"timeout": 366 * DAY, "delay": 30 * DAY},
]
WRONG = [float("nan"), float("inf"), 1e18, 1e300, 10**400, -1, "5"]


def slow(n: int) -> Any:
    yield from range(n)


@pytest.fixture
def client(boot: Boot) -> Any:
    daemon, _ = boot(**{"daemon.procs": 1})
    with gmpd.Client(daemon.endpoint) as client:
        yield client


def test_jobs_with_far_times_change_nothing_for_others(client: gmpd.Client) -> None:
    futures = [client.options(**options).submit(max, 1, 2) for options in FAR]
    assert client.submit(asyncio.sleep, 0.3, 4).result(30) == 4
    assert client.submit(max, 3, 4).result(30) == 4
    for future, options in zip(futures, FAR, strict=True):
        if "delay" in options:
            assert future.cancel()
        else:
            assert future.result(30) == 2
    assert client.call("status")["state"] == "running"
    assert client.options(timeout=30 * DAY).submit(asyncio.sleep, 0, 5).result(30) == 5


@pytest.mark.parametrize("option", ["delay", "timeout"])
@pytest.mark.parametrize("value", WRONG, ids=str)
def test_no_time_at_all_is_refused_at_submit(option: str, value: Any, client: gmpd.Client) -> None:
    with pytest.raises((ValueError, TypeError), match=option):
        client.options(**{option: value}).submit(max, 1, 2)


@pytest.mark.parametrize("timeout", [25 * DAY, 1e12, 1e18, float("inf")])
def test_every_wait_of_a_client_takes_any_timeout(client: gmpd.Client, timeout: float) -> None:
    assert client.submit(max, 1, 2).result(timeout) == 2
    assert client.submit(max, 1, 2).exception(timeout) is None
    assert list(client.map(abs, [-1, 2], timeout=timeout)) == [1, 2]
    assert list(client.map(abs, [-1], timeout=timeout, ordered=False)) == [1]
    assert client.drain(timeout)
    client.call("ping", timeout=timeout)
    with gmpd.Executor(client=client) as pool:
        assert list(pool.map(abs, [-1, 2], timeout=timeout)) == [1, 2]
        assert pool.submit(abs, -3).result(timeout) == 3


def test_nan_is_no_timeout(client: gmpd.Client) -> None:
    nan = float("nan")
    future = client.submit(asyncio.sleep, 60)
    for wait in (
        lambda: future.result(nan),
        lambda: list(client.map(abs, [1], timeout=nan)),
        lambda: client.drain(nan),
        lambda: client.call("ping", timeout=nan),
    ):
        with pytest.raises(ValueError, match="nan"):
            wait()
    future.cancel()


def test_the_asyncio_client_too(client: gmpd.Client) -> None:
    async def main() -> None:
        async with gmpd.AsyncClient(client.endpoint) as own:
            await own.call("ping", timeout=1e300)
            assert [each async for each in own.map(abs, [-1, 2], timeout=1e300)] == [1, 2]
            with pytest.raises(ValueError, match="nan"):
                await own.call("ping", timeout=float("nan"))

    asyncio.run(main())


async def nap(seconds: float) -> str:
    try:
        await asyncio.wait_for(asyncio.sleep(seconds), 0.2)
    except (TimeoutError, ValueError) as error:
        return type(error).__name__
    return "woke"


async def arm(seconds: float) -> str:
    try:
        asyncio.get_running_loop().call_later(seconds, print)
    except ValueError as error:
        return type(error).__name__
    return await nap(0.01)


def timer(seconds: float) -> str:
    async def main() -> str:
        asyncio.get_running_loop().call_later(seconds, print)
        return await nap(0.01)

    return gmpd.run(main())


@pytest.mark.parametrize("seconds", [25 * DAY, 1e300, float("inf"), float("nan")])
def test_a_job_that_sleeps_so_long_holds_up_no_other(client: gmpd.Client, seconds: float) -> None:
    assert client.submit(arm, seconds).result(30) in ("woke", "ValueError")
    odd = client.submit(nap, seconds)
    assert client.submit(nap, 0.01).result(30) == "woke", "timers of others still fire"
    assert odd.result(30) in ("TimeoutError", "ValueError")
    if seconds == seconds:
        assert client.submit(timer, seconds).result(30) == "woke"


NAN_FIRST = """
import asyncio, gmpd
async def main():
    try:
        asyncio.get_running_loop().call_later(float("nan"), print)
    except ValueError as error:
        print(error)
    await asyncio.sleep(0.01)
    print("woke")
gmpd.run(main())
"""


def test_a_timer_at_nan_does_not_stop_those_behind_it() -> None:
    """asyncio takes it, and its heap of timers is stuck for good."""
    done = subprocess.run(
        [sys.executable, "-c", NAN_FIRST], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout == "cannot wait until nan: it is not a number\nwoke\n"


@pytest.mark.parametrize("seconds", [1e9, 1e18, 1e300])
def test_a_fake_clock_jumps_as_far(seconds: float) -> None:
    """Where the clock's next number is further away than its resolution, too."""

    async def main() -> float:
        await gmpd.sleep(seconds)
        await asyncio.sleep(seconds)
        return asyncio.get_running_loop().time()

    assert gmpd.run(main(), deterministic_seed=1) == 2 * seconds


def test_a_plain_g_may_wait_so_long_for_another() -> None:
    async def main() -> int:
        def wait() -> int:
            return int(gmpd.go(asyncio.sleep, 0.01, 7).result(1e18))

        return int(await gmpd.go(wait))

    assert gmpd.run(main()) == 7
