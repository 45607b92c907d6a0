"""Named moments at which a daemon of the tests kills itself, as ``kill -9`` would just then.

``tests.durable_daemon`` has `gmpd serve` install them. The file that ``GMPD_TEST_KILL_AT`` names
holds the moment; the daemon removes it and dies, so the next one lives.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gmpd.daemon.effects import Effects
from gmpd.daemon.sqlite_store import SqliteStore
from gmpd.sched.instructions import LeaseJobs
from gmpd.sched.stored import Finish, Operation, PutJobs

MOMENTS = {
    "unflushed": "before the transaction that stores a job",
    "flushed": "after that was flushed, before the client is answered",
    "leased": "after the lease, before the worker hears of it",
    "finishing": "after the function has returned, before its end is stored",
    "finished": "after that was flushed, before a client is told",
}
ARMED = "GMPD_TEST_KILL_AT"


def reach(moment: str) -> None:
    """Die here, if it is asked for."""
    armed = Path(os.environ[ARMED])
    try:
        if armed.read_text() != moment:
            return
    except FileNotFoundError:
        return
    armed.unlink()
    os.kill(os.getpid(), signal.SIGKILL)


_apply, _execute = SqliteStore.apply, Effects.execute


def apply(self: SqliteStore, batch: Sequence[Operation]) -> Any:
    puts = any(isinstance(each, PutJobs) for each in batch)
    ends = any(isinstance(each, Finish) and each.rows for each in batch)
    if puts:
        reach("unflushed")
    if ends:
        reach("finishing")
    answers = _apply(self, batch)
    if puts:
        reach("flushed")
    if ends:
        reach("finished")
    return answers


def execute(self: Effects, instruction: Any) -> None:
    if isinstance(instruction, LeaseJobs):
        reach("leased")
    _execute(self, instruction)


def install() -> None:
    """In the process of the daemon."""
    SqliteStore.apply = apply  # type: ignore[method-assign]
    Effects.execute = execute  # type: ignore[method-assign, assignment]
