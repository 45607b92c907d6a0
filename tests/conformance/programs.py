"""Random asyncio programs, played on gmpd's loop and on the standard one: where asyncio defines the
order, every step must come in the same order, with the same outcome.

    python tests/conformance/programs.py            # 1,000 programs
    python tests/conformance/programs.py 5000 6000  # those

Prints each program that differs and exits with 1 if one does. The clock is fake: it jumps to the
next timer when nothing is ready, so a program takes milliseconds and its order is exact.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import gc
import random
import selectors
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from gmpd.runtime.loop import Loop

#: Fake seconds after which main ends, and with it the program.
END_S = 20.0
#: Ops in all the bodies of one program.
OPS_MAX = 120
#: Rounds of ``all that is left is cancelled`` before a program is given up: some swallow cancels.
STEPS_MAX = 20_000
#: asyncio keeps tasks in sets here and there: a program differs if it does so every time.
TRIES = 3

Op = tuple[Any, ...]
Body = list[Op]


class Err(Exception):
    """The error that programs raise."""


class Fatal(BaseException):
    """The one that ``except Exception`` does not catch."""


class Stalled(Exception):
    """Nothing is ready, and nothing will be."""


class Jumping(selectors.DefaultSelector):
    """A selector that never waits: it sets the clock instead."""

    now = 0.0
    steps = 0

    def select(self, timeout: float | None = None) -> list[Any]:
        self.steps += 1
        found = super().select(0)
        if not found and (timeout is None or self.steps > STEPS_MAX):
            raise Stalled
        if not found and timeout is not None:
            self.now += timeout
        return found

    def time(self) -> float:
        return self.now


# ---- the programs --------------------------------------------------------------------------------


class Author:
    """Writes a program: nested lists of ops, chosen by the seed alone."""

    def __init__(self, seed: int):
        self.dice = random.Random(seed)
        self.left = OPS_MAX
        self.factory = self.dice.choice(["none", "none", "none", "eager", "plain"])
        self.debug = self.dice.random() < 0.15
        self.main = [self.body(0) for _ in range(self.dice.randint(2, 6))]

    def seconds(self) -> float:
        return self.dice.choice([0.0, 0.001, 0.01, 0.1, 1.0]) * self.dice.random()

    def body(self, depth: int) -> Body:
        ops = []
        for _ in range(self.dice.randint(1, 6)):
            if self.left <= 0:
                break
            self.left -= 1
            ops.append(self.op(depth))
        return ops

    def op(self, depth: int) -> Op:
        kinds = FLAT if depth > 3 else FLAT + NESTED
        kind = self.dice.choice(kinds)
        swallow = self.dice.random() < 0.3
        number = self.dice.randrange(4)
        return kind, swallow, number, self.seconds(), self.inner(kind, depth)

    def inner(self, kind: str, depth: int) -> list[Body]:
        if kind not in NESTED:
            return []
        several = kind in ("gather", "group", "wait", "completed")
        return [self.body(depth + 1) for _ in range(self.dice.randint(1, 4) if several else 1)]


FLAT = (
    "yield", "yield", "sleep", "sleep", "join", "cancel", "cancel", "set", "clear", "event",
    "put", "put", "get", "get", "acquire", "release", "future", "resolve", "fail", "notify",
    "condition", "soon", "later", "unschedule", "raise", "variable", "uncancel", "barrier",
    "generator", "abandon", "tell", "look", "threadsafe", "executor", "bad", "fatal",
)  # fmt: skip
NESTED = (
    "spawn", "spawn", "spawn", "lock", "semaphore", "gather", "wait_for", "timeout", "group",
    "shield", "wait", "completed", "context",
)  # fmt: skip

VARIABLE: contextvars.ContextVar[int] = contextvars.ContextVar("VARIABLE", default=0)


class Player:
    """Plays one program on one loop, and writes down what happens."""

    def __init__(self, program: Author):
        self.program = program
        self.said: list[Any] = []
        self.loud: list[str] = []
        self.tasks: list[asyncio.Task[Any]] = []
        self.handles: list[asyncio.Handle] = []
        self.born = 0
        self.over = False

    def say(self, *what: Any) -> None:
        if self.over:  # asyncio cancels what is left in the order of a set
            return
        self.said.append((round(self.loop.time(), 6), *what))

    def play(self, make: Callable[[Any], asyncio.AbstractEventLoop]) -> list[Any]:
        """Everything that happened, in order; then what the exception handler was told."""
        selector = Jumping()

        def new_loop() -> asyncio.AbstractEventLoop:
            loop = self.loop = make(selector)
            loop.time = selector.time  # type: ignore[method-assign]
            loop.set_exception_handler(self.hear)
            return loop

        gc.disable()
        gc.freeze()  # what the process has already: a pass looks at the program alone
        try:
            with asyncio.Runner(loop_factory=new_loop, debug=self.program.debug) as runner:
                self.shape(runner.get_loop())
                try:
                    self.said.append(runner.run(self.main()))
                except (Stalled, Fatal) as end:
                    self.said.append(type(end).__name__)
                self.over = True
        except (Stalled, Fatal):
            pass  # what the set's order makes of it
        finally:
            self.tasks.clear()
            self.handles.clear()
            gc.unfreeze()
            gc.enable()
        return [*self.said, sorted(self.loud)]

    def shape(self, loop: asyncio.AbstractEventLoop) -> None:
        if self.program.factory == "plain":
            loop.set_task_factory(lambda loop, coro, **more: asyncio.Task(coro, loop=loop, **more))
        elif self.program.factory == "eager" and sys.version_info >= (3, 12):
            loop.set_task_factory(asyncio.eager_task_factory)

    def hear(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if self.over or "never retrieved" in context["message"]:  # told when it is collected
            return
        error = context.get("exception")
        # The text behind a colon or quote may show the loop's own class.
        self.loud.append(f"{context['message'].partition(' <')[0]} {type(error).__name__} {error}")

    async def main(self) -> str:
        loop = self.loop
        self.events = [asyncio.Event() for _ in range(2)]
        self.queues = [asyncio.Queue[int](1), asyncio.PriorityQueue[int](2)]
        self.locks = [asyncio.Lock(), asyncio.Lock()]
        self.semaphores = [asyncio.Semaphore(2), asyncio.BoundedSemaphore(1)]
        self.futures = [loop.create_future() for _ in range(4)]
        self.conditions = [asyncio.Condition(), asyncio.Condition()]
        self.the_barrier = asyncio.Barrier(2)
        for body in self.program.main:
            self.spawn(body)
        await asyncio.sleep(END_S)
        for task in self.tasks[:]:
            task.cancel()
        await asyncio.sleep(END_S)
        self.tasks.clear()
        self.handles.clear()
        gc.collect()
        self.over = True
        return "over"

    def spawn(self, body: Body) -> asyncio.Task[Any]:
        task = self.loop.create_task(self.run(body), name=f"T{self.born}")
        self.tasks.append(task)
        return task

    async def run(self, body: Body) -> int:
        me = self.born
        self.born += 1
        self.say(me, "starts", VARIABLE.get())
        try:
            for index, (kind, swallow, number, seconds, inner) in enumerate(body):
                try:
                    got = await getattr(self, f"op_{kind}")(me, number, seconds, inner)
                    self.say(me, index, kind, got)
                except asyncio.CancelledError as error:
                    self.say(me, index, kind, "cancelled", error.args)
                    if not swallow:
                        raise
                except BaseExceptionGroup as group:
                    self.say(me, index, kind, [type(error).__name__ for error in group.exceptions])
                    if not swallow:
                        raise
                except Exception as error:
                    self.say(me, index, kind, type(error).__name__)
                    if not swallow and not isinstance(error, RuntimeError | ValueError):
                        raise
            return me
        finally:
            self.say(me, "ends")

    # ---- ops: (me, number, seconds, bodies) -> what is said ----------------------------------

    def task(self, number: int) -> asyncio.Task[Any]:
        """One of the youngest."""
        return self.tasks[-1 - number % len(self.tasks)]

    async def op_yield(self, _me: int, number: int, *_: Any) -> None:
        for _turn in range(number):
            await asyncio.sleep(0)

    async def op_sleep(self, _me: int, _number: int, seconds: float, _inner: Any) -> Any:
        return await asyncio.sleep(seconds, "slept")

    async def op_join(self, _me: int, number: int, seconds: float, _inner: Any) -> Any:
        """Awaits younger ones only: a circle of tasks cannot be cancelled, on any loop."""
        task, current = self.task(number), asyncio.current_task()
        if current in self.tasks and self.tasks.index(task) > self.tasks.index(current):
            return await task
        done, _ = await asyncio.wait([task], timeout=seconds)
        return len(done)

    async def op_cancel(self, me: int, number: int, seconds: float, _inner: Any) -> Any:
        return self.task(number).cancel(f"by {me}" if seconds else None)

    async def op_set(self, _me: int, number: int, *_: Any) -> None:
        self.events[number % 2].set()

    async def op_clear(self, _me: int, number: int, *_: Any) -> None:
        self.events[number % 2].clear()

    async def op_event(self, _me: int, number: int, *_: Any) -> Any:
        return await self.events[number % 2].wait()

    async def op_put(self, me: int, number: int, *_: Any) -> None:
        await self.queues[number % 2].put(me)

    async def op_get(self, _me: int, number: int, *_: Any) -> Any:
        return await self.queues[number % 2].get()

    async def op_acquire(self, _me: int, number: int, *_: Any) -> Any:
        return await self.semaphores[number % 2].acquire()

    async def op_release(self, _me: int, number: int, *_: Any) -> None:
        self.semaphores[number % 2].release()

    async def op_future(self, _me: int, number: int, *_: Any) -> Any:
        return await self.futures[number]

    async def op_resolve(self, me: int, number: int, *_: Any) -> Any:
        future = self.futures[number]
        if not future.done():
            future.set_result(me)
        elif not future.cancelled() and future.exception() is None:
            self.futures[number] = self.loop.create_future()

    async def op_fail(self, me: int, number: int, *_: Any) -> Any:
        future = self.futures[number]
        if not future.done():
            future.set_exception(Err(me))
        else:
            self.futures[number] = self.loop.create_future()

    async def op_notify(self, _me: int, number: int, *_: Any) -> None:
        async with self.conditions[number % 2]:
            self.conditions[number % 2].notify(number)

    async def op_condition(self, _me: int, number: int, *_: Any) -> Any:
        async with self.conditions[number % 2]:
            return await self.conditions[number % 2].wait()

    async def op_soon(self, me: int, number: int, *_: Any) -> None:
        self.handles.append(self.loop.call_soon(self.called, me, number))

    async def op_later(self, me: int, number: int, seconds: float, _inner: Any) -> None:
        self.handles.append(self.loop.call_later(seconds, self.called, me, number))

    async def op_threadsafe(self, me: int, number: int, *_: Any) -> None:
        self.handles.append(self.loop.call_soon_threadsafe(self.called, me, number))

    def called(self, me: int, number: int) -> None:
        self.say(me, "callback", number, VARIABLE.get())
        if number == 3:
            raise Err(me)

    async def op_unschedule(self, _me: int, number: int, *_: Any) -> Any:
        if self.handles:
            handle = self.handles[-1 - number % len(self.handles)]
            handle.cancel()
            return handle.cancelled()
        return None

    async def op_raise(self, me: int, *_: Any) -> None:
        raise Err(me)

    async def op_fatal(self, me: int, number: int, seconds: float, _inner: Any) -> None:
        if seconds > 0.5 and number == 3:
            raise Fatal(me)

    async def op_variable(self, me: int, *_: Any) -> int:
        VARIABLE.set(me)
        return VARIABLE.get()

    async def op_uncancel(self, *_: Any) -> Any:
        task = asyncio.current_task()
        assert task is not None
        before = task.cancelling()
        return before, task.uncancel(), shown(task)

    async def op_barrier(self, *_: Any) -> Any:
        return await self.the_barrier.wait()

    async def numbers(self, me: int, seconds: float) -> AsyncIterator[int]:
        try:
            for n in range(3):
                yield n
                await asyncio.sleep(seconds)
        finally:
            self.say(me, "generator ends")
            await asyncio.sleep(0)

    async def op_generator(self, me: int, number: int, seconds: float, _inner: Any) -> Any:
        got = []
        async for n in self.numbers(me, seconds):
            got.append(n)
            if n == number:
                break
        return got

    async def op_abandon(self, me: int, number: int, seconds: float, _inner: Any) -> Any:
        """Leaves a generator to the loop's hooks."""
        numbers = self.numbers(me, seconds)
        return [await anext(numbers) for _ in range(number % 2)]

    async def op_tell(self, me: int, number: int, *_: Any) -> None:
        self.task(number).add_done_callback(lambda task: self.say(me, "told", task.cancelled()))

    async def op_look(self, *_: Any) -> Any:
        tasks = asyncio.all_tasks()
        return sorted(shown(task) for task in tasks)

    async def op_executor(self, me: int, *_: Any) -> Any:
        """A future as an executor gives it; ended here, so that the moment is known."""
        future: concurrent.futures.Future[int] = concurrent.futures.Future()
        self.loop.call_soon(lambda: future.cancelled() or future.set_result(me))  # type: ignore[func-returns-value]
        return await asyncio.wrap_future(future)

    async def op_bad(self, _me: int, number: int, *_: Any) -> Any:
        """A coroutine that yields what no loop understands."""
        return await (Yields(None), Yields(number), Yields(self.futures[number]), Yields([]))[
            number
        ]

    async def op_spawn(self, _me: int, _number: int, _seconds: float, inner: Any) -> None:
        self.spawn(inner[0])

    async def op_lock(self, _me: int, number: int, _seconds: float, inner: Any) -> Any:
        async with self.locks[number % 2]:
            return await self.run(inner[0])

    async def op_semaphore(self, _me: int, number: int, _seconds: float, inner: Any) -> Any:
        async with self.semaphores[number % 2]:
            return await self.run(inner[0])

    async def op_gather(self, _me: int, number: int, _seconds: float, inner: Any) -> Any:
        runs = [self.run(body) for body in inner]
        got = await asyncio.gather(*runs, return_exceptions=number % 2 == 0)
        return [type(each).__name__ for each in got]

    async def op_wait_for(self, _me: int, _number: int, seconds: float, inner: Any) -> Any:
        return await asyncio.wait_for(self.run(inner[0]), seconds)

    async def op_timeout(self, _me: int, number: int, seconds: float, inner: Any) -> Any:
        async with asyncio.timeout(seconds) as limit:
            if number == 1:
                limit.reschedule(self.loop.time() + 2 * seconds)
            return await self.run(inner[0])

    async def op_group(self, _me: int, number: int, _seconds: float, inner: Any) -> Any:
        async with asyncio.TaskGroup() as group:
            group._tasks = InOrder()  # type: ignore[assignment]
            tasks = [group.create_task(self.run(body)) for body in inner[1:]]
            self.tasks += tasks[:number]
            return await self.run(inner[0])

    async def op_shield(self, _me: int, number: int, _seconds: float, inner: Any) -> Any:
        task = self.spawn(inner[0])
        return await asyncio.shield(task if number % 2 else self.run([]))

    async def op_wait(self, _me: int, number: int, seconds: float, inner: Any) -> Any:
        when = (asyncio.FIRST_COMPLETED, asyncio.FIRST_EXCEPTION, asyncio.ALL_COMPLETED)[number % 3]
        tasks = [self.spawn(body) for body in inner]
        done, pending = await asyncio.wait(tasks, timeout=seconds, return_when=when)
        return len(done), len(pending)

    async def op_completed(self, _me: int, _number: int, seconds: float, inner: Any) -> Any:
        if self.program.factory == "eager":  # those that end at once come in the order of a set
            return None
        got = []
        for first in asyncio.as_completed([self.spawn(body) for body in inner], timeout=seconds):
            got.append(await first)
        return got

    async def op_context(self, me: int, number: int, _seconds: float, inner: Any) -> Any:
        context = contextvars.copy_context()
        context.run(VARIABLE.set, -me)
        task = self.loop.create_task(self.run(inner[0]), context=context)
        self.tasks.append(task)
        if number % 2:
            await task
        return context[VARIABLE]


