"""The wire (gmpd.protocol): every field of every message is checked; all follows from classes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import msgpack
import msgspec
import pytest
from msgspec import inspect

from gmpd import protocol
from gmpd.bykey import Limit
from gmpd.errors import ProtocolError
from gmpd.job import PRIORITY_MAX, RETRIES_MAX, SECONDS_MAX, STORED, TEXT_MAX, Backoff, JobOptions
from gmpd.protocol import Finished, Outcome, kind_of

LINKS = {
    "from client": protocol.FROM_CLIENT,
    "to client": protocol.TO_CLIENT,
    "from worker": protocol.FROM_WORKER,
    "to worker": protocol.TO_WORKER,
}
DIRECTIONS = list(LINKS.values())
EVERY = [(each, cls) for each in DIRECTIONS for cls in each.classes.values()]


def deep(n: int) -> Any:
    value: Any = []
    for _ in range(n):
        value = [value]
    return value


#: One of each kind that msgpack has, and what a careless check lets pass.
ANYTHING: list[Any] = [
    None, True, False, 0, 1, -1, 1.5, math.nan, math.inf, 1 << 63, (1 << 64) - 1, "", "x", b"",
    [], [0], ["x"], [None], [-1], {}, {"x": 1}, {0: [[], None]}, {0: [1, {"p": "x"}]}, deep(1000),
]  # fmt: skip


# ------------------------------------------------------------------------ examples from the types


def example(kind: inspect.Type) -> Any:
    """Something small that fits a type, as msgpack has it."""
    match kind:
        case inspect.NoneType() | inspect.AnyType():
            return None
        case inspect.BoolType():
            return True
        case inspect.IntType():
            return max(1, kind.ge or 0)
        case inspect.FloatType():
            return 1.5 if kind.le is None or kind.le > 1 else 0.5
        case inspect.StrType():
            return "name"
        case inspect.BytesType():
            return b"b" * (kind.min_length or 1)
        case inspect.LiteralType():
            return kind.values[0]
        case inspect.EnumType():
            return next(iter(kind.cls)).value
        case inspect.UnionType():
            return example(max(kind.types, key=lambda each: not isinstance(each, inspect.NoneType)))
        case inspect.ListType():
            return [example(kind.item_type)]
        case inspect.VarTupleType():
            return [example(kind.item_type)]
        case inspect.TupleType():
            return [example(each) for each in kind.item_types]
        case inspect.DictType(key_type=inspect.IntType()):
            return {0: example(kind.value_type)}
        case inspect.DictType():
            return {example(kind.key_type): example(kind.value_type)}
        case inspect.TypedDictType() | inspect.StructType():
            return {field.encode_name: example(field.type) for field in kind.fields}
        case _:
            raise TypeError(kind)


def fields_of(cls: type[Any]) -> tuple[inspect.Field, ...]:
    kind = inspect.type_info(cls)
    assert isinstance(kind, inspect.StructType)
    return kind.fields


def whole(cls: type[Any]) -> list[Any]:
    return [kind_of(cls), *(example(field.type) for field in fields_of(cls))]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Each place inside a message, the message itself left out."""
    items: Any = ()
    if isinstance(value, list):
        items = enumerate(value)
    elif isinstance(value, dict):
        items = value.items()
    for key, inner in items:
        yield (*path, key)
        yield from places(inner, (*path, key))


def put(value: Any, path: tuple[Any, ...], what: Any) -> Any:
    if not path:
        return what
    copy = value.copy()
    copy[path[0]] = put(value[path[0]], path[1:], what)
    return copy


def test_a_message_of_each_class_is_read_and_packs_to_the_same() -> None:
    for direction, cls in EVERY:
        frame = msgpack.packb(whole(cls))
        message = protocol.unpack(memoryview(frame), direction)
        assert type(message) is cls
        again = protocol.unpack(protocol.pack(message), direction)
        assert again == message


def is_boundless(cls: type[Any], path: tuple[Any, ...]) -> bool:
    """Only what a coordinator answers to a question has no type."""
    return cls is protocol.Reply and path == (3,)


