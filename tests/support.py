"""What many tests need, and the product does not."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

#: How often a fact is looked at. Short, since most come true at once; not zero, since the process
#: that is waited for needs the core.
LOOK_EVERY_S = 0.005


def wait_until(fact: Callable[[], T], what: str, *, timeout: float = 10.0) -> T:
    """The first true value of `fact()`; AssertionError naming `what` after `timeout` seconds."""
    nothing = threading.Event()
    deadline = time.monotonic() + timeout
    while True:
        value = fact()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"after {timeout:g} s still not so: {what} (last: {value!r})")
        nothing.wait(LOOK_EVERY_S)
