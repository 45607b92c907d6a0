"""A short round of ``loadtests/chaos.py``: real processes, killed at random; nothing is found."""

from __future__ import annotations

from loadtests.chaos import one_round


def test_acknowledged_jobs_end_once_while_everything_is_killed() -> None:
    told = one_round(seed=11, seconds=5, keep=None)
    assert not any(told["found"].values()), told
    assert told["jobs"]["acknowledged"] > 0
    assert min(told["killed"][who] for who in ("worker", "coordinator", "client")) > 0
