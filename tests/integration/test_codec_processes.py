"""What a script defines goes to another process by value and comes back as the script's own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

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
