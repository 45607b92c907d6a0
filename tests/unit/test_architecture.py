"""The map of the code is the code's: every module is on it, and everything on it exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]
MAP = (TOP / "gmpd/ARCHITECTURE.md").read_text()

#: A package whose face is only a docstring, or names taken from its modules, needs no line.
FACES = {"__init__.py"}


def test_the_map_names_exactly_the_modules_that_exist() -> None:
    code_map = MAP.partition("## Code map")[2].partition("## What must always")[0]
    named = set(re.findall(r"`([\w/]+\.py)`", code_map))
    there = {
        str(path.relative_to(TOP / "gmpd"))
        for path in (TOP / "gmpd").rglob("*.py")
        if path.name not in FACES
    }
    assert named - {"cli/__init__.py"} == there


def test_every_proof_exists() -> None:
    proofs = MAP.partition("## What must always")[2]
    tests = re.findall(r"`(tests/[\w/]+\.py)`", proofs)
    assert tests
    assert [name for name in tests if not (TOP / name).is_file()] == []
    contracts = set(
        re.findall(r'^id = "(\w+)"', (TOP / "pyproject.toml").read_text(), re.MULTILINE)
    )
    rows = [line for line in proofs.splitlines() if "| contract" in line]
    cited = {
        name for line in rows for name in re.findall(r"`(\w+)`", line.partition("contract")[2])
    }
    assert cited
    assert cited <= contracts


def anchor(heading: str) -> str:
    """How GitHub names a heading in a link."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize(
    "document", ["README.md", "gmpd/GUIDE.md", "gmpd/ARCHITECTURE.md", "gmpd/DECISIONS.md"]
)
def test_links_between_documents_lead_somewhere(document: str) -> None:
    path = TOP / document
    for file, part in re.findall(r"\]\(([^)#:]*)(?:#([\w-]+))?\)", path.read_text()):
        target = path.parent / file if file else path
        assert target.exists(), file
        if part:
            headings = re.findall(r"^#+ (.+)$", target.read_text(), re.MULTILINE)
            assert part in map(anchor, headings), f"{file}#{part}"
