"""Fixtures of the conformance tests."""

from __future__ import annotations

import asyncio

import pytest

from gmpd.runtime.loop import Loop
from tests.leaks import nothing_left
from tests.on_loops import Run, runner_of

__all__ = ["nothing_left"]


@pytest.fixture(params=[asyncio.new_event_loop, Loop], ids=["asyncio", "gmpd"])
def run(request: pytest.FixtureRequest) -> Run:
    """asyncio.run on each kind of loop, with a deadline."""
    return runner_of(request.param)
