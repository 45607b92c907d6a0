"""The catalogue: every key with default, unit, bounds and one line of meaning.

The one place to add a key: files, variables, flags, `gmpd config` and config/gmpd.toml follow.
It knows nothing of the sources of values.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Any, NamedTuple

from gmpd.config.units import READERS, Kind, literal


def _key(
    default: Any,
    kind: Kind,
    doc: str,
    *,
    unit: str = "",
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
) -> Any:
    """One key. `default` is written as in a file; `low` and `high` are in the attribute's unit;
    `unit` names what a whole number counts (durations and sizes carry theirs)."""
    value = READERS[kind](default) if isinstance(default, str) else default
    spec = {"kind": kind, "doc": doc, "unit": unit, "low": low, "high": high, "choices": choices}
    return field(default=value, metadata=spec)


def _flag(default: bool, doc: str) -> Any:
    return _key(default, Kind.BOOL, doc)


def _count(default: int, unit: str, doc: str, *, low: int = 1, high: int | None = None) -> Any:
    return _key(default, Kind.INT, doc, unit=unit, low=low, high=high)


def _time(default: str, doc: str, *, low: float = 0) -> Any:
    return _key(default, Kind.DURATION, doc, low=low)


def _size(default: str, doc: str, *, low: int = 1) -> Any:
    return _key(default, Kind.SIZE, doc, low=low)


def _text(default: str, doc: str, *, choices: tuple[str, ...] = ()) -> Any:
    return _key(default, Kind.TEXT, doc, choices=choices)


@dataclass(frozen=True, slots=True, kw_only=True)
class Daemon:
    """The daemon itself: `gmpd serve`."""

    procs: int = _count(
        0,
        "Ps",
        "how many; 0 takes the CPUs of the affinity mask, bounded by the cgroup quota; a machine"
        " takes at most 64, or 8 for each core",
        low=0,
        high=4_096,  # more cores than any machine has; a typing error beyond it would fork-bomb
    )
    imports: tuple[str, ...] = _key((), Kind.LIST, "modules that every worker imports at start")
    pin: bool = _flag(False, "pin each worker to one core, if there are as many Ps as cores")
    start_timeout: float = _time(
        "30s", "time for a worker to become ready; a later one is killed and started again", low=0.1
    )
    drain_timeout: float = _time(
        "30s", "time for running jobs to end after SIGTERM or `gmpd drain`"
    )
    runtime_dir: str = _text("", "sockets and gmpd.json; empty chooses a directory")
    state_dir: str = _text("", "logs and durable jobs; empty chooses a directory")
    log_level: str = _text(
        "info", "the lowest level that is logged", choices=("debug", "info", "warning", "error")
    )
    log_format: str = _text(
        "auto",
        "auto is console on a terminal, json elsewhere; workers log in the same form",
        choices=("auto", "console", "json"),
    )
    schedtrace: int = _count(
        0,
        "milliseconds",
        "between lines of Go's scheduler trace on stderr; 0: none",
        low=0,
        high=3_600_000,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """A job beyond a limit is refused; nothing is dropped silently."""

    queue_jobs: int = _count(1_000_000, "jobs", "accepted and not yet finished")
    queue_bytes: int = _size(
        "1GiB", "their arguments in total; a client may hold at most as much as remains free"
    )
    client_results: int = _size(
        "64MiB",
        "results that one client has not taken, at most a quarter of them in transit; beyond it no"
        " further job of it starts",
        low=4 << 20,
    )
    client_messages: int = _count(
        262_144,
        "messages",
        "queued for one client that does not read; beyond it the client is disconnected",
    )
    worker_results: int = _size(
        "256MiB",
        "results that one worker keeps for such clients; more end with ResultRefused",
    )
    worker_calls: int = _count(
        0,
        "jobs",
        "started by one worker; then it ends them and a new one replaces it; 0: no limit",
        low=0,
    )
    value_bytes: int = _size("512MiB", "the arguments of one job, or its result", low=1024)
    job_output: int = _key(
        "64KiB",
        Kind.SIZE,
        "the last bytes of a captured job's output that are kept, of each attempt",
        low=1024,
        high=1 << 20,
    )
    output: int = _size(
        "64MiB", "captured output of all running jobs; beyond it 1 KiB of each is kept", low=1 << 20
    )
    batch_jobs: int = _count(4_096, "jobs", "in one message", high=65_536)
    client_window: int = _count(
        65_536, "jobs", "unfinished ones of one client; beyond it its submit waits"
    )
    client_grace: float = _time("10s", "how long the jobs of a client that vanished are kept")
    sessions: int = _count(512, "clients", "connected at once", high=100_000)
    max_gs: int = _count(10_000, "jobs", "started and unfinished on one P, also past their timeout")
    max_ms: int = _count(
        1_000, "threads", "of one worker; beyond it plain functions wait for a thread", high=30_000
    )
    plain_calls: int = _count(
        0,
        "jobs",
        "plain functions that run at once in one worker; 0: no limit",
        low=0,
        high=30_000,
    )
    isolated: int = _count(
        0,
        "jobs",
        "isolated ones that run at once; 0: the number of Ps",
        low=0,
        high=4_096,  # as daemon.procs: each is a process
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Dispatch:
    """How work reaches the Ps."""

    credit_work: float = _time(
        "2ms",
        "fresh work that a worker holds, by running averages; up to 8 times it of a long backlog",
    )
    credit_max: int = _count(256, "jobs", "fresh ones that a worker holds, at most", high=4_096)
    isolated_spares: int = _count(
        1,
        "workers",
        "kept ready for isolated jobs, after the first such job; each takes about 30 MB",
        low=0,
        high=256,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Restart:
    """Restarts of workers that died."""

    backoff_min: float = _time("100ms", "wait before a worker's second start in a row")
    backoff_max: float = _time("10s", "the wait doubles up to this")
    storm_deaths: int = _count(
        10, "deaths", "of workers within storm_window after which the daemon is degraded"
    )
    storm_window: float = _time("60s", "see storm_deaths", low=1)
    frozen: float = _time(
        "60s",
        "a worker is replaced when its run loop has stood still for this long and no thread of it"
        " computes: C code holds the GIL and waits; 0: never",
    )
    grace: float = _time(
        "5s",
        "how long jobs may continue beside one that ends with its worker, by kill_after or a cancel"
        " by force",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Recycle:
    """Replacement of healthy workers. The successor starts first; no job is lost or ended."""

    jobs: int = _count(
        0,
        "jobs",
        "that a worker runs, and up to a tenth more, before it is replaced; 0: no limit",
        low=0,
    )
    memory: int = _key(
        "0", Kind.SIZE, "a worker whose resident memory is larger is replaced; 0: no limit", low=0
    )
    age: float = _time("0s", "a worker is replaced after this, and up to a tenth more; 0: never")
    grace: float = _time(
        "10s",
        "after its jobs have ended, a worker waits this long for tasks and children that they left"
        " behind; the next worker is replaced once the last one has gone, or after this",
    )
    leaving: int = _count(
        0,
        "workers",
        "that were replaced and still run jobs; at the limit no more are replaced; 0: two for"
        " each P",
        low=0,
        high=4_096,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """The last events of each worker and of the coordinator, for `gmpd trace`."""

    enabled: bool = _flag(True, "keep them, about 65,000 in each process; it takes up to 5 MB")
    slow: float = _time(
        "0s",
        "a job that runs longer has a trace written below daemon.state_dir, at most one a minute;"
        " 0: none",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Http:
    """The gateway: /metrics, the JSON API."""

    enabled: bool = _flag(True, "start the gateway")
    listen: str = _key("127.0.0.1:7412", Kind.ADDRESS, "host:port; port 0 takes a free one")
    hosts: tuple[str, ...] = _key(
        (), Kind.LIST, "Host headers that are accepted besides loopback's, as host:port"
    )
    allow: tuple[str, ...] = _key(
        (),
        Kind.LIST,
        "what the JSON API may change; empty: nothing",
        choices=("submit", "cancel", "retry"),
    )
    token_file: str = _text(
        "",
        "a file (mode 0600) with the token that the JSON API asks of other machines and of other"
        " users; empty: it does not answer them",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Tcp:
    """Clients of other machines: only those with a key (`gmpd keys`), always encrypted."""

    enabled: bool = _flag(False, "listen for them; it needs the keys that `gmpd keys init` makes")
    listen: str = _key("127.0.0.1:7411", Kind.ADDRESS, "host:port; port 0 takes a free one")
    all_interfaces: bool = _flag(False, "allow listen to be 0.0.0.0 or [::]: every network")
    keys: str = _text("", "the directory of keys; empty: keys below daemon.state_dir")
    connections: int = _count(128, "connections", "of these clients at once", high=100_000)
    value_bytes: int = _size(
        "8MiB",
        "the arguments of one of their jobs; a result may have limits.value_bytes",
        low=1024,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """Hosts that an engine knows: their cores run jobs of this daemon, too."""

    engine: str = _text("", "dask, ray, or module:class of another engine; empty: no hosts")
    address: str = _text(
        "",
        "where the engine is: tcp://head:8786 (Dask), ray://head:10001, auto or head:6379 (Ray)",
    )
    scheduler_file: str = _text("", "the file that says it, as `dask scheduler --scheduler-file`")
    timeout: float = _time("5s", "time for the engine to answer", low=0.1)
    lease: float = _time(
        "10s",
        "a host that hears nothing of this daemon ends its jobs after this; only then it is lost",
        low=1,
    )
    drain: float = _time(
        "25s",
        "when the engine ends a host, its jobs that have begun have this long to end",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """Programs that submit, and the command line."""

    autostart: bool = _flag(
        True, "if no daemon runs, start a private one that ends with the client"
    )
    announce: bool = _flag(True, "report on stderr that a private one was started")
    address: str = _text(
        "", "tcp://host:port of a daemon on another machine; empty: the one of this machine"
    )
    key: str = _text("", "the file with the key for it, or the key itself")
    connect_timeout: float = _time(
        "5s", "time for a daemon to answer; then it counts as unreachable", low=0.01
    )
    liveness: float = _time(
        "10s", "a waiting client gives up a daemon that is silent for this long", low=0.5
    )
    reconnect: float = _time(
        "60s",
        "a client that waits for durable jobs looks for a daemon that went away; 0: it does not",
    )


class Key(NamedTuple):
    """The description of one key, for parsing, documents and `gmpd config`."""

    name: str  # "limits.queue_jobs"
    kind: Kind
    default: Any
    doc: str
    unit: str
    low: float | None
    high: float | None
    choices: tuple[str, ...]

    @property
    def section(self) -> str:
        return self.name.partition(".")[0]

    @property
    def leaf(self) -> str:
        return self.name.partition(".")[2]

    @property
    def variable(self) -> str:
        """Its environment variable."""
        return variable_of(self.name)

    def literal(self, value: Any) -> str:
        """`value` as TOML."""
        return literal(self.kind, value)

    def shown(self, value: Any) -> Any:
        """`value`, without what is secret in it."""
        if isinstance(value, str) and value.startswith(_SECRET):
            return f"{_SECRET}…"
        return value


def variable_of(name: str) -> str:
    """The environment variable of "section.key"."""
    return f"GMPD_{name.replace('.', '__').upper()}"


SECTIONS: dict[str, type[Any]] = {
    "daemon": Daemon,
    "limits": Limits,
    "dispatch": Dispatch,
    "restart": Restart,
    "recycle": Recycle,
    "trace": Trace,
    "http": Http,
    "tcp": Tcp,
    "cluster": Cluster,
    "client": Client,
}


def _catalogue() -> dict[str, Key]:
    keys = {}
    for section, cls in SECTIONS.items():
        spec: Field[Any]
        for spec in fields(cls):
            assert spec.default is not MISSING, spec.name
            name = f"{section}.{spec.name}"
            keys[name] = Key(name=name, default=spec.default, **spec.metadata)
    return keys


KEYS: dict[str, Key] = _catalogue()

#: How a key begins that stands where its file could be named.
_SECRET = "gmpd-key-"  # noqa: S105 - its mark, which is public

#: No duration is longer, seconds: a year, beyond which a unit was mixed up.
DURATION_MAX_S = 366 * 86_400.0

#: Short names of variables that are often set by hand.
ALIASES = {
    "GMPD_RUNTIME_DIR": "daemon.runtime_dir",
    "GMPD_STATE_DIR": "daemon.state_dir",
    "GMPD_ADDRESS": "client.address",
    "GMPD_KEY": "client.key",
    "GMPD_SCHEDTRACE": "daemon.schedtrace",
}

#: Keys of earlier versions, which are refused, and their names today.
RENAMED = {"limits.worker_memory": "recycle.memory"}


def checked(key: Key, raw: object) -> Any:
    """`raw`, from a flag, a variable or TOML, as the attribute's type. ValueError says why not."""
    value = _converted(key.kind, raw)
    if key.kind is Kind.DURATION and not value <= DURATION_MAX_S:  # nor is nan
        raise ValueError(f"{raw!r} is out of range: at most {key.literal(DURATION_MAX_S)}")
    for each in (value if key.kind is Kind.LIST else (value,)) if key.choices else ():
        if each not in key.choices:
            raise ValueError(
                f"{each!r} is not one of {', '.join(key.choices)}{hint(each, key.choices)}"
            )
    for bound, beyond, word in ((key.low, -1, "least"), (key.high, 1, "most")):
        if bound is not None and (value - bound) * beyond > 0:
            least = bound if key.kind is Kind.DURATION else int(bound)
            raise ValueError(
                f"{key.literal(value)} is out of range: at {word} {key.literal(least)}"
            )
    return value


