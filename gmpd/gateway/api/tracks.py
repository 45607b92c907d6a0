"""From the coordinator's reply to ``timeline`` to a chunk of ``GET /trace``: pure.

A job that lost its P ends long after that, perhaps many chunks later, so the moves of each worker's
jobs are kept until the job has ended.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from msgspec.msgpack import decode

from gmpd.gateway.api.trace_shapes import Alone, Bar, Chunk, Running, Track
from gmpd.protocol import Outcome
from gmpd.runtime.timeline import Row, Timeline, What

#: Jobs without P whose moves are kept: of one worker.
MOVED_MAX: Final = 4096

#: P and epoch.
Who: TypeAlias = tuple[int, int]
#: By P, epoch and token: id, when it was accepted, whether it is durable.
Facts: TypeAlias = dict[tuple[int, int, int], tuple[str, int, bool]]


@dataclass(slots=True)
class _Names:
    """Functions of a chunk, each once."""

    found: dict[str, int] = field(default_factory=dict)

    def place(self, name: str) -> int:
        return self.found.setdefault(name, len(self.found))


class Tracks:
    """The state of workers that is kept from one chunk to the next."""

    def __init__(self) -> None:
        #: By token: when each job lost P ("why") or got it back ("").
        self._moves: dict[Who, dict[int, list[tuple[int, str]]]] = {}

    def chunk(self, number: int, reply: Mapping[str, Any]) -> Chunk:
        """A chunk of a reply."""
        since, names = reply["since"], _Names()
        facts: Facts = {(p, e, t): (id_, at, d) for p, e, t, id_, at, d in reply["jobs"]}
        alive = {(each["p"], each["epoch"]) for each in reply["ps"]}
        self._moves = {who: moves for who, moves in self._moves.items() if who in alive}
        tracks = [
            _Maker(self._moves.setdefault((told["p"], told["epoch"]), {}), since, facts, names)
            .track(told, reply["until"])
            for told in reply["ps"]
        ]  # fmt: skip
        isolated = [_alone(each, since, names) for each in reply["isolated"]]
        return Chunk(
            number=number,
            since_us=since // 1000,
            until_us=reply["until"] // 1000,
            wall_ms=reply["wall_ms"] - (reply["now"] - reply["until"]) // 1_000_000,
            names=list(names.found),
            tracks=tracks,
            isolated=isolated,
            steals=[((at - since) // 1000, v, t, n) for at, v, t, n in reply["steals"]],
            workers=[((at - since) // 1000, p, e, d) for at, p, e, d in reply["workers"]],
        )


def _alone(told: list[Any], since: int, names: _Names) -> Alone:
    worker, began, ended, name, id_, accepted, durable = told
    return Alone(
        worker=worker,
        began=(began - since) // 1000,
        ran_us=(ended - began) // 1000 if ended else -1,
        name=names.place(name),
        wait_us=max(0, began - accepted) // 1000,
        job=id_,
        durable=durable,
    )


class _Maker:
    """Makes one track. ``moves``: of its worker."""

    def __init__(
        self, moves: dict[int, list[tuple[int, str]]], since: int, facts: Facts, names: _Names
    ) -> None:
        self._moves, self._since, self._facts, self._names = moves, since, facts, names
        self._who = 0, 0

    def track(self, told: Mapping[str, Any], until: int) -> Track:
        """The track of a P as the coordinator told it."""
        self._who = told["p"], told["epoch"]
        track = Track(
            p=told["p"], epoch=told["epoch"], answered=bool(told["parts"]),
            until=(until - self._since) // 1000, state=told.get("state", ""),
            silent_s=told["silent_s"], missing="", bars=[], known=[], failed=[], running=[],
            handoffs=[], idle=[], idle_us=0, jobs=0, left_out=0,
        )  # fmt: skip
        for part in told["parts"]:
            self._add(track, decode(part, type=Timeline))
        return track

    def _add(self, track: Track, part: Timeline) -> None:
        track.until = (part.until - self._since) // 1000
        if not part.keeps:
            track.missing = "its worker keeps no events: trace.enabled is false"
        functions = self._note_moves(part)
        for at, token, why, _ in part.moves:
            if why:
                track.handoffs.append(((at - self._since) // 1000, why, functions.get(token, -1)))
        for row in part.rows:
            name = self._names.place(part.names[row.function])
            outcome = part.failed.get(row.token, 0) if row.token else 0
            for what, began, ended in self._pieces(row):
                self._bar(track, row, what, (began, ended), name)
                if outcome:
                    track.failed.append((len(track.bars) - 1, Outcome(outcome).name.lower()))
        track.running = [self._running(row, part) for row in part.running]
        track.idle += [((b - self._since) // 1000, (e - b) // 1000) for b, e in part.idle]
        track.idle_us += part.idle_ns // 1000
        track.jobs += part.jobs
        track.left_out += part.left_out

    def _note_moves(self, part: Timeline) -> dict[int, int]:
        """Remember who lost P; the names of the jobs that the part knows, by token."""
        for at, token, why, _ in part.moves:
            if token:
                self._moves.setdefault(token, []).append((at, why))
        functions = {}
        for row in (*part.rows, *part.running):
            if row.token:
                functions[row.token] = self._names.place(part.names[row.function])
            if row.what == What.BESIDE and row.token not in self._moves:
                self._moves[row.token] = [(row.began, "known")]  # it lost P before we looked
        while len(self._moves) > MOVED_MAX:
            del self._moves[next(iter(self._moves))]
        return functions

    def _pieces(self, row: Row) -> Iterator[tuple[int, int, int]]:
        """A row; of a plain job that lost P, its parts on P and beside it."""
        moves = self._moves.pop(row.token, None) if row.what == What.RAN and row.token else None
        if moves is None:
            yield row.what, row.began, row.ended
            return
        at, what = row.began, int(What.RAN)
        for moved, why in moves:
            if at <= moved <= row.ended:
                if moved > at:
                    yield what, at, moved
                at, what = moved, int(What.BESIDE if why else What.RAN)
        yield what, at, row.ended

    def _bar(self, track: Track, row: Row, what: int, span: tuple[int, int], name: int) -> None:
        began, ended = span
        known = self._facts.get((*self._who, row.token)) if row.token else None
        wait_us = -1 if known is None else max(0, row.began - known[1]) // 1000
        bar: Bar = (
            what, (began - self._since) // 1000, (ended - began) // 1000, name, row.jobs,
            row.busy_us, wait_us,
        )  # fmt: skip
        if known is not None and known[0]:
            track.known.append((len(track.bars), known[0], known[2]))
        track.bars.append(bar)

    def _running(self, row: Row, part: Timeline) -> Running:
        began = row.began
        if row.what == What.BESIDE and (moves := self._moves.get(row.token)):
            began = max(began, moves[-1][0])
        id_, accepted, durable = self._facts.get((*self._who, row.token), ("", 0, False))
        return Running(
            what=row.what,
            began=(began - self._since) // 1000,
            name=self._names.place(part.names[row.function]),
            wait_us=max(0, row.began - accepted) // 1000 if accepted else -1,
            job=id_,
            durable=durable,
        )
