"""The collector: from the last snapshot to Prometheus families, at scrape time.

Between snapshots it holds only the highest value of every total, so that no total goes down when a
worker dies, and the label values seen, so that no peer can make the number of series grow without
bound. It does no IO: ``latest()`` hands it the snapshot that the gateway has. It must never know
HTTP, nor what any metric means (``metrics.py`` does).

``prometheus_client``'s multiprocess mode was rejected: it needs files per process and forbids
custom collectors; its own ``Counter.inc`` costs eight times the plain integer that a worker counts
with.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Final, NamedTuple, TypeAlias, assert_never

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from gmpd.gateway.metrics import METRICS, Buckets, Kind, Metric, Sample, Snapshot

log = logging.getLogger(__name__)

#: Most values of one label. Prometheus' advice is to think again above 10 and to redesign above
#: 100; the largest closed set here, the kinds of messages, has 23.
LABEL_VALUES_MAX: Final = 50

#: Most Ps with series of their own: more cores than any machine gmpd was thought for.
PS_MAX: Final = 1024

#: Longest label value: a reason is a word, not a traceback.
LABEL_CHARS_MAX: Final = 64

#: Where values go whose label has its most already.
OTHER: Final = "_other"

#: Errors of reading a snapshot of an unknown daemon. Anything else is a bug and may surface.
_UNREADABLE: Final = (TypeError, ValueError, LookupError, AttributeError, OverflowError)

_Key: TypeAlias = tuple[str, tuple[str, ...]]


class Reading(NamedTuple):
    """The last snapshot and what the gateway knows of it."""

    snapshot: Snapshot
    #: Seconds since the coordinator made it; infinite when there never was one.
    age_s: float
    #: Whether the coordinator answered the last question in time.
    up: bool
    #: Questions asked so far, by outcome.
    fetches: Mapping[str, int]
    #: Requests that were refused, by reason.
    refused: Mapping[str, int] = {}


class _Total(NamedTuple):
    raw: float
    base: float
    epoch: int


class Totals:
    """Totals that never go down.

    The coordinator keeps what dead workers counted, so a total that falls is either a new
    incarnation counting from zero (its epoch is higher: add it to what was) or a torn or late
    reading (the epoch is the same: keep what was shown; adding would count everything twice).
    """

    def __init__(self) -> None:
        self._seen: dict[_Key, _Total] = {}
        self._buckets: dict[str, Buckets] = {}

    def settle(self, name: str, sample: Sample) -> float:
        """The value to show for ``sample``: at least the one shown before."""
        key = (name, sample.labels)
        last = self._seen.get(key)
        base = last.base if last else 0.0
        if last and sample.value < last.raw:
            if sample.epoch == last.epoch:
                return last.base + last.raw
            base += last.raw
        self._seen[key] = _Total(sample.value, base, sample.epoch)
        return base + sample.value

    def settle_buckets(self, name: str, buckets: Buckets) -> Buckets:
        """``settle`` of a whole histogram: its buckets and its sum stay of one moment."""
        last = self._buckets.get(name)
        if last and sum(buckets.counts) < sum(last.counts):
            return last
        self._buckets[name] = buckets
        return buckets

    def sum_of(self, name: str) -> float:
        """The sum over all that was ever settled under ``name``: a P that is gone still counts."""
        return sum(total.base + total.raw for (of, _), total in self._seen.items() if of == name)


class LabelCap:
    """Bounds the number of values per label; the first ones seen keep their series."""

    def __init__(self) -> None:
        self._admitted: dict[tuple[str, str], set[str]] = {}
        self._folded: set[tuple[str, str, int]] = set()

    def admit(self, metric: str, label: str, value: str) -> str:
        """``value``, or ``_other`` when the label has its most values already."""
        value = value[:LABEL_CHARS_MAX]
        admitted = self._admitted.setdefault((metric, label), set())
        if value not in admitted:
            if len(admitted) >= (PS_MAX if label == "p" else LABEL_VALUES_MAX):
                # A hash, and a bounded set of them: the record of a flood must not be the flood.
                if len(self._folded) < 100_000:
                    self._folded.add((metric, label, hash(value)))
                return OTHER
            admitted.add(value)
        return value

    @property
    def folded(self) -> int:
        """How many different values were folded so far (counting stops at 100,000)."""
        return len(self._folded)


class SnapshotCollector(Collector):
    """All metrics of ``metrics.METRICS``, read off the last snapshot.

    One per registry. ``latest`` must return at once.
    """

    def __init__(self, latest: Callable[[], Reading]) -> None:
        self._latest = latest
        self._lock = threading.Lock()
        self._boot: object = None
        self._totals = Totals()
        self._cap = LabelCap()
        self._collect_s = 0.0
        self._errors = 0
        self._complained: set[str] = set()

    def describe(self) -> Iterable[Family]:
        """Every metric without samples, from the description.

        Without this method the registry would collect once to learn the names; were it empty,
        ``/metrics?name[]=`` would find none of them.
        """
        return [Family(m.name.removesuffix("_total"), m.help, m.kind.value) for m in METRICS]

    def collect(self) -> Iterable[Family]:
        """Every metric that the snapshot has; one that cannot be read is left out and counted."""
        began = time.perf_counter()
        with self._lock:
            reading = self._latest()
            self._notice_boot(reading.snapshot)
            snapshot = dict(reading.snapshot) | {"gateway": self._own(reading)}
            families = [
                family for metric in METRICS if (family := self._read(metric, snapshot)) is not None
            ]
            self._collect_s = time.perf_counter() - began
        yield from families

    def _notice_boot(self, snapshot: Snapshot) -> None:
        # Another daemon than before counts from zero, and Prometheus knows how to take a reset.
        boot = (snapshot.get("epoch"), snapshot.get("pid"), snapshot.get("started_at"))
        if snapshot and boot != self._boot:
            self._boot = boot
            self._totals = Totals()

    def _own(self, reading: Reading) -> dict[str, object]:
        own: dict[str, object] = {
            "up": int(reading.up),
            "fetches": reading.fetches,
            "refused": reading.refused,
            "collect_s": self._collect_s,
            "collect_errors": self._errors,
            "folded": self._cap.folded,
        }
        if reading.snapshot:
            own["age_s"] = reading.age_s
        return own

    def _read(self, metric: Metric, snapshot: Snapshot) -> Family | None:
        try:
            if metric.kind is Kind.HISTOGRAM:
                return self._histogram(metric, snapshot)
            return self._numbers(metric, snapshot)
        except _UNREADABLE as error:
            self._errors += 1
            if metric.name not in self._complained:
                self._complained.add(metric.name)
                log.warning(
                    "%s is omitted from /metrics: its value in the snapshot cannot be read: %r",
                    metric.name,
                    error,
                )
            return None

    def _histogram(self, metric: Metric, snapshot: Snapshot) -> Family | None:
        if metric.rows is not None:
            rows = [*metric.rows(snapshot)]
            return to_family(metric, rows) if rows else None
        assert metric.buckets is not None
        buckets = metric.buckets(snapshot)
        if buckets is None:
            return None
        return to_family(metric, [((), self._totals.settle_buckets(metric.name, buckets))])

    def _numbers(self, metric: Metric, snapshot: Snapshot) -> Family | None:
        assert metric.read is not None
        folded: dict[tuple[str, ...], Sample] = {}
        if metric.is_bounded:
            samples = [*metric.read(snapshot)]
            return self._family(metric, samples) if samples else None
        for labels, value, epoch in metric.read(snapshot):
            names = metric.labels or ("p",) * len(labels)
            shown = tuple(map(partial(self._cap.admit, metric.name), names, labels))
            before = folded.get(shown, Sample(shown, 0.0))
            folded[shown] = Sample(shown, before.value + value, max(before.epoch, epoch))
        if not folded:
            return None
        return self._family(metric, folded.values())

    def _family(self, metric: Metric, samples: Iterable[Sample]) -> Family:
        match metric.kind:
            case Kind.GAUGE:
                gauge = GaugeMetricFamily(metric.name, metric.help, labels=metric.labels)
                for sample in samples:
                    gauge.add_metric(sample.labels, sample.value)
                return gauge
            case Kind.COUNTER:
                counter = CounterMetricFamily(metric.name, metric.help, labels=metric.labels)
                if metric.is_bounded:
                    settled = [(s.labels, s.value) for s in samples]
                else:
                    settled = [(s.labels, self._totals.settle(metric.name, s)) for s in samples]
                if metric.summed:
                    settled = [((), self._totals.sum_of(metric.name))]
                for labels, value in settled:
                    counter.add_metric(labels, value)
                return counter
            case Kind.HISTOGRAM:
                raise AssertionError(f"{metric.name} is read as a histogram")
            case never:
                assert_never(never)


def to_family(
    metric: Metric, rows: Iterable[tuple[tuple[str, ...], Buckets]]
) -> HistogramMetricFamily:
    """The classic histograms of ``metric``, by label values: log2 buckets merged to its bounds.

    ``counts[k]`` counts values below ``2**k`` ns and not below ``2**(k-1)``, so the cumulative
    count of ``le = 2**e`` ns is the sum of ``counts[:e + 1]``.
    """
    family = HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)
    for labels, buckets in rows:
        counts = buckets.counts
        cumulative = [(f"{2**e / 1e9!r}", float(sum(counts[: e + 1]))) for e in metric.bounds]
        cumulative.append(("+Inf", float(sum(counts))))
        family.add_metric(labels, cumulative, buckets.sum_ns / 1e9)
    return family
