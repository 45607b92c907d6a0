"""The last snapshot: shared, bounded in waiting, honest about its age."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest

from gmpd.errors import DaemonUnreachable
from gmpd.gateway.latest import Latest


class Coordinator:
    """Answers when the test says so."""

    def __init__(self) -> None:
        self.now = 100.0
        self.questions = 0
        self.answer: asyncio.Future[dict[str, Any]] | None = None

    async def fetch(self) -> dict[str, Any]:
        self.questions += 1
        self.answer = asyncio.get_running_loop().create_future()
        return await self.answer

    async def prompt(self) -> dict[str, Any]:
        self.questions += 1
        return {"n": self.questions}

    async def dead(self) -> dict[str, Any]:
        self.questions += 1
        raise DaemonUnreachable("nobody there")


def latest_of(
    coordinator: Coordinator, fetch: Callable[[], Awaitable[dict[str, Any]]], wait_s: float = 10.0
) -> Latest:
    return Latest(fetch, wait_s=wait_s, reuse_s=0.1, clock=lambda: coordinator.now)


async def soon(fact: Callable[[], bool]) -> None:
    """Let the loop run until ``fact``."""
    async with asyncio.timeout(5):
        while not fact():
            await asyncio.sleep(0)


def test_ten_who_look_at_once_ask_one_question() -> None:
    coordinator = Coordinator()

    async def story() -> None:
        latest = latest_of(coordinator, coordinator.fetch)
        lookers = [asyncio.create_task(latest.refresh()) for _ in range(10)]
        await soon(lambda: coordinator.answer is not None)
        assert coordinator.answer is not None
        coordinator.answer.set_result({"procs": 2})
        await asyncio.gather(*lookers)
        assert coordinator.questions == 1
        assert latest.reading().snapshot == {"procs": 2}
        assert latest.reading().up

    asyncio.run(story())


def test_an_answer_serves_everybody_for_a_while_and_then_no_more() -> None:
    coordinator = Coordinator()

    async def story() -> None:
        latest = latest_of(coordinator, coordinator.prompt)
        await latest.refresh()
        coordinator.now += 0.09
        await latest.refresh()
        assert coordinator.questions == 1
        assert latest.reading().age_s == pytest.approx(0.09)
        coordinator.now += 0.02
        await latest.refresh()
        assert (coordinator.questions, latest.reading().age_s) == (2, 0.0)

    asyncio.run(story())


def test_nobody_looking_means_nothing_asked() -> None:
    coordinator = Coordinator()

    async def story() -> None:
        latest = latest_of(coordinator, coordinator.prompt)
        latest.reading()
        await asyncio.sleep(0)
        assert coordinator.questions == 0

    asyncio.run(story())


def test_a_silent_coordinator_costs_the_wait_and_the_old_snapshot_is_shown_with_its_age() -> None:
    coordinator = Coordinator()

    async def story() -> None:
        latest = latest_of(coordinator, coordinator.fetch, wait_s=0.001)
        await latest.refresh()
        reading = latest.reading()
        assert (reading.snapshot, reading.up) == ({}, False)
        assert "did not answer within 1 ms" in latest.trouble
        coordinator.now += 3
        assert coordinator.answer is not None
        coordinator.answer.set_result({"procs": 2})
        await soon(lambda: latest.reading().snapshot != {})
        # The late answer is kept, as old as its question.
        assert latest.reading().age_s == pytest.approx(3)
        assert latest.reading().fetches == {"ok": 0, "late": 1, "error": 0}
        await latest.refresh()
        assert coordinator.questions == 2
        await latest.close()

    asyncio.run(story())


def test_a_dead_coordinator_is_said_so_and_asked_again_at_the_next_look() -> None:
    coordinator = Coordinator()

    async def story() -> None:
        latest = latest_of(coordinator, coordinator.dead)
        for questions in (1, 2):
            await latest.refresh()
            assert coordinator.questions == questions
            assert latest.trouble == "nobody there"
        assert latest.reading().fetches["error"] == 2
        assert not latest.reading().up

    asyncio.run(story())


def test_recovery_is_noticed() -> None:
    coordinator = Coordinator()
    fetches: list[Callable[[], Coroutine[Any, Any, dict[str, Any]]]] = [
        coordinator.dead,
        coordinator.prompt,
    ]

    async def story() -> None:
        latest = latest_of(coordinator, lambda: fetches.pop(0)())
        await latest.refresh()
        await latest.refresh()
        assert (latest.reading().up, latest.trouble) == (True, "")

    asyncio.run(story())
