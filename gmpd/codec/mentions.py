"""Which modules a pickle names: those of its classes, functions and enumerations.

A pickle of protocol 5 says them with the opcode STACK_GLOBAL, after two texts: the module's name,
and the name in it. Each text is written once; where it comes again its number in the memo stands
instead. So the bytes are searched for the opcode, and what is before it is read backwards. Data
that looks like it may be taken for a module's name: the caller knows which names are modules.
"""

from __future__ import annotations

STACK_GLOBAL = b"\x93"
_TEXT, _MEMOIZE, _FRAME = b"\x8c", 0x94, 0x95
_FRAME_BYTES = 9
#: BINGET and LONG_BINGET with their arguments.
_GET, _GET_BYTES = 0x68, 2
_LONG_GET, _LONG_GET_BYTES = 0x6A, 5
#: A text with its opcode, its length, and MEMOIZE.
_TEXT_BYTES_MAX = 2 + 255 + 1


def modules_in(data: bytes) -> set[bytes]:
    """Names (UTF-8) of modules whose contents ``data``, made by C's pickler, refers to by name."""
    found: set[bytes] = set()
    at = data.find(STACK_GLOBAL)
    while at > 0:
        # A byte of a number, in lists of them: what ends before it is neither text nor reference.
        if (
            (last := data[at - 1]) != _MEMOIZE
            and data[at - _GET_BYTES] != _GET
            and data[max(0, at - _LONG_GET_BYTES)] != _LONG_GET
            and (last or data[max(0, at - _FRAME_BYTES)] != _FRAME)
        ):
            at = data.find(STACK_GLOBAL, at + 1)
            continue
        # By far the most: two texts, one after the other. Written out, as each call passes here.
        name = data.rfind(_TEXT, max(0, at - _TEXT_BYTES_MAX), at - 2)
        module = data.rfind(_TEXT, max(0, name - _TEXT_BYTES_MAX), name - 2) if name > 0 else -1
        if (
            module > 0
            and data[name + 1] == at - name - 3
            and data[module + 1] == name - module - 3
            and data[at - 1] == data[name - 1] == _MEMOIZE
        ):
            found.add(data[module + 2 : name - 1])
        elif (end := _text_before(data, at)[0]) > 0 and (text := _text_before(data, end)[1]):
            found.add(text)
        at = data.find(STACK_GLOBAL, at + 1)
    return found


def _text_before(data: bytes, end: int) -> tuple[int, bytes]:
    """Where the text that ends at ``end`` begins, and the text, unless a number stands for it."""
    if end > _FRAME_BYTES and data[end - _FRAME_BYTES] == _FRAME and data[end - 1] == 0:
        end -= _FRAME_BYTES
    if data[end - 1] == _MEMOIZE:
        # The length may be the same byte as the opcode.
        start = data.rfind(_TEXT, max(0, end - _TEXT_BYTES_MAX), end - 2)
        while start >= 0 and data[start + 1] != end - start - 3:
            start = data.rfind(_TEXT, max(0, end - _TEXT_BYTES_MAX), start)
        if start >= 0:
            return start, data[start + 2 : end - 1]
    if end > _GET_BYTES and data[end - _GET_BYTES] == _GET:
        return end - _GET_BYTES, b""
    if end > _LONG_GET_BYTES and data[end - _LONG_GET_BYTES] == _LONG_GET:
        return end - _LONG_GET_BYTES, b""
    return -1, b""
