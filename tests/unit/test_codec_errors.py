"""Exceptions as bytes (gmpd.codec.failures)."""

from __future__ import annotations

import asyncio
import dataclasses
import errno
import json
import subprocess
import sys
import textwrap
import threading
import traceback
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gmpd
from gmpd import codec, errors
from gmpd.codec import pickles
from gmpd.codec.error_texts import TEXT_MAX
from gmpd.errors import GmpdError, ProtocolError, QueueFull, RemoteError, RemoteTraceback

OWN_CODE = Path(gmpd.__file__).parent


def caught(raiser: Callable[[], Any]) -> BaseException:
    try:
        raiser()
    except BaseException as exc:
        return exc
    raise AssertionError("nothing was raised")


def raising(exc: BaseException) -> BaseException:
    def user_function() -> None:
        raise exc

    return caught(user_function)


def there_and_back(exc: BaseException, *, plain: bool = False) -> BaseException:
    return codec.decode_error(codec.encode_error(exc, plain=plain), plain=plain)


class Own(Exception):
    """Makes its text from its argument: once, not once more on each arrival."""

    def __init__(self, code: object) -> None:
        super().__init__(f"code {code}")
        self.code = code


class Greedy(Exception):
    """Needs two arguments and keeps one: Python itself cannot pickle this."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code


class GreedyOS(OSError):
    """As above, and what its base makes of its arguments is kept outside of ``__dict__``."""

    def __init__(self, code: int, *, path: str) -> None:
        super().__init__(code, "cannot", path)
        self.lock = threading.Lock()


class OwnNew(Exception):
    one: int
    """Its ``__new__`` needs more than it keeps."""

    def __new__(cls, one: int, two: int) -> OwnNew:
        made = super().__new__(cls, one, two)
        made.one = one
        return made

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one}{two}")


class Loaded(Exception):
    pass


class NoText(Exception):
    def __str__(self) -> str:
        raise SystemExit(3)

    __repr__ = __str__


class NoReduce(Exception):
    def __reduce__(self) -> Any:
        raise RuntimeError("never")


class Sticky(Exception):
    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("frozen")


@pytest.mark.parametrize(
    "exc",
    [
        ValueError("no"),
        KeyError("k"),
        OSError("text"),
        FileNotFoundError(2, "No such file", "/x"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
        ZeroDivisionError(),
        SystemExit(3),
        KeyboardInterrupt(),
        StopIteration(5),
        QueueFull("full", 3, 0.5),
        errors.JobTimeout("late"),
        errors.WorkerLost("died", "j", 7, "SIGKILL", None),
    ],
    ids=lambda exc: type(exc).__name__,
)
@pytest.mark.parametrize("plain", [False, True], ids=["pickles", "plain"])
def test_a_known_error_comes_back_as_itself_without_a_pickle(
    exc: BaseException, plain: bool
) -> None:
    data = codec.encode_error(raising(exc), plain=plain)
    assert "pickled" not in msgpack.unpackb(data)
    back = codec.decode_error(data, plain=plain)
    assert type(back) is type(exc)
    assert (back.args, str(back)) == (exc.args, str(exc))
    assert {k: v for k, v in vars(back).items() if k != "__notes__"} == vars(exc)


def test_an_own_class_comes_back_with_its_state_and_text() -> None:
    back = there_and_back(raising(Own(5)))
    assert type(back) is Own
    assert (str(back), back.code) == ("code 5", 5)


def test_a_class_whose_init_cannot_be_called_again_is_rebuilt_without() -> None:
    back = there_and_back(raising(Greedy(5, "five")))
    assert type(back) is Greedy
    assert (str(back), back.args, back.code) == ("5: five", ("5: five",), 5)


def test_what_a_builtin_base_keeps_comes_back_and_what_cannot_be_sent_is_named() -> None:
    back = there_and_back(raising(GreedyOS(2, path="/x")))
    assert type(back) is GreedyOS
    assert (back.errno, back.filename, str(back)) == (2, "/x", "[Errno 2] cannot: '/x'")
    assert not hasattr(back, "lock")
    assert back.__notes__ == ["(came without attributes that cannot be sent: lock)"]


def test_a_class_that_makes_its_instances_itself_is_rebuilt_without() -> None:
    back = there_and_back(raising(OwnNew(1, 2)))
    assert type(back) is OwnNew
    assert (str(back), back.one) == ("12", 1)


class Unreadable(Exception):
    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(name)


@pytest.mark.parametrize("grouped", [False, True])
def test_an_error_that_cannot_even_be_read_arrives_as_a_text(grouped: bool) -> None:
    exc = Unreadable(1)
    back = there_and_back(ExceptionGroup("", [exc, KeyError(2)]) if grouped else exc)
    members = back.exceptions if isinstance(back, ExceptionGroup) else (back,)
    assert type(members[0]) is RemoteError
    assert "Unreadable (it cannot be read: __getattribute__ raised RuntimeError)" in str(members[0])
    assert [type(each) for each in members[1:]] in ([], [KeyError])


def test_parts_that_are_no_exception_are_texts() -> None:
    parts: Any
    for parts in (
        (int, (), (), {}),
        (ValueError, 5, (), {}),
        "nonsense",
        (ExceptionGroup, (), (), {}),
    ):
        data, _ = pickles.dump(parts, in_band=True)
        fields = msgpack.unpackb(codec.encode_error(raising(Greedy(1, "x"))))
        back = codec.decode_error(msgpack.packb({**fields, "bare": data}))
        assert type(back) is RemoteError


def test_the_remote_traceback_is_the_cause() -> None:
    back = there_and_back(raising(ValueError("no")))
    assert isinstance(back.__cause__, RemoteTraceback)
    assert "in user_function" in str(back.__cause__)
    assert back.__cause__.text.endswith("ValueError: no\n")


def test_notes_travel() -> None:
    exc = ValueError("no")
    exc.add_note("first")
    codec.add_job_note(exc, "job 7 on P3")
    back = there_and_back(raising(exc))
    assert back.__notes__ == ["first", "job 7 on P3"]
    codec.add_job_note(Sticky("x"), "is refused, which is no error")


@pytest.mark.parametrize(
    "exc", [NoText("x"), NoReduce("why"), Sticky("s")], ids=lambda exc: type(exc).__name__
)
def test_an_error_that_resists_arrives_all_the_same(exc: Exception) -> None:
    summary = codec.error_summary(codec.encode_error(raising(exc)))
    assert summary.type == f"{__name__}.{type(exc).__name__}"
    assert "in user_function" in summary.traceback
    back = there_and_back(raising(exc))
    assert isinstance(back, type(exc) | RemoteError)
    assert isinstance(back.__cause__, RemoteTraceback)


def test_a_class_that_is_missing_here_becomes_a_remote_error() -> None:
    data = msgpack.unpackb(codec.encode_error(raising(Loaded("x"))))
    data["pickled"] = data["pickled"].replace(b"Loaded", b"Absent")
    back = codec.decode_error(msgpack.packb(data))
    assert isinstance(back, RemoteError)
    assert str(back) == f"{__name__}.Loaded: x"
    assert back.type_name == f"{__name__}.Loaded"
    assert "in user_function" in back.remote_traceback


def test_plain_errors_are_never_unpickled() -> None:
    data = codec.encode_error(raising(Loaded("x")))
    assert isinstance(codec.decode_error(data, plain=True), RemoteError)
    assert b"pickled" not in codec.encode_error(raising(Loaded("x")), plain=True)


def test_texts_are_bounded() -> None:
    exc = ValueError("ü" * 1_000_000)
    for _ in range(200):
        exc.add_note("n" * 1000)
    data = codec.encode_error(raising(exc))
    error = msgpack.unpackb(data)
    for text in (error["message"], error["traceback"], *error["notes"]):
        assert len(text.encode()) <= TEXT_MAX
    assert len(error["notes"]) == 101, "and that it was cut"
    assert "… cut …" in error["message"]
    ascii_only = codec.error_summary(codec.encode_error(ValueError("x" * 1_000_000)))
    assert "characters left out" in ascii_only.message


def test_what_carries_megabytes_arrives_without_them() -> None:
    exc = Loaded("x")
    exc.load = b"x" * 2_000_000  # type: ignore[attr-defined]
    data = codec.encode_error(raising(exc))
    assert len(data) < 10_000
    back = codec.decode_error(data)
    assert type(back) is Loaded
    assert "cannot be sent: load" in back.__notes__[0]


def test_a_chain_and_a_group_are_shown() -> None:
    def chained() -> None:
        try:
            raise KeyError("inner")
        except KeyError as inner:
            raise ExceptionGroup("both", [ValueError("one"), OSError("two")]) from inner

    text = codec.error_summary(codec.encode_error(caught(chained))).traceback
    for part in ("KeyError: 'inner'", "direct cause", "ValueError: one", "OSError: two"):
        assert part in text


def test_an_endless_chain_ends() -> None:
    first = exc = ValueError("0")
    for i in range(5000):
        exc.__context__ = ValueError(str(i))
        exc = exc.__context__
    text = codec.error_summary(codec.encode_error(raising(first))).traceback
    assert "in user_function" in text
    assert text.count("ValueError") <= 100
    assert text.splitlines()[-1].startswith("(")  # that something is left out is said


def test_deep_recursion_arrives() -> None:
    def deeper(n: int) -> int:
        return deeper(n + 1)

    back = there_and_back(caught(lambda: deeper(0)))
    assert type(back) is RecursionError


def frames_of(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.lstrip().startswith("File ")]


def run_inside(part: str, fn: Callable[[], Any]) -> BaseException:
    """Call ``fn`` from a frame of gmpd's own code."""
    namespace: dict[str, Any] = {}
    source = textwrap.dedent("def step(fn):\n    return fn()\n")
    exec(compile(source, str(OWN_CODE / part), "exec"), namespace)
    step = namespace["step"]
    return caught(lambda: step(lambda: step(fn)))


