"""The README's examples run, as a reader would run them: from a file, on a private daemon."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]
README = (TOP / "README.md").read_text()
EXAMPLES = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)

#: Some line that an example prints, in their order.
PRINTED = [
    "2432902008176640000",
    "42",
    "division by zero",
    "[3, 2, 1]",
    "sum of roots: 661650",
    "[1, 2, 3]",
    "timeout",
    "45",
    "/",
    "[0, 1, 4, 9, 16]",
    "total: 30",
    "parts: [0, 1, 2, 3]",
    "6210999",
]


def test_each_example_has_its_expectation() -> None:
    assert len(EXAMPLES) == len(PRINTED)


@pytest.mark.parametrize(("code", "printed"), [*zip(EXAMPLES, PRINTED, strict=False)], ids=PRINTED)
def test_an_example_runs(code: str, printed: str, tmp_path: Path) -> None:
    path = tmp_path / "example.py"
    path.write_text(code)
    surroundings = {name: text for name, text in os.environ.items() if not name.startswith("GMPD_")}
    done = subprocess.run(
        [sys.executable, str(path)],
        cwd=tmp_path, capture_output=True, text=True, timeout=40, check=False,
        env={**surroundings, "PYTHONPATH": str(TOP), "GMPD_RUNTIME_DIR": str(tmp_path / "none")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert printed in done.stdout, done.stderr


def test_the_command_line_in_it_exists() -> None:
    from gmpd.cli import COMMANDS, _is_here

    known = {name for commands in COMMANDS.values() for name in commands if _is_here(name)}
    used = set(re.findall(r"^\$ (?:.*[|&] )?gmpd (\w+)", README, re.MULTILINE))
    assert used
    assert used <= known
