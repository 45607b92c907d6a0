"""CPython's own tests of executors, on gmpd.Executor.

The classes are those of the running interpreter's ``test.test_concurrent_futures`` (a package
since 3.12). Where an interpreter comes without its tests there is nothing to run.
"""

from __future__ import annotations

import importlib
import importlib.util
import multiprocessing
import time
import unittest
from typing import Any

import pytest

import gmpd
from tests.support import wait_until

if importlib.util.find_spec("test") is None or not importlib.util.find_spec(
    "test.test_concurrent_futures"
):
    pytest.skip(
        "this interpreter comes without test.test_concurrent_futures", allow_module_level=True
    )

_HOME = "test.test_concurrent_futures"
support: Any = importlib.import_module("test.support")
threading_helper: Any = importlib.import_module("test.support.threading_helper")


def _mixin(module: str, name: str) -> Any:
    package = importlib.import_module(_HOME)
    if hasattr(package, "__path__"):
        package = importlib.import_module(f"{_HOME}.{module}")
    return getattr(package, name)


#: What is left out, and why.
EXCLUDED = {
    "test_cancel_futures": "expects that a job has begun at once; _cancel_futures waits for that",
}


class Pool(unittest.TestCase):
    """An executor of two workers per test, and no thread left by it."""

    executor: Any
    executor_type = gmpd.Executor

    def setUp(self) -> None:
        if self._testMethodName in EXCLUDED:
            self.skipTest(EXCLUDED[self._testMethodName])
        self._threads = threading_helper.threading_setup()
        if not hasattr(self, "executor_kwargs"):  # else the mixin makes one, and ends it
            self.executor = gmpd.Executor(max_workers=2)

    def create_event(self) -> Any:
        """An event that travels to a worker: tests ask for one since 3.14."""
        manager = multiprocessing.get_context("spawn").Manager()  # leaves no fork server
        self.addCleanup(manager.shutdown)
        return manager.Event()

    def tearDown(self) -> None:
        if self.executor is not None:
            self.executor.shutdown(wait=True)
        self.executor = None
        support.reap_children()
        threading_helper.threading_cleanup(*self._threads)


def _tests(name: str, module: str, mixin: str) -> Any:
    return type(name, (_mixin(module, mixin), Pool), {"worker_count": 2, "__module__": __name__})


def _cancel_futures(self: Any) -> None:
    """CPython's test_cancel_futures, but it waits until something has begun. Its jobs take their P,
    where CPython's sleep: of those a P has many under way, on a busy machine all 50."""

    def spin() -> None:
        end = time.perf_counter() + 0.1
        while time.perf_counter() < end:
            pass

    futures = [self.executor.submit(spin) for _ in range(50)]
    wait_until(lambda: any(f.running() for f in futures), "a job runs")
    self.executor.shutdown(cancel_futures=True)
    rest = [future for future in futures if not future.cancelled()]
    assert all(future.done() and future.exception() is None for future in rest)
    assert 0 < len(rest) < 50


def _by_our_name(original: Any) -> Any:
    """Scripts that import the executor by the name of its class get this one."""

    def run(*args: str, **env: str) -> Any:
        ours = [a.replace("from concurrent.futures import", "from gmpd import") for a in args]
        return original(*ours, **env)

    return run


@pytest.fixture(autouse=True)
def _scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    where: Any = importlib.import_module(_HOME)
    if hasattr(where, "__path__"):
        where = importlib.import_module(f"{_HOME}.test_shutdown")
    ours = _by_our_name(where.assert_python_ok)
    monkeypatch.setattr(where, "assert_python_ok", ours)


TestInitializer = _tests("TestInitializer", "test_init", "InitializerMixin")
TestFailingInitializer = _tests("TestFailingInitializer", "test_init", "FailingInitializerMixin")
TestExecutor = _tests("TestExecutor", "executor", "ExecutorTest")
TestWait = _tests("TestWait", "test_wait", "WaitTests")
TestAsCompleted = _tests("TestAsCompleted", "test_as_completed", "AsCompletedTests")
TestShutdown = _tests("TestShutdown", "test_shutdown", "ExecutorShutdownTest")
TestShutdown.test_cancelling_what_waits = _cancel_futures
