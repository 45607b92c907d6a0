"""A program's sent parts are one state at any moment, whichever thread comes in between."""

from __future__ import annotations

import io
import pickle
import sys
import threading
import types
from collections.abc import Callable, Iterator
from typing import Any

import cloudpickle
import pytest
from cloudpickle import cloudpickle as inner

from gmpd import protocol
from gmpd.client.core import FUNCTIONS_MAX, ClientCore
from gmpd.codec import describe_function, drafts, encode_call, hosted_programs, sent_program
from gmpd.codec.functions import FunctionRef
from gmpd.errors import Unserializable
from gmpd.sched import functions
from gmpd.submit.functions import PARTS_MAX, FunctionTable

SOURCE = """
count, LIMIT = 0, 1

def f():
    global count
    count += 1
    return count, LIMIT, value

def g():
    return LIMIT, value

def late():
    return count
"""


class Hooked:
    """Calls something in the middle of its being pickled."""

    def __init__(self, hook: Callable[[], object], text: str = "") -> None:
        self.hook, self.text, self.times = hook, text, 0

    def __reduce__(self) -> tuple[Any, ...]:
        self.times += 1
        self.hook()
        return str, (self.text,)


@pytest.fixture
def program() -> Iterator[Any]:
    """A module that goes by value, of a program of its own."""
    module: Any = types.ModuleType("program_of_test_home")
    exec(SOURCE, module.__dict__)
    sys.modules[module.__name__] = module
    cloudpickle.register_pickle_by_value(module)
    before, sent_program.THIS_PROGRAM = sent_program.THIS_PROGRAM, sent_program.SentProgram()
    yield module
    sent_program.THIS_PROGRAM = before
    cloudpickle.unregister_pickle_by_value(module)
    del sys.modules[module.__name__]


def parts_of(ref: FunctionRef) -> dict[str, list[int]]:
    """By name the numbers of the parts that define it."""
    found: dict[str, list[int]] = {}
    for part in ref.needs:
        for _, name in part.keys:
            found.setdefault(name, []).append(part.number)
    return found


def test_what_a_handler_submits_meanwhile_is_not_sent_a_second_time(program: Any) -> None:
    """A job of it may have assigned the global since: the workers' own is not reset."""
    inner: list[FunctionRef] = []
    inside: list[int] = []

    def handler() -> None:
        if not inside:
            inside.append(1)
            inner.append(describe_function(program.f))

    program.value = Hooked(handler)
    outer = describe_function(program.f)
    assert parts_of(outer)["count"] == parts_of(inner[0])["count"]
    assert outer.payload == inner[0].payload
    assert {part.number for part in outer.needs} == {part.number for part in inner[0].needs}


def test_what_a_handler_binds_anew_is_what_is_sent_last(program: Any) -> None:
    def handler() -> None:
        if program.LIMIT == 1:
            program.LIMIT = 2
            describe_function(program.g)

    program.value = Hooked(handler)
    ref = describe_function(program.g)
    last = [part for part in ref.needs if (program.__name__, "LIMIT") in part.keys][-1]
    assert [value for _, name, value in _entries(last) if name == "LIMIT"] == [2]
    assert describe_function(program.g) == ref


def _entries(part: Any) -> list[Any]:
    found = []
    unpickler = pickle.Unpickler(io.BytesIO(part.data()))
    with hosted_programs.entering(hosted_programs.HostedProgram(b"x" * 16)):
        while (entry := unpickler.load()) is not None:
            found.append(entry)
    return found


def test_what_raises_half_way_leaves_nothing_behind(program: Any) -> None:
    class Stop(BaseException):
        pass

    def handler() -> None:
        if program.value.times == 1:
            raise Stop

    program.value = Hooked(handler)
    with pytest.raises(Stop):
        describe_function(program.f)
    assert sent_program.THIS_PROGRAM.require([]).state.entries == {}
    ref = describe_function(program.f)
    assert set(parts_of(ref)) >= {"f", "count", "LIMIT", "value"}


def test_a_function_exchanged_while_it_is_sent_is_sent_again(program: Any) -> None:
    def handler() -> None:
        program.g.__code__ = program.late.__code__

    program.value = Hooked(handler)
    first = describe_function(program.g)
    assert describe_function(program.g) != first or b"late" in first.needs[-1].data()


