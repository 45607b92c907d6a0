"""Functions that a daemon's modules declare: which ones a worker reports (daemon/declared.py)."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

from gmpd import protocol
from gmpd.daemon.declared import declared_in, missing_among
from gmpd.daemon.registry import Registry
from gmpd.errors import Unserializable
from gmpd.job import DECLARED

SOURCE = """
import gmpd

@gmpd.job
def plain(x):
    return x

NEVER = "no_such_module.Error"

@gmpd.job(retries=3, retry_on=NEVER, backoff=lambda n, e: n, timeout=5, keep=60, once=True)
async def fetch(url):
    return url

def unmarked():
    pass

also = plain

class Lazy:
    def __getattribute__(self, name):
        raise SystemExit("code of a value ran")

lazy = Lazy()
"""


def module(name: str, source: str) -> ModuleType:
    made = ModuleType(name)
    sys.modules[name] = made
    exec(source, made.__dict__)
    return made


@pytest.fixture
def package() -> Iterator[None]:
    module("pkg_declared", "")
    module("pkg_declared.jobs", SOURCE)
    module(
        "pkg_declared.more",
        "import gmpd\nfrom pkg_declared.jobs import plain\n@gmpd.job\ndef own(): pass",
    )
    module("pkg_declared_not", "import gmpd\n@gmpd.job\ndef other(): pass")
    yield
    for name in [name for name in sys.modules if name.startswith("pkg_declared")]:
        del sys.modules[name]


def names(*imports: str) -> list[str]:
    return [each.name for each in declared_in(imports)]


@pytest.mark.usefixtures("package")
def test_a_marked_function_counts_in_the_module_that_defines_it() -> None:
    assert names("pkg_declared.jobs") == ["pkg_declared.jobs:plain", "pkg_declared.jobs:fetch"]
    assert names("pkg_declared.more") == ["pkg_declared.more:own"]


@pytest.mark.usefixtures("package")
def test_modules_below_those_named_count_and_others_do_not() -> None:
    below = ["pkg_declared.jobs:plain", "pkg_declared.jobs:fetch", "pkg_declared.more:own"]
    assert names("pkg_declared") == below
    assert names("pkg_declared", "pkg_declared.jobs") == below
    assert names("not_imported") == names() == []


@pytest.mark.usefixtures("package")
def test_what_its_author_declared_is_reported_and_fits_the_wire() -> None:
    reported = declared_in(["pkg_declared.jobs"])
    assert reported[1] == protocol.Declaration(
        name="pkg_declared.jobs:fetch",
        is_job=True,
        options=protocol.Options(retries=3, timeout=5, backoff_fn=DECLARED),
        keep=60,
        once=True,
    )
    info: dict[str, Any] = {"declared": reported}
    hello = protocol.unpack(
        protocol.pack(protocol.hello("worker", b"", info)), protocol.FROM_WORKER
    )
    assert hello.info.declared == reported


SCHEDULED = """
import gmpd

@gmpd.every(5, args=(1, "x"))
@gmpd.cron("@daily", tz="Europe/Berlin", name="daily", catch_up="none")
def tidy(n, word): ...
"""


@pytest.mark.usefixtures("package")
def test_schedules_are_reported_and_are_no_permission_to_call() -> None:
    module("pkg_declared.periodic", SCHEDULED)
    (reported,) = declared_in(["pkg_declared.periodic"])
    assert not reported.is_job
    assert [each.name for each in reported.schedules] == ["daily", "pkg_declared.periodic:tidy"]
    assert reported.schedules[0].cron == "@daily"
    assert reported.schedules[1].every_ms == 5000
    registry = Registry()
    registry.reported(protocol.Info(declared=[reported]))
    assert (registry.functions, registry.scheduled) == ({}, [reported])


@pytest.mark.usefixtures("package")
def test_schedules_of_one_name_and_arguments_that_are_not_plain_are_refused() -> None:
    module("pkg_declared.a", SCHEDULED)
    module("pkg_declared.b", SCHEDULED)
    with pytest.raises(ValueError, match=r"'daily', of pkg_declared\.a:tidy and pkg_declared\.b"):
        declared_in(["pkg_declared"])
    module(
        "pkg_declared.c",
        "import gmpd\n@gmpd.every(5, args=(object(),))\ndef tidy(it): ...",
    )
    with pytest.raises(Unserializable, match="cannot be sent plain"):
        declared_in(["pkg_declared.c"])


def test_functions_that_cannot_be_imported_are_told_with_the_reason() -> None:
    missing = missing_among(["os.path:join", "os.path:joint", "nowhere:f"])
    assert missing.keys() == {"os.path:joint", "nowhere:f"}
    assert "did you mean 'join'?" in missing["os.path:joint"]
    assert "no module 'nowhere'" in missing["nowhere:f"]


def declared(name: str, *, once: bool = False) -> protocol.Declaration:
    return protocol.Declaration(name=f"m:{name}", is_job=True, once=once)


def test_the_newest_report_counts() -> None:
    registry = Registry()
    registry.reported(protocol.Info(declared=[declared("a"), declared("b")]))
    registry.reported(protocol.Info())  # it imports none
    assert list(registry.functions) == ["m:a", "m:b"]
    registry.reported(protocol.Info(declared=[declared("b", once=True)]))
    assert list(registry.functions) == ["m:b"]
    assert registry.functions["m:b"].once
