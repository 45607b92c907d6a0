"""The frame above a job's own frames, which tracebacks hide, is known by its file and function."""

from __future__ import annotations

from gmpd.codec import error_texts
from gmpd.daemon.attempt import Attempt


def test_the_hidden_caller_is_the_function_that_calls_a_job() -> None:
    code = Attempt._invoke.__code__
    assert (code.co_filename, code.co_name) == error_texts._CALLER
