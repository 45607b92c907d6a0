"""The report of `loadtests/against.py` about the boots that it has measured."""

from __future__ import annotations

from loadtests.against import PARTS, compared


def test_a_ratio_is_that_of_boots_that_follow_each_other() -> None:
    """The machine is busy during half of the run, and more of the new version's boots meet it."""
    before = [{"map": [us] * len(PARTS)} for us in (10.0, 10.0, 10.0, 40.0, 40.0)]
    after = [{"map": [us] * len(PARTS)} for us in (11.0, 11.0, 44.0, 44.0, 44.0)]
    rows = compared(before, after)
    assert list(rows) == ["map"]
    for part in PARTS:  # by the medians it would be 4.4
        assert rows["map"][part] == {"before": 10.0, "after": 44.0, "ratio": 1.1}
