"""The report of `loadtests/bench.py --against` about the rounds that it has measured."""

from __future__ import annotations

from loadtests.against import Boot, compared, slower


def boot(*us: float) -> Boot:
    """Rounds of one row."""
    return {"map": [{"wall": 2 * each, "workers": each, "cpu": each} for each in us]}


def test_a_ratio_is_that_of_rounds_that_follow_each_other() -> None:
    """The machine is busy during half of the run, and more of the new version's rounds meet it."""
    pairs = [
        (boot(10.0, 10.0, 10.0), boot(11.0, 11.0, 44.0)),
        (boot(40.0, 40.0), boot(44.0, 44.0)),
    ]
    rows = compared(pairs)
    assert list(rows) == ["map"]
    seen = rows["map"]["cpu"]  # by the medians it would be 4.4
    assert (seen["before"], seen["after"], round(seen["ratio"], 3)) == (10.0, 44.0, 1.1)
    assert round(seen["best"], 3) == 1.1


def test_a_row_fails_beyond_the_margin_and_says_by_how_much() -> None:
    rows = compared([(boot(10.0, 10.0), boot(12.0, 12.0))] * 4)
    found = slower(rows, 0.1)
    assert [text.partition(" takes")[0] for text in found] == ["map: workers", "map: cpu"]
    assert "x1.200 of before (10 to 12 us" in found[0]
    assert "allowed is x1.10" in found[0]
    assert not slower(rows, 0.25)


def test_wall_time_may_rise_by_more() -> None:
    slow = boot(10.0, 10.0)
    for each in slow["map"]:
        each["wall"] = 27.0
    assert len(slower(compared([(boot(10.0, 10.0), slow)] * 4), 0.1)) == 1
    assert not slower(compared([(boot(10.0, 10.0), slow)] * 4), 0.12)


def test_one_busy_boot_in_four_is_no_loss() -> None:
    pairs = [(boot(10.0), boot(10.0)), (boot(10.0), boot(9.9))]
    pairs += [(boot(10.0), boot(15.0)), (boot(10.0), boot(30.0))]
    assert not slower(compared(pairs), 0.1)


def test_a_small_part_of_a_row_is_shown_only() -> None:
    before, after = boot(10.0), boot(10.0)
    before["map"][0]["coordinator"], after["map"][0]["coordinator"] = 0.1, 0.9
    rows = compared([(before, after)] * 4)
    assert rows["map"]["coordinator"]["ratio"] == 9
    assert not slower(rows, 0.1)
