"""The job that some code belongs to: what it tells of itself goes there.

A coroutine's job is in a context variable that all that it starts inherits. A plain job needs none
while it runs, as its M has it; a context variable for each would cost more than many a job does.
What a plain job starts with ``gmpd.go`` inherits one that ``go`` sets then, and so does everything
in a job whose output is captured.
"""

from __future__ import annotations

from contextvars import Context, ContextVar
from typing import Any

from gmpd.runtime.m import current_m

#: The async job that this code belongs to; None for none.
async_job: ContextVar[Any] = ContextVar("gmpd-job", default=None)
#: The job that started this code, where it was noted.
root: ContextVar[Any] = ContextVar("gmpd-root", default=None)


def root_job() -> Any:
    """The caller's job; None outside of one, and in a thread that a job has started."""
    job = root.get() or async_job.get()
    if job is not None:
        return job
    m = current_m()
    g = None if m is None else m.g
    return g if is_job(g) else None


def root_of(context: Context) -> Any:
    """The job of code that runs in ``context``, as ``root_job`` for what is no plain job itself."""
    return context.get(root) or context.get(async_job)


def is_job(g: Any) -> bool:
    """Whether a G is a job of a worker: it takes what its code tells of it."""
    return getattr(g, "progressed", None) is not None
