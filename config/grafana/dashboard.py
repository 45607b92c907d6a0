"""Makes ``dashboards/gmpd-overview.json``:  python config/grafana/dashboard.py

Every query is put together from the description of the metrics in ``gmpd.gateway.metrics``: a name
or a label that is not there, a rate of a gauge, a quantile of a counter stop this script. A test
makes the file again and compares, so the dashboard cannot drift from what gmpd exports.

It needs grafana-foundation-sdk (extra ``dev``), Grafana's own library for this.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Final, assert_never

from grafana_foundation_sdk.builders import common, dashboard, heatmap, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import (
    BigValueColorMode,
    BigValueGraphMode,
    LegendDisplayMode,
    LegendPlacement,
    StackingMode,
    TooltipDisplayMode,
    VisibilityMode,
)
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DataSourceRef,
    Threshold,
    ThresholdsMode,
    VariableRefresh,
)
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from gmpd.gateway.metrics import BY_NAME, Kind

TARGET: Final = Path(__file__).parent / "dashboards" / "gmpd-overview.json"

#: Names of prometheus_client's ProcessCollector for the coordinator; gmpd does not define them.
PROCESS: Final = "gmpd_coordinator_process"

DATASOURCE: Final = DataSourceRef("prometheus", "$datasource")
INSTANCE: Final = 'instance=~"$instance"'


#: Functions that a panel shows.
TOP: Final = 10


# -- queries -------------------------------------------------------------------------------------


def series(name: str, kind: Kind, by: Sequence[str] = (), suffix: str = "", **where: str) -> str:
    """The series of a metric, of the chosen instances.

    KeyError or ValueError when there is no such metric, or it is none of this kind and labels.
    """
    metric = BY_NAME[name]
    if metric.kind is not kind:
        raise ValueError(f"{name} is a {metric.kind.value}, not a {kind.value}")
    unknown = {*by, *where} - {*metric.labels, "le", "instance"}
    if unknown:
        raise ValueError(f"{name} has no label {sorted(unknown)}")
    selector = ", ".join([INSTANCE, *(_match(label, value) for label, value in where.items())])
    return f"{name}{suffix}{{{selector}}}"


def _match(label: str, value: str) -> str:
    """One value of a label, or one of several: ``error|lost``."""
    return f'{label}{"=~" if "|" in value else "="}"{value}"'


def rate(name: str, *by: str, **where: str) -> str:
    """Per second, summed by the labels ``by``."""
    return f"{_sum(by)} (rate({series(name, Kind.COUNTER, by, **where)}[$__rate_interval]))"


def increase(name: str, *by: str, **where: str) -> str:
    """How much more over the whole range shown."""
    return f"{_sum(by)} (increase({series(name, Kind.COUNTER, by, **where)}[$__range]))"


def gauge(name: str, *by: str, op: str = "sum", **where: str) -> str:
    """The value now, joined by ``op`` over the labels not in ``by``."""
    grouping = f" by ({', '.join(by)})" if by else ""
    return f"{op}{grouping} ({series(name, Kind.GAUGE, by, **where)})"


def ratio(numerator: str, denominator: str) -> str:
    """A share, 0 to 1; absent while there is nothing to share."""
    return f"{numerator} / ({denominator} > 0)"


def quantile(q: float, name: str, *by: str) -> str:
    """The ``q`` quantile of a histogram, over the instances chosen, by the labels ``by``."""
    buckets = series(name, Kind.HISTOGRAM, by, suffix="_bucket")
    return f"histogram_quantile({q}, {_sum(['le', *by])} (rate({buckets}[$__rate_interval])))"


def top(expression: str) -> str:
    """The largest few."""
    return f"topk({TOP}, {expression})"


def quantiles(name: str) -> list[tuple[str, str]]:
    """p50, p95 and p99."""
    return [(quantile(q, name), f"p{q * 100:.0f}") for q in (0.5, 0.95, 0.99)]


def heat(name: str) -> str:
    """New values per bucket: for a heat map."""
    buckets = series(name, Kind.HISTOGRAM, suffix="_bucket")
    return f"sum by (le) (increase({buckets}[$__rate_interval]))"


def _sum(by: Sequence[str]) -> str:
    return f"sum by ({', '.join(by)})" if by else "sum"


# -- panels, as data -----------------------------------------------------------------------------


class Shape(Enum):
    """The visual options of a panel."""

    STAT = "stat"
    LINES = "lines"
    STACK = "stack"
    SHARES = "shares"
    HEAT = "heat"


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel: ``queries`` are (expression, legend); ``help`` says what good looks like."""

    title: str
    help: str
    queries: Sequence[tuple[str, str]]
    shape: Shape = Shape.LINES
    unit: str = "short"
    span: int = 8
    #: For a stat: the value from which it is orange, and red.
    warn: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """A titled row of panels."""

    title: str
    panels: Sequence[Panel]


