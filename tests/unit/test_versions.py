"""Versions that go together, and those that do not (gmpd.versions)."""

from __future__ import annotations

import cloudpickle
import pytest

from gmpd import versions

OWN = versions.own()
MINOR = str(OWN["python"]).rpartition(".")[0]


def test_the_version_of_cloudpickle_is_found_without_its_import() -> None:
    assert versions.cloudpickle() == cloudpickle.__version__


def test_what_is_the_same_or_not_told_goes_together() -> None:
    assert versions.conflict(OWN, "it") == ""
    assert versions.conflict({}, "it") == ""
    assert versions.conflict({"python": f"{MINOR}.99"}, "it") == "", (
        "bytecode is of a minor version"
    )


@pytest.mark.parametrize(
    ("name", "other", "said"),
    [
        ("python", "3.2.1", rf"^it has Python 3\.2\.1, this daemon Python {MINOR}"),
        ("python", "4.11.0", "Python 4"),
        ("gmpd", "99.0.0", "gmpd 99"),
        ("pickle", 4, "pickle protocol 4"),
        ("cloudpickle", "2.9", rf"cloudpickle 2\.9, .*{versions.cloudpickle()}"),
    ],
)
def test_what_is_unsafe_is_told_with_both(name: str, other: str | int, said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        raise AssertionError(versions.conflict({**OWN, name: other}, "it"))
