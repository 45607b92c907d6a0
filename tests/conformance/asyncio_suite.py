"""CPython's own asyncio tests, run on gmpd's loop and on the standard one.

    python tests/conformance/asyncio_suite.py            # every module of test.test_asyncio
    python tests/conformance/asyncio_suite.py test_tasks test_locks

Prints the tests that fail on gmpd's loop and pass on the standard one, and exits with 1 if there
are any beside ``EXCEPTIONS``, or if one of those is no longer needed. Each module runs in a process
of its own, once per loop. Needs an interpreter that has its ``test`` package.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import os
import pkgutil
import signal
import subprocess
import sys
import tempfile
import unittest
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

#: Seconds for one module on one loop; the slowest takes about 40 on an idle machine.
MODULE_S_MAX = 240
#: Windows only.
SKIPPED = {"test_proactor_events", "test_windows_events", "test_windows_utils"}
#: Why a Task of the pure-Python asyncio is not what runs on gmpd's loop.
_IN_C = (
    "tries asyncio's pure-Python functions in place of the C ones, which alone reach what gmpd's "
    "loop sets: the running loop of a thread, and since 3.14 its current task and its tasks"
)
#: Test classes of which some fail here alone, the version since which, and why that is right.
EXCEPTIONS: dict[str, tuple[tuple[int, int], str]] = {
    "test_events.TestPyGetEventLoop": ((3, 11), _IN_C),
    "test_free_threading.TestEagerPyFreeThreading": ((3, 14), _IN_C),
    "test_free_threading.TestPyFreeThreading": ((3, 14), _IN_C),
    "test_graph.TestCallStackPy": ((3, 14), _IN_C),
}
ROOT = Path(__file__).resolve().parents[2]


def modules() -> list[str]:
    """The test modules of this interpreter's test.test_asyncio."""
    spec = importlib.util.find_spec("test.test_asyncio")
    if spec is None or spec.submodule_search_locations is None:
        raise SystemExit("this interpreter has no test package: use one that was built with it")
    found = [m.name for m in pkgutil.iter_modules(spec.submodule_search_locations)]
    return sorted(name for name in found if name.startswith("test_") and name not in SKIPPED)


def use_gmpd() -> None:
    """Let every way to a default loop lead to gmpd's."""
    sys.path.insert(0, str(ROOT))
    from gmpd.runtime.loop import Loop

    asyncio.SelectorEventLoop = Loop
    asyncio.unix_events.SelectorEventLoop = Loop
    asyncio.EventLoop = Loop  # type: ignore[attr-defined, unused-ignore]  # since 3.13
    asyncio.unix_events._UnixDefaultEventLoopPolicy._loop_factory = Loop  # type: ignore[attr-defined]


class Outcomes(unittest.TextTestResult):
    """Remembers what passed: a failed subtest fails its test."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self.passed: list[str] = []

    def addSuccess(self, test: unittest.TestCase) -> None:
        super().addSuccess(test)
        self.passed.append(test.id())


def run_module(name: str, outcome: str) -> None:
    """In the child: run one module, leave ids of passed and texts of failed tests in a file."""
    # A shell lets what it starts in the background ignore it, and tests interrupt themselves.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    from test import support  # type: ignore[import-not-found]

    support.use_resources = ["network", "cpu", "walltime"]
    suite = unittest.defaultTestLoader.loadTestsFromName(f"test.test_asyncio.{name}")
    result = unittest.TextTestRunner(resultclass=Outcomes, verbosity=0).run(suite)
    assert isinstance(result, Outcomes)
    bad = [*result.failures, *result.errors]
    failed = {getattr(test, "test_case", test).id(): text for test, text in bad}
    passed = [test for test in result.passed if test not in failed]
    Path(outcome).write_text(json.dumps({"passed": passed, "failed": failed}))


def outcome_of(name: str, loop: str) -> dict[str, object]:
    """Run one module in a child process; what it printed stands for the outcome when it died."""
    with tempfile.TemporaryDirectory(prefix="gmpd-suite-") as folder:
        outcome = Path(folder) / "outcome.json"
        command = [sys.executable, "-W", "ignore", __file__, "--child", name, loop, str(outcome)]
        try:
            done = subprocess.run(
                command, cwd=folder, capture_output=True, timeout=MODULE_S_MAX, check=False
            )
        except subprocess.TimeoutExpired as late:
            said = (late.stderr or b"").decode(errors="replace")
            return {"passed": [], "failed": {f"{name} as a whole": f"too slow\n{said[-2000:]}"}}
        if outcome.exists():
            loaded: dict[str, object] = json.loads(outcome.read_text())
            return loaded
        said = done.stderr.decode(errors="replace")
        return {"passed": [], "failed": {f"{name} as a whole": f"died\n{said[-2000:]}"}}


def compare(name: str) -> tuple[int, dict[str, str]]:
    """How many tests of the module pass here, and those that pass on the standard loop only."""
    here, there = outcome_of(name, "gmpd"), outcome_of(name, "asyncio")
    passed_here, passed_there = set(_ids(here)), set(_ids(there))
    failed = here["failed"]
    assert isinstance(failed, dict)
    missing = sorted(passed_there - passed_here)
    as_a_whole = f"{name} as a whole"
    if as_a_whole in failed:  # nothing was tried, whatever the standard loop did
        missing.append(as_a_whole)
    whole = failed.get(as_a_whole, "did not run")
    return len(passed_here), {test: str(failed.get(test, whole)) for test in missing}


def exceptions(tried: list[str]) -> list[str]:
    """Those that this Python needs, of the modules that are tried."""
    return [
        owner
        for owner, (since, _) in EXCEPTIONS.items()
        if owner.partition(".")[0] in tried and sys.version_info[:2] >= since
    ]


def _ids(outcome: dict[str, object]) -> list[str]:
    passed = outcome["passed"]
    assert isinstance(passed, list)
    return passed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("modules", nargs="*", help="default: all of them")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--traceback", action="store_true", help="print why each one fails")
    args = parser.parse_args()
    tried = args.modules or modules()
    total, worse, excepted = 0, 0, dict.fromkeys(exceptions(tried), 0)
    with ThreadPoolExecutor(args.jobs) as pool:
        for passed, differing in pool.map(compare, tried):
            total += passed
            for test, why in differing.items():
                owner = ".".join(test.split(".")[2:4])
                if owner in excepted:
                    excepted[owner] += 1
                    continue
                worse += 1
                print(test, f"\n{why}" if args.traceback else "", flush=True)
    for owner, failed in excepted.items():
        if failed:
            print(f"{owner}: {failed} are excepted, as it {EXCEPTIONS[owner][1]}")
        else:
            print(f"{owner} passes here: take it out of EXCEPTIONS")
    version = ".".join(map(str, sys.version_info[:3]))
    print(
        f"Python {version}: {total} pass on gmpd's loop, {worse} on the standard one only, "
        f"{sum(excepted.values())} excepted"
    )
    return 1 if worse or not total or not all(excepted.values()) else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        if sys.argv[3] == "gmpd":
            use_gmpd()
        run_module(sys.argv[2], sys.argv[4])
    else:
        sys.exit(main())
