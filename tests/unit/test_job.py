"""The options that the author of a job declares (gmpd.job)."""

from __future__ import annotations

import functools
import math
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from gmpd.bykey import Limit, Unique
from gmpd.job import (
    ATTRIBUTE,
    DECLARED,
    DEFAULTS,
    RETRIES_MAX,
    SECONDS_MAX,
    STORED,
    Backoff,
    JobOptions,
    job,
    options_of,
)

EACH: dict[str, Any] = {
    "name": "fetch",
    "retries": 3,
    "backoff": Backoff(0.5, 60, 3, 0.25),
    "retry_on": (OSError, "json.decoder.JSONDecodeError"),
    "timeout": 2.5,
    "kill_after": 60.0,
    "priority": -7,
    "delay": 0.25,
    "unique": "k",
    "limit": Limit("api", at_once=3, per=(100, 60)),
    "durable": True,
    "at": datetime(2030, 1, 2, tzinfo=UTC),
    "expires": 60.0,
    "keep": 3600.0,
    "once": True,
    "isolate": True,
    "plain": True,
    "capture": True,
}

#: As they travel.
WIRE = {
    **{name: value for name, value in EACH.items() if name not in STORED},
    "limit": ("api", 3, 100, 60.0),
    "backoff": (0.5, 60.0, 3.0, 0.25),
    "retry_on": ("builtins.OSError", "json.decoder.JSONDecodeError"),
}


def test_a_declared_function_stays_the_same_function() -> None:
    def double(x: int) -> int:
        return 2 * x

    assert job(double) is double
    assert job(retries=2)(double) is double
    assert double(4) == 8
    assert options_of(double) == JobOptions(retries=2)
    assert getattr(double, ATTRIBUTE).retries == 2


def test_an_undeclared_function_has_the_defaults() -> None:
    for fn in (len, print, lambda: None, JobOptions):
        assert options_of(fn) is DEFAULTS


def test_a_partial_has_the_options_of_its_function() -> None:
    @job(timeout=3)
    def wait(s: float) -> float:
        return s

    assert options_of(functools.partial(wait, 1)).timeout == 3


def test_methods_of_a_class_can_be_declared() -> None:
    class Service:
        @job(retries=1)
        def method(self) -> int:
            return 1

        @job(retries=2)
        @staticmethod
        def static() -> int:
            return 2

        @job(retries=3)
        @classmethod
        def of_class(cls) -> int:
            return 3

    service = Service()
    found = [options_of(fn).retries for fn in (service.method, Service.static, Service.of_class)]
    assert found == [1, 2, 3]
    assert (service.method(), Service.static(), Service.of_class()) == (1, 2, 3)


@pytest.mark.parametrize(
    ("thing", "expected"),
    [(3, "decorates a function, not 3"), (len, "takes no attributes")],
    ids=["a number", "a builtin"],
)
def test_what_cannot_be_declared_is_refused(thing: Any, expected: str) -> None:
    with pytest.raises(TypeError, match=expected):
        job(retries=1)(thing)


def test_all_options_go_over_the_wire() -> None:
    options = JobOptions(**EACH)
    assert options.to_wire() == WIRE


@pytest.mark.parametrize("name", WIRE)
def test_only_what_differs_goes_over_the_wire(name: str) -> None:
    options = JobOptions(**{name: EACH[name]})
    more = {"capture": True} if name == "durable" else {}
    assert options.to_wire() == {name: WIRE[name], **more}


def test_durable_jobs_are_captured_unless_they_say_otherwise() -> None:
    assert (JobOptions(durable=True, capture=False).to_wire() or {})["capture"] is False
    assert (JobOptions(durable=True).to_wire() or {})["capture"] is True
    assert JobOptions().to_wire() is None


@pytest.mark.parametrize(
    ("make", "kind", "expected"),
    [
        (lambda: Limit("k"), ValueError, "limits nothing: give at_once="),
        (lambda: Limit("", 1), ValueError, "limit='': a key must be 1 to 256 printable"),
        (lambda: Limit(5, 1), TypeError, "limit=5: a key must be a text"),  # type: ignore[arg-type]
        (lambda: Limit("k", 0), ValueError, "limit: at_once=0: must be from 1 to 1000000"),
        (lambda: Limit("k", True), TypeError, "limit: at_once=True: must be a whole number"),
        (lambda: Limit("k", per=5), TypeError, "per=5: must be a pair"),  # type: ignore[arg-type]
        (lambda: Limit("k", per=(0, 1)), ValueError, "limit: per=0: must be from 1"),
        (lambda: Limit("k", per=(1, 0)), ValueError, "0.001 s to a year"),
        (lambda: Limit("k", per=(1, math.nan)), ValueError, "0.001 s to a year"),
        (lambda: Limit("k", per=(1, "1")), TypeError, "seconds, or a timedelta"),  # type: ignore[arg-type]
        (lambda: Limit.from_text("k"), ValueError, "write KEY:N for N at once"),
        (lambda: Limit.from_text("k:"), ValueError, "write KEY:N"),
        (lambda: Limit.from_text("k:3,4"), ValueError, "write KEY:N"),
        (lambda: Limit.from_text("k:3/5x"), ValueError, "write KEY:N"),
        (lambda: Limit.from_text(":3"), ValueError, "a key must be"),
    ],
    ids=range(15),
)
def test_a_limit_that_is_none_is_refused(make: Any, kind: type[Exception], expected: str) -> None:
    with pytest.raises(kind, match=expected):
        make()


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("key:3", Limit("key", 3)),
        ("http://a:b:3", Limit("http://a:b", 3)),
        ("key:100/60s", Limit("key", per=(100, 60.0))),
        ("key:100/min", Limit("key", per=(100, 60.0))),
        ("key:3,100/0.5", Limit("key", 3, (100, 0.5))),
        ("key:100/250ms,3", Limit("key", 3, (100, 0.25))),
    ],
)
def test_a_limit_may_be_a_text(text: str, limit: Limit) -> None:
    assert Limit.from_text(text) == limit


