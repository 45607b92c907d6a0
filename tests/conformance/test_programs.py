"""asyncio programs take the same steps, in the same order, on gmpd's loop and the standard one."""

from __future__ import annotations

import asyncio
import gc
import logging
from typing import Any

import pytest

from gmpd.runtime.loop import Loop
from tests.conformance import programs
from tests.on_loops import Run

#: More with ``python tests/conformance/programs.py FIRST LAST``.
SEEDS = 300


@pytest.mark.parametrize("first", range(0, SEEDS, 50))
@pytest.mark.filterwarnings("ignore")  # programs leave coroutines that never began
def test_random_programs_take_the_same_steps(first: int) -> None:
    logging.disable(logging.CRITICAL)  # of asyncio in debug mode
    try:
        found = [programs.difference(seed) for seed in range(first, first + 50)]
    finally:
        logging.disable(logging.NOTSET)
    assert [text for text in found if text] == []


def test_the_programs_are_worth_their_while() -> None:
    """Much happens in them, cancels and errors too; and a loop that does less is found out."""
    said = [programs.Player(programs.Author(seed)).play(Loop) for seed in range(20)]
    words = [word for steps in said for step in steps if isinstance(step, tuple) for word in step]
    assert len(words) > 2000
    assert words.count("cancelled") > 50
    assert words.count("Err") > 10

    class LastFirst(asyncio.SelectorEventLoop):
        def call_soon(self, *args: object, **more: object) -> asyncio.Handle:
            handle = super().call_soon(*args, **more)  # type: ignore[arg-type]
            self._ready.rotate(1)  # type: ignore[attr-defined]
            return handle

    strange = [programs.Player(programs.Author(seed)).play(LastFirst) for seed in range(20)]
    assert sum(a != b for a, b in zip(said, strange, strict=True)) > 10


def test_of_two_cancels_the_first_is_told(run: Run) -> None:
    async def main() -> object:
        task = asyncio.create_task(asyncio.sleep(10))
        await asyncio.sleep(0)
        task.cancel("first")
        task.cancel("second")
        try:
            await task
        except asyncio.CancelledError as cancelled:
            return cancelled.args
        return None

    assert run(main()) == ("first",)


def test_a_task_that_passes_a_cancel_on_has_no_message_of_its_own(run: Run) -> None:
    """The error itself is raised once; who asks again gets a new one."""

    async def main() -> list[object]:
        inner = asyncio.get_running_loop().create_future()
        inner.cancel("of the future")

        async def outer() -> None:
            await inner

        task = asyncio.create_task(outer())
        seen: list[object] = []
        for _ in range(2):
            try:
                await task
            except asyncio.CancelledError as cancelled:
                seen.append(cancelled.args)
        return seen

    assert run(main()) == [("of the future",), ()]


def test_an_error_that_a_cancel_overtook_is_not_called_unheard(run: Run) -> None:
    async def main() -> list[str]:
        said: list[str] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _loop, context: said.append(context["message"]))

        async def fail() -> None:
            raise ValueError

        async def wait() -> None:
            await asyncio.gather(fail())

        task: Any = asyncio.create_task(wait())
        while task._fut_waiter is None or not task._fut_waiter.done():
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        del task
        gc.collect()
        return said

    assert run(main()) == []