@pytest.mark.parametrize("part", ["daemon/attempt.py", "runtime/loop.py", "runtime/m.py"])
def test_frames_of_gmpd_above_the_users_are_hidden(part: str) -> None:
    def user_function() -> None:
        raise ValueError("mine")

    # As in a worker: what catches is gmpd's own, so the traceback begins there.
    exc = run_inside(part, user_function)
    tb = exc.__traceback__
    while tb is not None and not tb.tb_frame.f_code.co_filename.startswith(str(OWN_CODE)):
        tb = tb.tb_next
    data = codec.encode_error(exc.with_traceback(tb))
    text = codec.error_summary(data).traceback
    assert str(OWN_CODE) + "/" + part not in "".join(frames_of(text)[:1])
    assert frames_of(text)[-1].endswith("in user_function")


def test_frames_of_gmpd_below_the_users_are_shown() -> None:
    def user_function() -> None:
        codec.encode(lambda: (_ for _ in ()).throw(ValueError("x")))
        codec.decode(b"")

    text = codec.error_summary(codec.encode_error(caught(user_function))).traceback
    assert "in user_function" in text
    assert frames_of(text)[-1].strip().startswith(f'File "{OWN_CODE}')


def test_a_fault_of_gmpd_itself_keeps_its_frames() -> None:
    namespace: dict[str, Any] = {"caught": caught}
    source = "def fault():\n    return 1 / 0\n"
    exec(compile(source, str(OWN_CODE / "daemon/attempt.py"), "exec"), namespace)
    exc = caught(namespace["fault"])
    assert exc.__traceback__ is not None
    text = codec.error_summary(
        codec.encode_error(exc.with_traceback(exc.__traceback__.tb_next))
    ).traceback
    assert "in fault" in text


