"""Every command that a document tells an operator to type exists."""

from __future__ import annotations

import re
from pathlib import Path

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


def test_every_cited_command_exists() -> None:
    known = {name for commands in COMMANDS.values() for name in commands if _is_here(name)}
    for path in DOCUMENTS:
        assert set(CITED.findall(path.read_text())) <= known, path


def test_the_pattern_finds_commands() -> None:
    assert CITED.findall("`gmpd up -v` and\n$ gmpd down\n/opt/gmpd/bin/gmpd serve") == [
        "up", "down", "serve",
    ]  # fmt: skip