class InOrder(dict[Any, None]):
    """A set whose order is that of its making: a group cancels in the order of its set."""

    def add(self, task: Any) -> None:
        self[task] = None

    def discard(self, task: Any) -> None:
        self.pop(task, None)


def shown(task: asyncio.Task[Any]) -> str:
    """Its name, without the number, which counts all tasks of the process."""
    return task.get_name().partition("-")[0]


class Yields:
    """Awaited, it yields that one thing."""

    def __init__(self, what: Any):
        self.what = what

    def __await__(self) -> Any:
        yield self.what


def difference(seed: int) -> str:
    """How the program of that seed differs on the two loops; "" if it does not."""
    here: list[Any] = []
    there: list[Any] = [None]
    tries = 0
    while here != there and tries < TRIES:
        here = Player(Author(seed)).play(Loop)
        there = Player(Author(seed)).play(asyncio.SelectorEventLoop)
        tries += 1
    if here == there:
        return ""
    at = next((n for n, (a, b) in enumerate(zip(here, there, strict=False)) if a != b), -1)
    return (
        f"seed {seed}, step {at}:\n  before  {here[max(0, at - 3) : at]}\n"
        f"  gmpd    {here[at : at + 3]}\n  asyncio {there[at : at + 3]}"
    )


def main() -> int:
    import logging

    logging.disable(logging.CRITICAL)
    bounds = [int(word) for word in sys.argv[1:3]] or [0, 1000]
    found = [text for seed in range(*bounds) if (text := difference(seed))]
    print(*found, sep="\n")
    print(f"{len(found)} of {bounds} differ")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