def test_a_unique_key_has_a_policy() -> None:
    assert JobOptions(unique=Unique("k")).to_wire() == {"unique": "k"}
    replacing = JobOptions(unique=Unique("k", "replace"))
    assert replacing.to_wire() == {"unique": "k", "on_held": "replace"}
    with pytest.raises(ValueError, match="policy='both': must be one of return, replace, raise"):
        Unique("k", "both")
    with pytest.raises(TypeError, match=r"unique=\('k', 'raise'\): a key must be a text"):
        JobOptions(unique=("k", "raise"))  # type: ignore[arg-type]
    assert Unique.from_text("a:b") == Unique("a:b")
    assert Unique.from_text("a:b:raise") == Unique("a:b", "raise")


def test_times_of_a_job_that_is_not_stored() -> None:
    noon = datetime(2030, 1, 2, 12, tzinfo=UTC)
    at = noon.timestamp()
    assert JobOptions(at=noon).times_on_wire(at - 5) == {"delay": 5.0}
    assert JobOptions(at=noon, delay=9).times_on_wire(at - 5) == {}
    assert JobOptions(at=noon, expires=3).times_on_wire(at + 5) == {"expires": 3.0}
    with pytest.raises(ValueError, match=r"at=2030-01-02T12:00:00.* is more than a year ahead"):
        JobOptions(at=noon).times_on_wire(at - SECONDS_MAX - 1)


def test_the_interval_of_a_limit_may_be_a_duration() -> None:
    limit = Limit("k", per=(2, timedelta(minutes=1)))  # type: ignore[arg-type]
    assert limit.to_wire() == ("k", 0, 2, 60.0)


def test_defaults_are_nothing_on_the_wire() -> None:
    assert DEFAULTS.to_wire() is None
    assert JobOptions(retries=0).to_wire() is None


def test_times_may_be_durations() -> None:
    options = JobOptions(timeout=timedelta(minutes=1), delay=timedelta(milliseconds=5))  # type: ignore[arg-type]
    assert (options.timeout, options.delay) == (60.0, 0.005)


def test_options_for_one_submission_override_the_declared_ones() -> None:
    declared = JobOptions(retries=3, timeout=5)
    assert declared.merged() is declared
    assert declared.merged(timeout=None, priority=1) == JobOptions(retries=3, priority=1)
    assert declared.timeout == 5


WRONG = [
    ({"retries": -1}, ValueError, r"retries=-1: must be from 0 to 1000"),
    ({"retries": RETRIES_MAX + 1}, ValueError, "retries"),
    ({"retries": 1.5}, TypeError, "retries=1.5: must be a whole number"),
    ({"retries": True}, TypeError, "retries"),
    ({"priority": 101}, ValueError, "priority"),
    ({"priority": "high"}, TypeError, "priority"),
    ({"timeout": 0}, ValueError, "None means no limit"),
    ({"timeout": -1}, ValueError, "timeout"),
    ({"timeout": math.nan}, ValueError, "timeout"),
    ({"timeout": "5"}, TypeError, "seconds, or a timedelta"),
    ({"timeout": True}, TypeError, "timeout"),
    ({"timeout": timedelta(seconds=-1)}, ValueError, "timeout"),
    ({"kill_after": 0}, ValueError, "kill_after=0: must be more than timeout=0"),
    ({"kill_after": 5, "timeout": 5}, ValueError, "kill_after=5: must be more than timeout=5"),
    ({"kill_after": -1}, ValueError, "kill_after=-1: must be from 0"),
    ({"kill_after": "5"}, TypeError, "kill_after='5'"),
    ({"delay": math.inf}, ValueError, "a year"),
    ({"delay": SECONDS_MAX + 1}, ValueError, "delay"),
    ({"delay": None}, TypeError, "delay"),
    ({"name": ""}, ValueError, "name"),
    ({"name": 5}, TypeError, "name=5: must be a text"),
    ({"unique": "a\nb"}, ValueError, "printable"),
    ({"unique": "x" * 257}, ValueError, "1 to 256"),
    ({"expires": 0}, ValueError, "expires=0: no job would begin"),
    ({"limit": 3}, TypeError, r"limit=3: must be a gmpd.Limit"),
    ({"durable": 1}, TypeError, "durable=1: must be True or False"),
    ({"isolate": None}, TypeError, "isolate"),
    ({"plain": "yes"}, TypeError, "plain"),
    ({"capture": "yes"}, TypeError, "capture"),
    ({"backoff": -1}, ValueError, "backoff=-1: must be from 0"),
    ({"backoff": True}, TypeError, "backoff=True: must be seconds"),
    ({"backoff": "1s"}, TypeError, "backoff='1s'"),
    ({"backoff": Backoff}, TypeError, "backoff=<class"),
    ({"retry_on": 5}, TypeError, "retry_on=5: must be an exception type"),
    ({"retry_on": int}, TypeError, "retry_on=<class 'int'>: must be an exception type"),
    ({"retry_on": (OSError, "a b")}, ValueError, "retry_on='a b': is not the name of a class"),
    ({"retry_on": ()}, ValueError, "must name 1 to 64 exceptions"),
    ({"retry_on": (KeyError,) * 65}, ValueError, "must name 1 to 64 exceptions"),
    ({"retrys": 1}, TypeError, "did you mean 'retries'"),
    ({"zzz": 1}, TypeError, "known are at, backoff, capture, delay, durable"),
]


