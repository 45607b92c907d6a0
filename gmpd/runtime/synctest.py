"""``synctest_wait``: until every other G of a seeded run waits for something (Go:
``testing/synctest.Wait``).
"""

from __future__ import annotations

from typing import ClassVar

from gmpd.errors import Panic
from gmpd.runtime.deterministic import DeterministicLoop
from gmpd.runtime.internals import running_loop
from gmpd.runtime.sudog import Sudog, park


class Settled(Sudog):
    """The G that waits for all others to wait."""

    __slots__ = ()
    reason: ClassVar[str] = "synctest.Wait"

    def unlink(self) -> None:
        self._loop.settled = None  # type: ignore[attr-defined]


async def synctest_wait() -> None:
    """Wait until all other Gs are parked: on channels, locks, timers, sockets. No time passes.

    So a test sees the effects of its Gs so far, and that they do no more until it acts.
    Under ``gmpd.run(…, deterministic_seed=n)`` only, else RuntimeError; Panic while another G is in
    it.
    """
    loop = running_loop()
    if not isinstance(loop, DeterministicLoop):
        raise RuntimeError(  # noqa: TRY004 - nothing was passed that has a type
            "synctest_wait needs a seeded run: gmpd.run(main(), deterministic_seed=1); "
            "no other run can tell when all other Gs are parked"
        )
    if loop.settled is not None:
        raise Panic("wait already in progress")
    loop.settled = settled = Settled(loop, loop)
    await park(settled)