_BUSY: Final = ratio(
    rate("gmpd_p_state_seconds_total", state="running"), rate("gmpd_p_state_seconds_total")
)
_FAILED: Final = " + ".join(
    rate("gmpd_jobs_finished_total", outcome=outcome) for outcome in ("error", "timeout", "lost")
)


def _stat(
    title: str,
    help_: str,
    query: str,
    unit: str = "short",
    warn: tuple[float, float] | None = None,
) -> Panel:
    return Panel(title, help_, [(query, title)], Shape.STAT, unit, span=3, warn=warn)


OVERVIEW: Final = Row(
    "Overview",
    [
        _stat("Ps busy", "Share of their time that Ps run Gs.", _BUSY, "percentunit"),
        _stat(
            "Jobs per second", "Jobs that got an outcome.", rate("gmpd_jobs_finished_total"), "ops"
        ),
        _stat(
            "Failing",
            "Errors, timeouts and lost jobs among those finished.",
            ratio(f"({_FAILED})", rate("gmpd_jobs_finished_total")),
            "percentunit",
            (0.01, 0.05),
        ),
        _stat(
            "Scheduling latency p99",
            "A runnable G waits this long for its P. Good: below 10 ms.",
            quantile(0.99, "gmpd_sched_latency_seconds"),
            "s",
            (0.01, 0.05),
        ),
        _stat("Queued", "Jobs in the global run queue.", gauge("gmpd_global_queue_length")),
        _stat(
            "Oldest wait",
            "How long the first of them has waited. Good: seconds.",
            gauge("gmpd_global_queue_oldest_age_seconds", op="max"),
            "s",
            (10, 60),
        ),
        _stat("Ps", "Number of Ps: gmpd's GOMAXPROCS.", gauge("gmpd_procs")),
        _stat(
            "Workers restarted",
            "Over the time shown. Good: none.",
            f"{increase('gmpd_worker_restarts_total')} or vector(0)",
            warn=(1, 5),
        ),
    ],
)

JOBS: Final = Row(
    "Jobs",
    [
        Panel(
            "Jobs finished, by outcome",
            "Cancelled jobs were cancelled on request; error, timeout and lost are failures.",
            [(rate("gmpd_jobs_finished_total", "outcome"), "{{outcome}}")],
            Shape.STACK,
            "ops",
        ),
        Panel(
            "Accepted, refused, retried",
            "Refused: a named limit said QueueFull. Retried: further attempts. Overran: ran on past"
            " their timeout.",
            [
                (rate("gmpd_jobs_submitted_total"), "accepted"),
                (f"{rate('gmpd_jobs_rejected_total')} or vector(0)", "refused"),
                (f"{rate('gmpd_jobs_retried_total')} or vector(0)", "retried"),
                (rate("gmpd_jobs_overran_total"), "overran"),
            ],
            unit="ops",
        ),
        Panel(
            "Global run queue",
            "A queue that grows means more comes in than the Ps get through.",
            [
                (gauge("gmpd_global_queue_length"), "queued"),
                (gauge("gmpd_delayed_jobs"), "delayed on purpose"),
                (gauge("gmpd_held_back_jobs"), "until their client takes results"),
            ],
        ),
        Panel(
            "Results that clients have not taken",
            "Beyond limits.client_results a client is full, and no more of its jobs are begun.",
            [(gauge("gmpd_results_bytes"), "bytes"), (gauge("gmpd_full_clients"), "full clients")],
        ),
        Panel(
            "Waited before start",
            "Of attempts, from when they might begin: delays are excluded.",
            quantiles("gmpd_job_wait_seconds"),
            unit="s",
        ),
        Panel(
            "Ran",
            "From started to finished, parked time included.",
            quantiles("gmpd_job_run_seconds"),
            unit="s",
        ),
        Panel(
            "Held its P",
            "The part of it that kept a P busy: what a job costs.",
            quantiles("gmpd_job_occupied_seconds"),
            unit="s",
        ),
    ],
)

