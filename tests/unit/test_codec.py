"""Values, calls and results keep their type, or are refused in words."""

from __future__ import annotations

import asyncio
import collections
import concurrent.futures
import dataclasses
import datetime
import decimal
import enum
import fractions
import functools
import io
import math
import operator
import pickle
import sys
import threading
import tracemalloc
import types
import uuid
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gmpd import codec
from gmpd.client.futures import JobFuture
from gmpd.codec import detached, pickles
from gmpd.errors import GmpdError, ProtocolError, Unserializable

HERE = sys.modules[__name__]


class Point(NamedTuple):
    x: int
    y: int


class Colour(enum.Enum):
    RED = 1
    GREEN = "green"


class Level(enum.IntEnum):
    LOW = 1


class Flags(enum.Flag):
    A = 1
    B = 2


@dataclasses.dataclass
class Person:
    name: str
    friends: list[Person] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True, slots=True)
class Frozen:
    value: int


class MyInt(int):
    pass


class MyStr(str):
    __slots__ = ()


class MyList(list[Any]):
    pass


class MyDict(dict[str, Any]):
    pass


class Config:
    def __init__(self, **attributes: object) -> None:
        vars(self).update(attributes)


def load(path: str, cfg: object = None, *rest: object, key: object = None) -> None:
    """A signature to name parameters of."""


def there_and_back(value: Any) -> Any:
    blob = codec.encode(value)
    return codec.decode(*as_received(blob))


def as_received(blob: codec.Blob) -> tuple[bytes, list[bytes]]:
    """The blob as a transport delivers it: in bytes of its own."""
    return bytes(blob.data), [bytes(buffer) for buffer in blob.buffers]


EXACT: list[Any] = [
    None,
    True,
    False,
    0,
    -1,
    2**63,
    2**64 - 1,
    -(2**63),
    2**64,
    -(2**63) - 1,
    2**70,
    0.0,
    1.5,
    math.inf,
    "",
    "text",
    "ünï\0",
    "\ud800",
    b"",
    b"\x80\x05.",
    bytearray(b"ab"),
    (),
    (1,),
    (1, (2, [3])),
    [],
    {},
    [1, "a", None],
    {"a": 1, "b": b"x"},
    {1: 2},
    {(1, 2): {3, 4}},
    [[]],
    {"\ud800": 1},
    {MyStr("k"): 1},
    set(),
    {1, 2},
    frozenset({1}),
    1 + 2j,
    range(3, 9, 2),
    slice(1, None, 2),
    ...,
    NotImplemented,
    Point(1, 2),
    Colour.GREEN,
    Level.LOW,
    Flags.A | Flags.B,
    Person("Ann", [Person("Bob")]),
    Frozen(3),
    MyInt(3),
    MyStr("x"),
    MyList([1]),
    MyDict(a=1),
    collections.OrderedDict(b=1, a=2),
    collections.Counter("abca"),
    collections.deque([1, 2], maxlen=3),
    collections.defaultdict(list, a=[1]),
    datetime.datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=datetime.UTC),
    datetime.date(2026, 1, 2),
    datetime.timedelta(days=-1, microseconds=5),
    decimal.Decimal("1.10"),
    fractions.Fraction(1, 3),
    uuid.UUID(int=5),
    PurePosixPath("/a/b"),
    Path("/tmp"),
    types.SimpleNamespace(a=1),
    list[int],
    int,
    Person,
    len,
    load,
    ValueError,
]


@pytest.mark.parametrize(
    "wrap",
    [lambda v: v, lambda v: [v], lambda v: {"k": v}, lambda v: (v,)],
    ids=["alone", "in a list", "in a dict", "in a tuple"],
)
def test_a_value_comes_back_equal_and_of_its_own_type(wrap: Callable[[object], object]) -> None:
    for value in EXACT:
        wrapped = wrap(value)
        back = there_and_back(wrapped)
        assert type(back) is type(wrapped), value
        assert back == wrapped
        assert deep_types(back) == deep_types(wrapped), value