@pytest.mark.parametrize(("options", "kind", "text"), WRONG, ids=[str(w[0])[:30] for w in WRONG])
def test_a_wrong_option_is_refused_by_name_wherever_it_comes_from(
    options: dict[str, Any], kind: type[Exception], text: str
) -> None:
    with pytest.raises(kind, match=text):
        job(**options)
    with pytest.raises(kind, match=text):
        DEFAULTS.merged(**options)


def test_options_are_frozen_and_can_be_compared_and_hashed() -> None:
    with pytest.raises(AttributeError):
        DEFAULTS.retries = 1  # type: ignore[misc]
    assert len({JobOptions(retries=1), JobOptions(retries=1), DEFAULTS}) == 2


@pytest.mark.parametrize("value", [b"1", bytearray(b"1")])
@pytest.mark.parametrize("name", ["delay", "timeout"])
def test_bytes_are_no_seconds(name: str, value: bytes) -> None:
    with pytest.raises(TypeError, match="must be seconds"):
        job(**{name: value})  # type: ignore[call-overload]


# ------------------------------------------------------------------------------------- attempts


@pytest.mark.parametrize(
    ("wrong", "kind", "text"),
    [
        ({"base": -1}, ValueError, "backoff: base=-1: must be from 0"),
        ({"base": 10, "cap": 5}, ValueError, "backoff: cap=5 is less than base=10"),
        ({"cap": math.nan}, ValueError, "backoff: cap=nan"),
        ({"factor": 0.5}, ValueError, "backoff: factor=0.5: must be from 1 to 1000"),
        ({"jitter": 1.5}, ValueError, "backoff: jitter=1.5: must be from 0 to 1"),
        ({"jitter": math.nan}, ValueError, "backoff: jitter=nan"),
        ({"jitter": None}, TypeError, "backoff: jitter=None: must be a number"),
        ({"factor": True}, TypeError, "backoff: factor=True"),
    ],
)
def test_a_backoff_names_what_is_wrong(
    wrong: dict[str, Any], kind: type[Exception], text: str
) -> None:
    with pytest.raises(kind, match=text):
        Backoff(**wrong)


def test_a_number_is_the_base_of_a_backoff() -> None:
    assert JobOptions(backoff=2).backoff == Backoff(2.0, cap=600.0)
    assert JobOptions(backoff=timedelta(seconds=1)).backoff == Backoff(1)
    assert Backoff(SECONDS_MAX).cap == SECONDS_MAX
    assert Backoff(0).to_wire() == (0, 0, 2, 0.5)


class _Own(Exception):
    pass


def test_exceptions_travel_by_their_own_names() -> None:
    class Inner(_Own):
        pass

    def names(*retry_on: Any) -> Any:
        return (JobOptions(retry_on=retry_on).to_wire() or {})["retry_on"]

    here = __name__
    # As another module has them, or the builtins.
    assert names("json.JSONDecodeError") == ("json.decoder.JSONDecodeError",)
    assert names("KeyError", IOError) == ("builtins.KeyError", "builtins.OSError")
    assert names(_Own, f"{here}._Own") == (f"{here}._Own",) * 2
    assert names(Inner) == names(f"{here}.{Inner.__qualname__}")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("NoSuchError", ValueError),
        ("no_such_module.Error", ValueError),
        ("json.NoSuchError", ValueError),
        ("json.loads", TypeError),
        ("int", TypeError),
    ],
)
def test_a_name_that_finds_no_exception_is_refused_when_the_job_is_submitted(
    name: str, kind: type[Exception]
) -> None:
    options = JobOptions(retry_on=name)  # its module may still be being imported
    with pytest.raises(kind, match=f"retry_on='{name}'"):
        options.to_wire()


def test_a_declared_function_for_the_wait_comes_with_the_function() -> None:
    assert JobOptions(backoff=lambda attempt, error: 1.0).to_wire() == {"backoff_fn": DECLARED}