FUNCTIONS: Final = Row(
    "Functions",
    [
        Panel(
            "Time on Ps, by function",
            "Where the cores go: 1 is one P all the time. The ten largest; the daemon names the "
            "busiest 100 functions, _other is the rest.",
            [(top(rate("gmpd_function_occupied_seconds_total", "function")), "{{function}}")],
            Shape.STACK,
        ),
        Panel(
            "Jobs finished, by function",
            "The ten with most jobs per second.",
            [(top(rate("gmpd_function_jobs_finished_total", "function")), "{{function}}")],
            Shape.STACK,
            "ops",
        ),
        Panel(
            "Failed, by function",
            "Errors, timeouts and lost jobs; `gmpd failures` has the tracebacks. None is good.",
            [
                (
                    top(
                        rate(
                            "gmpd_function_jobs_finished_total",
                            "function",
                            outcome="error|timeout|lost",
                        )
                    ),
                    "{{function}}",
                )
            ],
            Shape.STACK,
            "ops",
        ),
        Panel(
            "Run time p95, by function",
            "From started to finished, parked time included.",
            [(top(quantile(0.95, "gmpd_function_run_seconds", "function")), "{{function}}")],
            unit="s",
            span=12,
        ),
        Panel(
            "Wait p95, by function",
            "From when an attempt might begin. Functions that wait for long: a limit, a low"
            " priority, or arrivals in bursts.",
            [(top(quantile(0.95, "gmpd_function_wait_seconds", "function")), "{{function}}")],
            unit="s",
            span=12,
        ),
    ],
)

DURABLE: Final = Row(
    "Durable jobs",
    [
        Panel(
            "Durable jobs, by state",
            "Blocked: their function cannot be imported; gmpd status names it.",
            [(gauge("gmpd_durable_jobs", "state"), "{{state}}")],
            Shape.STACK,
        ),
        Panel(
            "Transactions of the store",
            "Each is flushed to the disk; many operations share one when the daemon is busy.",
            [
                (rate("gmpd_durable_commits_total"), "transactions"),
                (rate("gmpd_durable_operations_total"), "operations"),
            ],
            unit="ops",
        ),
        Panel(
            "Size of the store",
            "Ended jobs stay for their keep-time.",
            [(gauge("gmpd_durable_store_bytes"), "bytes")],
            unit="bytes",
        ),
    ],
)

SCHEDULER: Final = Row(
    "Scheduler",
    [
        Panel(
            "Scheduling latency",
            "How long runnable Gs waited for their P. Good: one warm band, far down.",
            [(heat("gmpd_sched_latency_seconds"), "{{le}}")],
            Shape.HEAT,
            "s",
            span=12,
        ),
        Panel(
            "Scheduling latency, quantiles",
            "Go's /sched/latencies.",
            quantiles("gmpd_sched_latency_seconds"),
            unit="s",
            span=12,
        ),
        Panel(
            "Picks, by source",
            "Where Ps found the G that they ran next. Mostly local is good; mostly global or steal "
            "means that Ps live from hand to mouth.",
            [(rate("gmpd_sched_picks_total", "source"), "{{source}}")],
            Shape.SHARES,
            "ops",
        ),
        Panel(
            "Gs, by state",
            "Many runnable: a queue. syscall: Gs that block on an M of their own.",
            [(gauge("gmpd_gs", "state"), "{{state}}")],
            Shape.STACK,
        ),
        Panel(
            "Slice",
            "How long Gs run between two yields. Good: p99 below 10 ms.",
            quantiles("gmpd_g_slice_seconds"),
            unit="s",
        ),
        Panel(
            "Hand-offs of P, by reason",
            "blocked: found by sysmon; known, learned: handed off at once; hog: computes too long.",
            [(rate("gmpd_sysmon_handoffs_total", "reason"), "{{reason}}")],
            Shape.STACK,
            "ops",
        ),
        Panel(
            "Overruns",
            "Coroutines that kept their P too long between two awaits. The log names them.",
            [(rate("gmpd_sysmon_overruns_total", "p"), "P{{p}}")],
            Shape.STACK,
            "ops",
        ),
        Panel(
            "Gs made",
            "Jobs and their children.",
            [(rate("gmpd_gs_created_total"), "made")],
            unit="ops",
        ),
    ],
)

