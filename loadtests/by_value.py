"""The cost of a submit to its client before anything is sent: CPU time per call, best of seven.

    python loadtests/by_value.py

A function of a module, a lambda, a function of this script with a helper and a constant, the same
with an object of this script among the arguments, and one that uses a global of 100 MB.
"""

from __future__ import annotations

import os.path
import time
from collections.abc import Callable
from typing import Any

from gmpd.client.calls import prepare

K = 3
DATA = bytes(100_000_000)


class Thing:
    def __init__(self, n: int) -> None:
        self.n = n


def helper(x: Any) -> Any:
    return x


def script(x: Any) -> Any:
    return helper(x), K


def large(i: int) -> int:
    return DATA[i]


def cost_us(fn: Callable[..., Any], args: tuple[Any, ...], calls: int) -> float:
    """CPU time of one ``prepare``, after the first, which pickles."""
    prepare(fn, None, args, {})
    best = float("inf")
    for _ in range(7):
        began = time.process_time()
        for _ in range(calls):
            prepare(fn, None, args, {})
        best = min(best, time.process_time() - began)
    return best / calls * 1e6


def main() -> None:
    cases: list[tuple[str, Callable[..., Any], tuple[Any, ...], int]] = [
        ("module", os.path.basename, ("a",), 20_000),
        ("lambda", lambda x: x, (1,), 20_000),
        ("script", script, (1,), 20_000),
        ("script, its object", script, (Thing(1),), 500),
        ("global of 100 MB", large, (1,), 20),
    ]
    for name, fn, args, calls in cases:
        print(f"{name:20} {cost_us(fn, args, calls):12.2f} us")


if __name__ == "__main__":
    main()
