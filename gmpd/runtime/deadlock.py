"""Whether a program can never go on: no timer, socket, M in a call or foreign thread is left that
could make a G ready (Go: ``checkdead``, which counts running Ms).

Asked by the M that holds P, when it has nothing to run and no timer to wait for.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gmpd.runtime.loop import Loop

#: Threads that wait for Gs are looked at so often, this long apart, before the program is called
#: dead.
QUIET_LOOKS = 3
QUIET_S = 0.01


def is_dead(loop: Loop, looks: int = QUIET_LOOKS) -> bool:
    """Whether nothing from outside could make a G of ``loop`` ready. Timers are the caller's.

    ``looks``: how often threads are looked at again that wait for Gs, and may just be woken.
    """
    if loop.inbox or loop._ready or len(loop._selector.get_map()) > 1:
        return False
    if loop.ms.detached and not _all_wait_for_gs(loop, looks):
        return False
    main = threading.main_thread()
    return not any(
        thread is not main and not thread.name.startswith("gmpd-")
        for thread in threading.enumerate()
    )


def _all_wait_for_gs(loop: Loop, looks: int) -> bool:
    """Whether each M without P waits for a channel, lock or G of this P, and so cannot go on by
    itself.

    One that was just woken still looks as if it waited; it needs the GIL to show, and gets it here.
    """
    for look in range(looks + 1):
        if not all(m.wait_reason and m.wait_reason != "syscall" for m in loop.ms.detached[:]):
            return False
        if loop.inbox or loop._ready or (look < looks and loop._selector.select(QUIET_S)):
            return False
    return True
