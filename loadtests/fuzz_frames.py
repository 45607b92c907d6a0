"""Frames for the fuzzer: messages drawn from their types, and what a broken or hostile peer makes
of them. The same seed gives the same frames.
"""

from __future__ import annotations

import math
import random
from typing import Any

import msgpack
from msgspec import inspect

from gmpd.codec import encode_call
from gmpd.protocol import Bye, Define, Direction, Gone, Hello, Refused, Submit, kind_of

#: Numbers at which something ends, and a few that name what is there.
NUMBERS = [0, 1, 1, 1, 2, 3, 7, 255, 256, 4095, 65_535, 1 << 31, 1 << 53, (1 << 62) - 1, 1 << 62]
#: Numbers, and other things, that no field may hold.
WILD: list[Any] = [
    None, True, -1, -(1 << 63), (1 << 62) + 1, (1 << 64) - 1, 1.5, math.nan, math.inf, 1e300, "",
    "x", "\x00", "\ud800", b"", b"\xff", [], [[]], {}, {0: 1}, {"p": [1]}, {1.5: {}}, {b"k": []},
]  # fmt: skip
#: Words that mean something somewhere: except those that would end or resize the daemon.
WORDS = ["name", "main", "pickle", "part", "status", "ping", "stacks", "client", "worker", "admin",
         "m:f", "math:sqrt", "time:sleep", "gmpd", "draining", "window", "no"]  # fmt: skip
KINDS = ["name", "main", "pickle", "part", "registered"]
PAYLOADS = [
    b"\x93\x90\x80\xc3",
    b"\x93\x91\xcb",
    b"",
    b"\x80",
    b"x" * 3000,
    b"\x80\x05garbage.",
    encode_call("f", (4.0,), {}).data,
]
#: What ends a session is drawn seldom, what gives work often.
RARE: dict[type[Any], float] = {Bye: 0.05, Hello: 0.1, Gone: 0.05, Refused: 0.05, Submit: 4.0}
#: Larger ones go without a copy, for which pyzmq keeps a thread and a context for good.
FRAME_MAX = (1 << 20) - 1
#: How often a message is broken at all: the others reach the handlers.
BROKEN = 0.6

#: A ZMTP 3.1 greeting of a client with CURVE, and its first command.
GREETING = (b"\xff" + b"\0" * 8 + b"\x7f\x03\x01" + b"CURVE".ljust(20, b"\0") + b"\0").ljust(
    64, b"\0"
)
CURVE_HELLO = b"\x04\xc8\x05HELLO\x01\x00" + b"\0" * 72


def handshakes(dice: random.Random) -> list[bytes]:
    """The bytes of a peer without a key, in the parts in which it sends them: greetings and first
    commands of ZMTP, whole, broken, repeated, with lengths that lie."""
    hello = CURVE_HELLO + dice.randbytes(32 + 8 + 80)
    command = dice.choice((b"\x05HELLO", b"\x08INITIATE", b"\x05READY", b"\x05ERROR", b"\x04PING"))
    size = dice.choice((0, 1, 5, 200, 255))
    long = dice.choice((0, 1 << 20, 1 << 31, 1 << 40, (1 << 63) - 1, (1 << 64) - 1))
    parts = [
        GREETING,
        hello,
        bytes([4, size]) + command + dice.randbytes(size),
        b"\x06" + long.to_bytes(8, "big") + command + dice.randbytes(64),
        bytes([dice.choice((0, 1, 2, 3, 7, 0xFF)), size]) + dice.randbytes(size),
        dice.randbytes(dice.randint(1, 200)),
    ]
    chosen = [GREETING] if dice.random() < 0.8 else []
    chosen += dice.choices(parts, k=dice.randint(1, 4))
    if dice.random() < 0.5:
        at = dice.randrange(len(chosen))
        broken = bytearray(chosen[at])
        for _ in range(dice.randint(1, 4)):
            broken[dice.randrange(len(broken))] = dice.randrange(256)
        chosen[at] = bytes(broken[: dice.randint(1, len(broken))])
    return chosen


