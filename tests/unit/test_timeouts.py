"""Timeouts: bounded in one place; and no other line hands one to the kernel (gmpd.timeouts)."""

from __future__ import annotations

import ast
import decimal
import math
import select
import threading
from collections.abc import Iterator
from datetime import timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from gmpd import timeouts
from tests.trees import nodes_of

PACKAGE = Path(timeouts.__file__).parent

#: Calls that sleep in the kernel, by their last name, and which argument is the timeout: its
#: position and its name.
SLEEPS = {
    "poll": (0, "timeout"),
    "epoll_wait": (0, "timeout"),
    "select": (-1, "timeout"),  # of a selector, and of the module
    "acquire": (1, "timeout"),
    "sleep": (0, "secs"),
    "join": (0, "timeout"),
    "wait": (0, "timeout"),
    "wait_for": (1, "timeout"),
    "settimeout": (0, "value"),
    "setitimer": (1, "seconds"),
    "communicate": (1, "timeout"),
}
#: Their join makes texts.
TEXTS = {"os.path", "os.pathsep"}
#: What makes a timeout that any of them takes.
SAFE = {"wait_s", "wait_ms", "lock_s", "checked"}
#: Calls with another number in that place, or with a timeout that was checked where it came in.
CHECKED_BEFORE = {
    ("client/futures.py", "sleeper.acquire(True, left)"),  # ended_within checked it
    ("client/futures.py", "self._condition.wait_for(self.done, left)"),  # ended_within
    ("client/green.py", "event.wait(timeout)"),  # as Condition's
    ("client/sync.py", "waiters.wait_for(lambda: answer.over, timeout)"),  # call
    ("client/mapping.py", "self._waiters.wait_for(lambda: self._ended, self._left())"),  # map
    ("client/green.py", "self.wait(left)"),  # its callers check
    ("client/sync.py", "self._idle.wait_for(idle, timeout)"),  # drain
    ("client/aio.py", "asyncio.wait_for(told.wait(), left_s)"),  # call
    ("client/aio.py", "asyncio.wait_for(self._until_idle(), left_s)"),  # drain
    ("client/aio.py", "asyncio.wait_for(self._welcome, target.connect_timeout)"),  # config: a year
    ("client/aiomap.py", "asyncio.wait_for(self._news.wait(), self._left())"),  # of a checked one
    ("client/iothread.py", "epoll.poll(pause_s)"),  # _until_retry
    ("client/session.py", "self._link.wait(left)"),  # Dealer.wait bounds it
    (  # one of two constants
        "client/session.py",
        "future._condition.wait_for(lambda: future.done() or (future._kept and (not force)), most)",
    ),
    ("client/pool_results.py", "self.wait(timeout)"),  # it checks
    ("client/pool_results.py", "self._delivered.wait(_left(end))"),  # wait
    (  # next
        "client/pool_results.py",
        "tasks.waiters.wait_for(lambda: tasks.due or tasks.is_over, left)",
    ),
    ("gateway/link.py", "dealer.wait(deadline - time.monotonic())"),
    ("daemon/farewell.py", "link.wait(until - time.monotonic())"),
    ("daemon/coordinator.py", "self._poller.wait(self._timeout_s())"),
    ("netpoll/links.py", "link.wait(timeout_s)"),
    (  # bounded above
        "netpoll/poller.py",
        "self._epoll.poll(0 if waiting else timeout_s, len(keys) + 1)",
    ),
    ("daemon/store.py", "self._thread.join(timeout_s)"),  # CLOSE_S
    ("runtime/sysmon.py", "self._note.acquire(timeout=pause_ns / 1000000000.0)"),  # a slice at most
    ("runtime/poller.py", "selector.select(timeout)"),  # Poller.timeout bounds it
    ("runtime/go.py", "asyncio.sleep(seconds)"),  # the loop's own limit
    ("gateway/latest.py", "asyncio.wait({asking}, timeout=longest_s)"),  # wait_s
    ("client/private.py", "process.wait(wait_s)"),  # a constant
}
#: Programs that show or measure; their numbers are their own.
LESSONS = {"demo", "demo_jobs", "walkthrough", "bench", "cpu_bound", "switch_costs"}


