"""Where the making of a G is written out for speed, it sets what its class sets, with equal values.

``go`` and ``JobG`` do without a call of ``__init__``: a switch costs little more than that call. A
slot that is added to one of the places and forgotten in another fails here.
"""

from __future__ import annotations

from contextvars import copy_context
from types import SimpleNamespace
from typing import Any

import gmpd
from gmpd.runtime.g import G
from gmpd.runtime.go import this_loop
from gmpd.runtime.jobg import JobG
from gmpd.runtime.loop import Loop
from gmpd.runtime.syncg import SyncG
from gmpd.runtime.task import Task


async def asleep() -> None:
    await gmpd.sleep(0)


def plain() -> None:
    pass


#: Their value is each one's own.
OWN = {"__weakref__", "_among", "_context", "_coro_or_args", "_fn", "_send", "id"}


def slots_of(made: object) -> dict[str, Any]:
    """A slot that is unset is None, as it is where the class is compiled."""
    return {
        name: getattr(made, name, None)
        for kind in type(made).__mro__
        for name in vars(kind).get("__slots__", ())
    }


def alike(written_out: object, by_class: object, *more: str) -> None:
    """``more``: slots that only the former has."""
    these, those = slots_of(written_out), slots_of(by_class)
    assert these.keys() - set(more) == those.keys() - set(more)
    for name in those.keys() - OWN - set(more):
        assert these[name] == those[name], name


def test_go_makes_what_the_class_makes() -> None:
    async def main() -> None:
        loop = this_loop("a test")
        for fn, kind in ((asleep, G), (plain, SyncG)):
            alike(gmpd.go(fn), kind(loop.p, fn), "made_by", "made_at")

    gmpd.run(main())


def test_a_job_is_made_as_a_task_is() -> None:
    async def main() -> None:
        loop = this_loop("a test")
        assert isinstance(loop, Loop)
        task = loop.create_task(asleep())
        assert isinstance(task, Task)
        coro = asleep()
        job = JobG(loop.p, SimpleNamespace(id=7), coro, copy_context())
        alike(job, task, "_among", "_job")
        coro.close()
        await task

    gmpd.run(main())