def test_a_lock_that_another_thread_holds_while_it_submits_is_no_deadlock(
    program: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``__getstate__`` takes the object's own lock, as many classes do."""
    monkeypatch.setattr(sent_program, "_TURN_S", 0.05)
    lock, inside, held = threading.Lock(), threading.Event(), threading.Event()

    def take() -> None:
        inside.set()
        held.wait(5)
        with lock:
            pass

    program.value = Hooked(take)

    def other() -> None:
        inside.wait(5)
        with lock:
            held.set()
            describe_function(program.late)

    threads = [
        threading.Thread(target=target, daemon=True)
        for target in (other, lambda: describe_function(program.f))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(8)
    assert not any(thread.is_alive() for thread in threads)


def test_threads_that_define_the_same_names_agree(program: Any) -> None:
    program.value = Hooked(lambda: None)
    start, refs = threading.Barrier(8), []

    def describe() -> None:
        start.wait()
        refs.append(describe_function(program.f))

    threads = [threading.Thread(target=describe) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(refs)) == 1
    assert program.value.times <= 2  # alone, to see whether it is large, and with the others


def test_a_large_value_is_pickled_again_before_the_clients_door(program: Any) -> None:
    """Its own code runs when a second session is sent it, and may do what it likes."""
    said: list[Any] = []
    program.value = Hooked(lambda: None, "x" * 2 * drafts.ALONE_BYTES)
    ref = describe_function(program.g)
    FunctionTable(10, said.append).number(ref)
    times = program.value.times
    core = ClientCore(b"s" * 16, {})
    blob = encode_call("g", (), {})
    core.check(ref, blob, None)
    assert program.value.times == times + 1
    core.submit(ref, blob, None, object())
    core.window, core.batch_jobs = 8, 8
    assert core.take_outgoing()
    assert program.value.times == times + 1
    defined = [m for m in said if isinstance(m, protocol.Define)]
    assert all(m.payload for m in defined)


def test_a_large_value_that_cannot_be_sent_again_is_named(program: Any) -> None:
    broken: list[int] = []

    def handler() -> None:
        if broken:
            raise ValueError("gone")

    program.value = Hooked(handler, "x" * 2 * drafts.ALONE_BYTES)
    ref = describe_function(program.g)
    FunctionTable(10, lambda _: None).number(ref)
    broken.append(1)
    with pytest.raises(Unserializable, match=r"'value'.*gone"):
        ClientCore(b"s" * 16, {}).check(ref, encode_call("g", (), {}), None)


def test_a_program_may_define_more_than_a_session_remembers(program: Any) -> None:
    """Parts unused for longest are forgotten, with the functions that need them."""
    program.value = 0
    known: set[int] = set()
    most = 0

    def say(message: protocol.Message) -> None:
        nonlocal most
        if isinstance(message, protocol.Define):
            assert known.issuperset(message.needs)
            known.add(message.fid)
        else:
            assert isinstance(message, protocol.Undefine)
            known.difference_update(message.fids)
        most = max(most, len(known))

    table = FunctionTable(FUNCTIONS_MAX, say)
    first = describe_function(program.g)
    before = table.number(first)
    for n in range(PARTS_MAX + 10):
        made = types.FunctionType(program.late.__code__, vars(program), f"made_{n}")
        setattr(program, f"made_{n}", made)
        assert table.number(describe_function(made)) in known
    assert most <= PARTS_MAX + FUNCTIONS_MAX + 2 < functions.FUNCTIONS_MAX
    assert table.number(first) != before
    assert known.issuperset(table._parts.values())


def test_locks_of_the_pickler_may_be_entered_again() -> None:
    """A signal handler that pickles a class interrupts one that does."""
    with inner._DYNAMIC_CLASS_TRACKER_LOCK:
        assert inner._DYNAMIC_CLASS_TRACKER_LOCK.acquire(blocking=False)
        inner._DYNAMIC_CLASS_TRACKER_LOCK.release()


def test_a_struct_of_msgspec_is_refused_by_name(program: Any) -> None:
    """Its class statement cannot be repeated: where a worker tried, its error named slots."""
    exec("import msgspec\nclass Item(msgspec.Struct):\n    n: int\n", program.__dict__)
    exec("def makes():\n    return Item(1)\n", program.__dict__)
    with pytest.raises(
        Unserializable, match=r"global 'Item' used by makes is the class .*Item, "
    ) as f:
        describe_function(program.makes)
    assert "Define its class in a module" in str(f.value)
    with pytest.raises(Unserializable, match=r" is a .*Item, which") as call:
        encode_call("builtins:abs", (program.Item(1),), {})
    assert "Undefinable" not in str(call.value)