def sleeping_calls() -> Iterator[tuple[str, str]]:
    """Every call whose timeout is neither a constant nor made by gmpd.timeouts."""
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.stem in LESSONS or path.name == "timeouts.py":
            continue
        for node in nodes_of(path, ast.Call):
            if not isinstance(node.func, ast.Attribute):
                continue
            place = SLEEPS.get(node.func.attr)
            of = ast.unparse(node.func.value)
            if place is None or isinstance(node.func.value, ast.Constant) or of in TEXTS:
                continue
            at, name = place
            given = next((each.value for each in node.keywords if each.arg == name), None)
            if given is None and node.args and len(node.args) > at:
                given = node.args[at]
            if given is not None and not harmless(given):
                yield str(path.relative_to(PACKAGE)), ast.unparse(node)


def harmless(value: ast.expr) -> bool:
    match value:
        case ast.Constant():
            return True
        case ast.Name(id=name):
            return name.isupper()
        case ast.Attribute(attr=name):
            return name.isupper()
        case ast.Call(func=ast.Name(id=name)):
            return name in SAFE
        case ast.BinOp(left=left, right=right):
            return harmless(left) and harmless(right)
        case _:
            return isinstance(value, ast.Set | ast.List | ast.Starred)


def test_no_line_hands_a_timeout_to_the_kernel_that_was_not_bounded() -> None:
    found = set(sleeping_calls())
    assert not found - CHECKED_BEFORE, (
        "bound it with gmpd.timeouts, or say above where it was checked"
    )
    assert not CHECKED_BEFORE - found, "no such line any more"


@pytest.mark.parametrize(
    "left_s", [0, -1, -math.inf, 0.0004, 1, 25 * 86_400, 1e18, 1e300, math.inf]
)
def test_a_bounded_wait_is_one_that_the_kernel_takes(left_s: float) -> None:
    wait_s = timeouts.wait_s(left_s)
    assert 0 <= wait_s <= timeouts.WAIT_S_MAX
    assert 0 <= timeouts.wait_ms(left_s) < 1 << 31
    assert (timeouts.wait_ms(left_s) > 0) == (left_s > 0)
    with select.epoll() as epoll:
        reader = threading.Event()  # nothing is waited for: the call only converts its argument
        reader.set()
        assert reader.wait(wait_s)
        assert epoll.poll(wait_s if wait_s < 0.01 else 0) == []


@pytest.mark.parametrize("timeout", [0, 1, 2.5, True, Fraction(1, 2), decimal.Decimal("1.5")])
def test_a_callers_timeout_stays_what_it_was(timeout: Any) -> None:
    assert timeouts.checked(timeout) == float(timeout)


@pytest.mark.parametrize("timeout", [None, 1e12, 1e18, 10**400, math.inf])
def test_beyond_a_hundred_years_there_is_no_timeout(timeout: Any) -> None:
    assert timeouts.checked(timeout) is None
    assert timeouts.lock_s(timeouts.checked(timeout)) == -1


def test_the_longest_timeout_is_one_that_locks_take() -> None:
    assert timeouts.FOREVER_S < threading.TIMEOUT_MAX
    assert timeouts.WAIT_S_MAX * 1000 < (1 << 31) - 1


@pytest.mark.parametrize("timeout", [math.nan, decimal.Decimal("nan")])
def test_nan_is_refused_by_name(timeout: Any) -> None:
    with pytest.raises(ValueError, match="patience=nan"):
        timeouts.checked(timeout, "patience")


@pytest.mark.parametrize("timeout", ["5", b"6", [], timedelta(seconds=1), 1j])
def test_what_is_no_number_is_refused_by_name(timeout: Any) -> None:
    with pytest.raises(TypeError, match="timeout="):
        timeouts.checked(timeout)


def test_what_is_past_is_now() -> None:
    assert timeouts.checked(-5) == 0
    assert timeouts.checked(-math.inf) == 0
