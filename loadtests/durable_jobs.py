"""The jobs of ``durable.py``."""

from __future__ import annotations

import os
import time
from collections.abc import Callable


def nothing(x: int) -> int:
    """As little as a job can do."""
    return x


def hold(path: str) -> None:
    """Append pid and time; the first attempt then waits to be killed."""
    with open(path, "a+") as file:
        file.write(f"{os.getpid()} {time.monotonic_ns()}\n")
        file.flush()
        file.seek(0)
        is_first = len(file.readlines()) == 1
    if is_first:
        time.sleep(600)


def _another(number: int) -> Callable[[str], None]:
    def another(path: str) -> None:
        hold(path)

    another.__name__ = another.__qualname__ = f"hold_{number}"
    return another


#: As ``hold``, each another function: one whose jobs end three workers has a pause after each.
HOLDS = [_another(number) for number in range(50)]
globals().update({each.__name__: each for each in HOLDS})