@given(st.binary(max_size=100))
def test_garbage_is_a_protocol_error(data: bytes) -> None:
    for read in (codec.decode_error, codec.error_summary):
        with pytest.raises(ProtocolError):
            read(data)


@pytest.mark.parametrize("key", ["type", "module", "qualname", "message", "traceback", "notes"])
@pytest.mark.parametrize("value", [None, 5, [5], {}], ids=str)
def test_an_error_of_wrong_shape_is_refused(key: str, value: object) -> None:
    error = msgpack.unpackb(codec.encode_error(raising(ValueError("no"))))
    error[key] = value
    if (key, value) == ("notes", []):
        return
    with pytest.raises(ProtocolError, match="an error w"):
        codec.decode_error(msgpack.packb(error))


@pytest.mark.parametrize("qualname", ["eval", "ValueError", "len", "nothing", "__import__"])
def test_by_name_only_exceptions_are_made(qualname: str) -> None:
    error = msgpack.unpackb(codec.encode_error(raising(ValueError("no"))))
    error |= {"module": "builtins", "qualname": qualname, "args": ["1/0"]}
    back = codec.decode_error(msgpack.packb(error), plain=True)
    assert type(back) in (ValueError, RemoteError)
    assert (type(back) is ValueError) == (qualname == "ValueError")