STEALING: Final = Row(
    "Stealing",
    [
        Panel(
            "Attempts, by outcome",
            "empty is the usual answer when there is little work; timeout means a deaf victim.",
            [(rate("gmpd_steal_attempts_total", "outcome"), "{{outcome}}")],
            Shape.STACK,
            "ops",
            span=6,
        ),
        Panel(
            "Gs moved",
            "Gained as thief, above; given up as victim, below.",
            [
                (rate("gmpd_gs_stolen_total", "p"), "P{{p}} stole"),
                (f"-{rate('gmpd_gs_lost_total', 'p')}", "P{{p}} lost"),
            ],
            unit="ops",
            span=6,
        ),
        Panel(
            "Children moved",
            "Children of Gs that left a P (out), and that began on another (in). Good: some, while "
            "one P makes many and others have nothing.",
            [(rate("gmpd_children_moved_total", "p", "direction"), "P{{p}} {{direction}}")],
            unit="ops",
            span=6,
        ),
        Panel(
            "Time to steal",
            "From the question to the victim's answer: a round trip of messages. Good: below 1 ms.",
            quantiles("gmpd_steal_duration_seconds"),
            unit="s",
            span=6,
        ),
    ],
)

PS: Final = Row(
    "Ps",
    [
        Panel(
            "Busy, per P",
            "All alike is good: work spreads.",
            [
                (
                    rate("gmpd_p_state_seconds_total", "p", state="running"),
                    "P{{p}}",
                )
            ],
            unit="percentunit",
        ),
        Panel(
            "Time of all Ps, by state",
            "searching is what looking for work costs.",
            [(rate("gmpd_p_state_seconds_total", "state"), "{{state}}")],
            Shape.SHARES,
            "percentunit",
        ),
        Panel(
            "Local run queue, per P",
            "Gs ready to run on this P.",
            [(gauge("gmpd_p_run_queue_length", "p"), "P{{p}}")],
        ),
        Panel(
            "Jobs held, per P",
            "Fresh ones can be stolen; started ones stay.",
            [
                (gauge("gmpd_p_fresh_jobs", "p"), "P{{p}} fresh"),
                (gauge("gmpd_p_started_jobs", "p"), "P{{p}} started"),
                (gauge("gmpd_p_overrunning_jobs", "p"), "P{{p}} past their timeout"),
                (gauge("gmpd_p_withheld_results", "p"), "P{{p}} whose client takes no results"),
            ],
        ),
        Panel(
            "Jobs finished, per P",
            "",
            [(rate("gmpd_p_jobs_finished_total", "p"), "P{{p}}")],
            Shape.STACK,
            "ops",
        ),
        Panel(
            "Running now for",
            "Age of the G that each P runs. A line that climbs is a G that does not yield.",
            [(gauge("gmpd_p_running_age_seconds", "p", op="max"), "P{{p}}")],
            unit="s",
        ),
    ],
)