@pytest.mark.parametrize("direction", DIRECTIONS, ids=LINKS)
def test_no_field_takes_what_it_may_not_hold(direction: protocol.Direction) -> None:
    """Any value in any place is refused in words, or read as its type says."""
    for cls in direction.classes.values():
        message = whole(cls)
        for path in places(message):
            for what in ANYTHING:
                frame = msgpack.packb(put(message, path, what))
                try:
                    read = protocol.unpack(frame, direction)
                except ProtocolError:
                    continue
                if path == (0,):
                    continue  # a message of another kind with the same fields
                fits = msgspec.to_builtins(read, builtin_types=(bytes,))
                assert msgspec.convert(fits, cls) == read
                assert what is not ANYTHING[-1] or is_boundless(cls, path), path


@pytest.mark.parametrize("direction", DIRECTIONS, ids=LINKS)
def test_a_message_with_another_number_of_fields_is_refused(direction: protocol.Direction) -> None:
    for cls in direction.classes.values():
        fields = fields_of(cls)
        least = sum(field.required for field in fields)
        for n in range(len(fields) + 3):
            frame = msgpack.packb([*whole(cls), 1, 1][: n + 1])
            if least <= n <= len(fields):
                assert type(protocol.unpack(frame, direction)) is cls
            else:
                with pytest.raises(ProtocolError, match=cls.__name__):
                    protocol.unpack(frame, direction)


def test_every_other_message_is_refused_in_a_direction() -> None:
    for direction in DIRECTIONS:
        for cls in protocol.Message.__args__:
            if kind_of(cls) not in direction.classes:
                with pytest.raises(ProtocolError, match=rf"never sends kind {kind_of(cls)}$"):
                    protocol.unpack(msgpack.packb(whole(cls)), direction)


# ------------------------------------------------------------------------------- columns and rows


ROWS = (1, 2, 100)
NO_INT = (True, -1, 1.0, "x", b"y", None, [1], (1 << 62) + 1, (1 << 64) - 1)
NO_BYTES = ("x", 1, None, [b"x"])


def finished(rows: int, specials: Any = None, counts: Any = None, **columns: Any) -> bytes:
    """A worker's message of ``rows`` outcomes, with the last row of a column replaced."""
    names = ("tokens", "payloads", "ran_us", "occupied_us")
    all_rows: dict[str, list[Any]] = {name: [1] * rows for name in names}
    all_rows["payloads"] = [b"r"] * rows
    for name, value in columns.items():
        all_rows[name][-1] = value
    packed: bytes = msgpack.packb([kind_of(Finished), *all_rows.values(), specials, counts])
    return packed


@pytest.mark.parametrize("rows", ROWS)
def test_columns_are_read(rows: int) -> None:
    message = protocol.unpack(finished(rows, tokens=1 << 62), protocol.FROM_WORKER)
    assert message.tokens == [1] * (rows - 1) + [1 << 62]
    assert message.payloads == [b"r"] * rows


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("column", ["tokens", "ran_us", "occupied_us"])
def test_a_column_of_integers_holds_nothing_else(rows: int, column: str) -> None:
    for value in NO_INT:
        with pytest.raises(
            ProtocolError, match=rf"Finished\.{column}\[{rows - 1}\]: Expected `int`"
        ):
            protocol.unpack(finished(rows, **{column: value}), protocol.FROM_WORKER)


@pytest.mark.parametrize("rows", ROWS)
def test_a_column_of_payloads_holds_nothing_else(rows: int) -> None:
    for value in NO_BYTES:
        with pytest.raises(ProtocolError, match=r"Finished\.payloads\[\d+\]: Expected `bytes`"):
            protocol.unpack(finished(rows, payloads=value), protocol.FROM_WORKER)