def test_every_error_of_gmpd_comes_back_as_itself() -> None:
    kinds = [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, GmpdError)
    ]
    assert len(kinds) > 15
    for kind in kinds:
        assert type(there_and_back(raising(kind("text")))) is kind


# ------------------------------------------------------------ what else a job may end with


class Bare(BaseException):
    pass


@pytest.mark.parametrize(
    "kind",
    [
        SystemExit,
        KeyboardInterrupt,
        GeneratorExit,
        asyncio.CancelledError,
        Bare,
        StopAsyncIteration,
    ],
)
def test_whatever_can_be_raised_comes_back_as_its_own_class(kind: type[BaseException]) -> None:
    back = there_and_back(raising(kind("text")))
    assert type(back) is kind
    assert back.args == ("text",)
    assert isinstance(back.__cause__, RemoteTraceback)


@dataclasses.dataclass(frozen=True)
class Frozen(Exception):
    code: int


def test_a_frozen_exception_gets_its_note_and_keeps_its_class() -> None:
    exc = Frozen(3)
    codec.add_job_note(exc, "job 7")
    back = there_and_back(raising(exc))  # Python itself cannot unpickle it
    assert type(back) is Frozen
    assert (back.code, back.args) == (3, (3,))
    assert isinstance(back.__cause__, RemoteTraceback)
    assert back.__notes__ == ["job 7"]


def test_notes_that_are_no_list_of_texts_do_no_harm() -> None:
    for notes in (5, ("a",), [1, "kept", None]):
        exc = ValueError("no")
        exc.__notes__ = notes  # type: ignore[assignment]
        back = there_and_back(raising(exc))
        assert getattr(back, "__notes__", []) == (["kept"] if isinstance(notes, list) else [])
        codec.add_job_note(exc, "job 7")
        assert "job 7" in exc.__notes__


def test_members_of_a_group_come_back_each_as_far_as_it_can() -> None:
    bad = raising(NoReduce("stays"))
    assert isinstance(bad, Exception)
    inner = ExceptionGroup("inner", [Own(5), bad])
    back = there_and_back(raising(ExceptionGroup("outer", [ValueError("a"), inner])))
    assert type(back) is ExceptionGroup
    assert str(back) == "outer (2 sub-exceptions)"
    first, second = back.exceptions
    assert repr(first) == "ValueError('a')"
    assert isinstance(second, ExceptionGroup)
    assert [type(exc) for exc in second.exceptions] == [Own, NoReduce]
    assert "in user_function" in str(second.exceptions[1].__cause__)
    kept, rest = back.split(Own)
    assert kept is not None
    assert rest is not None


