"""Values, functions and errors between processes: by value, by name, and across a fork."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import types
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import msgpack
import pytest
from cloudpickle import cloudpickle as inner

from gmpd import codec
from gmpd.codec import describe_function, hosted_programs, rebuild, sent_program

ROOT = Path(__file__).parents[2]

#: Answers one call: as a worker does, without sockets.
WORKER = """
import sys, msgpack
from gmpd import codec
codec.stand_in()
kind, name, payload, parts, data, buffers = msgpack.unpackb(sys.stdin.buffer.read())
needs = tuple(codec.learn_part(*part) for part in parts)
try:
    fn = codec.resolve_function(codec.FunctionRef(kind, name, payload, needs))
    args, kwargs = codec.decode_call(data, buffers)
    result = fn(*args, **kwargs)
    blob = codec.encode_result(result)
    answer = [True, blob.data, [bytes(buffer) for buffer in blob.buffers]]
except Exception as exc:
    answer = [False, codec.encode_error(exc), []]
sys.stdout.buffer.write(msgpack.packb(answer))
"""

SCRIPT = """
import dataclasses, enum, subprocess, sys
import msgpack, numpy
from gmpd import codec

FACTOR = 3

class Colour(enum.Enum):
    RED = 1

@dataclasses.dataclass
class Thing:
    n: int
    colour: Colour = Colour.RED
    made = 0

    def read(self):
        return FACTOR

class Trouble(Exception):
    def __init__(self, thing):
        super().__init__(thing)
        self.thing = thing
        self.depth = 2

    def __str__(self):
        return f"trouble with {self.thing.n}"

def grow(thing, array):
    return Thing(thing.n * FACTOR, thing.colour), array * 2

def fail(thing):
    raise Trouble(thing)

def remote(fn, *args):
    ref, blob = codec.describe_function(fn), codec.encode_call("fn", args, {}, fn=fn)
    ref = ref.needing(blob.needs)
    parts = [[part.name, part.data()] for part in ref.needs]
    call = [*ref[:3], parts, blob.data, [bytes(buffer) for buffer in blob.buffers]]
    worker = [sys.executable, "-c", sys.argv[1]]
    done = subprocess.run(worker, input=msgpack.packb(call), stdout=subprocess.PIPE, check=True)
    ok, data, buffers = msgpack.unpackb(done.stdout)
    return codec.decode(data, buffers) if ok else codec.decode_error(data)

if __name__ == "__main__":
    read = Thing.read
    Thing.made = 7
    thing, array = remote(grow, Thing(2), numpy.arange(5000))
    assert type(thing) is Thing and thing == Thing(6, Colour.RED)
    assert thing.colour is Colour.RED
    assert array[-1] == 9998 and array.flags.writeable
    assert Thing.read is read and Thing.made == 7, "the class of the script was changed"
    FACTOR = 4
    assert thing.read() == 4

    error = remote(fail, Thing(5))
    assert type(error) is Trouble and str(error) == "trouble with 5", repr(error)
    assert type(error.thing) is Thing and error.thing.n == 5 and error.depth == 2
    assert "in fail" in str(error.__cause__)
    assert remote(lambda x: x + FACTOR, 1) == 5
    print("all held")
"""


def test_a_script_gets_back_values_and_errors_of_its_own_classes(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), WORKER]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, env=environment)
    assert done.stdout == "all held\n", done.stderr


def test_a_main_class_is_sent_by_value_although_its_name_would_do_here(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    namespace: dict[str, Any] = {"__name__": "__main__"}
    exec("class Thing:\n    limit = 1\n    def read(self): return LIMIT\nLIMIT = 5", namespace)
    thing_class = namespace["Thing"]
    monkeypatch.setattr(sys.modules["__main__"], "Thing", thing_class, raising=False)
    call = codec.encode_call("f", (thing_class(),), {})
    parts = [[part.name, part.data()] for part in call.needs]
    script = """if True:
        import sys, msgpack
        from gmpd import codec
        codec.stand_in()
        data, parts = msgpack.unpackb(sys.stdin.buffer.read())
        needs = tuple(codec.learn_part(*part) for part in parts)
        codec.resolve_function(codec.FunctionRef("name", "builtins:len", b"", needs))
        (t,), _ = codec.decode_call(data)
        print(type(t).__name__, t.limit, t.read())
    """
    told = msgpack.packb([call.data, parts])
    done = subprocess.run([sys.executable, "-c", script], input=told, capture_output=True)
    assert done.stdout.split() == [b"Thing", b"1", b"5"], done.stderr


class Loaded(Exception):
    pass


def test_summaries_need_no_pickle_module() -> None:
    """Coordinator, gateway and command line read errors; none of the user's code runs."""
    data = codec.encode_error(Loaded("x"))
    script = (
        "import sys; from gmpd.codec import error_summary;"
        "print(error_summary(sys.stdin.buffer.read()).type);"
        "assert 'cloudpickle' not in sys.modules"
    )
    out = subprocess.run(
        [sys.executable, "-c", script], input=data, capture_output=True, check=True, timeout=20
    )
    assert out.stdout.decode().strip() == f"{__name__}.Loaded"


LOCKS: dict[str, Callable[[], Any]] = {
    "hooks": lambda: rebuild._hooks_lock,
    "keys": lambda: hosted_programs._key_lock,
    "classes": lambda: inner._DYNAMIC_CLASS_TRACKER_LOCK,
    "program": lambda: hosted_programs._hosted_programs[bytes(hosted_programs.ID_BYTES)]._lock,
}


def test_a_fork_waits_for_no_lock_of_another_thread() -> None:
    codec.learn_part(hosted_programs.part_name(bytes(hosted_programs.ID_BYTES), 0), b"")
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with contextlib.ExitStack() as stack:
            for lock in LOCKS.values():
                stack.enter_context(lock())
            held.set()
            done.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        assert held.wait(60)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of threads beside a fork
            pid = os.fork()
        if not pid:
            os._exit(sum(not lock().acquire(blocking=False) for lock in LOCKS.values()))
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    finally:
        done.set()
        thread.join()
        hosted_programs._hosted_programs[bytes(hosted_programs.ID_BYTES)].parts[0].forget()


@pytest.fixture
def program() -> Iterator[Any]:
    """A module that is sent by value, of a program of its own."""
    module: Any = types.ModuleType("program_of_test_codec_processes")
    exec("def f(): return value", module.__dict__)
    sys.modules[module.__name__] = module
    cloudpickle.register_pickle_by_value(module)
    before, sent_program.THIS_PROGRAM = sent_program.THIS_PROGRAM, sent_program.SentProgram()
    yield module
    sent_program.THIS_PROGRAM = before
    cloudpickle.unregister_pickle_by_value(module)
    del sys.modules[module.__name__]


# Threads that other tests left in this process (those of libzmq) do not matter to the child.
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_fork_is_another_program_from_its_first_function_on(program: Any) -> None:
    program.value = 1
    parent = describe_function(program.f)
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            ref = describe_function(program.f)
            names = {part.name.partition(":")[0] for part in ref.needs}
            code = 0 if names == {sent_program.THIS_PROGRAM.id.hex()} else 2
        finally:
            os._exit(code)
    os.close(read)
    os.close(write)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert describe_function(program.f) == parent


def test_a_client_has_imported_all_that_a_submit_needs() -> None:
    """A lazy import inside of a submit is half done for a signal handler that submits, too."""
    code = (
        "import sys, gmpd.client.sync, gmpd.client.aio;"
        "sys.exit('gmpd.codec.cloud' not in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
