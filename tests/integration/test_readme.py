"""The examples of README and GUIDE run as a reader would run them: a file, a private daemon."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import surroundings

TOP = Path(__file__).parents[2]

#: Some line that each example prints, in the order of the document.
PRINTED = {
    "README.md": [
        "2432902008176640000",
        "42",
        "[1, 2, 3]",
        "45",
        "[3, 2, 1]",
        "timeout",
        "[0, 1, 4, 9, 16]",
    ],
    "gmpd/GUIDE.md": [
        "G1 main: opens",
        "(3, 1)",
        "division by zero",
        "the report of 2026-11-30T06:30:00+01:00",
        "/",
        "total: 30",
        "parts: [0, 1, 2, 3]",
        "6210999",
    ],
}
DOCUMENTS = {name: (TOP / name).read_text() for name in PRINTED}


def examples(name: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", DOCUMENTS[name], re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("name", PRINTED)
def test_each_example_has_its_expectation(name: str) -> None:
    assert len(examples(name)) == len(PRINTED[name])


@pytest.mark.parametrize(
    ("code", "printed"),
    [
        pytest.param(code, printed, id=printed)
        for name, lines in PRINTED.items()
        for code, printed in zip(examples(name), lines, strict=False)
    ],
)
def test_an_example_runs(code: str, printed: str, tmp_path: Path) -> None:
    path = tmp_path / "example.py"
    path.write_text(code)
    done = subprocess.run(
        [sys.executable, str(path)],
        cwd=tmp_path, capture_output=True, text=True, timeout=40, check=False,
        env={**surroundings(), "PYTHONPATH": str(TOP), "GMPD_RUNTIME_DIR": str(tmp_path / "none")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert printed in done.stdout, done.stderr


def test_the_command_line_in_it_exists() -> None:
    from gmpd.cli.commands import COMMANDS, _is_here

    known = {name for commands in COMMANDS.values() for name in commands if _is_here(name)}
    used = set(re.findall(r"^\$ (?:.*[|&] )?gmpd (\w+)", DOCUMENTS["README.md"], re.MULTILINE))
    assert used
    assert used <= known
