"""The description of a metric, and the bounds of histograms."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

from gmpd.gateway.readers import ReadBuckets, ReadRows, ReadSamples


class Kind(Enum):
    """Prometheus' types of metrics."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric. ``unit`` is the base unit in the name's own words, "" for a plain count."""

    name: str
    kind: Kind
    help: str
    unit: str = ""
    labels: tuple[str, ...] = ()
    read: ReadSamples | None = None
    buckets: ReadBuckets | None = None
    #: Of a histogram with labels.
    rows: ReadRows | None = None
    #: Exponents e of the bounds ``le = 2**e`` nanoseconds; empty unless a histogram.
    bounds: tuple[int, ...] = ()
    #: Read per P, shown as one sum over every P that ever was: a P that is gone still counts.
    summed: bool = False
    #: Its label values are those of the daemon, which bounds their number and lets none of them
    #: fall; some may go when others come.
    is_bounded: bool = False


#: 1.024 us to 17.2 s by factor 4: below a microsecond nothing here can be told apart, and a G that
#: waits longer than that for its P is an incident, not a distribution. 13 buckets.
LATENCY_BOUNDS: Final = tuple(range(10, 36, 2))

#: 1.024 us to 4.9 h by factor 4: jobs are no-ops and they are nightly reports. 18 buckets, which
#: costs nothing, as no label multiplies them.
JOB_BOUNDS: Final = tuple(range(10, 46, 2))