def test_a_group_with_an_interrupt_stays_a_base_group() -> None:
    back = there_and_back(raising(BaseExceptionGroup("g", [KeyboardInterrupt(), ValueError()])))
    assert type(back) is BaseExceptionGroup
    assert [type(exc) for exc in back.exceptions] == [KeyboardInterrupt, ValueError]


class TaskErrors(ExceptionGroup[Exception]):
    def derive(self, excs: Any) -> TaskErrors:  # type: ignore[override]
        return TaskErrors(self.message, excs)


def test_a_group_of_an_own_class_keeps_its_class() -> None:
    back = there_and_back(raising(TaskErrors("g", [ValueError("a")])))
    assert type(back) is TaskErrors
    assert repr(back.exceptions) == "(ValueError('a'),)"


def test_a_group_without_bounds_arrives_bounded() -> None:
    wide = ExceptionGroup("wide", [ValueError(str(i)) for i in range(20_000)])
    assert len(codec.encode_error(raising(wide))) < 2_000_000
    deep: Exception = ValueError("core")
    for _ in range(5_000):
        deep = ExceptionGroup("deep", [deep])
    data = codec.encode_error(raising(deep))
    assert isinstance(codec.decode_error(data), RemoteError | ExceptionGroup)
    assert "in user_function" in codec.error_summary(data).traceback


@pytest.mark.parametrize("parts", [[], [5], [b"garbage"], [[]]], ids=str)
def test_a_group_of_wrong_parts_is_refused(parts: object) -> None:
    error = msgpack.unpackb(codec.encode_error(raising(ExceptionGroup("g", [ValueError()]))))
    with pytest.raises(ProtocolError):
        codec.decode_error(msgpack.packb(error | {"parts": parts}))


def test_groups_nested_beyond_all_measure_are_no_recursion() -> None:
    data = codec.encode_error(raising(ExceptionGroup("g", [ValueError()])))
    error = msgpack.unpackb(data)
    for _ in range(300):
        data = msgpack.packb(error | {"parts": [data]})
    assert isinstance(codec.decode_error(data), BaseException)


def test_a_cause_that_leads_back_to_its_start_ends() -> None:
    first, second = ValueError("first"), KeyError("second")
    first.__cause__, second.__cause__ = second, first
    summary = codec.error_summary(codec.encode_error(raising(first)))
    assert "KeyError: 'second'" in summary.traceback
    assert summary.traceback.endswith("ValueError: first\n")
    assert type(there_and_back(first)) is ValueError


class Verbose(Exception):
    def __str__(self) -> str:
        return "x" * 10_000_000


