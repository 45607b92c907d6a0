"""The frames above a job's own, which tracebacks hide: compiled code names them otherwise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from gmpd import compiled
from gmpd.codec import FunctionRef, encode_call, error_texts
from gmpd.codec.pickles import is_own_error
from gmpd.daemon.attempt import Attempt
from gmpd.daemon.lease_run import LeaseRun
from tests.unit.test_lease_run import Worker


def test_the_hidden_callers_are_the_functions_that_call_a_job() -> None:
    codes = Attempt._invoke.__code__, LeaseRun._call.__code__
    places = {(compiled.source_file(code.co_filename), code.co_name) for code in codes}
    assert places == error_texts._CALLERS


def fails(n: int) -> int:
    return 1 // n


def text_of_the_error(monkeypatch: pytest.MonkeyPatch, fn: str, arg: Any) -> str:
    """The traceback of a job that a run of leases calls."""
    seen: list[BaseException] = []
    monkeypatch.setattr(LeaseRun, "_fail", lambda _self, error: seen.append(error))
    worker = Worker(1)
    worker.fn.ref = FunctionRef("name", fn)
    (run,) = worker.p.runq.ring
    run.payloads = [encode_call("", (arg,), {}).data]
    worker.step()
    (error,) = seen
    return error_texts.traceback_text(error)


def test_the_frames_of_a_run_are_hidden_above_those_of_the_job(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = text_of_the_error(monkeypatch, f"{__name__}:fails", 0)
    assert text.startswith(f'Traceback (most recent call last):\n  File "{__file__}", line ')
    assert "lease_run" not in text


def test_a_built_in_function_has_no_frame_to_show(monkeypatch: pytest.MonkeyPatch) -> None:
    text = text_of_the_error(monkeypatch, "math:sqrt", "x")
    assert "lease_run" not in text


def _compiled_elsewhere(file: str, name: str) -> Callable[..., Any]:
    """A function whose frame is named as compiled code names its own."""
    names: dict[str, Any] = {}
    exec(compile("def f(*_):\n    raise OSError('no')", file, "exec"), names)
    made: Callable[..., Any] = names["f"]
    made.__code__ = made.__code__.replace(co_name=name)
    return made


def test_an_error_of_compiled_code_is_gmpds_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "_compiled_sources", frozenset({"gmpd/runtime/spawn.py"}))

    def error_of(file: str) -> BaseException:
        try:
            _compiled_elsewhere(file, "gmpd.runtime.spawn.go")()
        except OSError as error:
            return error
        raise AssertionError

    assert not is_own_error(error_of("gmpd/runtime/spawn.py"))
    assert is_own_error(error_of("gmpd/runtime/other.py")), "of a directory of the user's"
