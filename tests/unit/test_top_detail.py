"""The details of `gmpd top`, of recorded looks and of rows that are gone."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from gmpd.cli.top_detail import detail
from gmpd.cli.top_look import Source
from gmpd.cli.top_view import COLUMNS, Facts, Found, Pane, View, keyed_rows
from gmpd.findings import Code, problems
from gmpd.status import Cluster, FunctionTotals, Hist, HostStatus, PStatus, Status
from tests.recorded_looks import KEYS, facts


def text_of(found: Found) -> str:
    told = detail(found, facts(found.pane, found))
    return "\n".join([told.title, *(line for line, _ in told.lines())])


def test_a_p_shows_its_worker_ms_queue_handoffs_and_steals() -> None:
    text = text_of(Found(Pane.PS, "P0"))
    for part in (
        "P0: running\n", "pid 6664, epoch 1", "Ms: 4, of them 4 idle", "Begun jobs, the oldest",
        "shop.work:wait_for_it", "Queue: 0 leased, 0 ready to run", "Hand-offs to another M",
        "6  hog", "5  learned", "Steals", "tried 1, with success 1", "60  local", "6  waiting",
    ):  # fmt: skip
        assert part in text, part
    assert "goroutine" not in text
    assert "goroutine 24 [IO wait, 1 seconds]:" in text_of(Found(Pane.PS, "P0", stacks=True))


def test_the_queue_of_a_p_is_counted_by_function() -> None:
    seen = facts(Pane.PS, found := Found(Pane.PS, "P0"))
    assert seen.picture is not None
    seen.picture["names"] = ["m:a", "m:b"]
    seen.picture["ps"] = [{"p": 0, "fresh": [1, 0, 1], "begun": [(0, "ab01", 1.5)]}]
    lines = [line.split() for line, _ in detail(found, seen).lines()]
    assert ["2", "m:b"] in lines
    assert ["1", "m:a"] in lines
    assert ["1.5", "s", "ab01", "m:a"] in lines


def test_a_host_shows_its_jobs_batches_and_last_loss() -> None:
    seen = facts(Pane.PS, found := Found(Pane.PS, "host b:1"))
    host = HostStatus(
        "b:1", 8, "running", "", 32768, 4711, 2.5, fresh=1, started=2, waiting=1, batches=70,
        batches_away=2, losses=1, lost_at=seen.now.started_at, loss="no way", lost_jobs=3,
    )  # fmt: skip
    seen.now.cluster = Cluster("dask", "a:1", "", [host])
    seen.picture = {
        "names": ["m:a", "m:b"], "ps": [{"p": 32768, "fresh": [1], "begun": [(0, "ab01", 1.5)]}]
    }  # fmt: skip
    told = detail(found, seen)
    text = "\n".join([told.title, *(line for line, _ in told.lines())])
    for part in (
        "host b:1: running\n", "work for 2 of 8 cores", "bridge pid 4711, 2.5 s CPU, P32768",
        "2 sent, 1 of them not begun", "batches: 2 on the way, 70 came back",
        "with 3 begun jobs: no way", "1.5 s  ab01  m:a", "To send: 1", "1  m:b",
    ):  # fmt: skip
        assert part in text, part
    seen.now.cluster.hosts = []
    assert "no such host" in next(detail(found, seen).lines())[0]


def test_a_function_shows_its_totals_its_waits_and_its_jobs() -> None:
    text = text_of(Found(Pane.FUNCTIONS, KEYS[Pane.FUNCTIONS]))
    for part in ("Since the daemon began", "run:  p50", "scheduling wait", "blocked: IO wait"):
        assert part in text, part
    assert max(map(len, text.splitlines())) <= 78


def test_a_g_shows_why_it_waits_its_events_and_its_stack() -> None:
    text = text_of(Found(Pane.GS, KEYS[Pane.GS]))
    for part in (
        "G24 on P0: waiting", "shop.work:wait_for_it", "a job's own G, of job ",
        "Why it is where it is", "asyncio",
        "step", "goroutine 24 [IO wait", "/srv/shop/work.py:7",
    ):  # fmt: skip
        assert part in text, part


def test_a_job_and_a_failure_are_told_as_by_their_commands() -> None:
    job = text_of(Found(Pane.JOBS, KEYS[Pane.JOBS]))
    assert "attempt 1: running" in job
    assert "nightly" in job
    failure = text_of(Found(Pane.FAILURES, KEYS[Pane.FAILURES]))
    assert "ValueError: no 3" in failure
    assert "Traceback (most recent call last)" in failure


def test_a_warning_shows_its_remedy_and_facts() -> None:
    seen = facts(Pane.WARNINGS)
    small = Hist([0] * 13 + [20_000], 0, 20_000)
    seen.now.functions = [FunctionTotals("m:tiny", {"ok": 20_000}, Hist(), small)]
    assert [each.code for each in problems(seen.now)] == [Code.SMALL_JOBS]
    ((key, row),) = keyed_rows(View(), seen, Pane.WARNINGS)
    assert row[1][1] == "functions"
    lines = [line for line, _ in detail(Found(Pane.WARNINGS, key), seen).lines()]
    assert "  function: m:tiny" in lines
    assert any("map(fn, items)" in line for line in lines)
    assert [*detail(Found(Pane.WARNINGS, "7"), seen).lines()] == [("it is over", False)]


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (Found(Pane.PS, "P9"), "no such P any more"),
        (Found(Pane.FUNCTIONS, "m:none"), "none of its jobs ran in this time"),
        (Found(Pane.FAILURES, "999"), "keeps it no more"),
    ],
)
def test_a_row_that_is_gone_is_said_to_be(found: Found, said: str) -> None:
    assert said in text_of(found)


def test_a_g_that_has_ended_and_one_of_a_deaf_p() -> None:
    found = Found(Pane.GS, "P0 G24")
    seen = facts(Pane.GS, found)
    seen.told[0]["rows"] = []
    assert "it has ended" in [line for line, _ in detail(found, seen).lines()]
    seen.told[0] |= {"answered": False}
    seen.told[0]["status"]["state"] = "deaf"
    assert "P0 does not answer: it is deaf" in [line for line, _ in detail(found, seen).lines()]


def test_before_the_answer_comes_it_says_that_it_asks() -> None:
    told = detail(Found(Pane.GS, "P0 G24"), facts(Pane.GS))
    assert [line for line, _ in told.lines()] == ["the daemon is asked"]


@pytest.mark.parametrize("pane", Pane)
def test_each_table_has_a_cell_for_each_column_and_keys_of_its_own(pane: Pane) -> None:
    seen = facts(pane)
    if pane is Pane.WARNINGS:
        seen.now.ps = [PStatus(0, 1, "deaf", running="m:hog", running_s=3)]
    found = keyed_rows(View(), seen, pane)
    assert found
    assert {len(row) for _, row in found} == {len(COLUMNS[pane])}
    assert len({key for key, _ in found}) == len(found)


def test_the_cursor_stays_with_its_row_when_others_move() -> None:
    view = View(shown=["a", "b", "c"])
    for key in ("down", "j"):
        view.press(key)
    assert view.at() == 2
    view.shown = ["c", "a", "b"]
    assert view.at() == 0
    view.shown = ["x", "y"]  # it is gone: its place stays
    assert view.at() == 1
    view.press("enter")
    assert view.detail == Found(Pane.PS, "y")
    view.press("s")
    assert view.detail == Found(Pane.PS, "y", stacks=True)
    view.press("escape")
    assert view.detail is None


def test_a_look_for_a_key_goes_back_as_far_as_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the moment since the last one nothing has happened."""
    source = Source(pytest.fail)
    monkeypatch.setattr(source, "_client", object())
    monkeypatch.setattr(source, "_look", lambda _client, _pane, s, _found: Facts(Status(), [], s))
    went_back = []
    for at in (100.0, 101.0, 102.0, 102.1, 103.0):
        monkeypatch.setattr("gmpd.cli.top_look.time", SimpleNamespace(monotonic=lambda: at))  # noqa: B023
        went_back.append(source.look(Pane.PS, 1.0).seconds)
    assert went_back == pytest.approx([1.0, 1.0, 1.0, 1.1, 1.0])