def test_a_traceback_that_cannot_be_formatted_still_names_its_places(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Since 3.15 the traceback module imports lazily: without a descriptor that fails."""

    def refuse(*_args: object, **_kwargs: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(traceback, "TracebackException", refuse)
    monkeypatch.setattr(traceback.StackSummary, "format", refuse)
    data = codec.encode_error(raising(OSError(errno.EMFILE, "no more")))
    assert "in user_function" in codec.error_summary(data).traceback
    assert type(codec.decode_error(data)) is OSError


def test_a_gigantic_text_is_cut_without_many_copies() -> None:
    exc = raising(Verbose())
    tracemalloc.start()
    try:
        data = codec.encode_error(exc)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(data) < 3 * TEXT_MAX
    assert peak < 30_000_000
    summary = codec.error_summary(data)
    assert "characters left out" in summary.message
    assert "in user_function" in summary.traceback


class Lying(str):
    __slots__ = ()

    def __getitem__(self, index: Any) -> Any:
        raise RuntimeError("no")

    __len__ = encode = __getitem__  # type: ignore[assignment]


class TextOfOwnClass(Exception):
    def __str__(self) -> str:
        return Lying("text")


class Metaclass(type):
    def __getattribute__(cls, name: str) -> Any:
        if name in {"__qualname__", "__module__", "__name__"}:
            raise RuntimeError("no name")
        return super().__getattribute__(name)


class Nameless(Exception, metaclass=Metaclass):
    pass


def test_classes_that_lie_about_themselves_arrive_as_texts() -> None:
    assert codec.error_summary(codec.encode_error(TextOfOwnClass())).message == "text"
    summary = codec.error_summary(codec.encode_error(Nameless("still here")))
    assert summary.message == "still here"


def test_texts_that_are_not_unicode_travel_escaped() -> None:
    back = there_and_back(raising(ValueError("a\ud800b")))
    assert type(back) is ValueError
    assert codec.error_summary(codec.encode_error(ValueError("a\ud800b"))).message == "a\\ud800b"


def test_the_hints_of_the_traceback_module_are_kept() -> None:
    def typo() -> None:
        [].apend(1)  # type: ignore[attr-defined]

    text = codec.error_summary(codec.encode_error(caught(typo))).traceback
    assert "[].apend(1)" in text
    assert "^^^" in text
    if sys.version_info >= (3, 12):  # before, only the interpreter itself made them
        assert "Did you mean" in text  # 3.15 has more words for it
        assert "append" in text


def test_every_truncation_of_an_error_is_refused() -> None:
    for exc in (ValueError("a"), Own(5), ExceptionGroup("g", [Own(5)])):
        data = codec.encode_error(exc)
        for length in range(len(data)):
            with pytest.raises(ProtocolError):
                codec.decode_error(data[:length])


class Coded(Exception):
    """Its ``__init__`` cannot be called with its args."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize(
    "exc",
    [
        ValueError("begin" + "x" * 3_000_000 + "end"),
        KeyError("begin" + "x" * 3_000_000 + "end"),
        OSError(2, "begin" + "x" * 3_000_000 + "end", "file"),
        RuntimeError(b"begin" + b"x" * 3_000_000 + b"end", 7),
        UnicodeDecodeError(
            "utf-8", b"begin" + b"x" * 3_000_000 + b"end", 2_999_999, 3_000_000, "bad"
        ),
    ],
)
def test_megabytes_of_text_are_cut_and_the_class_is_kept(exc: BaseException, plain: bool) -> None:
    data = codec.encode_error(raising(exc), plain=plain)
    assert len(data) < 10 * TEXT_MAX
    back = codec.decode_error(data, plain=plain)
    assert type(back) is type(exc)
    assert len(str(back)) < 5 * TEXT_MAX
    assert any("cut in the middle" in note for note in back.__notes__)
    if not isinstance(exc, UnicodeDecodeError):
        assert "begin" in str(back)
        assert "end" in str(back)
        assert "left out" in str(back)
    if isinstance(exc, OSError):
        assert isinstance(back, OSError)
        assert (back.errno, back.filename) == (2, "file")


def test_megabytes_of_text_in_a_class_of_ones_own() -> None:
    back = there_and_back(raising(Coded(7, "x" * 3_000_000)))
    assert type(back) is Coded
    assert back.code == 7
    assert str(back).startswith("7: xxx")
    assert len(str(back)) < 2 * TEXT_MAX


class Wants(Exception):
    """Needs more than it keeps, by keyword only, and holds what no other process can have."""

    def __init__(self, request: object, *, status: int, headers: object = None) -> None:
        super().__init__(request, status)
        self.status, self.headers = status, headers

    def __str__(self) -> str:
        return f"{self.status} for {self.args[0]}"


class Slotted(Exception):
    __slots__ = ("code", "extra")
    extra: list[int]

    def __init__(self, code: int) -> None:
        self.code = code


@dataclasses.dataclass
class Data(Exception):
    code: int
    reason: str = "none"


