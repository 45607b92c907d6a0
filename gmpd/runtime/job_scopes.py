"""Async jobs that share a loop, kept from each other: what one sets or ends on the loop is its own.

To its code the loop looks like one of its own, as under ``asyncio.run``: it cancels all tasks, sets
a task factory, shuts the default executor down. Here those calls reach the job's own tasks and
settings alone; what cannot be divided is refused with a line in the log, as ``stop`` is.

Which job some code belongs to is in a context variable (``roots``): tasks, children, callbacks and
threads of the job inherit it. A plain job has none; it does not see the loop.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from functools import partial
from typing import TYPE_CHECKING, Any

from gmpd.runtime import internals
from gmpd.runtime.m import current_m
from gmpd.runtime.overrun import innermost
from gmpd.runtime.roots import async_job
from gmpd.timeouts import checked

if TYPE_CHECKING:
    from gmpd.runtime.p import Face

log = logging.getLogger(__name__)


class JobScope:
    """The settings of one job."""

    __slots__ = ("executor", "factory", "handler")

    def __init__(self) -> None:
        self.executor: Executor | None = None
        self.factory: Any = None
        self.handler: Any = None


class JobScopes:
    """The jobs of one loop, as far as one must not touch the others."""

    def __init__(self, loop: Face):
        self._loop = loop
        #: Of jobs that have set anything, by their number.
        self.scopes: dict[int, JobScope] = {}
        self._run_in_executor = loop.run_in_executor
        self._call_exception_handler = loop.call_exception_handler
        self._all_tasks = asyncio.all_tasks

    def install(self) -> None:
        """From here on jobs share the loop of this process."""
        own: tuple[Callable[..., Any], ...] = (
            self.call_exception_handler,
            self.get_exception_handler,
            self.get_task_factory,
            self.run_in_executor,
            self.set_debug,
            self.set_default_executor,
            self.set_exception_handler,
            self.set_task_factory,
            self.shutdown_asyncgens,
            self.shutdown_default_executor,
        )
        for method in own:
            setattr(self._loop, method.__name__, method)
        internals.replace_all_tasks(self.all_tasks)

    # ---- tasks -----------------------------------------------------------------------------------

    def all_tasks(self, loop: asyncio.AbstractEventLoop | None = None) -> set[Any]:
        """As ``asyncio.all_tasks``: those of the caller's job, on the loop that it shares."""
        asked = asyncio.get_running_loop() if loop is None else loop
        found = self._all_tasks(asked)
        if asked is not self._loop:
            return found
        mine = async_job.get()
        every = self._loop.p.gs
        gs: list[Any] = list(every.some(len(every)))
        jobs = {g for g in gs if isinstance(g, asyncio.Task) and not g.done()}
        return {task for task in found | jobs if job_of(task) is mine}

    def set_task_factory(self, factory: Any) -> None:
        """For tasks of this job."""
        if factory is not None and not callable(factory):
            raise TypeError("task factory must be a callable or None")
        self._mine().factory = factory
        self._loop._task_factory = self._make_task

    def get_task_factory(self) -> Any:
        """The task factory of this job."""
        scope = self._own()
        return None if scope is None else scope.factory

    def _make_task(self, loop: Any, coro: Coroutine[Any, Any, Any], **more: Any) -> Any:
        factory = self.get_task_factory()
        if factory is not None:
            return factory(loop, coro, **more)
        return self._loop.make_task(coro, **more)

    # ---- threads ---------------------------------------------------------------------------------

    def set_default_executor(self, executor: Any) -> None:
        """For calls of this job."""
        self._mine().executor = executor

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> Any:
        """As the loop's, with the job's own default."""
        if executor is None and self.scopes:
            scope = self._own()
            executor = None if scope is None else scope.executor
        return self._run_in_executor(executor, func, *args)

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """Shut the job's own executor down; the one that all jobs share stays."""
        scope = self._own()
        executor = None if scope is None else scope.executor
        if scope is None or executor is None:
            self.refuse("a call of shutdown_default_executor()")
            return
        scope.executor = None
        ended = self._run_in_executor(None, partial(executor.shutdown, wait=True))
        await asyncio.wait_for(ended, checked(timeout))

    async def shutdown_asyncgens(self) -> None:
        """Generators of other jobs are among them."""
        self.refuse("a call of shutdown_asyncgens()")

    # ---- the rest --------------------------------------------------------------------------------

    def set_exception_handler(self, handler: Any) -> None:
        """Handle errors of this job's tasks and callbacks."""
        if handler is not None and not callable(handler):
            raise TypeError(f"A callable object or None is expected, got {handler!r}")
        self._mine().handler = handler

    def get_exception_handler(self) -> Any:
        """The exception handler of this job."""
        scope = self._own()
        return None if scope is None else scope.handler

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """To the handler of the job that it is about."""
        about = context.get("task") or context.get("future") or context.get("handle")
        job = async_job.get() if about is None else job_of(about) or async_job.get()
        scope = self.scopes.get(_number(job))
        if scope is None or scope.handler is None:
            self._call_exception_handler(context)
            return
        try:
            scope.handler(self._loop, context)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # noqa: BLE001 - a job's handler ends no callback of others
            self._call_exception_handler(
                {"message": "Unhandled error in exception handler", "exception": error}
            )
            self._call_exception_handler(context)

    def set_debug(self, enabled: bool) -> None:
        """It would slow all jobs down."""
        self.refuse(f"a call of set_debug({enabled})")

    def _mine(self) -> JobScope:
        return self.scopes.setdefault(_number(async_job.get()), JobScope())

    def _own(self) -> JobScope | None:
        """The scope of the caller's job, if it has set anything."""
        return self.scopes.get(_number(async_job.get()))

    def refuse(self, what: str) -> None:
        """A job did ``what`` to the loop, and changed nothing."""
        log.warning(
            "%s on its worker's event loop by a job at %s: ignored, other jobs run on it. "
            "With isolate=True a job has a loop and a process of its own",
            what,
            innermost(sys._getframe(2)),
        )


def job_of(thing: Any) -> Any:
    """The job that a task or handle belongs to; None for none."""
    get_context = getattr(thing, "get_context", None)  # a Handle has it since 3.12
    context = getattr(thing, "_context", None) if get_context is None else get_context()
    return None if context is None else context.get(async_job)


def _number(job: Any) -> int:
    return 0 if job is None else int(job.id)


def give_plain_jobs_loops() -> None:
    """Let ``asyncio.get_event_loop()`` in a plain job make a loop for its thread, as it does on the
    main thread of a program, where process pools run theirs. Since 3.14 it makes none anywhere.
    """
    if sys.version_info >= (3, 14):
        return

    class Policy(asyncio.DefaultEventLoopPolicy):
        """Where no loop was set for the thread of a job, or a former job closed it, makes one."""

        def get_event_loop(self) -> asyncio.AbstractEventLoop:
            try:
                loop = super().get_event_loop()
            except RuntimeError:
                if current_m() is None:
                    raise
            else:
                if current_m() is None or not loop.is_closed():
                    return loop
            loop = self.new_event_loop()
            self.set_event_loop(loop)
            return loop

    asyncio.set_event_loop_policy(Policy())
