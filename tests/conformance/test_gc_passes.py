"""The collector of a process whose passes gmpd bounds: each program of ``gc_passes.py`` as one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conformance import gc_passes


@pytest.mark.parametrize("name", [program.__name__ for program in gc_passes.PROGRAMS])
def test_in_a_process_of_its_own(name: str) -> None:
    done = subprocess.run(
        [sys.executable, str(Path(gc_passes.__file__)), name],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