class OddReduce(Exception):
    def __reduce__(self) -> Any:
        return (str, ("not me",))


class BadReduce(Exception):
    def __reduce__(self) -> Any:
        raise RuntimeError("no")


class OwnArgs(Exception):
    @property
    def args(self) -> Any:  # type: ignore[override]
        raise AttributeError("args")


class OwnGroup(ExceptionGroup[Exception]):
    def __new__(cls, excs: list[Exception], code: int) -> OwnGroup:
        self = super().__new__(cls, f"code {code}", excs)
        self.code = code
        return self

    code: int


class Disk(OSError):
    def __init__(self, code: int, *, disk: object) -> None:
        super().__init__(code, "full", "/dev/sda")
        self.disk = disk


def test_an_argument_that_cannot_be_sent_becomes_its_text_and_nothing_else_does() -> None:
    lock = threading.Lock()
    back = there_and_back(raising(Wants(lock, status=404, headers={"a": 1})))
    assert type(back) is Wants
    assert (back.status, back.headers, back.args[1]) == (404, {"a": 1}, 404)
    assert back.args[0] == repr(lock)
    assert str(back) == f"404 for {lock!r}"
    assert any("came as its text" in note for note in back.__notes__)
    plain = there_and_back(raising(ValueError("a", lock, 3)))
    assert type(plain) is ValueError
    assert plain.args == ("a", repr(lock), 3)


def test_whatever_its_class_does_an_exception_keeps_it() -> None:
    slotted = Slotted(7)
    slotted.extra = [1]
    back = there_and_back(raising(slotted))
    assert type(back) is Slotted
    assert (back.code, back.extra) == (7, [1])
    back = there_and_back(raising(Data(5)))
    assert type(back) is Data
    assert (back.code, back.reason) == (5, "none")
    for odd in (OddReduce(1), BadReduce(1)):
        back = there_and_back(raising(odd))
        assert type(back) is type(odd)
        assert back.args == (1,)
    assert type(there_and_back(raising(OwnArgs(1)))) is OwnArgs
    disk = there_and_back(raising(Disk(28, disk=threading.Lock())))
    assert type(disk) is Disk
    assert (disk.errno, disk.filename) == (28, "/dev/sda")


def test_a_group_of_ones_own_class_keeps_it_and_its_members_theirs() -> None:
    lock = threading.Lock()
    group = OwnGroup([Wants(lock, status=1), KeyError("k"), OwnGroup([Data(2)], 9)], 7)
    back = there_and_back(raising(group))
    assert type(back) is OwnGroup
    assert (back.code, back.message) == (7, "code 7")
    assert [type(each) for each in back.exceptions] == [Wants, KeyError, OwnGroup]
    inner: Any = back.exceptions[2]
    assert inner.code == 9
    matched, rest = back.split(KeyError)
    assert matched is not None
    assert rest is not None


@pytest.mark.parametrize(
    "exc",
    [
        KeyError(("a", 1)),
        OSError(2, "m", "f", None, "g"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
        StopIteration(5),
        SystemExit(3),
        ImportError("no", name="mod", path="p"),
        SyntaxError("bad", ("f.py", 1, 2, "text", 1, 3)),
        KeyboardInterrupt(),
        UnicodeEncodeError("ascii", "é", 0, 1, "bad"),
        subprocess.CalledProcessError(3, ["cmd"], b"out"),
        json.JSONDecodeError("m", "doc", 1),
    ],
    ids=lambda exc: type(exc).__name__,
)
def test_exceptions_of_the_standard_library_keep_their_details(exc: BaseException) -> None:
    back = there_and_back(raising(exc))
    assert type(back) is type(exc)
    assert back.args == exc.args
    assert str(back) == str(exc)
    for name in ("errno", "filename", "filename2", "name", "path", "code", "value", "pos"):
        assert getattr(back, name, None) == getattr(exc, name, None)
    assert vars(back).keys() == vars(exc).keys()