@pytest.mark.parametrize("short", [1, 2, 3, 4])
def test_columns_of_one_message_have_one_length(short: int) -> None:
    columns: list[list[Any]] = [[1, 2], [b"", b""], [1, 2], [1, 2]]
    fields = [kind_of(Finished), *columns, None, None]
    del columns[short - 1][0]
    with pytest.raises(ProtocolError, match="columns of different length"):
        protocol.unpack(msgpack.packb(fields), protocol.FROM_WORKER)


@pytest.mark.parametrize(
    "specials",
    [
        {2: [1, None]},
        {-1: [1, None]},
        {0: [9, None]},
        {0: [1]},
        {0: [1, None, 2]},
        {"0": [1, None]},
    ],
    ids=str,
)
def test_specials_name_rows_and_outcomes(specials: Any) -> None:
    with pytest.raises(ProtocolError, match="specials"):
        protocol.unpack(finished(2, specials), protocol.FROM_WORKER)


def test_counts_have_the_length_of_the_rows() -> None:
    with pytest.raises(ProtocolError, match="buffer_counts"):
        protocol.unpack(finished(2, None, [1]), protocol.FROM_WORKER)


@pytest.mark.parametrize("rows", [0, protocol.BATCH_JOBS_MAX + 1])
def test_a_batch_has_a_job_and_not_too_many(rows: int) -> None:
    frame = msgpack.packb([kind_of(protocol.Submit), 1, 1, None, [b""] * rows, None])
    with pytest.raises(ProtocolError, match=r"Submit\.payloads"):
        protocol.unpack(frame, protocol.FROM_CLIENT)


GARBAGE = [b"", b"\xc1", b"\x90", b"\xdd\xff\xff\xff\xff", b"\x92\x06", b"\x00", b"\x91\x01\x00",
           b"\x91" * 100_000, b"\x97\x18\xdd\xff\xff\xff\xff", b"\x94\x0a\x01\xa3\xed\xa0\x80\x80",
           msgpack.packb(deep(1000))]  # fmt: skip


@pytest.mark.parametrize("frame", GARBAGE, ids=range(len(GARBAGE)))
def test_garbage_is_refused_and_nothing_else_is_raised(frame: bytes) -> None:
    for direction in DIRECTIONS:
        with pytest.raises(ProtocolError):
            protocol.unpack(frame, direction)


def test_a_hello_of_a_later_version_is_read() -> None:
    """With more to tell of itself, also what nests."""
    later = {"pid": 5, "zone": [{"x": [1]}], "python": "4.0"}
    message = protocol.unpack(
        msgpack.packb([kind_of(protocol.Hello), "gmpd", 9, 12, "client", b"s", later]),
        protocol.FROM_CLIENT,
    )
    with pytest.raises(ProtocolError, match="9 to 12"):
        protocol.agree(message)


def test_a_refusal_for_the_version_has_the_form_of_the_first() -> None:
    frame = protocol.pack_refusal(protocol.Refusal.VERSION, "no")
    assert msgpack.unpackb(frame) == [3, protocol.VERSION_MIN, protocol.VERSION, "no"]
    assert protocol.unpack(frame, protocol.TO_CLIENT).code is protocol.Refusal.VERSION
    frame = protocol.pack_refusal(protocol.Refusal.SESSIONS, "no")
    assert protocol.unpack(frame, protocol.TO_CLIENT).code is protocol.Refusal.SESSIONS


# ------------------------------------------------------------------------------------ said once


def test_the_drawing_is_what_the_unions_say() -> None:
    assert protocol.drawing() in (protocol.__doc__ or "")


def test_numbers_of_messages_are_used_once_and_never_again() -> None:
    classes = protocol.Envelope.__subclasses__()
    kinds = [kind_of(cls) for cls in classes]
    assert len(set(kinds)) == len(kinds)
    assert not protocol.RETIRED & set(kinds)
    assert set(classes) == set(protocol.Message.__args__), "every message has a direction"
    for cls in classes:
        assert cls.__doc__
        assert 1 <= cls.since <= protocol.VERSION


