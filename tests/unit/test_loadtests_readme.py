"""loadtests/README.md names every script, and its tables are what was recorded."""

from __future__ import annotations

import re
from pathlib import Path

from loadtests.readme import HERE, filled

TEXT = (HERE / "README.md").read_text()


def test_every_script_is_named_and_exists() -> None:
    named = {name for name in re.findall(r"\]\(([\w./]+)\)", TEXT) if "." in name}
    there = {path.name for path in HERE.iterdir() if path.suffix in (".py", ".go")}
    assert named == there, "tell in loadtests/README.md what each script shows, and its command"


def test_the_tables_are_the_recorded_results() -> None:
    assert filled(TEXT) == TEXT, "run: python loadtests/readme.py"


def test_no_result_names_a_path() -> None:
    for path in Path(HERE, "results").glob("*.json"):
        assert not re.search(r'"/\w', path.read_text()), path.name
