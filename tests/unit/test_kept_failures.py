"""The last failures: bounded in number and bytes, and harmless to look at."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gmpd.cli.failures import counted, described
from gmpd.codec import encode_error
from gmpd.daemon import kept_failures
from gmpd.daemon.kept_failures import (
    ANSWER_MAX,
    BYTES_MAX,
    KEPT_MAX,
    MESSAGE_MAX,
    OF_FUNCTION_MAX,
    TRACEBACK_MAX,
    KeptFailures,
)
from gmpd.errors import ConfigError
from gmpd.protocol import Outcome
from gmpd.sched.records import Failure
from tests.desk import Desk


def failure(fn: str = "m:f", error: Exception | None = None, **more: Any) -> Failure:
    payload = b"" if error is None else encode_error(error, plain=True)
    fields = {"id": "ab" * 16, "fn": fn, "client": "c", "outcome": Outcome.ERROR, "attempt": 1,
              "again": False, "text": "", "payload": payload}  # fmt: skip
    return Failure(**{**fields, **more})


def kept_of(*failures: Failure) -> KeptFailures:
    kept = KeptFailures()
    kept.add(failures, 1000.5)
    return kept


def rows(kept: KeptFailures, **params: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = kept.answer({"n": KEPT_MAX, **params})["failures"]
    return found


def raised(text: str) -> Exception:
    try:
        raise ValueError(text)
    except ValueError as error:
        return error


def test_a_volatile_job_that_failed_is_kept_with_its_traceback() -> None:
    desk = Desk()
    p, one = desk.ready(0), desk.client("shop")
    desk.submit(one, 1, "m:f", retries=1)
    desk.take()
    desk.end(p, outcome=Outcome.ERROR, payload=encode_error(raised("boom"), plain=True))
    (row,) = rows(kept_of(*desk.sched.take_failures()))
    assert (row["function"], row["client"], row["outcome"]) == ("m:f", "shop", "error")
    assert row["p"] == 0
    assert (row["type"], row["message"], row["again"], row["at"]) == (
        "ValueError", "boom", True, 1000.5,
    )  # fmt: skip
    assert "raise ValueError(text)\nValueError: boom" in row["traceback"]


def test_the_newest_come_first_and_a_function_can_be_named() -> None:
    kept = kept_of(*(failure(f"m:f{n % 2}", attempt=n) for n in range(6)))
    assert [row["attempt"] for row in rows(kept)] == [5, 4, 3, 2, 1, 0]
    assert [row["attempt"] for row in rows(kept, function="m:f1", n=2)] == [5, 3]
    assert rows(kept, function="m:none") == []


def test_a_function_that_fails_by_the_thousand_leaves_room_for_others() -> None:
    kept = kept_of(failure("m:rare"), *(failure("m:often") for _ in range(3 * KEPT_MAX)))
    assert len(rows(kept, function="m:often")) == OF_FUNCTION_MAX
    assert len(rows(kept, function="m:rare")) == 1
    assert kept.answer({})["failed"] == 3 * KEPT_MAX + 1


def test_their_number_is_bounded() -> None:
    kept = kept_of(*(failure(f"m:f{n}", attempt=n) for n in range(3 * KEPT_MAX)))
    assert [row["attempt"] for row in rows(kept)] == [*range(3 * KEPT_MAX)][: -KEPT_MAX - 1 : -1]
    assert len(kept._of) == len(kept) == KEPT_MAX


def test_their_bytes_are_bounded() -> None:
    big = b"x" * (BYTES_MAX // 4)
    kept = kept_of(*(failure(f"m:f{n}", payload=big) for n in range(20)))
    assert kept._nbytes <= BYTES_MAX
    assert 2 <= len(kept) <= 4
    kept.add([failure("m:huge", payload=b"x" * (BYTES_MAX + 1))], 2.0)
    assert rows(kept)[0]["text"] == "its error is too large to be kept"
    assert kept._nbytes == sum(each.nbytes for each in kept._kept.values()) <= BYTES_MAX


def test_odd_texts_are_cut_and_escaped() -> None:
    nasty = "\x1b]0;title\x07\x1b[2J\u202egnp\u2028\r\x00" + "y" * 1_000_000
    kept = kept_of(failure("m:\x1b[31mred", raised(nasty), client="c\x1bc", text=nasty))
    (row,) = rows(kept)
    for name, text in row.items():
        if isinstance(text, str):
            assert all(each.isprintable() or each in "\n\t" for each in text), name
    assert "\\x1b]0;title" in row["message"]
    assert len(row["message"]) < 2 * MESSAGE_MAX
    assert len(row["text"]) < 2 * MESSAGE_MAX
    assert len(row["traceback"]) < 2 * TRACEBACK_MAX
    assert rows(kept, function=row["function"]) == [row]
    assert "\x1b" not in "\n".join(described(row))


def test_an_answer_is_bounded_and_has_at_least_one(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = kept_of(*(failure(f"m:f{n}", raised("z" * 100_000)) for n in range(40)))
    assert len(json.dumps(kept.answer({"n": 40}))) < ANSWER_MAX
    monkeypatch.setattr(kept_failures, "ANSWER_MAX", 10)
    assert len(rows(kept)) == 1


def test_garbage_in_the_place_of_an_error_is_said() -> None:
    (row,) = rows(kept_of(failure(payload=b"\xc1garbage")))
    assert "are not an error" in row["message"]


@pytest.mark.parametrize("n", [0, -1, KEPT_MAX + 1, "5", True, 2.0])
def test_a_number_that_is_none_is_refused(n: Any) -> None:
    with pytest.raises(ConfigError, match="n must be 1 to"):
        KeptFailures().answer({"n": n})


def test_people_read_when_which_job_failed_and_why() -> None:
    (row,) = rows(kept_of(failure(error=raised("boom"), again=True)))
    lines = [*described(row)]
    assert lines[0].endswith("m:f failed")
    assert lines[1] == f"  job {'ab' * 16} of c, attempt 1, tried again"
    assert lines[-1] == "  ValueError: boom"
    (row,) = rows(kept_of(failure(outcome=Outcome.LOST, text="killed by signal 9", client="")))
    assert [*described(row)][1:] == [f"  job {'ab' * 16}, attempt 1", "  killed by signal 9"]
    assert counted(kept_of().answer({})) == "no job has failed since the daemon began"
    assert counted(kept_of(failure()).answer({}), "m:f") == (
        "1 shown of m:f; 1 kept of 1 failed attempts"
    )
