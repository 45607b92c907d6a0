"""The SQLite store: what is kept, in which order it comes back, and what is refused."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgpack
import msgspec
import pytest

from gmpd.daemon import sqlite_place
from gmpd.daemon.sqlite_jobs import content_digest
from gmpd.daemon.sqlite_store import SqliteStore
from gmpd.daemon.store import StoreBrokenError, StoreFullError, StoreRefusedError
from gmpd.sched.stored import (
    BLOCKED_MS,
    Again,
    Attempt,
    CancelJobs,
    Count,
    Ended,
    Find,
    Finish,
    GiveBack,
    ListJobs,
    LoadSchedules,
    NewJob,
    Operation,
    PutJobs,
    PutResult,
    Remove,
    Results,
    Retry,
    Revive,
    StoredFunction,
    StoredJob,
    StoredResult,
    StoredSchedule,
    StoredState,
    Story,
    Survey,
    Surveyed,
    Sweep,
    Swept,
    TakeJobs,
    Taken,
    Verdict,
)

FUNCTION = StoredFunction(b"f" * 16, "name", "tasks:work", b"")
NOW = 1_000_000


def new(n: int, **given: Any) -> NewJob:
    payload = given.pop("payload", b"payload %d" % n)
    buffers = given.pop("buffers", ())
    values: dict[str, Any] = {
        "id": n.to_bytes(16, "big"), "function": FUNCTION.digest, "client": "tests",
        "priority": 0, "options": b"\x80", "payload": payload, "buffers": buffers,
        "created_ms": NOW, "run_at_ms": NOW,
    } | given  # fmt: skip
    digest = content_digest(values["function"], values["options"], payload, buffers)
    return NewJob(digest=digest, **values)


def ended(
    number: int, state: StoredState = StoredState.DONE, value: bytes = b"v", n: int = 1
) -> Ended:
    attempt = Attempt(n, NOW + 5, 7, 0, 42, "ok", b"", "")
    return Ended(number, state, value, (b"frame",), attempt)


@pytest.fixture
def open_store(tmp_path: Path) -> Iterator[Callable[..., SqliteStore]]:
    opened: list[SqliteStore] = []
    place = tmp_path / "state"

    def reopen(**how: Any) -> SqliteStore:
        if opened:
            opened.pop().close()
        opened.append(SqliteStore(place, **how))
        return opened[-1]

    yield reopen
    if opened:
        opened[-1].close()


@pytest.fixture
def store(open_store: Callable[..., SqliteStore]) -> SqliteStore:
    return open_store()


def put(store: SqliteStore, *jobs: NewJob, take: bool = False) -> PutResult:
    (answer,) = store.apply([PutJobs((FUNCTION,), jobs, take)])
    assert isinstance(answer, PutResult)
    return answer


def take(store: SqliteStore, n: int = 100, now_ms: int = NOW) -> Taken:
    (answer,) = store.apply([TakeJobs(now_ms, n)])
    assert isinstance(answer, Taken)
    return answer


def find(store: SqliteStore, n: int) -> StoredJob:
    (answer,) = store.apply([Find((n.to_bytes(16, "big"),))])
    assert isinstance(answer, tuple)
    job = answer[0]
    assert isinstance(job, StoredJob)
    return job


def ids(taken: Taken) -> list[int]:
    return [int.from_bytes(job.id, "big") for job in taken.jobs]


def test_jobs_come_back_by_priority_and_age_with_what_they_brought(store: SqliteStore) -> None:
    put(store, new(1), new(2, priority=5), new(3, buffers=(b"a", b"b")), new(4, priority=5))
    first = take(store, 3)
    assert (ids(first), first.more, first.next_ms) == ([2, 4, 1], True, None)
    assert first.functions == (FUNCTION,)
    second = take(store)
    assert (ids(second), second.more) == ([3], False)
    assert second.jobs[0].buffers == (b"a", b"b")
    assert take(store).jobs == ()


def test_of_each_limit_as_many_come_as_are_wanted(open_store: Callable[..., SqliteStore]) -> None:
    store = open_store()
    put(store, new(1, limit="a"), new(2, limit="a"), new(3), new(4, limit="b", priority=1))
    put(
        store,
        new(5, limit="a", priority=1),
        new(6, limit="c"),
        new(7, limit="b", run_at_ms=NOW + 9),
    )

    def taken(now_ms: int = NOW, **wanted: Any) -> tuple[list[int], set[str], bool]:
        (answer,) = store.apply([TakeJobs(now_ms, 100, **wanted)])
        assert isinstance(answer, Taken)
        return ids(answer), set(answer.left), answer.cut

    assert taken(of_keys={"a": 0}, of_others=1, limited=1) == ([4, 3], {"a", "c"}, True)
    assert taken(of_keys={"a": 2}, of_others=0, limited=9) == ([5, 1], {"a", "c"}, False)
    assert taken(of_keys={"a": 0}, of_others=9, limited=9) == ([6], {"a"}, False)
    assert taken(NOW + 9, of_keys={"a": 0}, of_others=9, limited=9) == ([7], {"a"}, False)
    store = open_store()
    assert taken(of_keys={"a": 9}, of_others=9, limited=9) == ([5, 1, 2, 4, 7, 6, 3], set(), False)


def test_starts_before_the_store_was_opened_are_told_once_for_each_limit(
    open_store: Callable[..., SqliteStore],
) -> None:
    options = msgpack.packb({"limit": ("k", 0, 9, 10.0)})
    store = open_store()
    put(store, *(new(n, options=options, limit="k") for n in range(6)))
    jobs = store.apply([TakeJobs(NOW, 100, {"k": 3}, 0, 9)])[0]
    assert isinstance(jobs, Taken)
    first, second, third = jobs.jobs
    began = [msgspec.structs.replace(ended(0).attempt, began_ms=NOW - ms) for ms in (1, 2, 11_000)]
    store.apply(
        [
            Finish((msgspec.structs.replace(ended(first.number), attempt=began[0]),)),
            Retry((Again(second.number, 2, 0, 0, NOW + 60_000, began[1]),)),
            Finish((msgspec.structs.replace(ended(third.number), attempt=began[2]),)),
        ]
    )
    again = open_store()

    def starts() -> Any:
        (answer,) = again.apply([TakeJobs(NOW, 100, {}, 1, 9)])
        assert isinstance(answer, Taken)
        return answer.starts

    assert starts() == {"k": (NOW - 2, NOW - 1)}
    assert starts() == {}


def test_damaged_options_of_a_job_with_a_limit_do_not_fail_the_store(store: SqliteStore) -> None:
    put(store, new(1, limit="k", options=b"\xc1"))
    assert ids(take(store)) == [1]


def test_a_store_of_version_1_is_brought_up_to_date(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    put(store, new(1, options=msgpack.packb({"limit": ("k", 1, 0, 0.0)})), new(2))
    store.close()
    db = sqlite3.connect(tmp_path / "jobs.sqlite")
    db.executescript(
        "DROP INDEX due; DROP INDEX limited; DROP INDEX limited_ends; DROP INDEX limited_tries;"
        "DROP INDEX waiting;"
        "ALTER TABLE jobs DROP COLUMN limit_key;"
        "CREATE INDEX due ON jobs (priority DESC, number) WHERE state = 0 AND later = 0;"
        "PRAGMA user_version = 1"
    )
    db.close()
    store = SqliteStore(tmp_path)
    (answer,) = store.apply([TakeJobs(NOW, 100, {"k": 0})])
    store.close()
    assert isinstance(answer, Taken)
    assert (ids(answer), set(answer.left)) == ([2], {"k"})


def test_parts_of_a_program_come_before_the_function_that_needs_them(store: SqliteStore) -> None:
    part = StoredFunction(b"part", "part", "00:1", b"code")
    fn = StoredFunction(b"z" * 16, "main", "work", b"", (b"part",))
    store.apply([PutJobs((part, fn), (new(1, function=fn.digest),))])
    assert take(store).functions == (part, fn)


def test_a_delayed_job_comes_when_it_is_due(store: SqliteStore) -> None:
    put(store, new(1, run_at_ms=NOW + 500))
    early = take(store)
    assert (early.jobs, early.next_ms) == ((), NOW + 500)
    assert ids(take(store, now_ms=NOW + 500)) == [1]


def test_an_id_names_one_job(store: SqliteStore) -> None:
    assert put(store, new(1)).verdicts == (Verdict.NEW,)
    again = put(store, new(1), new(2), new(1, payload=b"other"))
    assert again.verdicts == (Verdict.SAME, Verdict.NEW, Verdict.CONFLICT)
    assert ids(take(store)) == [1, 2]


@pytest.mark.parametrize("seed", range(20))
def test_jobs_that_are_stored_together_get_the_verdicts_of_one_by_one(
    tmp_path: Path, seed: int
) -> None:
    """Also those that are twice in one transaction, or hold each other's keys."""
    dice = random.Random(seed)
    jobs = [
        new(dice.randrange(40), unique=dice.choice((None, None, "k", "l")), payload=b"%d" % (n % 3))
        for n in range(60)
    ]
    operations: list[Operation] = [
        PutJobs((FUNCTION,), (job,), n % 20 > 12) for n, job in enumerate(jobs)
    ]
    operations.insert(30, Count())
    together, alone = SqliteStore(tmp_path / "a"), SqliteStore(tmp_path / "b")
    try:
        answers = [*together.apply(operations[:20]), *together.apply(operations[20:])]
        assert answers == [answer for op in operations for answer in alone.apply([op])]
        assert take(together) == take(alone)
    finally:
        together.close()
        alone.close()