EACH: dict[str, Any] = {
    "name": "n" * TEXT_MAX, "retries": RETRIES_MAX, "timeout": SECONDS_MAX / 2,
    "kill_after": SECONDS_MAX,
    "priority": -PRIORITY_MAX, "delay": SECONDS_MAX, "unique": "u", "durable": True,
    "isolate": True, "plain": True, "capture": True, "limit": Limit("l", 3, (100, 60.0)),
    "backoff": (0.5, 60.0, 3.0, 0.25), "retry_on": ("builtins.OSError",),
}  # fmt: skip


def test_options_on_the_wire_are_those_of_jobs() -> None:
    fields = [field for field in dataclasses.fields(JobOptions) if field.name not in STORED]
    names = {field.name for field in fields}
    assert names == EACH.keys()
    assert names | {
        "stream",
        "child",
        "backoff_fn",
        "attempt",
        "on_held",
        "expires",
        "root",
    } == set(protocol.Options.__struct_fields__)
    for field in fields:
        assert getattr(protocol.Options(), field.name) == field.default
    declared = {**EACH, "backoff": Backoff(*EACH["backoff"])}
    wire = protocol.options(JobOptions(**declared).to_wire())
    frame = protocol.pack(protocol.Submit(1, 1, wire, [b""], None))
    assert protocol.unpack(frame, protocol.FROM_CLIENT).options == wire
    assert msgspec.to_builtins(wire) == {**EACH, "limit": ("l", 3, 100, 60.0)}


@pytest.mark.parametrize(
    "options",
    [
        {"delay": "1"}, {"delay": math.nan}, {"delay": math.inf}, {"delay": -1}, {"delay": 1e300},
        {"delay": SECONDS_MAX + 1}, {"priority": "high"}, {"priority": []}, {"priority": 1.5},
        {"priority": True}, {"priority": 10**6}, {"retries": "3"}, {"retries": None},
        {"retries": -1}, {"timeout": 0}, {"timeout": "5"}, {"timeout": [5]}, {"timeout": -1},
        {"timeout": math.nan}, {"timeout": SECONDS_MAX + 1}, {"isolate": "yes"},
        {"isolate": 1}, {"plain": None}, {"durable": 0}, {"name": ""}, {"name": 5},
        {"name": "x" * 257}, {"unique": b"u"}, {"limit": "k"}, {"limit": ["k", 1]},
        {"limit": ["", 1, 0, 0]}, {"limit": ["k", -1, 0, 0]}, {"limit": ["k", 0, 1, math.nan]},
        {"stream": "x"}, {"stream": -1}, {"child": [1]}, {"child": [0, 0, 1]}, {"child": ["x", 0]},
    ],
    ids=str,
)  # fmt: skip
def test_an_option_that_a_job_cannot_have_is_refused_by_name(options: dict[str, Any]) -> None:
    frame = msgpack.packb([kind_of(protocol.Submit), 1, 1, options, [b""], None])
    with pytest.raises(ProtocolError, match=rf"Submit\.options\.{next(iter(options))}"):
        protocol.unpack(frame, protocol.FROM_CLIENT)


@pytest.mark.parametrize("options", [{"speed": 9}, {1: 2}, {None: None}, [], "x", 5], ids=str)
def test_what_is_no_option_is_refused(options: Any) -> None:
    frame = msgpack.packb([kind_of(protocol.Submit), 1, 1, options, [b""], None])
    with pytest.raises(ProtocolError, match="Submit"):
        protocol.unpack(frame, protocol.FROM_CLIENT)


def test_no_line_of_the_package_packs_an_outcome_as_a_text() -> None:
    """Outcomes, refusals and endings are numbers with names."""
    for cls in (Outcome, protocol.Refusal, protocol.Ending, protocol.Stage, protocol.ChanOp):
        assert all(isinstance(each, int) for each in cls)


def test_frames_come_only_with_values() -> None:
    for direction, cls in EVERY:
        frame = msgpack.packb(whole(cls))
        if cls.carries:
            assert type(protocol.unpack(frame, direction, 2)) is cls
        else:
            with pytest.raises(ProtocolError, match="came with 2 frames"):
                protocol.unpack(frame, direction, 2)