WORKERS: Final = Row(
    "Workers and coordinator",
    [
        Panel(
            "Workers, by state",
            "",
            [(gauge("gmpd_workers", "state"), "{{state}}")],
            Shape.STACK,
            span=6,
        ),
        Panel(
            "CPU",
            "Seconds of CPU per second: 1 is a core.",
            [
                (rate("gmpd_worker_cpu_seconds_total", "p"), "P{{p}}"),
                (
                    f"sum (rate({PROCESS}_cpu_seconds_total{{{INSTANCE}}}[$__rate_interval]))",
                    "coordinator",
                ),
            ],
            unit="percentunit",
            span=6,
        ),
        Panel(
            "Resident memory",
            "A line that only climbs is a leak, most often of a job.",
            [
                (gauge("gmpd_worker_resident_memory_bytes", "p"), "P{{p}}"),
                (f"sum ({PROCESS}_resident_memory_bytes{{{INSTANCE}}})", "coordinator"),
            ],
            unit="bytes",
            span=6,
        ),
        Panel(
            "Threads (Ms), per P",
            "One per blocked G, and the one that holds P; at limits.max_ms, Gs wait for one.",
            [
                (gauge("gmpd_worker_threads", "p"), "P{{p}}"),
                (rate("gmpd_worker_thread_limit_waits_total", "p"), "P{{p}} waits for one"),
            ],
            span=6,
        ),
        Panel(
            "Garbage collection",
            "Pauses of the workers, and passes over everything. Good: below 10 ms at p99.",
            [
                *quantiles("gmpd_gc_pause_seconds"),
                (rate("gmpd_gc_passes_total", generation="major"), "major passes a second"),
            ],
            unit="s",
            span=6,
        ),
        Panel(
            "Coordinator's loop lag",
            "How late it comes to what is due. Good: below 10 ms; else it is saturated.",
            quantiles("gmpd_coordinator_loop_lag_seconds"),
            unit="s",
            span=6,
        ),
        Panel(
            "Messages",
            "Batches grow with load, so messages grow slower than jobs.",
            [(rate("gmpd_messages_total", "direction", "kind"), "{{direction}} {{kind}}")],
            unit="ops",
            span=6,
        ),
        Panel(
            "Bytes",
            "Through the coordinator's sockets.",
            [(rate("gmpd_message_bytes_total", "direction"), "{{direction}}")],
            unit="Bps",
            span=6,
        ),
        Panel(
            "Dropped messages, refused requests and lost lines of the log, by reason",
            "Stale ones are normal after a worker's death; garbage is not.",
            [
                (rate("gmpd_messages_dropped_total", "reason"), "{{reason}}"),
                (f"{rate('gmpd_messages_dropped_total')} or vector(0)", "all"),
                (rate("gmpd_http_requests_refused_total", "reason"), "HTTP: {{reason}}"),
                (rate("gmpd_log_lines_lost_total", "reason"), "log: {{reason}}"),
            ],
            unit="ops",
            span=6,
        ),
        Panel(
            "Clients",
            "Connected now; the gateway is one.",
            [(gauge("gmpd_sessions"), "connected")],
            span=6,
        ),
        Panel(
            "These numbers' own cost",
            "Age of the snapshot they came from, and what one collection took.",
            [
                (gauge("gmpd_snapshot_age_seconds", op="max"), "age"),
                (gauge("gmpd_collect_duration_seconds", op="max"), "collection"),
            ],
            unit="s",
            span=6,
        ),
        Panel(
            "Isolated jobs",
            "Workers that exist for one job each, by state; and jobs that wait for one. Many that "
            "wait while few run: limits.isolated.",
            [
                (gauge("gmpd_isolated_workers", "state"), "{{state}}"),
                (gauge("gmpd_isolated_queue_length"), "queued"),
                (rate("gmpd_isolated_workers_started_total"), "started per second"),
            ],
            span=6,
        ),
    ],
)

HOSTS: Final = Row(
    "Hosts of a cluster",
    [
        Panel(
            "Hosts that take work",
            "1 for each that does; one at 0 joins, leaves, was refused or is lost. Without an"
            " engine these panels are empty.",
            [(gauge("gmpd_host_up", "host"), "{{host}}")],
            Shape.STACK,
            span=6,
        ),
        Panel(
            "Hosts lost, cores",
            "Losses over the time shown (good: none), and the cores of hosts that are shown.",
            [
                (increase("gmpd_host_losses_total", "host"), "{{host}} lost"),
                (gauge("gmpd_host_cores"), "cores"),
            ],
            span=6,
        ),
        Panel(
            "Jobs at hosts",
            "Sent and not ended, by host; and those that are leased to hosts and wait here. Good:"
            " as many as cores, or more.",
            [
                (gauge("gmpd_host_started_jobs", "host"), "{{host}}"),
                (gauge("gmpd_host_fresh_jobs"), "not sent"),
            ],
            span=6,
        ),
        Panel(
            "Batches per second",
            "Exchanges with each host: each costs its bridge and its engine about half a"
            " millisecond, whatever it carries.",
            [(rate("gmpd_host_batches_total", "host"), "{{host}}")],
            unit="ops",
            span=6,
        ),
    ],
)

GO: Final = Row(
    "As a Go program would show it",
    [
        Panel(
            "Goroutines",
            "The names that client_golang exports, so that dashboards made for Go work here.",
            [
                (gauge("go_sched_goroutines_running_goroutines"), "running"),
                (gauge("go_sched_goroutines_runnable_goroutines"), "runnable"),
                (gauge("go_sched_goroutines_waiting_goroutines"), "waiting"),
                (gauge("go_sched_goroutines_not_in_go_goroutines"), "not in go"),
            ],
            Shape.STACK,
        ),
        Panel(
            "Threads",
            "GOMAXPROCS and all Ms.",
            [
                (gauge("go_sched_gomaxprocs_threads"), "gomaxprocs"),
                (gauge("go_sched_threads_total_threads"), "threads"),
            ],
        ),
        Panel(
            "Scheduling latencies",
            "",
            quantiles("go_sched_latencies_seconds"),
            unit="s",
        ),
    ],
)