def test_the_schedules_of_ticks_that_are_stored_together_are_stored(store: SqliteStore) -> None:
    schedules = [StoredSchedule(name, "every 1", NOW, (), NOW) for name in "ab"]
    store.apply(
        [
            PutJobs((FUNCTION,), (new(n),), True, schedule)
            for n, schedule in enumerate([*schedules, None])
        ]
    )
    (found,) = store.apply([LoadSchedules()])
    assert found == tuple(schedules)


@pytest.mark.parametrize("n", [0, 1, 3, 4, 255, 256, 257, 600])
def test_any_number_of_jobs_goes_in_and_ends(store: SqliteStore, n: int) -> None:
    numbers = put(store, *map(new, range(n)), take=True).numbers
    assert len(set(numbers)) == n
    store.apply([Finish(tuple(map(ended, numbers[: n // 2])))])
    store.apply([GiveBack(numbers[n // 2 :], NOW)])
    assert ids(take(store, 1000)) == list(range(n // 2, n))
    (counts,) = store.apply([Count()])
    expected = {StoredState.QUEUED: n - n // 2, StoredState.DONE: n // 2}
    assert counts == {state: count for state, count in expected.items() if count}


def test_a_unique_key_is_held_until_its_job_has_ended(store: SqliteStore) -> None:
    (number,) = put(store, new(1, unique="k"), take=True).numbers
    held = put(store, new(2, unique="k"))
    assert (held.verdicts, held.ids) == ((Verdict.HELD,), ((1).to_bytes(16, "big"),))
    store.apply([Finish((ended(number),))])
    assert put(store, new(3, unique="k")).verdicts == (Verdict.NEW,)


def test_what_was_taken_waits_again_after_a_restart(open_store: Callable[..., SqliteStore]) -> None:
    store = open_store()
    put(store, new(1), new(2), take=True)
    assert take(store).jobs == ()
    store = open_store()
    assert ids(take(store)) == [1, 2]
    assert store.epoch == 2


def test_once_means_never_again_after_a_restart(open_store: Callable[..., SqliteStore]) -> None:
    store = open_store()
    put(store, new(1, once=True), take=True)
    put(store, new(2, once=True))
    assert ids(take(store)) == [2]
    put(store, new(3, once=True))
    store = open_store()
    assert ids(take(store)) == [3]
    assert find(store, 1).state is find(store, 2).state is StoredState.UNKNOWN
    assert "once=True forbids" in find(store, 2).text


def test_results_stories_and_counts(store: SqliteStore) -> None:
    one, two = put(store, new(1), new(2), take=True).numbers
    failed = Attempt(1, NOW + 1, 3, 1, 9, "error", b"encoded", "ValueError: no")
    store.apply([Retry((Again(two, 2, 0, 0, NOW + 100, failed),)), Finish((ended(one),))])
    story, result, counts = store.apply(
        [Story((2).to_bytes(16, "big")), Results((new(1).id, new(2).id)), Count()]
    )
    assert story == (failed,)
    assert result == (StoredResult(StoredState.DONE, b"v", (b"frame",), 7, "ok", 1, ""), None)
    assert counts == {StoredState.QUEUED: 1, StoredState.DONE: 1}
    assert (find(store, 2).attempt, find(store, 2).taken) == (2, False)
    assert take(store, now_ms=NOW + 99).next_ms == NOW + 100
    assert take(store, now_ms=NOW + 100).jobs[0].attempt == 2


def test_given_back_jobs_are_taken_again(store: SqliteStore) -> None:
    numbers = put(store, new(1), new(2, once=True), take=True).numbers
    store.apply([GiveBack(numbers, NOW)])
    assert ids(take(store)) == [1, 2]
    store.apply([GiveBack(numbers, NOW, NOW + 9)])
    assert take(store).next_ms == NOW + 9


def test_cancel_revive_and_remove(store: SqliteStore) -> None:
    put(store, new(1))
    (taken,) = put(store, new(2), take=True).numbers
    every = (new(1).id, new(2).id, b"unknown")
    assert store.apply([CancelJobs(every, NOW)]) == [(new(1).id,)]
    assert find(store, 1).state is StoredState.CANCELLED
    store.apply([Finish((ended(taken, StoredState.FAILED),))])
    assert store.apply([Revive(every, NOW)]) == [(new(1).id, new(2).id)]
    assert ids(take(store)) == [1, 2]
    assert store.apply([Remove(every)]) == [()]
    store.apply([Finish((ended(taken),))])
    assert store.apply([Revive(every, NOW)]) == [()]
    assert store.apply([Remove(every)]) == [(new(2).id,)]
    assert store.apply([Find((new(2).id,)), Results((new(2).id,))]) == [(None,), (False,)]


def test_lists_are_pages_of_the_newest(store: SqliteStore) -> None:
    numbers = put(store, *[new(n) for n in range(1, 8)], take=True).numbers
    store.apply([Finish((ended(numbers[2], StoredState.FAILED),))])
    (first,) = store.apply([ListJobs(limit=3)])
    assert isinstance(first, tuple)
    assert [job.number for job in first if isinstance(job, StoredJob)] == [7, 6, 5]
    (rest,) = store.apply([ListJobs(limit=3, before=5)])
    assert isinstance(rest, tuple)
    assert len(rest) == 3
    (failed,) = store.apply([ListJobs(states=(StoredState.FAILED,), function="tasks:work")])
    assert failed == (find(store, 3),)
    assert store.apply([ListJobs(function="other")]) == [()]


def test_a_sweep_ends_what_has_expired_and_forgets_what_was_kept(store: SqliteStore) -> None:
    put(store, new(1, expires_ms=NOW + 10, keep_ms=50))
    put(store, new(2, expires_ms=NOW + 10), take=True)
    assert store.apply([Sweep(NOW)]) == [Swept((), 0, NOW + 10)]
    assert store.apply([Sweep(NOW + 10)]) == [Swept((new(1).id,), 0, NOW + 60)]
    assert find(store, 1).state is StoredState.EXPIRED
    assert store.apply([Sweep(NOW + 60)]) == [Swept((), 1, None)]


def test_damaged_arguments_are_not_run(store: SqliteStore) -> None:
    put(store, new(1), new(2))
    store._db.execute("UPDATE payloads SET payload = x'00' WHERE number = 1")
    assert ids(take(store)) == [2]
    assert find(store, 1).state is StoredState.FAILED
    assert "damaged" in find(store, 1).text


def test_functions_without_jobs_go_at_the_next_boot(open_store: Callable[..., SqliteStore]) -> None:
    store = open_store()
    (number,) = put(store, new(1, keep_ms=1), take=True).numbers
    store.apply([Finish((ended(number),)), Sweep(NOW + 1000)])
    store = open_store()
    assert store._db.execute("SELECT count(*) FROM functions").fetchone() == (0,)


def blocked(number: int, at_ms: int) -> Again:
    error = Attempt(1, at_ms - BLOCKED_MS, 1, 0, 9, "error", b"x", "NotRegistered: no module m")
    return Again(number, 1, 0, 0, at_ms, error, StoredState.BLOCKED)


def test_one_of_many_blocked_jobs_is_tried_and_frees_the_others(store: SqliteStore) -> None:
    other = StoredFunction(b"o" * 16, "name", "tasks:other", b"")
    store.apply([PutJobs((FUNCTION, other), (*map(new, (1, 2, 3)), new(4, function=other.digest)))])
    numbers = [job.number for job in take(store).jobs]
    at = NOW + BLOCKED_MS
    store.apply([Retry(tuple(blocked(number, at) for number in numbers))])
    (survey,) = store.apply([Survey()])
    assert isinstance(survey, Surveyed)
    assert survey.states == {StoredState.BLOCKED: 4}
    assert [(each.name, each.jobs) for each in survey.blocked] == [
        ("tasks:work", 3), ("tasks:other", 1),
    ]  # fmt: skip
    assert survey.nbytes > 0
    early = take(store, now_ms=at - 1)
    assert (early.jobs, early.next_ms) == ((), at)
    tried = take(store, now_ms=at)
    assert (ids(tried), tried.next_ms) == ([1, 4], at + BLOCKED_MS)
    store.apply([Retry((blocked(1, at + BLOCKED_MS),))])
    # The one that was tried longest ago is next. It runs, and the others follow.
    assert ids(take(store, now_ms=at + BLOCKED_MS)) == [2]
    assert ids(take(store, now_ms=at + BLOCKED_MS)) == []
    store.apply([Finish((ended(2),))])
    assert ids(take(store, now_ms=at + BLOCKED_MS)) == [1, 3]
    assert store.apply([Story(new(1).id)])[0] == (blocked(1, at + BLOCKED_MS).attempt,)


def test_a_blocked_job_that_was_cancelled_frees_none(store: SqliteStore) -> None:
    numbers = put(store, new(1), new(2), take=True).numbers
    store.apply([Retry(tuple(blocked(number, NOW + 9) for number in numbers))])
    store.apply([CancelJobs((new(1).id,), NOW)])
    assert ids(take(store)) == []
    assert ids(take(store, now_ms=NOW + 9)) == [2]
    store.apply([Finish((ended(2),))])
    assert take(store, now_ms=NOW + 60_000).next_ms is None


def test_questions_alone_are_not_flushed(store: SqliteStore) -> None:
    put(store, new(1))
    before = store._meta("commit_no")
    store.apply([Find((new(1).id,)), Count(), Survey(), Results((new(1).id,)), ListJobs()])
    assert store._meta("commit_no") == before
    store.apply([Count(), CancelJobs((new(1).id,), NOW)])
    assert store._meta("commit_no") == before + 1


# -- what is refused -------------------------------------------------------------------------------


def refusal(place: Path, **how: Any) -> str:
    with pytest.raises(StoreRefusedError) as caught:
        SqliteStore(place, **how)
    return str(caught.value)


def fingerprint(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda path: path.write_bytes(b""), "is no database of durable jobs"),
        (lambda path: path.write_bytes(os.urandom(5000)), "is no database of durable jobs"),
        (lambda path: _foreign(path), "is a database of another program"),
        (lambda path: _newer(path), "was written by a newer gmpd"),
    ],
    ids=["empty", "random bytes", "another program", "newer"],
)
def test_another_file_is_refused_and_left_as_it_is(
    tmp_path: Path, make: Callable[[Path], Any], says: str
) -> None:
    place = tmp_path / "state"
    place.mkdir(0o700)
    path = place / "jobs.sqlite"
    make(path)
    path.chmod(0o600)
    before = fingerprint(path)
    assert says in refusal(place)
    assert fingerprint(path) == before


def _foreign(path: Path) -> None:
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE other (x)")
    db.close()


def _newer(path: Path) -> None:
    SqliteStore(path.parent).close()
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 99")
    db.close()


def test_a_place_that_others_may_write_is_refused(tmp_path: Path) -> None:
    place = tmp_path / "state"
    place.mkdir()
    place.chmod(0o777)
    assert "others may write" in refusal(place)
    place.chmod(0o700)
    SqliteStore(place).close()
    (place / "jobs.sqlite").chmod(0o666)
    assert "may be written by others" in refusal(place)


def test_an_old_sqlite_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 26, 0))
    with pytest.raises(StoreRefusedError, match=r"need SQLite 3\.33 or newer"):
        SqliteStore(tmp_path / "state")


def test_a_second_daemon_is_refused_at_once(tmp_path: Path) -> None:
    first = SqliteStore(tmp_path / "state")
    try:
        assert "held by another process" in refusal(tmp_path / "state")
    finally:
        first.close()


def test_lost_commits_are_found_out(tmp_path: Path) -> None:
    place = tmp_path / "state"
    store = SqliteStore(place)
    put(store, new(1))
    store.close()
    old = (place / "jobs.sqlite").read_bytes()
    store = SqliteStore(place)
    put(store, new(2))
    store.close()
    (place / "jobs.sqlite").write_bytes(old)
    assert "has lost" in refusal(place)
    store = SqliteStore(place, accept_loss=True)
    assert ids(take(store)) == [1]
    store.close()


def test_a_full_disk_changes_nothing_and_there_is_room_for_what_has_happened(
    open_store: Callable[..., SqliteStore],
) -> None:
    store = open_store()
    (number,) = put(store, new(1), take=True).numbers
    (pages,) = store._db.execute("PRAGMA page_count").fetchone()
    store._db.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StoreFullError):
        put(store, *[new(n, payload=b"x" * 5000) for n in range(2, 50)])
    assert store.apply([Count()]) == [{StoredState.QUEUED: 1}]
    assert store.make_room()
    assert not store.make_room()
    store._db.execute("PRAGMA max_page_count = 1000000")
    store.apply([Finish((ended(number),))])
    assert find(store, 1).state is StoredState.DONE


def test_a_commit_that_failed_is_none_that_was_lost(
    open_store: Callable[..., SqliteStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that broke is opened by the next daemon: its side file knows no number that the
    database has not."""

    class Failing:
        """The database, whose log cannot be written."""

        def __init__(self, db: sqlite3.Connection) -> None:
            self._db = db

        def execute(self, statement: str, *values: Any) -> Any:
            if statement == "COMMIT":
                raise sqlite3.OperationalError("disk I/O error")
            return self._db.execute(statement, *values)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._db, name)

    store = open_store()
    put(store, new(1))
    monkeypatch.setattr(store, "_db", Failing(store._db))
    with pytest.raises(StoreBrokenError):
        put(store, new(2))
    store = open_store()
    assert ids(take(store)) == [1]


def test_a_network_file_system_is_refused_by_its_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_place, "_file_system", lambda _: "nfs4")
    told = refusal(tmp_path / "state")
    assert "on a network file system (nfs4)" in told
    assert "set daemon.state_dir to a local disk" in told


def test_a_directory_of_another_user_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "state"
    SqliteStore(place).close()
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    told = refusal(place)
    assert f"belongs to uid {place.stat().st_uid}, and the daemon runs as 4711" in told


@pytest.mark.parametrize(
    ("code", "says"),
    [
        (sqlite3.SQLITE_READONLY, "cannot be written"),
        (sqlite3.SQLITE_CANTOPEN, "cannot be written"),
        (sqlite3.SQLITE_FULL, "is full: free some space"),
        (sqlite3.SQLITE_CORRUPT, "is damaged"),
    ],
)
def test_a_disk_that_refuses_is_told_with_the_remedy(tmp_path: Path, code: int, says: str) -> None:
    def connect(*_: Any, **__: Any) -> Any:
        error = sqlite3.OperationalError("it is refused")
        error.sqlite_errorcode = code
        raise error

    assert says in refusal(tmp_path / "new", connect=connect)
    SqliteStore(tmp_path / "there").close()
    assert says in refusal(tmp_path / "there", connect=connect)


@pytest.mark.parametrize(
    ("number", "says"), [(errno.ENOSPC, "is full"), (errno.EROFS, "set daemon.state_dir")]
)
def test_files_beside_the_database_that_cannot_be_made_refuse_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, says: str
) -> None:
    place = tmp_path / "state"
    SqliteStore(place).close()
    there = os.open

    def fail(path: Any, *how: Any, **more: Any) -> int:
        if str(path).endswith("jobs.commits"):
            raise OSError(number, os.strerror(number))
        return there(path, *how, **more)

    monkeypatch.setattr(os, "open", fail)
    assert says in refusal(place)


def test_jobs_by_value_of_another_python_are_named(
    open_store: Callable[..., SqliteStore], caplog: pytest.LogCaptureFixture
) -> None:
    store = open_store()
    by_value = StoredFunction(b"v" * 16, "pickle", "<lambda>", b"code")
    store.apply([PutJobs((by_value,), (new(1, function=by_value.digest),))])
    put(store, new(2))
    store._db.execute("UPDATE meta SET value = 309 WHERE key = 'python'")
    open_store()
    assert "1 durable jobs in" in caplog.text
    assert "stored under Python 3.9 with functions by value" in caplog.text
    caplog.clear()
    open_store()
    assert not caplog.text
