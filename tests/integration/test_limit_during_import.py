"""A time limit that passes while a job's module is imported does not break that module."""

from __future__ import annotations

import importlib
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from gmpd.errors import JobTimeout
from tests.durable_daemon import Daemon

MODULE = "slowly_imported"
TEXT = """
import os, time
if "SLOWLY" in os.environ:  # in a worker
    time.sleep(1)

def answer():
    return 7
"""


def test_a_job_that_waits_for_an_import_leaves_it_intact(monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory(prefix="slowly", dir="/tmp") as name:
        directory = Path(name)
        (directory / f"{MODULE}.py").write_text(TEXT)
        monkeypatch.syspath_prepend(name)
        monkeypatch.setitem(sys.modules, MODULE, None)  # so that it is gone afterwards
        del sys.modules[MODULE]
        module: Any = importlib.import_module(MODULE)
        with Daemon(directory, SLOWLY="1") as daemon:
            client = daemon.client()
            first = client.submit(importlib.import_module, MODULE)  # not as the job's own module
            limited = client.options(timeout=0.1)
            pairs = [(limited.submit(module.answer), client.submit(module.answer)) for _ in "1234"]
            assert first.result(60) is module
            assert isinstance(pairs[0][0].exception(60), JobTimeout), "it waits for the import"
            for held_back, patient in pairs:
                assert held_back.done() or held_back.result(60) == 7
                assert patient.result(60) == 7, "another job that waits for the import goes on"
            assert client.submit(module.answer).result(60) == 7, "the module's lock is free"
            assert client.options(timeout=30).submit(module.answer).result(60) == 7
