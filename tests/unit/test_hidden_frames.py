"""The frame above a job's own frames, which tracebacks hide, is known by its file and function."""

from __future__ import annotations

from gmpd.codec import error_texts
from gmpd.daemon.attempt import Attempt
from gmpd.daemon.lease_run import LeaseRun


def test_the_hidden_callers_are_the_functions_that_call_a_job() -> None:
    codes = Attempt._invoke.__code__, LeaseRun._call.__code__
    assert {(code.co_filename, code.co_name) for code in codes} == error_texts._CALLERS
