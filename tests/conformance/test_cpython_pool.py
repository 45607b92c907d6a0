"""CPython's own tests of multiprocessing.Pool, on gmpd.Pool.

The classes are those of the running interpreter's ``test._test_multiprocessing``. Where an
interpreter comes without its tests there is nothing to run.
"""

from __future__ import annotations

import importlib
import importlib.util
import multiprocessing
import multiprocessing.pool
import sys
import threading
import unittest
from typing import Any

import pytest

import gmpd

if importlib.util.find_spec("test") is None or not importlib.util.find_spec(
    "test._test_multiprocessing"
):
    pytest.skip(
        "this interpreter comes without test._test_multiprocessing", allow_module_level=True
    )

_HOME = "test._test_multiprocessing"
suite: Any = importlib.import_module(_HOME)
script_helper: Any = importlib.import_module("test.support.script_helper")

#: What is left out, and why.
EXCLUDED = {
    "test_unpickleable_result": "its result is a lambda, which travels here; see _unsendable",
    "test_pool_worker_lifetime": "calls _repopulate_pool(), which is the daemon's; see _lifetime",
}
if sys.version_info >= (3, 15):
    # By the name of another class, so it travels by value.
    EXCLUDED["test_wrapped_exception"] = (
        "a generator is in its decorators, and cannot travel; see _wrapped"
    )


class OnOurs:
    """Pools are ours, also for tests that ask multiprocessing for one."""

    _testMethodName: str
    skipTest: Any

    TYPE = "processes"
    Pool = staticmethod(gmpd.Pool)

    def setUp(self) -> None:
        if self._testMethodName in EXCLUDED:
            self.skipTest(EXCLUDED[self._testMethodName])


@pytest.fixture(autouse=True)
def _ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multiprocessing, "Pool", gmpd.Pool)
    run = script_helper.assert_python_ok

    def with_ours(*args: str, **env: str) -> Any:
        ours = [a.replace("from multiprocessing import", "from gmpd import") for a in args]
        return run(*ours, **env)

    monkeypatch.setattr(script_helper, "assert_python_ok", with_ours)


def _tests(name: str) -> Any:
    return type(
        name, (OnOurs, getattr(suite, f"_{name}"), unittest.TestCase), {"__module__": __name__}
    )


def _unsendable(self: Any) -> None:
    """CPython's test_unpickleable_result, with a result that cannot travel here either."""
    with gmpd.Pool(2) as pool:
        for _ in range(20):
            told: list[Any] = []
            result = pool.apply_async(threading.Lock, error_callback=told.append)
            with pytest.raises(multiprocessing.pool.MaybeEncodingError):  # type: ignore[attr-defined]
                result.get()
            (error,) = told
            assert error.exc is not None
            assert error.value is not None


def _raises() -> None:
    raise RuntimeError("foo")


def _wrapped(self: Any) -> None:
    """CPython's test_wrapped_exception, with a function."""
    with gmpd.Pool(1) as pool, pytest.raises(RuntimeError, match="foo"):
        pool.apply(_raises)


def _lifetime(self: Any) -> None:
    """CPython's test_pool_worker_lifetime: the daemon starts the new workers by itself."""
    pool = gmpd.Pool(3, maxtasksperchild=10)
    before = {worker.pid for worker in pool._pool}
    assert len(before) == 3
    results = [pool.apply_async(suite.sqr, (i,)) for i in range(100)]
    assert [result.get() for result in results] == [i * i for i in range(100)]
    after = {worker.pid for worker in pool._pool}
    assert before != after
    pool.close()
    pool.join()


TestPool = _tests("TestPool")
TestPool.test_exception_of_a_call = _wrapped
TestPoolWorkerErrors = _tests("TestPoolWorkerErrors")
TestPoolWorkerErrors.test_unsendable_result = _unsendable
TestPoolWorkerLifetime = _tests("TestPoolWorkerLifetime")
TestPoolWorkerLifetime.test_workers_are_replaced = _lifetime
