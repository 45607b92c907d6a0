"""Plain values: the types of ``json``, and bytes. For the command line, which never unpickles.

Lossy on purpose, as ``json.dumps`` is: tuples become lists, subclasses of the builtin types become
those, keys become texts. Anything else is refused with its path, never turned into a repr.
"""

from __future__ import annotations

from typing import Any

#: Deeper values are refused: the readers on the other side (json, browsers) have limits like it.
DEPTH_MAX = 200


class NotPlain(Exception):
    """``reason`` says what is wrong at ``path``, which grows on the way up."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.path: list[str] = []


def simplify(value: object, depth: int = 0) -> Any:
    """``value`` made of None, bool, int, float, str, bytes, list and dict alone.

    Raises NotPlain.
    """
    if value is None or value is True or value is False:
        return value
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, int):
        return _integer(value)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if depth >= DEPTH_MAX:
        raise NotPlain(f"is nested deeper than {DEPTH_MAX} levels, or contains itself")
    if isinstance(value, list | tuple):
        return _sequence(value, depth)
    if isinstance(value, dict):
        return _mapping(value, depth)
    raise NotPlain(
        f"is of type {type(value).__name__}; plain values are None, bool, int, float, str, "
        "bytes, list, tuple and dict: pass or return one of these"
    )


def _text(value: str) -> str:
    text = str.__str__(value)
    try:
        text.encode()
    except UnicodeEncodeError as exc:
        raise NotPlain(f"is not valid Unicode text: {exc.reason}") from None
    return text


def _integer(value: int) -> int:
    number = int(value)
    if not -(2**63) <= number < 2**64:
        raise NotPlain("is an integer beyond 64 bits: send it as text")
    return number


def _sequence(value: list[Any] | tuple[Any, ...], depth: int) -> list[Any]:
    tree: list[Any] = []
    try:
        for item in value:
            tree.append(simplify(item, depth + 1))  # noqa: PERF401 - its length is in the path
    except NotPlain as exc:
        exc.path.insert(0, f"[{len(tree)}]")
        raise
    return tree


def _mapping(value: dict[Any, Any], depth: int) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for key, item in value.items():
        name = _key(key)
        if name in tree:
            raise NotPlain(f"has two keys that read {name!r}")
        try:
            tree[name] = simplify(item, depth + 1)
        except NotPlain as exc:
            exc.path.insert(0, f"[{name!r}]")
            raise
    return tree


def _key(key: object) -> str:
    if isinstance(key, str):
        return _text(key)
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
            raise NotPlain(f"has a key of type {type(key).__name__}; a plain key is a text")