ROWS: Final = (OVERVIEW, JOBS, FUNCTIONS, DURABLE, SCHEDULER, STEALING, PS, WORKERS, HOSTS, GO)


# -- the dashboard -------------------------------------------------------------------------------


def _panel(panel: Panel) -> Any:
    built: Any
    match panel.shape:
        case Shape.STAT:
            built = (
                stat.Panel()
                .color_mode(BigValueColorMode.VALUE)
                .graph_mode(BigValueGraphMode.AREA)
                .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
                .height(4)
            )
            built = built.thresholds(_thresholds(panel.warn))
        case Shape.HEAT:
            built = (
                heatmap.Panel()
                .calculate(False)
                .color(
                    heatmap.HeatmapColorOptions().mode(HeatmapColorMode.SCHEME).scheme("Oranges")
                )
                .y_axis(heatmap.YAxisConfig().unit(panel.unit))
                .cell_values(heatmap.CellValues().unit("short"))
                .show_tooltip()
                .height(8)
            )
        case Shape.LINES | Shape.STACK | Shape.SHARES:
            built = _lines(panel.shape)
        case never:
            assert_never(never)
    built = built.title(panel.title).datasource(DATASOURCE).span(panel.span)
    built = built.unit(panel.unit).description(panel.help or panel.title)
    for number, (expression, legend) in enumerate(panel.queries):
        built = built.with_target(_query(panel.shape, expression, legend, chr(ord("A") + number)))
    return built


def _lines(shape: Shape) -> Any:
    built = (
        timeseries.Panel()
        .line_width(1)
        .show_points(VisibilityMode.NEVER)
        .legend(
            common.VizLegendOptions()
            .display_mode(LegendDisplayMode.LIST)
            .placement(LegendPlacement.BOTTOM)
            .show_legend(True)
        )
        .tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI))
        .height(8)
    )
    if shape is Shape.LINES:
        return built.fill_opacity(0)
    mode = StackingMode.NORMAL if shape is Shape.STACK else StackingMode.PERCENT
    return built.fill_opacity(60).stacking(common.StackingConfig().mode(mode)).min(0)


def _thresholds(warn: tuple[float, float] | None) -> Any:
    steps = [Threshold(None, "green")]
    if warn is not None:
        steps += [Threshold(warn[0], "orange"), Threshold(warn[1], "red")]
    return dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps)


def _query(shape: Shape, expression: str, legend: str, ref: str) -> Any:
    query = prometheus.Dataquery().expr(expression).legend_format(legend).ref_id(ref).range()
    if shape is Shape.HEAT:
        query = query.format(PromQueryFormat.HEATMAP)
    return query


def build() -> str:
    """The dashboard's JSON, as it is in the file."""
    started = series("gmpd_started_timestamp_seconds", Kind.GAUGE)
    board = (
        dashboard.Dashboard("gmpd overview")
        .uid("gmpd-overview")
        .description("One or more gmpd daemons: what their Ps, Gs and jobs do.")
        .tags(["gmpd"])
        .readonly()
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .time("now-15m", "now")
        .refresh("5s")
        .with_variable(
            dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus")
        )
        .with_variable(
            dashboard.QueryVariable("instance")
            .label("Instance")
            .datasource(DATASOURCE)
            .query("label_values(gmpd_procs, instance)")
            .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
            .multi(True)
            .include_all(True)
            .all_value(".*")
        )
        .annotation(
            dashboard.AnnotationQuery()
            .name("Daemon started")
            .datasource(DATASOURCE)
            .enable(True)
            .icon_color("blue")
            .expr(f"changes({started}[1m]) > 0")
        )
    )
    for row in ROWS:
        board = board.with_row(dashboard.Row(row.title))
        for panel in row.panels:
            board = board.with_panel(_panel(panel))
    made = json.loads(json.dumps(board.build(), cls=JSONEncoder))
    for number, panel_made in enumerate(made["panels"], 1):
        # Fixed, so that a link to a panel survives; by hand, because the library leaves them out.
        panel_made["id"] = number
    return json.dumps(made, indent=1, sort_keys=True) + "\n"


if __name__ == "__main__":
    TARGET.write_text(build())
