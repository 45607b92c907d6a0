"""Modules that a pickle names, against what ``pickletools`` finds in it."""

from __future__ import annotations

import collections
import datetime
import decimal
import fractions
import pickle
import pickletools
import random
import sys
import types
from typing import Any

import pytest

from gmpd.codec.mentions import modules_in


def named(data: bytes) -> set[bytes]:
    """The slow way."""
    texts: list[Any] = []
    memo: list[Any] = []
    found = set()
    for opcode, arg, _ in pickletools.genops(data):
        if opcode.name in ("SHORT_BINUNICODE", "BINUNICODE"):
            texts.append(arg)
        elif opcode.name in ("BINGET", "LONG_BINGET"):
            texts.append(memo[int(arg or 0)])
        elif opcode.name == "MEMOIZE":
            memo.append(texts[-1] if texts else None)
        elif opcode.name == "STACK_GLOBAL":
            found.add(texts[-2].encode())
    return found


class Alike:
    """Of a name that another module has, too."""


VALUES = [
    [1, "a", b"\x93"],
    decimal.Decimal(1),
    [fractions.Fraction(1, 3), decimal.Decimal(2), collections.OrderedDict(a=datetime.date.max)],
    (datetime.date, datetime.datetime, datetime.time, Alike, Alike()),
    [str(n) for n in range(400)] + [decimal.Decimal(1), Alike, collections.deque()],
    [bytes([n]) * 40 for n in range(256)] + [Alike],
]


@pytest.mark.parametrize("value", VALUES)
def test_modules_are_found(value: object) -> None:
    data = pickle.dumps(value, 5)
    assert named(data) <= modules_in(data)


def test_names_of_every_length_and_at_every_border_of_a_frame(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for size in (1, 127, 139, 140, 141, 146, 147, 148, 149, 255):
        module = types.ModuleType("Д" * (size // 2) + "m" * (size % 2))
        for name in ("n" * size, "Alike"):
            setattr(module, name, type(name, (), {"__module__": module.__name__}))
        monkeypatch.setitem(sys.modules, module.__name__, module)
        for first in (Alike, f"{module.__name__}.", name):
            kinds = [vars(module)["n" * size], vars(module)["Alike"]]
            assert module.__name__.encode() in modules_in(pickle.dumps([first, *kinds], 5))
    for extra in range(65_400, 65_560):
        data = pickle.dumps(["x" * extra, decimal.Decimal(1), Alike], 5)
        assert {b"decimal", __name__.encode()} <= modules_in(data)


def test_data_that_looks_like_it_does_no_harm() -> None:
    source = random.Random(1)
    for _ in range(300):
        data = bytes(source.choice(b"\x93\x94\x8c\x95hj\0\1\2ab") for _ in range(60))
        modules_in(data)
