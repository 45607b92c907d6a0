"""Readers of metrics: pure functions from a snapshot to samples.

A *snapshot* is the plain map that the coordinator answers to ``snapshot``. Any key may be missing
(a worker too young, a daemon of another version): the metric is then absent, never wrong. All its
totals are cumulative. The collector adds ``gateway`` to it: the gateway's own figures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, Final, NamedTuple, TypeAlias

Snapshot: TypeAlias = Mapping[str, Any]

G_STATES: Final = ("runnable", "running", "waiting", "syscall")
WORKER_STATES: Final = ("starting", "idle", "searching", "running", "deaf", "draining", "dead")


class Sample(NamedTuple):
    """One value. ``epoch`` tells which incarnation counted it (a worker's), 0 for the daemon."""

    labels: tuple[str, ...]
    value: float
    epoch: int = 0


class Buckets(NamedTuple):
    """A histogram as gmpd counts it: ``counts[k]`` values of ``bit_length() == k`` nanoseconds."""

    counts: Sequence[int]
    sum_ns: int


ReadSamples: TypeAlias = Callable[[Snapshot], Iterable[Sample]]
ReadBuckets: TypeAlias = Callable[[Snapshot], Buckets | None]
#: Histograms by the values of their labels.
ReadRows: TypeAlias = Callable[[Snapshot], Iterable[tuple[tuple[str, ...], Buckets]]]

#: The most functions that are read: the daemon shows 100 and the rest as one.
FUNCTIONS_MAX: Final = 128
#: Characters of a function's name that are shown.
FUNCTION_CHARS_MAX: Final = 128


def _at(snapshot: Snapshot, path: str) -> Any:
    """The value at the dotted ``path``, None when some part of it is missing."""
    value: Any = snapshot
    for key in path.split("."):
        if not isinstance(value, Mapping) or key not in value:
            return None
        value = value[key]
    return value


def _ps(snapshot: Snapshot) -> Iterable[tuple[str, int, Mapping[str, Any]]]:
    for entry in snapshot.get("ps") or ():
        yield str(entry["p"]), int(entry.get("epoch", 0)), entry


def _each(values: Mapping[Any, Any], known: Sequence[str]) -> Mapping[str, Any]:
    return dict.fromkeys(known, 0) | {str(key): value for key, value in values.items()}


def one(path: str) -> ReadSamples:
    """The number at ``path``."""

    def read(snapshot: Snapshot) -> Iterable[Sample]:
        value = _at(snapshot, path)
        if value is not None:
            yield Sample((), float(value))

    return read


def by(path: str, known: Sequence[str] = ()) -> ReadSamples:
    """The map at ``path``: one sample per key."""

    def read(snapshot: Snapshot) -> Iterable[Sample]:
        values = _at(snapshot, path)
        if values is not None:
            for key, value in _each(values, known).items():
                yield Sample((key,), float(value))

    return read


def by_by(path: str, known: Sequence[str]) -> ReadSamples:
    """The map of maps at ``path``: one sample per pair of keys."""

    def read(snapshot: Snapshot) -> Iterable[Sample]:
        for outer in known:
            for key, value in (_at(snapshot, f"{path}.{outer}") or {}).items():
                yield Sample((outer, str(key)), float(value))

    return read


def per_p(path: str) -> ReadSamples:
    """The number at ``path`` of every P."""

    def read(snapshot: Snapshot) -> Iterable[Sample]:
        for p, epoch, entry in _ps(snapshot):
            value = _at(entry, path)
            if value is not None:
                yield Sample((p,), float(value), epoch)

    return read


def per_host(path: str) -> ReadSamples:
    """The number at ``path`` of every host of the cluster."""

    def read(snapshot: Snapshot) -> Iterable[Sample]:
        for entry in _at(snapshot, "cluster.hosts") or ():
            value = _at(entry, path)
            if value is not None:
                yield Sample((str(entry["name"]),), float(value))

    return read


def hosts_up(snapshot: Snapshot) -> Iterable[Sample]:
    """1 for each host that takes work, 0 for the others."""
    for entry in _at(snapshot, "cluster.hosts") or ():
        yield Sample((str(entry["name"]),), float(entry.get("state") in ("idle", "running")))


def per_p_by(path: str, known: Sequence[str] = ()) -> ReadSamples:
    """The map at ``path`` of every P: one sample per P and key."""

    def read(snapshot: Snapshot) -> Iterable[Sample]:
        for p, epoch, entry in _ps(snapshot):
            values = _at(entry, path)
            if values is not None:
                for key, value in _each(values, known).items():
                    yield Sample((p, key), float(value), epoch)

    return read


def over_ps(path: str) -> ReadSamples:
    """The sum of the numbers at ``path`` over the Ps that are there now: for gauges."""

    def read(snapshot: Snapshot) -> Iterable[Sample]:
        values = [_at(entry, path) for _, _, entry in _ps(snapshot)]
        if any(value is not None for value in values):
            yield Sample((), float(sum(value or 0 for value in values)))

    return read


def state_of(path: str, known: Sequence[str]) -> ReadSamples:
    """1 for the state named at ``path``, 0 for the others."""

    def read(snapshot: Snapshot) -> Iterable[Sample]:
        current = _at(snapshot, path)
        if current is not None:
            for state in dict.fromkeys((*known, str(current))):
                yield Sample((state,), float(state == current))

    return read


def workers_by_state(snapshot: Snapshot) -> Iterable[Sample]:
    """How many workers are in each state."""
    counts = dict.fromkeys(WORKER_STATES, 0)
    for _, _, entry in _ps(snapshot):
        state = str(entry.get("state", "starting"))
        counts[state] = counts.get(state, 0) + 1
    if "ps" in snapshot:
        for state, count in counts.items():
            yield Sample((state,), float(count))


def gs_by_state(snapshot: Snapshot) -> Iterable[Sample]:
    """Gs by state over all Ps; jobs in the global queue count as runnable, as in Go."""
    counts = dict.fromkeys(G_STATES, 0)
    for _, _, entry in _ps(snapshot):
        for state, count in (entry.get("gs") or {}).items():
            counts[str(state)] = counts.get(str(state), 0) + count
    counts["runnable"] += _at(snapshot, "queue.global") or 0
    if "ps" in snapshot:
        for state, count in counts.items():
            yield Sample((state,), float(count))


def gs_in(*states: str) -> ReadSamples:
    """The Gs in any of ``states``: Go has a metric for each, and one for all."""

    def read(snapshot: Snapshot) -> Iterable[Sample]:
        found = [sample.value for sample in gs_by_state(snapshot) if sample.labels[0] in states]
        if found:
            yield Sample((), sum(found))

    return read


def build_info(snapshot: Snapshot) -> Iterable[Sample]:
    """1, with the versions as labels."""
    if "version" in snapshot:
        names = ("version", "python", "variant")
        yield Sample(tuple(str(snapshot.get(name, "")) for name in names), 1.0)


def hist(name: str) -> ReadBuckets:
    """The histogram ``name`` of the snapshot."""

    def read(snapshot: Snapshot) -> Buckets | None:
        found = _at(snapshot, f"hist.{name}")
        if found is None:
            return None
        return _buckets(found)

    return read


def _buckets(found: Mapping[str, Any]) -> Buckets:
    return Buckets(tuple(int(count) for count in found["buckets"]), int(found["sum_ns"]))


def _functions(snapshot: Snapshot) -> Iterable[tuple[str, Mapping[str, Any]]]:
    for entry in islice(snapshot.get("functions") or (), FUNCTIONS_MAX):
        yield str(entry["name"])[:FUNCTION_CHARS_MAX], entry


def per_function(path: str) -> ReadSamples:
    """The number at ``path`` of every function."""

    def read(snapshot: Snapshot) -> Iterable[Sample]:
        for name, entry in _functions(snapshot):
            value = _at(entry, path)
            if value is not None:
                yield Sample((name,), float(value))

    return read


def per_function_by(path: str) -> ReadSamples:
    """The map at ``path`` of every function: one sample per function and key."""

    def read(snapshot: Snapshot) -> Iterable[Sample]:
        for name, entry in _functions(snapshot):
            for key, value in (_at(entry, path) or {}).items():
                yield Sample((name, str(key)), float(value))

    return read


def hist_per_function(path: str) -> ReadRows:
    """The histogram at ``path`` of every function."""

    def read(snapshot: Snapshot) -> Iterable[tuple[tuple[str, ...], Buckets]]:
        for name, entry in _functions(snapshot):
            found = _at(entry, path)
            if found is not None:
                yield (name,), _buckets(found)

    return read
