"""Plain values: what ``json`` takes, and bytes. For the command line, which never unpickles.

Lossy on purpose, as ``json.dumps`` is: tuples become lists, subclasses of the builtin types become
those, keys become texts. Anything else is refused with its path, never turned into a repr.
"""

from __future__ import annotations

from typing import Any

#: Deeper values are refused: the readers on the other side (json, browsers) have limits like it.
DEPTH_MAX = 200


class NotPlain(Exception):
    """The text names the path and what is there."""


def simplify(value: object, path: str, depth: int = 0) -> Any:
    """``value`` made of None, bool, int, float, str, bytes, list and dict alone."""
    if value is None or value is True or value is False:
        return value
    if isinstance(value, str):
        return _text(value, path)
    if isinstance(value, int):
        return _integer(value, path)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if depth >= DEPTH_MAX:
        raise NotPlain(f"nested deeper than {DEPTH_MAX} levels, or it contains itself")
    if isinstance(value, list | tuple):
        return [simplify(item, f"{path}[{i}]", depth + 1) for i, item in enumerate(value)]
    if isinstance(value, dict):
        return _mapping(value, path, depth)
    raise NotPlain(
        f"{path} is of type {type(value).__name__}; plain values are None, bool, int, float, str, "
        "bytes, list, tuple and dict: return or pass one of these"
    )


def _text(value: str, path: str) -> str:
    text = str.__str__(value)
    try:
        text.encode()
    except UnicodeEncodeError as exc:
        raise NotPlain(f"{path} is not valid Unicode text: {exc.reason}") from None
    return text


def _integer(value: int, path: str) -> int:
    number = int(value)
    if not -(2**63) <= number < 2**64:
        raise NotPlain(f"{path} is an integer beyond 64 bits: send it as text")
    return number


def _mapping(value: dict[Any, Any], path: str, depth: int) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for key, item in value.items():
        name = _key(key, path)
        if name in tree:
            raise NotPlain(f"{path} has two keys that read {name!r}")
        tree[name] = simplify(item, f"{path}[{key!r}]", depth + 1)
    return tree


def _key(key: object, path: str) -> str:
    if isinstance(key, str):
        return _text(key, path)
    match key:
        case None:
            return "null"
        case True:
            return "true"
        case False:
            return "false"
        case int():
            return int.__repr__(key)
        case float():
            return float.__repr__(key)
        case _:
            raise NotPlain(f"{path} has a key of type {type(key).__name__}; a plain key is a text")
