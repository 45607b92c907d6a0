"""Timeouts: the range that a caller may use, and the range that one call to the kernel accepts.

``poll`` and ``epoll_wait`` take milliseconds in 31 bits (24.8 days), locks and ``select`` about 292
years; beyond that Python raises OverflowError, in whichever loop happens to wait. So no timeout
reaches the kernel but through here:

- ``wait_s`` and ``wait_ms`` bound one wait inside a loop that looks at its own deadline again. An
  early return costs one turn of that loop a day.
- ``checked`` reads a caller's argument of ``result(timeout=...)`` and others, before anything
  happens: nan is refused, and a timeout beyond the range of locks is the same as none.

It knows no clock: deadlines belong to the waiting code.
"""

from __future__ import annotations

import math
from typing import Any

#: The longest single wait in the kernel, seconds. A day: far below the 24.8 days of epoll.
WAIT_S_MAX = 86_400.0

#: A caller's timeout beyond this (seconds, 100 years) is none. Locks take 292 years at most.
FOREVER_S = 100 * 366 * 86_400.0


def wait_s(left_s: float) -> float:
    """Seconds for one wait of a loop whose deadline is ``left_s`` away."""
    return WAIT_S_MAX if left_s > WAIT_S_MAX else max(0.0, left_s)


def wait_ms(left_s: float) -> int:
    """``wait_s`` in milliseconds, rounded up: 0.4 ms must not become a loop of 0 ms waits."""
    return math.ceil(wait_s(left_s) * 1000)


def checked(timeout: Any, name: str = "timeout") -> float | None:
    """A caller's timeout in seconds: at least 0, None to wait without an end.

    ValueError for nan, TypeError for anything but a number.
    """
    if timeout is None:
        return None
    try:
        if timeout != timeout:
            raise ValueError(f"{name}=nan: must be seconds, or None to wait without an end")
        if timeout >= FOREVER_S:
            return None
        return max(0.0, float(timeout))
    except TypeError:
        raise TypeError(
            f"{name}={timeout!r}: must be seconds, or None to wait without an end"
        ) from None


def lock_s(timeout: float | None) -> float:
    """A checked timeout as locks take it: -1 to wait without an end."""
    return -1 if timeout is None else timeout
