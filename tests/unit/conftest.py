"""Fixtures of the tests of the policy."""

from __future__ import annotations

import pytest

from gmpd.sched.records import PRecord
from tests.desk import Desk


@pytest.fixture
def desk() -> Desk:
    """The policy with its own defaults; a test file with others has its own."""
    return Desk()


@pytest.fixture
def p(desk: Desk) -> PRecord:
    """P0, ready for jobs."""
    return desk.ready(0)
