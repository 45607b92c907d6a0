"""A part's values are rebuilt one by one: one that fails takes those with it that share objects."""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterator
from typing import Any

import pytest

from gmpd.codec.parts import PartReader, Row, seal

MODULE = "m"


class Fragile:
    """Cannot be rebuilt while ``broken``."""

    broken = False

    def __init__(self, *held: Any) -> None:
        self.held = held

    def __setstate__(self, state: Any) -> None:
        if Fragile.broken:
            raise OSError("broken")
        vars(self).update(state)


@pytest.fixture
def broken() -> Iterator[None]:
    Fragile.broken = True
    yield
    Fragile.broken = False


def reader_of(**values: Any) -> PartReader:
    sink = io.BytesIO()
    pickler = pickle.Pickler(sink, 5)
    for name, value in values.items():
        pickler.dump((MODULE, name, value))
    pickler.dump(None)
    return PartReader(seal(sink, [Row((MODULE, name), ()) for name in values]))


def names(reader: PartReader) -> set[str]:
    return {name for _, name in reader.failed}


def test_values_keep_what_they_share() -> None:
    shared: list[int] = []
    found = {name: value for _, name, value in reader_of(a=[shared], b=(shared, 1)).read()}
    assert found["a"][0] is found["b"][0]


@pytest.mark.usefixtures("broken")
def test_a_value_fails_alone_and_those_after_it_keep_what_they_share() -> None:
    """The objects of the failed one have numbers, too, which those after them are counted from."""
    shared, inside = ["shared"], ["inside"]
    reader = reader_of(
        first=[shared], bad=Fragile(inside, "text", shared), second=(shared, "more"),
        third=[inside], fourth=[["more", "text"], shared], fifth={"k": shared},
    )  # fmt: skip
    found = {name: value for _, name, value in reader.read()}
    assert found["second"][0] is found["first"][0] is found["fifth"]["k"] is found["fourth"][1]
    assert names(reader) == {"bad", "third"} | ({"fourth"} - found.keys())
    assert {str(error) for error in reader.failed.values()} == {"broken"}


def test_a_second_try_gives_what_failed_and_what_it_shares() -> None:
    inside = ["inside"]
    reader = reader_of(zero=[inside], bad=Fragile(inside), other=Fragile(), last=[inside, 1])
    Fragile.broken = True
    try:
        before = {name: value for _, name, value in reader.read()}
        assert names(reader) == {"bad", "other"}
        assert list(reader.again({(MODULE, "bad")})) == []
    finally:
        Fragile.broken = False
    ((_, name, bad),) = reader.again({(MODULE, "bad"), (MODULE, "zero")})
    assert (name, names(reader)) == ("bad", {"other"})
    assert bad.held[0] is before["zero"][0] is before["last"][0]


class Interrupted:
    """Rebuilding it is interrupted."""

    def __reduce__(self) -> Any:
        return _interrupt, ()


def _interrupt() -> None:
    raise KeyboardInterrupt


def test_what_interrupts_is_no_failure() -> None:
    reader = reader_of(a=1, b=Interrupted())
    with pytest.raises(KeyboardInterrupt):
        list(reader.read())
    assert not reader.failed
