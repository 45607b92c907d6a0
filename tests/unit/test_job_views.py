"""Jobs as users see them: volatile ones by their ids, in pages; and all of them as lines."""

from __future__ import annotations

from itertools import chain
from typing import Any

import pytest

from gmpd import protocol
from gmpd.cli import job_tables
from gmpd.client.stored import Attempt, readable
from gmpd.daemon import job_views
from gmpd.daemon.job_views import JobViews, id_of, with_stored
from gmpd.errors import ConfigError
from gmpd.protocol import Progress
from gmpd.sched import events
from gmpd.sched.records import Job, Session
from tests.desk import Desk


def client(desk: Desk, key: str = "ab" * 12, *, owner: str = "", first: int = 1) -> Session:
    sid = desk.sched.next_sid
    desk.tell(events.SessionOpened(sid, key, "name", False, key, owner))
    desk.next_seq[sid] = first
    return desk.sched.sessions[sid]


def views(desk: Desk) -> JobViews:
    return JobViews(desk.sched, lambda p: 1000 + p)


def asked(what: Any, *jobs: Job) -> protocol.AskJobs:
    return protocol.AskJobs(1, what, [id_of(job) for job in jobs])


def all_of(session: Session) -> list[Job]:
    return list(session.jobs.values())


@pytest.mark.parametrize("first", [1, (1 << 32) - 2, (5 << 32) - 2, (1 << 32) + 7])
def test_a_volatile_job_is_found_by_the_id_of_its_future(first: int) -> None:
    desk = Desk()
    one, other = client(desk, first=first), client(desk, "cd" * 12, first=first)
    desk.submit(one, 4)
    desk.submit(other, 4)
    seen = views(desk)
    for job in (*all_of(one), *all_of(other)):
        hexed = f"{job.session.key}{job.seq & 0xFFFFFFFF:08x}"  # as futures give it
        assert seen.find([bytes.fromhex(hexed)], None) == {id_of(job): job}
    assert seen.find([b"\xab" * 12 + b"\x7f" * 4, b"x" * 16], None) == {}


def test_a_client_of_another_machine_finds_its_own_jobs_only() -> None:
    desk = Desk()
    mine, theirs = client(desk, owner="me"), client(desk, "cd" * 12, owner="other")
    desk.submit(mine)
    desk.submit(theirs)
    (job,), (hidden,) = all_of(mine), all_of(theirs)
    seen = views(desk)
    assert seen.find([id_of(job), id_of(hidden)], "me") == {id_of(job): job}
    assert len(seen.page({}, "me")["rows"]) == 1
    assert len(seen.page({}, None)["rows"]) == 2


def test_a_running_volatile_job_says_where_and_how_far_it_is() -> None:
    desk = Desk()
    p, session = desk.ready(0), client(desk)
    desk.submit(session, 1, "m:f", priority=3)
    (job,) = all_of(session)
    seen = views(desk)
    waiting = readable(seen.row(job))
    assert (waiting["state"], waiting["durable"], waiting["pid"]) == ("queued", False, None)
    assert seen.answer(asked("story", job), {id_of(job): job}) == []
    desk.take()
    desk.start(p)
    desk.tell(events.Progressed(0, 1, Progress([job.token], [3], [10], ["x"])))
    row = readable(seen.row(job))
    assert (row["state"], row["p"], row["pid"], row["priority"]) == ("running", 0, 1000, 3)
    assert row["progress"] == (3, 10, "x")
    (attempt,) = seen.answer(asked("story", job), {id_of(job): job})
    assert (attempt["outcome"], attempt["p"], attempt["pid"]) == ("running", 0, 1000)
    assert seen.answer(asked("log", job), {id_of(job): job})["runs"]


def test_a_job_that_waits_for_its_limit_names_it() -> None:
    desk = Desk()
    p, session = desk.ready(0), client(desk)
    desk.submit(session, 3, "m:f", limit=("api", 1, 0, 0.0))
    desk.take()
    desk.start(p)
    first, second, _ = (readable(views(desk).row(job)) for job in all_of(session))
    assert first["limit"] is None
    assert (second["limit"]["key"], second["limit"]["inside"]) == ("api", 1)
    lines = [*job_tables.described(second, [])]
    assert "  waits for its limit: api has 1 of 1 at once, 2 wait" in lines


def test_volatile_jobs_are_cancelled_and_their_results_are_refused_with_the_reason() -> None:
    desk = Desk()
    p, session = desk.ready(0), client(desk)
    desk.teach(p, session, "m:f", 1000.0)
    desk.submit(session, 3)
    desk.take()
    desk.start(p)
    running, *queued = all_of(session)
    seen = views(desk)
    jobs = {id_of(job): job for job in all_of(session)}
    with pytest.raises(ConfigError, match="volatile: its result goes to the client that submitted"):
        seen.answer(asked("result", running), jobs)
    told = seen.answer(asked("cancel", running, *queued), jobs)
    assert told == {"cancelled": [*map(id_of, queued)], "asked": [id_of(running)]}
    assert list(session.jobs.values()) == [running]
    assert running.cancelling
    assert seen.answer(asked("retry", running), jobs) == []


