"""A part of a program: pickles with one memo, each of a name with its value, and a table of them.

A value that cannot be rebuilt in a worker (its module is missing there, its ``__setstate__``
raises) leaves the names beside it whole: jobs that do not use it run. Each job that does tries it
again.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterable, Iterator, Set
from typing import Any, NamedTuple

from gmpd.codec import interrupts

#: A module that travels by value, and a name in it.
Key = tuple[str, str]
#: A name and its value.
Entry = tuple[str, str, Any]
#: Bytes of the length of the table, at the end of all.
_LENGTH = 4
_GETS = frozenset({"GET", "BINGET", "LONG_BINGET"})


class Row(NamedTuple):
    """A name in the table, and the names that its value uses."""

    key: Key
    uses: tuple[Key, ...]


def seal(pickles: io.BytesIO, rows: Iterable[Row]) -> bytes:
    """The bytes of a part: its pickles, the last of them of None, and the table of the others."""
    length = pickles.write(pickle.dumps(list(map(tuple, rows)), 5))
    pickles.write(length.to_bytes(_LENGTH, "little"))
    return pickles.getvalue()


class PartReader:
    """Rebuilds the values of a part. Their code runs meanwhile, and may raise anything."""

    def __init__(self, payload: bytes) -> None:
        self._payload = payload
        end = len(payload) - _LENGTH
        length = int.from_bytes(payload[end:], "little")
        self.rows = [Row(*row) for row in pickle.loads(payload[end - length : end])]
        #: Why values could not be rebuilt.
        self.failed: dict[Key, BaseException] = {}
        self._spans: list[_Span] = []
        #: The objects of all values that did not fail, once one has failed.
        self._memo: dict[int, Any] = {}

    def read(self) -> Iterator[Entry]:
        """All that can be rebuilt."""
        unpickler = pickle.Unpickler(io.BytesIO(self._payload))
        for at in range(len(self.rows)):
            try:
                entry: Entry = unpickler.load()
            except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever the value's code raises
                interrupts.pass_on(error)
                self._fail(at, error, unpickler.memo.copy())
                yield from self._read_each(self.rows[at + 1 :])
                return
            yield entry

    def again(self, wanted: Set[Key]) -> Iterator[Entry]:
        """Try the wanted values again; yields the ones that do not fail this time."""
        yield from self._read_each(
            [row for row in self.rows if row.key in self.failed.keys() & wanted]
        )

    def _fail(self, at: int, error: BaseException, memo: dict[int, Any]) -> None:
        """The first that fails. The objects that it left in the memo may be incomplete."""
        self._spans = list(_spans(self._payload, len(self.rows)))
        span = self._spans[at]
        self._memo = {n: obj for n, obj in memo.items() if n < span.first}
        self._leave_out(self.rows[at], span, error)

    def _leave_out(self, row: Row, span: _Span, error: BaseException) -> None:
        self.failed[row.key] = error
        for n, obj in span.plain.items():
            try:
                self._memo[n] = obj.found() if isinstance(obj, _Global) else obj
            except (Exception, SystemExit) as absent:  # noqa: BLE001 - as below
                interrupts.pass_on(absent)

    def _read_each(self, rows: Iterable[Row]) -> Iterator[Entry]:
        """Without the objects of values that failed: values that share them fail, too."""
        for row in rows:
            span = self._spans[self.rows.index(row)]
            if absent := span.gets - self._memo.keys():
                self._leave_out(row, span, self._reason(min(absent)))
                continue
            unpickler = _Unpickler(self._payload[span.start :], span.first, self._memo)
            try:
                entry: Entry = unpickler.load()
            except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever the value's code raises
                interrupts.pass_on(error)
                self._leave_out(row, span, error)
                continue
            memo: dict[int, Any] = unpickler.memo.copy()
            self._memo |= {n: memo[n] for n in range(span.first, len(memo))}
            self.failed.pop(row.key, None)
            yield entry

    def _reason(self, absent: int) -> BaseException:
        """Why an object is absent from the memo."""
        owner = next(at for at, span in enumerate(self._spans) if absent < span.end)
        return self.failed[self.rows[owner].key]


class _Unpickler(pickle.Unpickler):
    """Begins with the first ``count`` objects of a memo. They come by a pickle before the data, as
    C's unpickler forgets a memo that it is given as a dictionary."""

    def __init__(self, data: bytes, count: int, memo: dict[int, Any]) -> None:
        puts = [_PUT % n.to_bytes(4, "little") for n in range(count)]
        super().__init__(io.BytesIO(b"".join((_BEGIN, *puts, _END, data))))
        self._memo = memo
        super().load()

    def persistent_load(self, pid: Any) -> Any:
        """An object of the memo; None for one that no value of this part needs."""
        return self._memo.get(pid)


#: PROTO; BININT, BINPERSID, MEMOIZE and POP; NONE and STOP.
_BEGIN, _PUT, _END = b"\x80\x05", b"J%bQ\x940", b"N."


class _Global(NamedTuple):
    """An object that a pickle names."""

    module: str
    name: str

    def found(self) -> Any:
        """Raises what an import raises, and AttributeError."""
        return pickle.Unpickler(io.BytesIO()).find_class(self.module, self.name)


class _Span(NamedTuple):
    """One pickle: where it starts; the objects that it puts into the memo, and those of pickles
    before it that it takes from there; and which of its own are whole without the others."""

    start: int
    first: int
    end: int
    gets: frozenset[int]
    plain: dict[int, Any]


def _spans(payload: bytes, count: int) -> Iterator[_Span]:
    import pickletools  # only here: few programs come so far

    file = io.BytesIO(payload)
    texts: dict[int, Any] = {}
    end = 0
    for _ in range(count):
        start, first = file.tell(), end
        gets: set[Any] = set()
        pushed: list[Any] = ["", ""]
        plain: dict[int, Any] = {}
        last: Any = None
        for opcode, argument, _ in pickletools.genops(file):
            if opcode.name == "MEMOIZE":
                if last is not None:
                    plain[end] = last
                end += 1
                continue
            if opcode.name in _GETS and isinstance(argument, int):
                gets.add(argument)
                pushed.append(plain.get(argument, texts.get(argument)))
                last = None
            elif opcode.name == "STACK_GLOBAL":
                last = _Global(*pushed[-2:])
            else:
                last = argument if isinstance(argument, str | bytes) else None
                pushed.append(last)
        texts |= plain
        yield _Span(start, first, end, frozenset(n for n in gets if n < first), plain)
