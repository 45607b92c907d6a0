"""The states of a job in the coordinator: one table, one door (gmpd.sched.states)."""

from __future__ import annotations

import pytest

from gmpd.errors import InvariantError
from gmpd.sched.states import JobState, transition

D, Q, L, S, F, O, W, H = JobState  # noqa: E741

ALLOWED = {
    (D, Q), (D, F), (Q, L), (Q, F), (L, S), (L, Q), (L, D), (L, F), (S, Q), (S, D), (S, O), (S, F),
    (O, Q), (O, D), (O, F), (D, W), (Q, W), (L, W), (S, W), (O, W), (W, Q), (W, F),
    (H, D), (H, W), (H, Q), (H, F),
}  # fmt: skip


class Thing:
    def __init__(self, state: JobState) -> None:
        self.state = state

    def story(self) -> str:
        return "job c/7 m:f"


@pytest.mark.parametrize("start", JobState, ids=lambda s: s.name)
def test_each_move_is_allowed_or_forbidden_with_the_story(start: JobState) -> None:
    for to in JobState:
        thing = Thing(start)
        if (start, to) in ALLOWED:
            transition(thing, to)
            assert thing.state is to
            continue
        with pytest.raises(
            InvariantError, match=f"{start.name} -> {to.name} is forbidden: job c/7"
        ):
            transition(thing, to)
        assert thing.state is start


def test_every_state_is_left_for_the_end_which_nothing_leaves() -> None:
    assert {start for start, to in ALLOWED if to is F} == {D, Q, L, S, O, W, H}
    assert not [to for start, to in ALLOWED if start is F]