def test_the_answer_for_volatile_jobs_joins_that_of_the_store() -> None:
    assert with_stored([{"id": 1}, None, {"id": 3}], [{"id": 2}]) == [
        {"id": 1}, {"id": 2}, {"id": 3},
    ]  # fmt: skip
    both = {"cancelled": [b"1"], "asked": []}, {"cancelled": [b"2"], "asked": [b"3"]}
    assert with_stored(*both) == {"cancelled": [b"1", b"2"], "asked": [b"3"]}
    assert with_stored([], [b"1"]) == [b"1"]
    assert with_stored(None, "x") == "x"
    assert with_stored([None], "why the store failed") == "why the store failed"


# -- pages ---------------------------------------------------------------------------------------


def pages(seen: JobViews, **params: Any) -> list[list[int]]:
    """The numbers of the jobs of each page."""
    found = []
    after: str | None = ""
    while after is not None:
        page = seen.page({**params, "after": after}, None)
        found.append([int(row["id"].hex()[24:], 16) for row in page["rows"]])
        after = page["next"]
    return found


def flat(found: list[list[int]]) -> list[int]:
    return [*chain.from_iterable(found)]


def test_pages_have_all_jobs_once_the_newest_first() -> None:
    desk = Desk()
    for key in ("aa", "bb"):
        desk.submit(client(desk, key * 12), 25)
    found = pages(views(desk), limit=10)
    assert [len(page) for page in found] == [10, 10, 10, 10, 10, 0]
    assert flat(found) == 2 * list(range(25, 0, -1))


def test_an_answer_looks_at_a_bounded_number_of_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_views, "SCAN_MAX", 100)
    desk = Desk()
    session = client(desk)
    desk.submit(session, 5, "m:rare")
    desk.submit(session, 495, "m:f")
    found = pages(views(desk), function="m:rare", limit=10)
    assert [len(page) for page in found] == [0, 0, 0, 0, 5, 0]
    assert flat(found) == [5, 4, 3, 2, 1]


def test_pages_by_state() -> None:
    desk = Desk()
    p, session = desk.ready(0), client(desk)
    desk.teach(p, session, "m:f", 1000.0)
    desk.submit(session, 3)
    desk.take()
    desk.start(p)
    seen = views(desk)
    assert pages(seen, state="running") == [[2]]
    assert pages(seen, state="running", function="m:g") == [[]]
    assert flat(pages(seen, state="queued")) == [4, 3]
    assert pages(seen, state="failed") == [[]]


@pytest.mark.parametrize(
    "params",
    [{"after": "x"}, {"after": "1"}, {"after": "1.99999999"}, {"limit": 0}, {"limit": "9"}],
)
def test_a_wrong_page_is_refused(params: dict[str, Any]) -> None:
    desk = Desk()
    with pytest.raises(ConfigError):
        views(desk).page(params, None)


# -- lines ---------------------------------------------------------------------------------------


def test_a_job_and_its_story_fit_into_80_columns() -> None:
    info: dict[str, Any] = {
        "id": "ab" * 16, "state": "failed", "function": "package.module:function", "durable": True,
        "client": "a client with a name", "priority": 0, "created": 1e9, "progress": None,
        "unique": "key", "limit": None, "ended": 1e9, "keep": 86400.0, "run_at": 0.0,
        "text": "why " * 60,
    }  # fmt: skip
    story = [
        Attempt(1, "lost", "killed by signal 9 " * 9, 1e9, 0.0, 1, 77, "", 1e9 - 5, 1),
        Attempt(2, "error", "ValueError", 1e9, 2.5, None, 78, "Traceback", None, 2),
        Attempt(3, "running", "", None, 7.0, 0, 79, "", 1e9, 2),
    ]
    lines = list(job_tables.described(info, story))
    assert all(len(line) <= 80 for line in lines)
    text = "\n".join(lines)
    for words in (
        "attempt 1: lost, 1 strike", "attempt 2: error, 2 strikes", "attempt 3: running",
        "P1 (pid 77)", "a worker of its own (pid 78)", "ran 2.5 s", "runs for  7 s", "kept until",
    ):  # fmt: skip
        assert words in text
    assert "Traceback" not in text  # that is not of the last attempt


def test_a_table_is_cut_to_the_terminal() -> None:
    row = {
        "id": "ab" * 16, "state": "queued", "function": "package.module:function", "durable": False,
        "created": 1e9, "attempt": 1,
    }  # fmt: skip
    head, line = job_tables.table([row], 80)
    assert len(line) == 80
    assert line.endswith("…odule:function")
    assert head.split() == ["ID", "KIND", "STATE", "AGE", "TRY", "FUNCTION"]
    assert job_tables.table([row])[1].endswith(" package.module:function")
    assert job_tables.table([]) == []
