"""The index of decisions says what their files say, and superseded ones name their successors."""

from __future__ import annotations

import re
from pathlib import Path

HOUSE = Path(__file__).parents[2] / "gmpd"
FILES = sorted((HOUSE / "decisions").glob("*.md"))
LINE = re.compile(
    r"^- \[(.+)\]\(decisions/([\w-]+)\.md\)(?: \((superseded(?: in part)?)\))?$", re.MULTILINE
)
HEAD = re.compile(
    r"# (.+)\n\n\d{4}-\d\d-\d\d · (in force|superseded(?: in part)?)(?: by (.+))?\n\n"
)


def of_file(path: Path) -> tuple[str, str, str | None]:
    """Title, file and mark: what a line of the index says."""
    head = HEAD.match(path.read_text())
    assert head, f"{path.name} begins with '# title', then 'date · in force' or '… superseded by'"
    return head[1], path.stem, None if head[2] == "in force" else head[2]


def test_the_index_has_one_line_for_each_decision() -> None:
    index = (HOUSE / "DECISIONS.md").read_text()
    lines = [(m[1], m[2], m[3]) for m in LINE.finditer(index)]
    assert sorted(lines) == sorted(of_file(path) for path in FILES)
    assert "**Decided.**" not in index, "a decision is a file in gmpd/decisions/, and a line here"


def test_each_section_of_the_index_is_in_order_of_titles() -> None:
    """Then two branches that add a decision each seldom touch the same place."""
    for section in (HOUSE / "DECISIONS.md").read_text().split("\n## ")[1:]:
        titles = [m[1] for m in LINE.finditer(section)]
        assert titles == sorted(titles)


def test_a_decision_has_its_parts_and_its_links_lead_somewhere() -> None:
    for path in FILES:
        text = path.read_text()
        assert "\n## Decision\n" in text, path
        head = HEAD.match(text)
        assert head is not None, path
        assert (head[2] == "in force") == (head[3] is None), path
        links = re.findall(r"\]\(([^)#:]+)\)", text)
        assert [link for link in links if not (path.parent / link).exists()] == [], path
