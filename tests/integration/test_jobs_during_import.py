"""Jobs that come while their module is imported run when all of it is there, and take no threads
before.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.durable_daemon import Daemon

#: A worker gives P to another M meanwhile, and the next job begins.
PAUSE = "import os, time\nif 'SLOWLY' in os.environ:\n    time.sleep(1)\n"
JOBS = 300
#: More than a worker has that runs plain jobs one after the other, on a busy machine.
THREADS = 50


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory to import from; what is imported from there is forgotten."""
    with tempfile.TemporaryDirectory(prefix="gmpd-", dir="/tmp") as name:
        monkeypatch.syspath_prepend(name)
        before = set(sys.modules)
        yield Path(name)
        for module in sys.modules.keys() - before:
            del sys.modules[module]


def answers(place: Path, fn: Any) -> set[Any]:
    with Daemon(place, SLOWLY="1") as daemon:
        client = daemon.client()
        futures = [client.submit(fn) for _ in range(JOBS)]
        return {future.exception(60) or future.result() for future in futures}


def test_a_function_sees_the_names_below_it(place: Path) -> None:
    text = f"def answer():\n    return ANSWER\n{PAUSE}ANSWER = 7\n"
    (place / "half_there.py").write_text(text)
    module: Any = importlib.import_module("half_there")
    assert answers(place, module.answer) == {7}


def test_a_package_and_its_modules_import_one_another(place: Path) -> None:
    """As those of gevent do. The job would import the third module, which waits for the package,
    beside the thread that imports the package, which waits for the third module."""
    package = place / "entangled"
    package.mkdir()
    text = f"from entangled.first import answer\n{PAUSE}from entangled.third import ANSWER\n"
    (package / "__init__.py").write_text(text)
    text = "def answer():\n    import entangled.third\n    return entangled.third.ANSWER\n"
    (package / "first.py").write_text(text)
    (package / "third.py").write_text("from entangled import answer\nANSWER = 7\n")
    module: Any = importlib.import_module("entangled.first")
    assert answers(place, module.answer) == {7}


def test_jobs_that_wait_for_an_import_take_no_threads(place: Path) -> None:
    text = f"def answer():\n    return len(os.listdir('/proc/self/task'))\n{PAUSE}"
    (place / "counts.py").write_text(text)
    module: Any = importlib.import_module("counts")
    assert max(answers(place, module.answer)) < THREADS


def test_jobs_that_wait_for_their_programs_values_take_no_threads(place: Path) -> None:
    text = f"""
import os
import sys
import time
import gmpd

class Slow:
    def __setstate__(self, state):
        time.sleep(1)

slow = Slow()
slow.state = 1

def answer():
    return slow is None or len(os.listdir("/proc/self/task"))

if __name__ == "__main__":
    with gmpd.Client() as client:
        futures = [client.submit(answer) for _ in range({JOBS})]
        print(max(future.result(60) for future in futures))
"""
    (place / "script.py").write_text(text)
    ran = subprocess.run(
        [sys.executable, "script.py"],
        env={**os.environ, "GMPD_RUNTIME_DIR": str(place / "none"), "GMPD_DAEMON__PROCS": "1"},
        cwd=place, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert int(ran.stdout) < THREADS


def test_an_import_may_wait_for_a_job_of_its_package(place: Path) -> None:
    package = place / "asking"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "inner.py").write_text("def answer():\n    return 7\n")
    text = f"""
import os
import gmpd
from asking.inner import answer as inner
{PAUSE}    with gmpd.Client() as client:
        FOUND = client.submit(inner).result(30)

def answer():
    return FOUND
"""
    (package / "outer.py").write_text(text)
    module: Any = importlib.import_module("asking.outer")
    assert answers(place, module.answer) == {7}
