"""The tables of `gmpd top`, and its keys."""

from __future__ import annotations

import os

import pytest
from rich.console import Console

from gmpd.cli.top import read_key
from gmpd.cli.top_picture import screen
from gmpd.cli.top_view import (
    FUNCTION_COLUMNS,
    PS_COLUMNS,
    Action,
    Facts,
    Pane,
    View,
    as_json,
    busy_share,
    rows,
)
from gmpd.daemon.trace_summary import EXECUTION, SCHEDULING, FunctionSummary, stat
from gmpd.status import Cluster, HostStatus, PStatus, Status

MS = 1_000_000


def function(name: str, jobs: int, each_ns: int) -> FunctionSummary:
    ways = {EXECUTION: stat([each_ns] * jobs), SCHEDULING: stat([3 * MS] * jobs)}
    return FunctionSummary(name, jobs, failed=1, running=0, ways=ways)


def a_p(n: int, *, finished: int = 0, running: float = 0.0, idle: float = 0.0) -> PStatus:
    spent = {"running": running, "idle": idle, "blocked": 0.0}
    return PStatus(
        p=n, state="idle" if n else "running", epoch=1, jobs_finished=finished, state_s=spent,
        running="app:slow" if not n else None, running_s=1.5,
    )  # fmt: skip


def facts(ps: int = 2) -> Facts:
    before = Status(procs=ps, ps=[a_p(n, finished=10, running=1, idle=1) for n in range(ps)])
    now = Status(
        version="1", procs=ps, uptime_s=9.0, sessions=3,
        ps=[a_p(n, finished=10 + 40 * n, running=1 + n, idle=2) for n in range(ps)],
    )  # fmt: skip
    functions = [function("app:fast", 100, MS), function("app:slow", 2, 200 * MS)]
    return Facts(now, functions, 2.0, before)


def texts(view: View, pane: Pane) -> list[list[str]]:
    return [[text for _, text in row] for row in rows(view, facts(), pane)]


def test_ps_show_what_happened_since_the_look_before() -> None:
    first, second = texts(View(), Pane.PS)
    assert dict(zip(PS_COLUMNS, first, strict=True)) | {} == {
        "P": "P0", "STATE": "running", "BUSY": "0%", "RUNQ": "0", "STARTED": "0", "MS": "0",
        "IDLE": "0", "JOBS/S": "0", "STOLEN": "0", "RUNS": "app:slow (1.5 s)",
    }  # fmt: skip
    assert (second[0], second[2], second[7]) == ("P1", "50%", "20")


def test_a_new_worker_is_busy_by_its_own_time() -> None:
    before, after = a_p(0, running=50, idle=50), a_p(0, running=3, idle=1)
    after.epoch = 2
    assert busy_share(after, before) == pytest.approx(0.75)
    assert busy_share(PStatus(), None) == 0


def test_functions_are_shown_by_their_share_of_p() -> None:
    slow, fast = texts(View(), Pane.FUNCTIONS)
    assert dict(zip(FUNCTION_COLUMNS, fast, strict=True)) == {
        "FUNCTION": "app:fast", "JOBS/S": "50", "FAILED": "1", "NOW": "0", "OF P": "2.5%",
        "MEAN": "1 ms", "P99": "1 ms", "WAIT": "3 ms",
    }  # fmt: skip
    assert slow[:2] == ["app:slow", "1.0"]


def test_keys_sort_invert_and_change_the_table() -> None:
    view = View()
    assert [view.press(key) for key in ("t", "left", "i", "l", "l", "h")] == [Action.SHOW] * 6
    assert (view.pane, view.sort[Pane.FUNCTIONS]) == (Pane.FUNCTIONS, 4)
    assert [row[0] for row in texts(view, Pane.FUNCTIONS)] == ["app:fast", "app:slow"]
    assert view.press("tab") is Action.SHOW
    assert view.press("i") is Action.SHOW
    assert [row[0] for row in texts(view, Pane.PS)] == ["P1", "P0"]
    assert view.press("x") is Action.NOTHING
    assert view.press("q") is Action.QUIT


def test_space_pauses_and_continues() -> None:
    view = View()
    view.press(" ")
    assert view.paused
    view.press(" ")
    assert not view.paused


def test_a_filter_is_typed() -> None:
    view = View()
    for key in ("/", "s", "q", "backspace", "l", "left", "enter"):
        assert view.press(key) is not Action.QUIT
    assert [row[0] for row in texts(view, Pane.FUNCTIONS)] == ["app:slow"]
    assert len(texts(view, Pane.PS)) == 2
    view.press("escape")
    assert len(texts(view, Pane.FUNCTIONS)) == 2
    view.press("/")
    view.press("z")
    assert not texts(view, Pane.FUNCTIONS)
    view.press("escape")
    assert (view.typing, view.words) == (False, "")


