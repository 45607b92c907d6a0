"""Values as people write them: "250ms", "64MiB", "127.0.0.1:7412", and back.

Knows no keys and no layers. Attributes get plain types: durations are seconds, sizes are bytes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from enum import Enum
from typing import Any, assert_never


class Kind(Enum):
    """The type of a key. Attributes have plain types: durations are seconds, sizes are bytes."""

    INT = "a whole number"
    BOOL = "true or false"
    TEXT = "a text"
    LIST = "a list of texts"
    DURATION = "a duration"
    SIZE = "a size"
    ADDRESS = "an address"


#: Seconds of one unit, as (times, divided by): a division keeps 2ms at exactly 0.002.
_DURATIONS = {
    "d": (86_400, 1),
    "h": (3_600, 1),
    "m": (60, 1),
    "s": (1, 1),
    "ms": (1, 1_000),
    "us": (1, 1_000_000),
    "ns": (1, 1_000_000_000),
}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(d|h|ms|us|ns|m|s)")
_SIZES = {"TiB": 2**40, "GiB": 2**30, "MiB": 2**20, "KiB": 2**10, "B": 1}
_SIZES_DECIMAL = {"tb": 10**12, "gb": 10**9, "mb": 10**6, "kb": 10**3}
_SIZE_FACTOR = {unit.lower(): factor for unit, factor in _SIZES.items()} | _SIZES_DECIMAL
_SIZE = re.compile(r"(\d[\d_]*(?:\.\d+)?)\s*([A-Za-z]+)")
_YES, _NO = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


def parse_duration(text: str) -> float:
    """Seconds of "250ms", "1m30s", "0". ValueError for a bare number: of what unit would it be?"""
    text = text.strip()
    if text == "0":
        return 0.0
    if not text or _DURATION.sub("", text).strip():
        raise ValueError(f'{text!r} is not a duration; write number and unit, such as "250ms"')
    return sum(
        float(number) * _DURATIONS[unit][0] / _DURATIONS[unit][1]
        for number, unit in _DURATION.findall(text)
    )


def parse_size(text: str) -> int:
    """Bytes of "64MiB", "1.5 GiB", "10MB" (decimal), "4096"."""
    text = text.strip()
    if text.replace("_", "").isdecimal():
        return int(text)
    match = _SIZE.fullmatch(text)
    factor = _SIZE_FACTOR.get(match[2].lower()) if match else None
    if match is None or factor is None:
        raise ValueError(f'{text!r} is not a size; write number and unit, such as "64MiB"')
    number = match[1].replace("_", "")
    return int(number) * factor if number.isdecimal() else round(float(number) * factor)


def split_cluster(where: str) -> tuple[str, str, str]:
    """Engine, address and scheduler file of ``dask://head:8786``, ``dask:PATH``,
    ``ray://head:10001`` or ``ray:auto``. ValueError for anything else."""
    engine, colon, rest = where.partition(":")
    if not colon or not rest.strip("/") or not engine.isidentifier():
        raise ValueError(
            f"{where!r} names no engine: dask://HOST:PORT, dask:SCHEDULER_FILE, ray://HOST:PORT, or"
            " ray:auto"
        )
    if engine == "ray":  # as Ray writes its addresses
        return engine, where if rest.startswith("//") else rest, ""
    return (engine, f"tcp:{rest}", "") if rest.startswith("//") else (engine, "", rest)


def split_address(text: str) -> tuple[str, int]:
    """("127.0.0.1", 7412) of "127.0.0.1:7412"; "[::1]:0" works too. ValueError otherwise."""
    host, colon, port = text.strip().rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not colon or not host or (":" in host and not bracketed):
        raise ValueError(f'{text!r} is not host:port; write it like "127.0.0.1:7412" or "[::1]:0"')
    if not port.isdecimal() or int(port) > 65_535:
        raise ValueError(f"{text!r} has no port from 0 to 65535 after its last colon")
    return host.strip("[]"), int(port)


def format_duration(seconds: float) -> str:
    """The shortest text that `parse_duration` reads back as the same seconds."""
    if not seconds:
        return "0"
    for unit, (times, divided) in _DURATIONS.items():
        count = round(seconds * divided / times)
        if count and count * times / divided == seconds:
            return f"{count}{unit}"
    return f"{seconds:.9f}s"


def format_size(count: int) -> str:
    """The shortest text that `parse_size` reads back as the same number of bytes."""
    for unit, factor in _SIZES.items():
        if count >= factor and count % factor == 0:
            return f"{count // factor}{unit}"
    return "0B"


def _read_bool(text: str) -> bool:
    if text.lower() in _YES:
        return True
    if text.lower() in _NO:
        return False
    raise ValueError(f"{text!r} is neither true nor false")


def _read_int(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a whole number") from None


def _read_address(text: str) -> str:
    split_address(text)
    return text.strip()


#: From the text of a flag or variable; each raises ValueError that says what is wrong.
READERS: dict[Kind, Callable[[str], Any]] = {
    Kind.INT: _read_int,
    Kind.BOOL: _read_bool,
    Kind.TEXT: str,
    Kind.LIST: lambda text: tuple(part for part in re.split(r"[,\s]+", text) if part),
    Kind.DURATION: parse_duration,
    Kind.SIZE: parse_size,
    Kind.ADDRESS: _read_address,
}


def literal(kind: Kind, value: Any) -> str:
    """A value as TOML, as a person would write it."""
    match kind:
        case Kind.BOOL:
            return "true" if value else "false"
        case Kind.INT:
            return f"{value:_}"
        case Kind.TEXT | Kind.ADDRESS:
            return json.dumps(value, ensure_ascii=False)
        case Kind.LIST:
            return json.dumps(list(value), ensure_ascii=False)
        case Kind.DURATION:
            return json.dumps(format_duration(value))
        case Kind.SIZE:
            return json.dumps(format_size(value))
        case _:
            assert_never(kind)
