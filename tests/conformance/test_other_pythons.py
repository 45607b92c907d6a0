"""Programs and daemons on a Python that is too new, lacks a private name, or has no GIL."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

FUTURE = (
    "import asyncio, collections, sys\n"
    "V = collections.namedtuple('V', 'major minor micro releaselevel serial')\n"
    "sys.version_info = V(3, 99, 1, 'final', 0)\n"
)


def test_a_daemon_does_not_start_without_the_gil(short_tmp: Path) -> None:
    script = (
        "import sys; sys._is_gil_enabled = lambda: False\n"
        "from gmpd.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", script, "serve", "--runtime-dir", str(short_tmp / "run")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 78
    assert done.stderr.startswith("error: gmpd needs the GIL"), done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_program_on_a_newer_python_reads_it_on_stderr_and_runs() -> None:
    script = (
        FUTURE + "import gmpd\nasync def main(): print('ran')\ngmpd.run(main()); gmpd.run(main())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout == "ran\nran\n", done.stderr
    assert done.stderr.count("Python 3.99.1 is newer than 3.15") == 1


def test_a_program_on_such_a_python_ends_with_one_sentence() -> None:
    script = (
        "import asyncio, gmpd\n"
        "del asyncio._set_running_loop\n"
        "async def main(): pass\n"
        "gmpd.run(main())\n"
    )
    command = [sys.executable, "-W", "ignore", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("gmpd.errors.UnsupportedPython: Python "), (
        done.stderr
    )
    assert "has no asyncio._set_running_loop" in done.stderr
