"""loadtests/README.md names every script, and its tables are what was recorded."""

from __future__ import annotations

import re
from pathlib import Path

from loadtests.readme import BRIEF, HERE, filled

TEXT = (HERE / "README.md").read_text()


def test_every_script_is_named_and_exists() -> None:
    named = {name for name in re.findall(r"\]\(([\w./]+)\)", TEXT) if "." in name}
    named = {name for name in named if not name.endswith(".svg")}
    there = {path.name for path in HERE.iterdir() if path.suffix in (".py", ".go")}
    there |= {f"peers/{path.name}" for path in Path(HERE, "peers").glob("*.py")}
    assert named == there, "tell in loadtests/README.md what each script shows, and its command"


def test_the_tables_are_the_recorded_results() -> None:
    assert filled(TEXT) == TEXT, "run: python loadtests/readme.py"
    front = (HERE.parent / "README.md").read_text()
    assert filled(front, BRIEF) == front, "run: python loadtests/readme.py"


def test_no_result_names_a_path() -> None:
    for path in Path(HERE, "results").glob("*.json"):
        assert not re.search(r'"/\w', path.read_text()), path.name
