"""Every command that a document tells an operator to type exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gmpd.cli.commands import COMMANDS, _is_here

ROOT = Path(__file__).parents[2]
#: Where commands are cited: in backquotes, after a prompt, in unit and compose files.
CITED = re.compile(r"(?:[`\"]|\$ |bin/|\[\"CMD\", \")gmpd\"?,?(?: --[a-z-]+ [A-Z]+)? \"?([a-z]+)\b")
DOCUMENTS = sorted(
    path
    for pattern in (
        "README.md", "docker-compose.yml", "Dockerfile", "config/**/*.md", "config/**/*.yml",
        "config/**/*.service", "loadtests/*.md", "gmpd/*.md", "gmpd/decisions/*.md",
        "gmpd/runtime/*.md",
    )
    for path in ROOT.glob(pattern)
)  # fmt: skip


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_cited_command_exists(path: Path) -> None:
    text = path.read_text().partition("## Not yet")[0]  # what the README says is missing
    known = {name for commands in COMMANDS.values() for name in commands if _is_here(name)}
    assert set(CITED.findall(text)) - known == set()


def test_the_pattern_finds_commands() -> None:
    assert CITED.findall("`gmpd up -v` and\n$ gmpd down\n/opt/gmpd/bin/gmpd serve") == [
        "up", "down", "serve",
    ]  # fmt: skip
