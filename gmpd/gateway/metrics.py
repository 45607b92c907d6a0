"""Every metric of gmpd, as data: name, type, labels, help, unit, and how it is read.

This is the one description; ``readers.py`` has the functions that find a value in a snapshot. The
collector (``collector.py``) turns it into Prometheus families, the generator of the Grafana
dashboard (``config/grafana/dashboard.py``) takes its names from here, and the tests walk it; so a
name can not drift from the thing it names. It must never know prometheus_client, HTTP or a socket.

Names follow Prometheus' conventions (base units, plural units last, counters end in ``_total``)
and, where Go exports the same thing, Go's own ``go_sched_*`` name as client_golang spells it, so
that dashboards made for Go programs show a gmpd daemon too. Histograms carry no ``p`` label: 20
series each, whatever the number of cores. Job ids, client ids and pids are never labels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from gmpd.gateway.metric import JOB_BOUNDS, LATENCY_BOUNDS, Kind, Metric
from gmpd.gateway.readers import (
    G_STATES,
    Buckets,
    ReadSamples,
    Sample,
    Snapshot,
    build_info,
    by,
    by_by,
    gs_by_state,
    gs_in,
    hist,
    hist_per_function,
    hosts_up,
    one,
    over_ps,
    per_function,
    per_function_by,
    per_host,
    per_p,
    per_p_by,
    state_of,
    workers_by_state,
)

__all__ = [
    "BY_NAME",
    "METRICS",
    "Buckets",
    "Kind",
    "Metric",
    "Sample",
    "Snapshot",
]


# -- label values that are known: they are exported as 0 before the first event, so that rate() sees
# -- the first one and an alert on a ratio has something to divide by

OUTCOMES: Final = ("ok", "error", "timeout", "cancelled", "lost")
PICKS: Final = ("runnext", "local", "global", "steal", "poller", "timer")
STEALS: Final = ("hit", "empty")
HANDOFFS: Final = ("blocked", "hog", "known", "learned")
P_TIMES: Final = ("running", "searching", "idle", "blocked")
ISOLATED_STATES: Final = ("starting", "spare", "running", "ending")
DAEMON_STATES: Final = ("running", "draining", "degraded")
STORE_STATES: Final = ("none", "open", "full", "refused", "broken")
GC_PASSES: Final = ("young", "full", "major")
FETCHES: Final = ("ok", "late", "error")
REFUSALS: Final = ("host", "origin", "token", "method", "permission")
DIRECTIONS: Final = ("in", "out")
MOVES: Final = ("in", "out")


# -- the metrics ---------------------------------------------------------------------------------


def _counter(
    name: str, help_: str, read: ReadSamples, *labels: str, unit: str = "", summed: bool = False
) -> Metric:
    return Metric(name, Kind.COUNTER, help_, unit, labels, read=read, summed=summed)


def _gauge(name: str, help_: str, read: ReadSamples, *labels: str, unit: str = "") -> Metric:
    return Metric(name, Kind.GAUGE, help_, unit, labels, read=read)


def _histogram(name: str, help_: str, source: str, bounds: tuple[int, ...]) -> Metric:
    return Metric(name, Kind.HISTOGRAM, help_, "seconds", buckets=hist(source), bounds=bounds)


_DAEMON: Final = (
    _gauge(
        "gmpd_build_info",
        "Versions, and compiled or pure, as labels; always 1.",
        build_info,
        *("version", "python", "variant"),
    ),
    _gauge(
        "gmpd_started_timestamp_seconds",
        "When the daemon began, unix time.",
        one("started_at"),
        unit="seconds",
    ),
    _gauge(
        "gmpd_daemon_state",
        "1 for the state that the daemon is in, 0 for the others.",
        state_of("state", DAEMON_STATES),
        "state",
    ),
    _gauge("gmpd_procs", "Number of Ps: gmpd's GOMAXPROCS.", one("procs")),
    _gauge("gmpd_sessions", "Clients connected now.", one("sessions")),
    _histogram(
        "gmpd_coordinator_loop_lag_seconds",
        "Delay of due work in the coordinator's loop: its saturation.",
        "loop_lag",
        LATENCY_BOUNDS,
    ),
    _counter(
        "gmpd_messages_total",
        "Messages that crossed the coordinator's sockets.",
        by_by("messages", DIRECTIONS),
        "direction",
        "kind",
    ),
    _counter(
        "gmpd_message_bytes_total",
        "Bytes that crossed the coordinator's sockets.",
        by("message_bytes", DIRECTIONS),
        "direction",
        unit="bytes",
    ),
    _counter(
        "gmpd_messages_dropped_total",
        "Messages dropped (garbage, stale epoch, unknown token, ...); they changed nothing.",
        by("dropped"),
        "reason",
    ),
    _counter(
        "gmpd_log_lines_lost_total",
        "Lines of the coordinator's log that were not written, as it was not read (dropped), or as"
        " too many were alike (suppressed).",
        by("log", ("dropped", "suppressed")),
        "reason",
    ),
)

_JOBS: Final = (
    _counter("gmpd_jobs_submitted_total", "Jobs accepted.", one("jobs.submitted")),
    _counter(
        "gmpd_jobs_rejected_total",
        "Jobs refused by a named limit; they were not accepted.",
        by("jobs.rejected"),
        "reason",
    ),
    _counter(
        "gmpd_jobs_finished_total",
        "Jobs that have their outcome.",
        by("jobs.finished", OUTCOMES),
        "outcome",
    ),
    _counter("gmpd_jobs_retried_total", "Further attempts at a job.", by("jobs.retried"), "reason"),
    _counter(
        "gmpd_jobs_overran_total",
        "Attempts whose function ran on past its time limit.",
        one("jobs.overran"),
    ),
    _gauge("gmpd_global_queue_length", "Jobs in the global run queue.", one("queue.global")),
    _gauge(
        "gmpd_global_queue_oldest_age_seconds",
        "How long the oldest job of the global run queue has waited.",
        one("queue.oldest_age_s"),
        unit="seconds",
    ),
    _gauge(
        "gmpd_results_bytes",
        "Bytes of results that clients have not taken.",
        one("results.bytes"),
        unit="bytes",
    ),
    _gauge(
        "gmpd_full_clients",
        "Clients with more results than limits.client_results that they have not taken.",
        one("results.full_clients"),
    ),
    _gauge(
        "gmpd_held_back_jobs",
        "Jobs that wait until their client has taken results.",
        one("results.held_back"),
    ),
    _gauge(
        "gmpd_global_queue_bytes",
        "Bytes of arguments of all unfinished jobs.",
        one("queue.bytes"),
        unit="bytes",
    ),
    _gauge(
        "gmpd_delayed_jobs",
        "Accepted jobs whose time has not come: delayed on purpose, or backing off.",
        one("queue.delayed"),
    ),
    _histogram(
        "gmpd_job_wait_seconds",
        "How long attempts of jobs waited, from when they might begin until they did: delay= and"
        " the time between two attempts are excluded. Of attempts that ran to an end.",
        "wait",
        JOB_BOUNDS,
    ),
    _histogram(
        "gmpd_job_run_seconds",
        "How long these attempts ran, from begin to end.",
        "run",
        JOB_BOUNDS,
    ),
    _histogram(
        "gmpd_job_occupied_seconds",
        "Time that a job held its P: parked and blocked time excluded.",
        "occupied",
        JOB_BOUNDS,
    ),
)

_FUNCTIONS: Final = (
    Metric(
        "gmpd_function_jobs_finished_total",
        Kind.COUNTER,
        "Jobs that have their outcome, by function: the busiest 100, and the rest as _other.",
        labels=("function", "outcome"),
        read=per_function_by("finished"),
        is_bounded=True,
    ),
    Metric(
        "gmpd_function_occupied_seconds_total",
        Kind.COUNTER,
        "Time that the jobs of a function held Ps, as gmpd_job_occupied_seconds.",
        "seconds",
        ("function",),
        read=per_function("occupied_s"),
        is_bounded=True,
    ),
    Metric(
        "gmpd_function_wait_seconds",
        Kind.HISTOGRAM,
        "As gmpd_job_wait_seconds, by function.",
        "seconds",
        ("function",),
        rows=hist_per_function("wait"),
        bounds=JOB_BOUNDS,
    ),
    Metric(
        "gmpd_function_run_seconds",
        Kind.HISTOGRAM,
        "As gmpd_job_run_seconds, by function.",
        "seconds",
        ("function",),
        rows=hist_per_function("run"),
        bounds=JOB_BOUNDS,
    ),
)

_DURABLE: Final = (
    _gauge(
        "gmpd_durable_jobs",
        "Durable jobs by state; none without a store.",
        by("durable.jobs"),
        "state",
    ),
    _gauge(
        "gmpd_durable_store_state",
        "1 for the state of the store of durable jobs, 0 for the others.",
        state_of("durable.state", STORE_STATES),
        "state",
    ),
    _gauge(
        "gmpd_durable_store_bytes",
        "Bytes of the database of durable jobs.",
        one("durable.bytes"),
        unit="bytes",
    ),
    _counter(
        "gmpd_durable_commits_total",
        "Transactions of the store, each flushed to the disk.",
        one("durable.commits"),
    ),
    _counter(
        "gmpd_durable_operations_total",
        "Operations in these transactions.",
        one("durable.operations"),
    ),
)

_SCHEDULER: Final = (
    _gauge("gmpd_gs", "Gs by state, over all Ps and the global queue.", gs_by_state, "state"),
    _counter("gmpd_gs_created_total", "Gs made.", per_p("gs_created"), summed=True),
    _histogram(
        "gmpd_sched_latency_seconds",
        "How long a runnable G waited for its P to run it.",
        "sched_latency",
        LATENCY_BOUNDS,
    ),
    _histogram(
        "gmpd_g_slice_seconds",
        "How long a G ran between two yields: finds Gs that never yield.",
        "slice",
        LATENCY_BOUNDS,
    ),
    _counter("gmpd_sched_ticks_total", "Gs started on a P's turn.", per_p("schedtick"), "p"),
    _counter(
        "gmpd_sched_picks_total",
        "Where a P found the G that it ran next.",
        per_p_by("picks", PICKS),
        "p",
        "source",
    ),
    _counter(
        "gmpd_steal_attempts_total",
        "Attempts of a P, as thief, to steal fresh Gs.",
        per_p_by("steals", STEALS),
        "p",
        "outcome",
    ),
    _counter("gmpd_gs_stolen_total", "Gs that a P gained as thief.", per_p("stolen"), "p"),
    _counter("gmpd_gs_lost_total", "Gs that a P gave up as victim.", per_p("lost"), "p"),
    _counter(
        "gmpd_children_moved_total",
        "Children of Gs that left a P (out), and that began on it (in), to run elsewhere than"
        " their parent.",
        per_p_by("children", MOVES),
        "p",
        "direction",
    ),
    _histogram(
        "gmpd_steal_duration_seconds",
        "From the request to a victim to its answer.",
        "steal",
        LATENCY_BOUNDS,
    ),
    _counter(
        "gmpd_sysmon_handoffs_total",
        "Times that a P was handed to another M.",
        per_p_by("handoffs", HANDOFFS),
        "p",
        "reason",
    ),
    _counter(
        "gmpd_sysmon_overruns_total",
        "Times that a coroutine kept its P for too long between two awaits.",
        per_p("overruns"),
        "p",
    ),
)

_PS: Final = (
    _counter(
        "gmpd_p_state_seconds_total",
        "Time that a P spent in each state.",
        per_p_by("state_s", P_TIMES),
        "p",
        "state",
        unit="seconds",
    ),
    _gauge("gmpd_p_run_queue_length", "Gs in a P's local run queue.", per_p("runq"), "p"),
    _gauge(
        "gmpd_p_fresh_jobs", "Jobs leased to a P and not started: stealable.", per_p("fresh"), "p"
    ),
    _gauge("gmpd_p_started_jobs", "Jobs started on a P and not finished.", per_p("started"), "p"),
    _gauge(
        "gmpd_p_withheld_results",
        "Results that a P's worker keeps for clients that take no results.",
        per_p("withheld"),
        "p",
    ),
    _gauge(
        "gmpd_p_overrunning_jobs",
        "Functions on a P that run on past their time limits.",
        per_p("overrunning"),
        "p",
    ),
    _counter(
        "gmpd_p_jobs_finished_total",
        "Attempts of jobs that ended on a P.",
        per_p("jobs_finished"),
        "p",
    ),
    _gauge(
        "gmpd_p_running_age_seconds",
        "How long the G that a P runs now has been running.",
        per_p("running_s"),
        "p",
        unit="seconds",
    ),
)

_WORKERS: Final = (
    _gauge("gmpd_workers", "Workers by state.", workers_by_state, "state"),
    _gauge("gmpd_worker_up", "1 while the worker of a P lives.", per_p("up"), "p"),
    _counter(
        "gmpd_worker_restarts_total",
        "Times that a P got a new worker.",
        per_p_by("restarts"),
        "p",
        "reason",
    ),
    _counter(
        "gmpd_worker_cpu_seconds_total",
        "CPU time of a P's workers.",
        per_p("cpu_s"),
        "p",
        unit="seconds",
    ),
    _gauge(
        "gmpd_worker_resident_memory_bytes",
        "Resident memory of a P's worker.",
        per_p("rss"),
        "p",
        unit="bytes",
    ),
    _gauge("gmpd_worker_threads", "Threads (Ms) of a P's worker.", per_p("ms"), "p"),
    _counter(
        "gmpd_worker_thread_limit_waits_total",
        "Times that a G had to wait because its worker had limits.max_ms threads already.",
        per_p("max_ms_waits"),
        "p",
    ),
    _gauge("gmpd_worker_idle_threads", "Threads parked for want of work.", per_p("idle_ms"), "p"),
    _histogram(
        "gmpd_gc_pause_seconds",
        "How long Python's garbage collector stopped a worker at a time.",
        "gc_pause",
        LATENCY_BOUNDS,
    ),
    _counter(
        "gmpd_gc_passes_total",
        "Passes of Python's garbage collector: over young objects, untenured ones, all.",
        per_p_by("gc", GC_PASSES),
        "p",
        "generation",
    ),
    _gauge(
        "gmpd_worker_heartbeat_age_seconds",
        "Since a P's worker last moved its heartbeat; a parked, idle worker need not.",
        per_p("beat_age_s"),
        "p",
        unit="seconds",
    ),
)

_ISOLATED: Final = (
    _gauge(
        "gmpd_isolated_workers",
        "Workers of isolated jobs, by state.",
        by("isolated.states", ISOLATED_STATES),
        "state",
    ),
    _gauge(
        "gmpd_isolated_queue_length",
        "Isolated jobs that wait for a worker of their own.",
        one("isolated.queued"),
    ),
    _counter(
        "gmpd_isolated_workers_started_total",
        "Workers started for isolated jobs.",
        one("isolated.started"),
    ),
)

_HOSTS: Final = (
    _gauge("gmpd_host_up", "1 for a host of the cluster that takes work.", hosts_up, "host"),
    _gauge("gmpd_host_cores", "Cores of a host.", per_host("cores"), "host"),
    _gauge("gmpd_host_fresh_jobs", "Jobs leased to a host, not sent.", per_host("fresh"), "host"),
    _gauge("gmpd_host_started_jobs", "Jobs at a host.", per_host("started"), "host"),
    _counter("gmpd_host_batches_total", "Batches back from a host.", per_host("batches"), "host"),
    _counter(
        "gmpd_host_losses_total",
        "Times that a host was lost, while it is shown.",
        per_host("losses"),
        "host",
    ),
)

_GO: Final = (
    _gauge(
        "go_sched_gomaxprocs_threads",
        "Number of Ps: Go's /sched/gomaxprocs:threads.",
        one("procs"),
        unit="threads",
    ),
    _gauge(
        "go_sched_goroutines_goroutines",
        "Live Gs: Go's /sched/goroutines:goroutines.",
        gs_in(*G_STATES),
        unit="goroutines",
    ),
    _gauge(
        "go_sched_goroutines_running_goroutines",
        "Gs executing: Go's /sched/goroutines/running:goroutines.",
        gs_in("running"),
        unit="goroutines",
    ),
    _gauge(
        "go_sched_goroutines_runnable_goroutines",
        "Gs ready to run, global queue included: Go's /sched/goroutines/runnable:goroutines.",
        gs_in("runnable"),
        unit="goroutines",
    ),
    _gauge(
        "go_sched_goroutines_waiting_goroutines",
        "Gs parked: Go's /sched/goroutines/waiting:goroutines.",
        gs_in("waiting"),
        unit="goroutines",
    ),
    _gauge(
        "go_sched_goroutines_not_in_go_goroutines",
        "Gs blocked on an M of their own: Go's /sched/goroutines/not-in-go:goroutines.",
        gs_in("syscall"),
        unit="goroutines",
    ),
    _counter(
        "go_sched_goroutines_created_goroutines_total",
        "Gs made: Go's /sched/goroutines-created:goroutines.",
        per_p("gs_created"),
        unit="goroutines",
        summed=True,
    ),
    _gauge(
        "go_sched_threads_total_threads",
        "Ms of all workers: Go's /sched/threads/total:threads.",
        over_ps("ms"),
        unit="threads",
    ),
    _histogram(
        "go_sched_latencies_seconds",
        "Time runnable before running: Go's /sched/latencies:seconds, every one, not one in eight.",
        "sched_latency",
        LATENCY_BOUNDS,
    ),
    _histogram(
        "go_sched_pauses_total_gc_seconds",
        "Pauses by garbage collection, of a worker: Go's /sched/pauses/total/gc:seconds.",
        "gc_pause",
        LATENCY_BOUNDS,
    ),
)

_GATEWAY: Final = (
    _gauge(
        "gmpd_coordinator_up",
        "1 when the coordinator answered the gateway's last question in time.",
        one("gateway.up"),
    ),
    _gauge(
        "gmpd_snapshot_age_seconds",
        "Age of the snapshot that these numbers were read from.",
        one("gateway.age_s"),
        unit="seconds",
    ),
    _counter(
        "gmpd_snapshot_fetches_total",
        "Questions to the coordinator: answered in time, late, or failed.",
        by("gateway.fetches", FETCHES),
        "outcome",
    ),
    _counter(
        "gmpd_http_requests_refused_total",
        "HTTP requests that the gateway's rules refused.",
        by("gateway.refused", REFUSALS),
        "reason",
    ),
    _gauge(
        "gmpd_collect_duration_seconds",
        "What the last collection before this one took.",
        one("gateway.collect_s"),
        unit="seconds",
    ),
    _counter(
        "gmpd_collect_errors_total",
        "Metrics left out because the snapshot held something that they could not read.",
        one("gateway.collect_errors"),
    ),
    _counter(
        "gmpd_label_values_folded_total",
        "Label values shown as _other, because their label already had its most.",
        one("gateway.folded"),
    ),
)

METRICS: Final[tuple[Metric, ...]] = (
    *_DAEMON,
    *_JOBS,
    *_FUNCTIONS,
    *_DURABLE,
    *_SCHEDULER,
    *_PS,
    *_WORKERS,
    *_ISOLATED,
    *_HOSTS,
    *_GO,
    *_GATEWAY,
)

BY_NAME: Final[Mapping[str, Metric]] = {metric.name: metric for metric in METRICS}