def deep_types(value: Any) -> Any:
    """The types all the way down, for 1 == True == 1.0."""
    if isinstance(value, dict):
        return type(value), [(deep_types(k), deep_types(v)) for k, v in value.items()]
    if isinstance(value, list | tuple):
        return type(value), [deep_types(item) for item in value]
    return type(value)


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(st.characters()),
    st.binary(max_size=50),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(SCALARS, inner, max_size=4),
        st.dictionaries(st.text(), inner, max_size=4),
    ),
    max_leaves=20,
)


@given(VALUES)
def test_any_nesting_comes_back_with_its_types(value: Any) -> None:
    back = there_and_back(value)
    assert back == value
    assert deep_types(back) == deep_types(value)


@given(st.lists(VALUES, max_size=4), st.dictionaries(st.text(), VALUES, max_size=3))
def test_any_call_comes_back_with_its_types(args: list[Any], kwargs: dict[str, Any]) -> None:
    blob = codec.encode_call("m:f", tuple(args), kwargs)
    back = codec.decode_call(*as_received(blob))
    assert back == (tuple(args), kwargs)
    assert deep_types(back) == deep_types((tuple(args), kwargs))


def test_nan_and_negative_zero_keep_their_bits() -> None:
    nan, zero = there_and_back([math.nan, -0.0])
    assert math.isnan(nan)
    assert math.copysign(1, zero) == -1
    assert math.isnan(there_and_back(math.nan))
    assert math.copysign(1, there_and_back(-0.0)) == -1


def test_one_object_twice_stays_one_object() -> None:
    shared: list[int] = [1]
    first, second = there_and_back([shared, shared])
    assert first is second
    (one,), named = codec.decode_call(*codec.encode_call("f", (shared,), {"k": shared}))
    assert one is named["k"]


def test_what_contains_itself_still_does() -> None:
    loop: list[Any] = []
    loop.append(loop)
    assert (back := there_and_back(loop))[0] is back
    ann = Person("Ann")
    ann.friends.append(ann)
    assert (again := there_and_back(ann)).friends[0] is again


def test_what_msgpack_brings_back_exactly_goes_by_msgpack_and_nothing_else() -> None:
    for value in (None, 1, "a", b"a", [1, "a"], {"a": 1.5}, {}, []):
        assert codec.is_plain(codec.encode(value).data), value
        assert codec.to_plain(codec.encode(value).data) == value
    others: tuple[Any, ...] = (
        (),
        bytearray(b"a"),
        {1: 2},
        MyStr("a"),
        2**64,
        "\ud800",
        [[1]],
        Level.LOW,
    )
    for value in others:
        assert not codec.is_plain(codec.encode(value).data), value


def test_a_long_text_that_occurs_twice_is_sent_once() -> None:
    text = "x" * 100_000
    assert len(codec.encode([text] * 10).data) < 110_000
    assert there_and_back([text] * 10) == [text] * 10


def test_a_memoryview_keeps_items_and_dimensions() -> None:
    view = memoryview(bytearray(range(24))).cast("H", (3, 4))
    back = there_and_back(view)
    assert (type(back), back.format, back.shape) == (memoryview, "H", (3, 4))
    assert back.tobytes() == view.tobytes()
    assert not back.readonly
    assert there_and_back(memoryview(b"abc")) == b"abc"


# ------------------------------------------------------------------------------------- NumPy