class Frames:
    """Draws frames of one direction."""

    def __init__(self, direction: Direction, seed: int) -> None:
        self.dice = random.Random(seed)
        kinds = {cls: inspect.type_info(cls) for cls in direction.classes.values()}
        self._fields: dict[type[Any], list[inspect.Type]] = {
            cls: [field.type for field in kind.fields]
            for cls, kind in kinds.items()
            if isinstance(kind, inspect.StructType)
        }
        self._classes = list(self._fields)
        self._weights = [RARE.get(cls, 1.0) for cls in self._classes]
        self._seq = 1

    def draw(self) -> list[bytes]:
        """One message: its envelope, and sometimes frames that nothing claims."""
        dice = self.dice
        message = self.message(dice.choices(self._classes, self._weights)[0])
        if dice.random() < BROKEN and dice.random() < 0.6:
            message = self._broken(message)
        envelope: bytes = msgpack.packb(message, unicode_errors="surrogatepass")
        if dice.random() < BROKEN / 3:
            envelope = self._corrupt(envelope)
        envelope = envelope[:FRAME_MAX]
        extra = [dice.randbytes(dice.randint(0, 9)) for _ in range(dice.choice((0, 0, 0, 0, 1, 3)))]
        return [envelope, *extra]

    def message(self, cls: type[Any]) -> list[Any]:
        """One that its types allow, with columns of one length."""
        rows = self.dice.choice((1, 1, 2, 5))
        message = [kind_of(cls), *(self._value(kind, rows) for kind in self._fields[cls])]
        if cls in (Submit, Define) and self.dice.random() < 0.8:
            message[1] = 1  # the function that there is
        if cls is Submit and self.dice.random() < 0.8:
            message[2], self._seq = self._seq, self._seq + rows
        return message

    # -- values from types -------------------------------------------------------------------------

    def _value(self, kind: inspect.Type, rows: int) -> Any:
        dice = self.dice
        match kind:
            case inspect.NoneType() | inspect.AnyType():
                return None
            case inspect.BoolType():
                return dice.random() < 0.5
            case inspect.IntType():
                low, high = kind.ge or 0, kind.le or NUMBERS[-1]
                small = dice.random() < 0.7
                return max(low, min(high, dice.randrange(40) if small else dice.choice(NUMBERS)))
            case inspect.FloatType():
                return dice.choice((0.001, 0.01, 1.5))
            case inspect.StrType() if kind.pattern:
                return dice.choice(KINDS)
            case inspect.StrType():
                return dice.choice(WORDS)
            case inspect.BytesType():
                return dice.choice(PAYLOADS)
            case inspect.LiteralType():
                return dice.choice(kind.values)
            case inspect.EnumType():
                return dice.choice(list(kind.cls)).value
            case inspect.UnionType():
                return self._value(dice.choice(kind.types), rows)
            case inspect.ListType():
                return [self._value(kind.item_type, rows) for _ in range(rows)]
            case inspect.TupleType():
                return [self._value(each, rows) for each in kind.item_types]
            case inspect.VarTupleType():
                return [self._value(kind.item_type, rows) for _ in range(dice.choice((0, 1, 3)))]
            case inspect.DictType():
                return {self._key(kind): self._value(kind.value_type, rows) for _ in range(2)}
            case inspect.TypedDictType() | inspect.StructType():
                return {
                    field.encode_name: self._value(field.type, rows)
                    for field in kind.fields
                    if field.required or dice.random() < 0.3
                }
            case _:
                raise TypeError(kind)

    def _key(self, kind: inspect.DictType) -> Any:
        if isinstance(kind.key_type, inspect.IntType):
            return self.dice.choice((0, 0, 0, 1, 4))
        return self.dice.choice(("p", "limit", "wait_s", "nbytes", "n"))

    # -- what breaks them --------------------------------------------------------------------------

    def _broken(self, value: Any) -> Any:
        """With something that does not belong there, in some place."""
        dice = self.dice
        if isinstance(value, list) and value and dice.random() < 0.8:
            at = dice.randrange(len(value))
            changed = list(value)
            match dice.randrange(6):
                case 0:
                    del changed[at]
                case 1:
                    changed.insert(at, dice.choice(WILD))
                case 2:
                    changed[at] = [changed[at]] * dice.choice((0, 2, 5000))
                case _:
                    changed[at] = self._broken(changed[at])
            return changed
        if isinstance(value, dict) and value and dice.random() < 0.8:
            key = dice.choice(list(value))
            return {**value, key: self._broken(value[key])}
        if dice.random() < 0.1:
            return self._deep()
        return dice.choice(WILD)

    def _deep(self) -> Any:
        value: Any = []
        for _ in range(self.dice.choice((30, 450, 500))):
            value = [value] if self.dice.random() < 0.7 else {"k": value}
        return value

    def _corrupt(self, data: bytes) -> bytes:
        """Bytes flipped, lost, repeated or put in."""
        dice, out = self.dice, bytearray(data)
        for _ in range(dice.choice((1, 1, 2, 8))):
            at = dice.randrange(len(out) + 1)
            match dice.randrange(5):
                case 0:
                    out[at:at] = dice.randbytes(dice.randint(1, 5))
                case 1:
                    del out[at : at + dice.randint(1, 5)]
                case 2:
                    out[at:at] = out[: dice.randint(0, 20)]
                case 3:
                    out = out[:at]
                case _:
                    if at < len(out):
                        out[at] ^= 1 << dice.randrange(8)
        return bytes(out)


HEADERS = [
    b"Host: 127.0.0.1", b"Host: evil", b"Content-Length: -1", b"Content-Length: 99999999",
    b"Transfer-Encoding: chunked", b"Accept: " + b"q" * 9000, b": x", b"Accept: */*;q=nan",
    b"Accept-Encoding: gzip", b"Expect: 100-continue", b"Upgrade: h2c", b"\xff: \xff",
]  # fmt: skip
PATHS = (b"/", b"/metrics", b"/api/v1/snapshot", b"/../..", b"/%ff%00", b"*", b"x" * 9000)


def requests(dice: random.Random) -> bytes:
    """A request of HTTP, or nearly one."""
    method = dice.choice((b"GET", b"HEAD", b"POST", b"\x00", b"PRI", b"GET" * 9))
    path = dice.choice(PATHS)
    version = dice.choice((b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2.0", b"HTTP/9", b""))
    chosen = dice.sample(HEADERS, dice.randint(0, 5))
    body = dice.choice((b"", b"", b"5\r\nhello\r\n0\r\n\r\n", dice.randbytes(100)))
    data = bytearray(b"\r\n".join([b" ".join((method, path, version)), *chosen, b"", b""]) + body)
    if dice.random() < 0.3 and data:
        data[dice.randrange(len(data))] = dice.randrange(256)
    return bytes(data[: dice.choice((len(data), len(data), dice.randrange(len(data) + 1)))])
