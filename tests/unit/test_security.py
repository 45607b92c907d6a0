"""The table of threats is complete, and each of its tests exists."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]
ROW = re.compile(r"^\| S(\d+) \| .+? \| .+? \| (.+) \|$", re.MULTILINE)
TEST = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")
ROWS = {int(m[1]): m[2] for m in ROW.finditer((TOP / "gmpd/SECURITY.md").read_text())}


def test_every_threat_has_its_row() -> None:
    assert list(ROWS) == list(range(1, 23))


@pytest.mark.parametrize("number", ROWS)
def test_every_row_names_tests_that_exist(number: int) -> None:
    named = TEST.findall(ROWS[number])
    assert named
    assert len(named) == ROWS[number].count("`") // 2, "nothing but tests stands there"
    missing = [
        f"{file}::{test}"
        for file, test in named
        if not (TOP / file).is_file() or f"\ndef {test}(" not in (TOP / file).read_text()
    ]
    assert missing == []


def test_a_row_without_a_test_is_found_out() -> None:
    (found,) = ROW.findall("| S1 | a threat | a defence | none yet |")
    assert found == ("1", "none yet")
    assert not TEST.findall(found[1])


def test_lower_bounds_are_at_known_fixes() -> None:
    """Older ones have holes that are known: see the comments there."""
    project = tomllib.loads((TOP / "pyproject.toml").read_text())["project"]
    bounds = dict(need.split(">=") for need in project["dependencies"])
    least = {"msgpack": (1, 2, 4), "pyzmq": (26,), "msgspec": (0, 20)}
    for name, version in least.items():
        assert tuple(map(int, bounds[name].split("."))) >= version, name


def test_the_unit_drops_privileges() -> None:
    unit = (TOP / "config/systemd/gmpd.service").read_text()
    for line in (
        "NoNewPrivileges=yes", "ProtectSystem=strict", "PrivateTmp=yes", "CapabilityBoundingSet=",
        "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6", "RuntimeDirectoryMode=0700",
        "StateDirectoryMode=0700", "LimitNOFILE=65536", "User=gmpd", "UMask=0077",
    ):  # fmt: skip
        assert f"\n{line}\n" in unit