def _converted(kind: Kind, raw: object) -> Any:
    if isinstance(raw, str):
        return READERS[kind](raw)
    match kind:
        case Kind.BOOL if isinstance(raw, bool):
            return raw
        case Kind.INT | Kind.SIZE if isinstance(raw, int) and not isinstance(raw, bool):
            return raw
        case Kind.DURATION if isinstance(raw, int | float) and not isinstance(raw, bool):
            return float(raw)  # seconds from Python or the wire; `layers` refuses them in a file
        case Kind.LIST if isinstance(raw, list | tuple):
            if all(isinstance(item, str) for item in raw):
                return tuple(raw)
    raise ValueError(f"{raw!r} is not {kind.value}")


def hint(wrong: str, known: Iterable[str]) -> str:
    """ "; did you mean 'x'?", or nothing."""
    from difflib import get_close_matches  # 3 ms that only a mistake pays

    near = get_close_matches(wrong, list(known), n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else ""


def hint_variable(variable: str, known: Iterable[str]) -> str:
    """For an unknown variable: that of its key's name today, or one that is spelled alike."""
    renamed = {variable_of(old): variable_of(new) for old, new in RENAMED.items()}
    if variable in renamed:
        return f"; it is called {renamed[variable]!r} now"
    return hint(variable, known)


def hint_key(name: str) -> str:
    """For an unknown key: its name today, or else the same leaf in another section is the likeliest
    meaning."""
    if name in RENAMED:
        return f"; it is called {RENAMED[name]!r} now"
    section, _, leaf = name.rpartition(".")
    homes = [key.name for key in KEYS.values() if key.leaf == leaf]
    if homes:
        return f"; did you mean {homes[0]!r}?"
    here = {key.leaf: key.name for key in KEYS.values() if key.section == section}
    if not here:
        return hint(name, KEYS)
    from difflib import get_close_matches

    near = get_close_matches(leaf, list(here), n=1)  # not the whole names: they begin alike
    return f"; did you mean {here[near[0]]!r}?" if near else ""
