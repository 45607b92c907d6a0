"""The command that runs the whole product takes no part for another one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from loadtests import product

#: As ``.ci/tests``: a report with one test that has passed, and this status.
TESTS = """#!/bin/sh
for word; do case $word in --junitxml=*) report=${word#--junitxml=} ;; esac; done
echo '<testsuite><testcase classname="a" name="b"/></testsuite>' >"$report"
exit STATUS
"""


def _tree(place: Path, status: int) -> Path:
    command = place / ".ci" / "tests"
    command.parent.mkdir()
    command.write_text(TESTS.replace("STATUS", str(status)))
    command.chmod(0o755)
    return place


def test_a_part_that_ended_is_counted(tmp_path: Path) -> None:
    found = product.of_pytest(_tree(tmp_path, 0), dict(os.environ), [])
    assert found == {"passed": 1, "failed": [], "skipped": 0, "second_try": []}


@pytest.mark.parametrize("status", [2, 3, 137])
def test_a_part_that_was_interrupted_is_no_result(tmp_path: Path, status: int) -> None:
    with pytest.raises(SystemExit, match="did not end"):
        product.of_pytest(_tree(tmp_path, status), dict(os.environ), [])
