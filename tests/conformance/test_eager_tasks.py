"""``create_task``'s keywords and eager tasks, on every Python that has them."""

from __future__ import annotations

import asyncio
import contextvars
import sys
from typing import Any

import pytest

import gmpd

VAR: contextvars.ContextVar[str] = contextvars.ContextVar("VAR", default="unset")
since_3_12 = pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks are new in 3.12")
since_3_14 = pytest.mark.skipif(sys.version_info < (3, 14), reason="eager_start is new in 3.14")


async def note(seen: list[tuple[str, str]], rounds: int) -> str:
    task = asyncio.current_task()
    assert task is not None
    seen.append((task.get_name(), VAR.get()))
    for _ in range(rounds):
        await asyncio.sleep(0)
    assert asyncio.current_task() is task
    return task.get_name()


def use_eager_tasks() -> None:
    factory: Any = vars(asyncio)["eager_task_factory"]  # since 3.12
    asyncio.get_running_loop().set_task_factory(factory)


def in_context(value: str) -> contextvars.Context:
    context = contextvars.copy_context()
    context.run(VAR.set, value)
    return context


def test_name_and_context_reach_the_task() -> None:
    async def main() -> None:
        seen: list[tuple[str, str]] = []
        task = asyncio.create_task(note(seen, 1), name="one", context=in_context("mine"))
        assert seen == []
        assert await task == "one"
        assert seen == [("one", "mine")]
        assert VAR.get() == "unset"

    gmpd.run(main())


@since_3_14
@pytest.mark.parametrize("rounds", [0, 2])
def test_eager_start_runs_the_first_step_at_once(rounds: int) -> None:
    async def main() -> None:
        seen: list[tuple[str, str]] = []
        me = asyncio.current_task()
        keywords: dict[str, Any] = {
            "eager_start": True,
            "name": "one",
            "context": in_context("mine"),
        }
        task = asyncio.create_task(note(seen, rounds), **keywords)
        assert seen == [("one", "mine")]
        assert task.done() is (rounds == 0)
        assert asyncio.current_task() is me
        assert await task == "one"

    gmpd.run(main())


@since_3_14
def test_eager_start_false_waits_for_its_turn_under_an_eager_factory() -> None:
    async def main() -> None:
        seen: list[tuple[str, str]] = []
        use_eager_tasks()
        keywords: dict[str, Any] = {"eager_start": False, "name": "late"}
        task = asyncio.create_task(note(seen, 0), **keywords)
        assert seen == []
        assert await task == "late"

    gmpd.run(main())


@since_3_12
@pytest.mark.parametrize("rounds", [0, 2])
def test_an_eager_task_factory(rounds: int) -> None:
    async def main() -> None:
        seen: list[tuple[str, str]] = []
        me = asyncio.current_task()
        use_eager_tasks()
        task = asyncio.create_task(note(seen, rounds), name="one", context=in_context("mine"))
        # until 3.13 asyncio's own loop names a factory's task only after its first step
        assert seen == [("one" if sys.version_info >= (3, 14) else seen[0][0], "mine")]
        assert task.done() is (rounds == 0)
        assert asyncio.current_task() is me
        async with asyncio.TaskGroup() as group:
            children = [group.create_task(note(seen, rounds), name=f"c{i}") for i in range(3)]
            assert len(seen) == 4
        assert all(child.done() for child in children)
        assert [child.get_name() for child in children] == ["c0", "c1", "c2"]
        await task
        assert task.get_name() == "one"

    gmpd.run(main())