@pytest.mark.parametrize("size", [(80, 24), (40, 10), (200, 60)])
@pytest.mark.parametrize("keys", ["", "?", " ", "/x"])
@pytest.mark.parametrize("ps", [1, 2, 64])
def test_the_screen_has_no_more_lines_than_the_terminal(
    size: tuple[int, int], keys: str, ps: int
) -> None:
    width, height = size
    console = Console(width=width, height=height, force_terminal=True)
    view = View()
    for key in keys:
        view.press(key)
    lines = console.render_lines(screen(view, facts(ps), console), pad=False)
    assert len(lines) <= height
    shown = "".join(segment.text for line in lines for segment in line)
    assert "gmpd 1" in shown
    assert ("paused" in shown) is view.paused


def with_hosts() -> Facts:
    seen = facts()
    assert seen.before is not None
    seen.before.cluster = Cluster(
        "dask", "a", "", [HostStatus("b:1", 8, p=32768, jobs_finished=10)]
    )
    seen.now.cluster = Cluster("dask", "a", "", [
        HostStatus("b:1", 8, "running", p=32768, fresh=4, started=6, jobs_finished=50, stolen=3),
        HostStatus("c:1", 1, "lost", "no way", losses=1, lost_at=5.0, loss="no way"),
    ])  # fmt: skip
    return seen


def test_hosts_are_rows_below_the_ps() -> None:
    view, seen = View(), with_hosts()
    found = rows(view, seen, Pane.PS)
    assert [row[0][1] for row in found] == ["P0", "P1", "host", "host"]
    assert dict(zip(PS_COLUMNS, (text for _, text in found[2]), strict=True)) == {
        "P": "host", "STATE": "running", "BUSY": "75%", "RUNQ": "4", "STARTED": "6", "MS": "-",
        "IDLE": "-", "JOBS/S": "20", "STOLEN": "3", "RUNS": "b:1: 8 cores",
    }  # fmt: skip
    assert found[3][9][1] == "c:1: 1 core, no way"
    for column in range(len(PS_COLUMNS)):
        view.sort_by(column)
        assert len(rows(view, seen, Pane.PS)) == 4


def test_the_detail_of_a_host_is_opened_and_has_no_stacks() -> None:
    view, seen = View(), with_hosts()
    console = Console(width=80, height=24, force_terminal=True)
    screen(view, seen, console)
    for _ in range(3):
        view.press("j")
    assert view.press("enter") is Action.LOOK
    assert view.detail is not None
    assert view.detail.host == "c:1"
    assert view.press("s") is Action.NOTHING
    lines = console.render_lines(screen(view, seen, console), pad=False)
    shown = "".join(segment.text for line in lines for segment in line)
    assert "host c:1: lost" in shown
    assert "no way" in shown


def test_programs_get_hosts_apart_from_ps() -> None:
    told = as_json(View(), with_hosts())
    assert [each["p"] for each in told["ps"]] == [0, 1]
    assert told["hosts"][0] == {
        "host": "b:1", "state": "running", "problem": "", "cores": 8, "busy": 6, "runq": 4,
        "started": 6, "jobs_per_s": 20, "stolen": 3, "losses": 0,
    }  # fmt: skip
    assert as_json(View(), facts())["hosts"] == []


def test_programs_get_numbers() -> None:
    told = as_json(View(), facts())
    assert told["ps"][1]["jobs_per_s"] == 20
    assert told["functions"][0] == {
        "function": "app:slow", "jobs_per_s": 1, "failed": 1, "now": 0, "of_p": 0.1,
        "mean": 0.2, "p99": 0.2, "wait": 0.003,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("sent", "key"),
    [(b"q", "q"), (b"\x1b[C", "right"), (b"\x1bOD", "left"), (b"\x1b", "escape"),
     (b"\x1b[5", "unknown"), (b"\r", "enter"), (b"\x7f", "backspace"), (b"", "")],
)  # fmt: skip
def test_keys_are_read_from_a_terminal(sent: bytes, key: str) -> None:
    reader, writer = os.pipe()
    os.write(writer, sent)
    if not sent:
        os.close(writer)
    try:
        assert read_key(reader) == key
    finally:
        os.close(reader)
        if sent:
            os.close(writer)