ARRAYS = {
    "plain": np.arange(10_000),
    "fortran": np.asfortranarray(np.arange(10_000.0).reshape(100, 100)),
    "transposed": np.arange(10_000.0).reshape(100, 100).T,
    "strided": np.arange(20_000)[::2],
    "empty": np.zeros((0, 3)),
    "no dimension": np.array(5),
    "structured": np.zeros(1000, dtype=[("a", "i4"), ("b", "f8", (2,))]),
    "big endian": np.arange(5000, dtype=">i4"),
    "dates": np.arange("2026-01-01", "2076-01-01", dtype="datetime64[D]"),
    "texts": np.array(["ab", "c"] * 5000),
    "objects": np.array([{"a": 1}, None, (1, 2)] * 3, dtype=object),
    "bools": np.ones(9000, dtype=bool),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_an_array_keeps_items_dtype_order_and_is_writable(name: str) -> None:
    array = ARRAYS[name]
    back = there_and_back(array)
    assert type(back) is np.ndarray
    assert (back.dtype, back.shape) == (array.dtype, array.shape)
    assert np.array_equal(back, array)
    assert back.flags.f_contiguous == array.flags.f_contiguous or name == "strided"
    assert back.flags.writeable


def test_large_buffers_travel_beside_the_value_and_small_ones_within() -> None:
    small = np.zeros(pickles.OUT_OF_BAND_MIN - 1, dtype="u1")
    large = np.zeros(pickles.OUT_OF_BAND_MIN, dtype="u1")
    blob = codec.encode({"small": small, "large": large})
    assert [memoryview(buffer).nbytes for buffer in blob.buffers] == [large.nbytes]
    assert blob.nbytes == len(blob.data) + large.nbytes


def test_a_large_array_is_not_copied_to_be_encoded() -> None:
    array = np.zeros(8_000_000, dtype="u1")
    tracemalloc.start()
    try:
        blob = codec.encode_call("f", (array,), {})
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 100_000
    assert np.shares_memory(np.frombuffer(blob.buffers[0], dtype="u1"), array)


def test_the_number_of_frames_is_bounded() -> None:
    arrays = [np.full(5000, i) for i in range(pickles.OUT_OF_BAND_MAX + 10)]
    blob = codec.encode(arrays)
    assert len(blob.buffers) == pickles.OUT_OF_BAND_MAX + 1, "the pickle itself is large"
    assert all(map(np.array_equal, codec.decode(*as_received(blob)), arrays))


def test_a_read_only_array_stays_read_only() -> None:
    array = np.arange(5000)
    array.flags.writeable = False
    assert not there_and_back(array).flags.writeable


def test_a_writable_buffer_is_used_as_it_is() -> None:
    blob = codec.encode(np.zeros(5000))
    memory = bytearray(blob.buffers[0])
    back = codec.decode(blob.data, [memory])
    back[0] = 1
    assert memory[:8] == np.float64(1).tobytes()


class Table:
    """Pickles as pandas does: by protocol 5 buffers inside its own state."""

    def __init__(self, column: bytearray) -> None:
        self.column = column

    def __reduce_ex__(self, protocol: Any) -> Any:
        return Table, (pickle.PickleBuffer(self.column),)


def test_buffers_of_other_classes_travel_out_of_band_too() -> None:
    blob = codec.encode(Table(bytearray(b"x" * 5000)))
    assert len(blob.buffers) == 1
    assert codec.decode(*as_received(blob)).column == b"x" * 5000


# -------------------------------------------------------------------- by value: cloudpickle


def test_a_lambda_inside_a_value_works() -> None:
    offset = 10
    back = there_and_back({"add": lambda x: x + offset})
    assert back["add"](1) == 11


def test_a_value_of_a_local_class_is_an_instance_of_it_when_it_returns() -> None:
    class Local:
        kind = "local"

        def __init__(self, n: int) -> None:
            self.n = n

    back = there_and_back([Local(3)])[0]
    assert isinstance(back, Local)
    assert back.n == 3


def test_a_class_that_comes_home_keeps_its_own_state() -> None:
    class Local:
        limit = 1

        def read(self) -> int:
            return self.limit

    method = Local.read
    data = codec.encode(Local()).data
    Local.limit = 2
    back = codec.decode(data)
    assert type(back) is Local
    assert Local.limit == 2
    assert Local.read is method


def test_a_dynamic_enum_member_is_the_member() -> None:
    class Mood(enum.Enum):
        GOOD = 1

    assert there_and_back(Mood.GOOD) is Mood.GOOD


# -------------------------------------------------------------------------------- bad bytes


@given(st.binary(max_size=200))
def test_garbage_is_refused_in_words(data: bytes) -> None:
    readers: tuple[Callable[[bytes], Any], ...] = (codec.decode, codec.decode_call, codec.to_plain)
    for read in readers:
        text = ""
        try:
            read(data)
        except GmpdError as exc:
            text = str(exc) or "nothing is said"
        assert text != "nothing is said"


TRUNCATED: dict[str, Any] = {
    "list": [1, "a"],
    "dict": {"a": 1.5},
    "tuple": (1, 2),
    "object": Person("Ann"),
    "big": 2**200,
    "text": "text",
}


@pytest.mark.parametrize("name", TRUNCATED)
def test_every_truncation_is_refused(name: str) -> None:
    value = TRUNCATED[name]
    data = codec.encode(value).data
    for length in range(len(data)):
        with pytest.raises(ProtocolError):
            codec.decode(data[:length])
    call = codec.encode_call("f", (value, 1), {"k": value}).data
    for length in range(len(call)):
        with pytest.raises(ProtocolError):
            codec.decode_call(call[:length])


def sealed(data: bytes) -> bytes:
    """Bytes of a pickle with the checksum that codec puts behind its own."""
    return data + zlib.crc32(data).to_bytes(4, "little")


@pytest.mark.parametrize("name", ["object", "function"])
def test_a_flipped_bit_never_reaches_the_unpickler(name: str) -> None:
    """Unpickling damaged code objects crashes the interpreter; damaged sizes ask for all memory."""
    value = Person("Ann") if name == "object" else lambda x: x + 1
    data = codec.encode(value).data
    for position in range(len(data)):
        damaged = bytearray(data)
        damaged[position] ^= 1 << position % 8
        with pytest.raises(ProtocolError):
            codec.decode(damaged)


HOSTILE = {
    "empty": b"",
    "only a tag": b"\x80",
    "trailing bytes": b"\x01\x01",
    "huge array": b"\xdd\xff\xff\xff\xff",
    "huge nested": b"\xdd\x00\x00\x00\x10" * 1000,
    "deep": b"\x91" * 100_000 + b"\xc0",
    "huge text": b"\xdb\xff\xff\xff\xffab",
    "bad utf-8": b"\xa2\xff\xff",
    "never used": b"\xc1",
    "extension": msgpack.packb(msgpack.ExtType(5, b"abc")),
    "int key": b"\x81\x01\x01",
    "huge bytes in a pickle": sealed(b"\x80\x05\x8e\xff\xff\xff\xff\xff\xff\xff\x7f."),
    "huge bytearray in a pickle": sealed(b"\x80\x05\x96\xff\xff\xff\xff\xff\xff\xff\x7f."),
    "buffers that did not come": sealed(b"\x80\x05\x97."),
    "old protocol": sealed(pickle.dumps((1, 2), 2)),
    "empty stack": sealed(b"\x80\x05."),
    "no checksum": pickle.dumps(((1, 2), {}), 5),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_bytes_are_refused(name: str) -> None:
    for read in (codec.decode, codec.decode_call):
        with pytest.raises((ProtocolError, Unserializable)):
            read(HOSTILE[name])


def test_a_value_is_not_a_call() -> None:
    values: list[Any] = [[1], [1, 2], [[1], [2]], [{}, []], [[], {}, True, 1], {}, "ab"]
    for value in values:
        for data in (msgpack.packb(value), sealed(pickle.dumps(value, 5))):
            with pytest.raises(ProtocolError):
                codec.decode_call(data)


def test_too_few_and_too_many_buffers_are_refused() -> None:
    blob = codec.encode(np.zeros(5000))
    for buffers in ([], [*blob.buffers, b"more"]):
        with pytest.raises(ProtocolError):
            codec.decode(blob.data, buffers)


def test_a_value_whose_code_is_missing_says_what_to_install() -> None:
    module = __name__.encode()
    data = sealed(pickle.dumps(Person("Ann"), 5).replace(module, b"x" * len(module)))
    with pytest.raises(Unserializable, match=r"rebuilt here: ModuleNotFoundError: .*same code"):
        codec.decode(data)


class Bomb:
    def __reduce__(self) -> Any:
        return eval, ("1/0",)


class Quitter:
    def __reduce__(self) -> Any:
        return sys.exit, (3,)


@pytest.mark.parametrize("kind", [Bomb, Quitter])
def test_a_value_that_fails_while_it_is_rebuilt_is_an_error_of_its_own(kind: type) -> None:
    with pytest.raises(Unserializable, match=r"cannot be rebuilt here: (ZeroDivision|SystemExit)"):
        codec.decode(codec.encode(kind()).data)


# ------------------------------------------------------------------------- what cannot be sent


def refusal(function: Callable[[], object]) -> str:
    with pytest.raises(Unserializable) as info:
        function()
    return str(info.value)


def generator() -> Iterator[int]:
    yield 1


def test_the_refusal_names_function_argument_path_and_mend() -> None:
    cfg = {"log": Config(lock=threading.Lock())}
    text = refusal(lambda: codec.encode_call("pkg.mod:load", ("p", cfg), {}, fn=load))
    assert text.startswith(
        "argument 'cfg' of load() (position 2): cfg['log'].lock is a _thread.lock"
    )
    assert "create it inside the function" in text


def test_arguments_are_named_by_what_is_known() -> None:
    bad = generator()
    assert refusal(lambda: codec.encode_call("m:load", (1, 2, 3, bad), {}, fn=load)).startswith(
        "argument 'rest[1]' of load() (position 4): rest[1] is a generator"
    )
    assert refusal(lambda: codec.encode_call("m:load", (1, bad), {})).startswith(
        "argument 2 of load(): args[1] is a generator"
    )
    assert refusal(lambda: codec.encode_call("m:load", ("p",), {"key": [bad]}, fn=load)).startswith(
        "argument 'key' of load(): key[0] is a generator"
    )


class Slotted:
    __slots__ = ("inner",)

    def __init__(self, inner: object) -> None:
        self.inner = inner


class Stubborn:
    def __reduce__(self) -> Any:
        raise RuntimeError("not today")


def bad_values() -> dict[str, tuple[object, str]]:
    lock = threading.Lock()
    script: dict[str, Any] = {"LOCK": lock, "__name__": "__main__"}
    exec("def use(): return LOCK", script)
    return {
        "in a list": ([1, [2, lock]], "result[1][1] is a _thread.lock"),
        "far back": ([0] * 50_000 + [lock], "result[50000] is a _thread.lock"),
        "in a tuple": ((1, lock), "result[1] is"),
        "in a named tuple": (Point(1, lock), "result.y is"),  # type: ignore[arg-type]
        "in a dataclass": (Person("Ann", [lock]), "result.friends[0] is"),  # type: ignore[list-item]
        "in slots": (Slotted({"a": lock}), "result.inner['a'] is"),
        "in a deque": (collections.deque([lock]), "result[0] is"),
        "in a list subclass": (MyList([1, lock]), "result[1] is"),
        "in a dict subclass": (MyDict(a=lock), "result['a'] is"),
        "in an ordered dict": (collections.OrderedDict(a=lock), "result['a'] is"),
        "a key": ({lock: 1}, "the key <unlocked _thread.lock"),
        "in a set": ({1, lock}, "an item of result is a _thread.lock"),
        "in a partial": (functools.partial(print, lock), "result.args[0] is"),
        "of a bound method": (Config(lock=lock).__init__, "result.__self__.lock is"),  # type: ignore[misc]
        "in a closure": (lambda: lock, "closure variable 'lock' of result is"),
        "in a default": (lambda a=lock: a, "a default of result is"),
        "a global": (script["use"], "global 'LOCK' used by result is"),
        "itself": (lock, "result is a _thread.lock"),
        "a generator": ({"g": generator()}, "result['g'] is a generator"),
        "an open file": (io.TextIOWrapper(io.BytesIO()), "Send the path"),
        "an open file within": (Config(f=io.BufferedReader(io.BytesIO())), "result.f is an _io."),
        "refuses": (
            [Stubborn()],
            f"result[0] is a {__name__}.Stubborn, which cannot be pickled (Runt",
        ),
        "a frame": (types.SimpleNamespace(f=sys._getframe()), "result.f is a frame"),
    }


BAD_VALUES = bad_values()


@pytest.mark.parametrize("name", BAD_VALUES)
def test_a_result_that_cannot_be_sent_is_named_by_its_path(name: str) -> None:
    value, expected = BAD_VALUES[name]
    text = refusal(lambda: codec.encode_result(value))
    assert text.startswith("the result cannot be sent: ")
    assert expected in text


def test_what_is_nested_too_deeply_says_so() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    assert "nested too deeply" in refusal(lambda: codec.encode(deep))


def test_the_reason_behind_a_refusal_is_its_cause() -> None:
    with pytest.raises(Unserializable) as info:
        codec.encode_result(Stubborn())
    assert isinstance(info.value.__cause__, RuntimeError)


# ---------------------------------------------------------------------------------- plain


def test_plain_results_are_what_json_would_make() -> None:
    value = {"t": (1, (2,)), "c": collections.Counter("aab"), "l": Level.LOW, 1: 2, None: True}
    data = codec.encode_result(value, plain=True).data
    assert codec.to_plain(data) == {
        "t": [1, [2]],
        "c": {"a": 2, "b": 1},
        "l": 1,
        "1": 2,
        "null": True,
    }
    assert codec.decode(data) == codec.to_plain(data)


@pytest.mark.parametrize("value", [None, 1, "text", b"bytes", [], {}, [[1], {"a": [2]}], [()]])
def test_plain_values_need_no_pickle(value: Any) -> None:
    data = codec.encode_result(value, plain=True).data
    expected = [list(item) if item == () else item for item in value] if value == [()] else value
    assert codec.to_plain(data) == expected


def test_plain_calls_need_no_pickle_and_lists_stay_lists() -> None:
    blob = codec.encode_call("f", ([1, [2]], (3,), "a"), {"k": {"x": []}}, plain=True)
    assert codec.is_plain(blob.data)
    assert codec.decode_call(blob.data) == (([1, [2]], [3], "a"), {"k": {"x": []}})


LOOP: list[Any] = []
LOOP.append(LOOP)

NOT_PLAIN: list[tuple[Any, str]] = [
    ({"a": [1, {2}]}, "result['a'][1] is of type set"),
    ({"a": 2**64}, "result['a'] is an integer beyond 64 bits"),
    (["\ud800"], "result[0] is not valid Unicode"),
    ({1: 2, "1": 3}, "two keys that read '1'"),
    ({(1,): 2}, "a key of type tuple"),
    (LOOP, "contains itself"),
    (Person("Ann"), "result is of type Person"),
]


@pytest.mark.parametrize("index", range(len(NOT_PLAIN)))
def test_what_is_not_plain_is_refused_with_its_path(index: int) -> None:
    value, expected = NOT_PLAIN[index]
    text = refusal(lambda: codec.encode_result(value, plain=True))
    assert text.startswith("the result cannot be sent plain: ")
    assert expected in text
    call = refusal(lambda: codec.encode_call("m:load", (value,), {}, fn=load, plain=True))
    assert call.startswith("argument 'path' of load() (position 1) cannot be sent plain: ")


def test_a_pickle_is_never_opened_as_plain() -> None:
    data = codec.encode(Bomb()).data
    assert "only a Python client" in refusal(lambda: codec.to_plain(data))


# ------------------------------------------------------------------------------ the fast path


def test_threads_share_the_packer_without_mixing_their_calls() -> None:
    wrong: list[object] = []
    stop = threading.Event()

    def hammer(n: int) -> None:
        for i in range(3000):
            if stop.is_set():
                return
            call = (n, i, str(i) * 5)
            if codec.decode_call(codec.encode_call("f", call, {}).data)[0] != call:
                wrong.append(call)
                stop.set()

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=hammer, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert not wrong


def test_the_packer_does_not_keep_the_memory_of_a_large_value() -> None:
    big = b"x" * 20_000_000
    tracemalloc.start()
    try:
        codec.encode(big)
        codec.encode_call("f", (big,), {})
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 1_000_000


def test_arguments_that_are_not_exact_scalars_take_the_other_way() -> None:
    call = ((MyInt(1), operator.add), {"k": MyStr("a")})
    back = codec.decode_call(*codec.encode_call("f", *call))
    assert back == call
    assert deep_types(back) == deep_types(call)


def test_parts_come_back_each_as_its_own_value() -> None:
    values = [1, {"a": (1, 2)}, np.zeros(10_000, "u1"), None]
    blob = codec.encode_result(codec.Parts([codec.encode(value) for value in values]))
    assert len(blob.buffers) == 5, "a frame each, and the array's"
    parts = codec.decode(blob.data, [memoryview(frame) for frame in blob.buffers])
    back = [codec.decode(*part) for part in parts.parts]
    assert bytes(back.pop(2)) == bytes(10_000)
    assert back == [1, {"a": (1, 2)}, None]


@pytest.mark.parametrize(
    ("data", "frames"),
    [(b"\xc1", []), (b"\xc1\x01", []), (b"\xc1\x91\xff", [b"x"]), (b"\xc1\x91\x01", [b"x"])],
)
def test_what_are_no_parts_is_refused(data: bytes, frames: list[bytes]) -> None:
    with pytest.raises(ProtocolError):
        codec.decode(data, frames)


def test_a_future_among_arguments_is_refused_with_the_advice_to_send_its_result() -> None:
    done: concurrent.futures.Future[int] = concurrent.futures.Future()
    done.set_result(1)
    own = JobFuture()
    own.set_result(2)
    loop = asyncio.new_event_loop()
    pending = loop.create_future()
    loop.close()
    for future in (done, own, pending):
        for value in (future, [1, {"k": future}], functools.partial(print, future)):
            with pytest.raises(Unserializable, match="Send its result: submit") as info:
                codec.encode_call("m:f", (1, value), {})
            assert "Future, which cannot be pickled" in str(info.value)


# ---------------------------------------------------------------------- large values, detached

BIG = detached.LARGE + 1
BIGS = [b"x" * BIG, "\u00fc" * BIG, "x" * BIG, [b"y" * BIG, 1], {"k": "z" * BIG}, (bytearray(BIG),)]


@pytest.mark.parametrize("value", BIGS, ids=["bytes", "wide", "text", "list", "dict", "tuple"])
def test_large_values_have_frames_of_their_own(value: Any) -> None:
    for blob in (codec.encode(value), codec.encode_result(value)):
        assert len(blob.data) < 100
        assert blob.nbytes >= BIG
        got = codec.decode(memoryview(blob.data), [memoryview(each) for each in blob.buffers])
        assert (got, type(got)) == (value, type(value))


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ((b"x" * BIG,), {}),
        ((1, "x" * BIG, None), {"a": b"y" * BIG, "b": 2.5}),
        (([1], b"x" * BIG), {}),
        ((), {"k": b"x" * BIG}),
    ],
)
def test_large_arguments_have_frames_of_their_own(args: Any, kwargs: Any) -> None:
    blob = codec.encode_call("f", args, kwargs)
    assert len(blob.data) < 200
    assert codec.decode_call(blob.data, blob.buffers) == (args, kwargs)


