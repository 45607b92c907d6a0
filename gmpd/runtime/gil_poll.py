"""A look at the netpoller that keeps the GIL.

A thread that waits for the GIL asks for it only after 5 ms without any release; each release,
however short, starts that wait anew. A busy P that polls every millisecond through ``select``
releases the GIL for a microsecond each time and takes it again before a waiting thread has woken,
so it starves sysmon and all other threads for seconds. A poll that does not wait needs no release:
``epoll_wait`` is called with the GIL held (0.4 us), and the selector is asked only once there is
something to fetch.

Rejected: a shorter switch interval (it is the process's own setting, and a hog would interrupt P
more often).
"""

from __future__ import annotations

import selectors
from collections.abc import Callable
from functools import partial
from typing import Any

#: ``struct epoll_event`` for one event: it is packed on x86-64 (12 bytes) and not elsewhere (16).
EVENT_BYTES = 16


def make_gil_poll(selector: Any) -> Callable[[], int] | None:
    """A function that tells, with the GIL held, whether ``selector`` has events: 0 if none.

    None for a selector other than the standard library's epoll: its ``select`` may do more.
    """
    if type(selector) is not getattr(selectors, "EpollSelector", None):
        return None
    import ctypes  # 8 ms, which a process without a P need not pay

    try:
        wait = ctypes.PyDLL(None).epoll_wait
    except (AttributeError, OSError):  # a C library that hides it
        return None
    return partial(
        wait, ctypes.c_int(selector.fileno()), ctypes.create_string_buffer(EVENT_BYTES), 1, 0
    )
