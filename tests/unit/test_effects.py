"""The coordinator executes the policy's instructions, without processes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from gmpd.config import Config
from gmpd.daemon.effects import Effects
from gmpd.sched.instructions import RecoverOutcomes
from tests.desk import Desk


def test_outcomes_of_attempts_beyond_their_limits_are_recovered_too() -> None:
    """Their frames may have ended, and their worker could not say so: it need not be replaced."""
    desk = Desk()
    p, client, _ = desk.begun(timeout=1)
    desk.submit(client)
    desk.take()
    (overrunning,) = p.started
    desk.expired(p, [overrunning])
    asked: list[set[int]] = []
    shm = SimpleNamespace(recover_from_living=lambda held: asked.append(set(held)))
    supervisor = SimpleNamespace(worker_of=lambda *_: SimpleNamespace(shm=shm))
    pool: Any = SimpleNamespace(supervisor=supervisor)
    none: Any = None
    Effects(Config(), desk.sched, pool, none, none, none).execute(RecoverOutcomes(p))
    assert asked == [{overrunning, *p.fresh}]