def test_a_large_bytes_is_not_copied_by_its_sender() -> None:
    value = b"x" * BIG
    assert codec.encode_call("f", (value,), {}).buffers[0] is value
    assert codec.encode_result(value).buffers[0] is value


def test_plain_values_are_never_detached() -> None:
    blob = codec.encode_result(b"x" * BIG, plain=True)
    assert not blob.buffers
    assert codec.to_plain(blob.data) == b"x" * BIG
    assert not codec.encode_call("f", (b"x" * BIG,), {}, plain=True).buffers


def test_a_large_text_with_lone_surrogates_is_refused_or_comes_back() -> None:
    value = "\ud800" * BIG
    blob = codec.encode_result(value)
    assert codec.decode(blob.data, blob.buffers) == value
    call = codec.encode_call("f", (value,), {})
    assert codec.decode_call(call.data, call.buffers) == ((value,), {})


@pytest.mark.parametrize(
    ("data", "frames"),
    [
        (b"\xc1\xc1", [b"x"]),
        (b"\xc1\xc1b", []),
        (b"\xc1\xc1b", [b"x", b"y"]),
        (b"\xc1\xc1t", [b"\xff"]),
        (b"\xc1\xc1d", []),
        (b"\xc1\xc1?", [b"x"]),
        (b"\xc1\xc1c", []),
        (b"\xc1\xc1c\x92\x91\xd6\x01\x00\x00\x00\x09\x80", [b"x"]),
        (b"\xc1\xc1c\x93\x90\x80\xc0", []),
    ],
)
def test_what_was_not_detached_so_is_refused(data: bytes, frames: list[bytes]) -> None:
    with pytest.raises(ProtocolError):
        codec.decode_call(data, frames)
    if data[2:3] != b"c":
        with pytest.raises(ProtocolError):
            codec.decode(data, frames)
