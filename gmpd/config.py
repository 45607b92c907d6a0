"""The settings: every key with its default, unit and meaning, and where a value came from.

The only reader of configuration files and of the environment. Everything else is handed a `Config`
or a section of it, and must not look for itself; `gmpd.sched` gets an even smaller policy object.

A value is looked for in this order, and the first that has it wins:

    flags > GMPD_SECTION__KEY > --config or $GMPD_CONFIG > ./gmpd.toml
          > ~/.config/gmpd/config.toml > /etc/gmpd/config.toml > the defaults below

What is wrong anywhere in them is refused, also where another layer hides it: a typing error that
waits for the day on which the upper layer is removed is worse than one found now.
All problems are reported at once, each with file and line or variable, and what to write instead.
"""

from __future__ import annotations

import json
import os
import re
import stat
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple, assert_never

from gmpd.errors import ConfigError

# ------------------------------------------------------------------------------- how a key is read


class Kind(Enum):
    """What a key holds. Attributes have plain types: durations are seconds, sizes are bytes."""

    INT = "a whole number"
    BOOL = "true | false"
    TEXT = "a text"
    LIST = "a list of texts"
    DURATION = "a duration"
    SIZE = "a size"
    ADDRESS = "an address"


class _WrongValue(ValueError):
    """Its text goes into the problem's line; never leaves this module."""


#: Seconds of one unit, as (times, divided by): a division keeps 2ms at exactly 0.002.
_DURATIONS = {
    "d": (86_400, 1),
    "h": (3_600, 1),
    "m": (60, 1),
    "s": (1, 1),
    "ms": (1, 1_000),
    "us": (1, 1_000_000),
    "ns": (1, 1_000_000_000),
}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(d|h|ms|us|ns|m|s)")
_SIZES = {"TiB": 2**40, "GiB": 2**30, "MiB": 2**20, "KiB": 2**10, "B": 1}
_SIZES_DECIMAL = {"tb": 10**12, "gb": 10**9, "mb": 10**6, "kb": 10**3}
_SIZE_FACTOR = {unit.lower(): factor for unit, factor in _SIZES.items()} | _SIZES_DECIMAL
_SIZE = re.compile(r"(\d[\d_]*(?:\.\d+)?)\s*([A-Za-z]+)")
_YES, _NO = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


def parse_duration(text: str) -> float:
    """Seconds of "250ms", "1m30s", "0". ValueError for a bare number: of what unit would it be?"""
    text = text.strip()
    if text == "0":
        return 0.0
    if not text or _DURATION.sub("", text).strip():
        raise ValueError(f'{text!r} is not a duration; write number and unit, such as "250ms"')
    return sum(
        float(number) * _DURATIONS[unit][0] / _DURATIONS[unit][1]
        for number, unit in _DURATION.findall(text)
    )


def parse_size(text: str) -> int:
    """Bytes of "64MiB", "1.5 GiB", "10MB" (decimal), "4096"."""
    text = text.strip()
    if text.replace("_", "").isdecimal():
        return int(text)
    match = _SIZE.fullmatch(text)
    factor = _SIZE_FACTOR.get(match[2].lower()) if match else None
    if match is None or factor is None:
        raise ValueError(f'{text!r} is not a size; write number and unit, such as "64MiB"')
    return round(float(match[1]) * factor)


def split_address(text: str) -> tuple[str, int]:
    """("127.0.0.1", 7412) of "127.0.0.1:7412"; "[::1]:0" works too. ValueError otherwise."""
    host, colon, port = text.strip().rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not colon or not host or (":" in host and not bracketed):
        raise ValueError(f'{text!r} is not host:port; write it like "127.0.0.1:7412" or "[::1]:0"')
    if not port.isdecimal() or int(port) > 65_535:
        raise ValueError(f"{text!r} has no port from 0 to 65535 after its last colon")
    return host.strip("[]"), int(port)


def format_duration(seconds: float) -> str:
    """The shortest text that `parse_duration` reads back as the same seconds."""
    if not seconds:
        return "0"
    for unit, (times, divided) in _DURATIONS.items():
        count = round(seconds * divided / times)
        if count and count * times / divided == seconds:
            return f"{count}{unit}"
    return f"{seconds:.9f}s"


def format_size(count: int) -> str:
    """The shortest text that `parse_size` reads back as the same number of bytes."""
    for unit, factor in _SIZES.items():
        if count >= factor and count % factor == 0:
            return f"{count // factor}{unit}"
    return "0B"


def _read_bool(text: str) -> bool:
    if text.lower() in _YES:
        return True
    if text.lower() in _NO:
        return False
    raise _WrongValue(f"{text!r} is neither true nor false")


def _read_int(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise _WrongValue(f"{text!r} is not a whole number") from None


def _read_address(text: str) -> str:
    split_address(text)
    return text.strip()


_READERS: dict[Kind, Callable[[str], Any]] = {
    Kind.INT: _read_int,
    Kind.BOOL: _read_bool,
    Kind.TEXT: str,
    Kind.LIST: lambda text: tuple(part for part in re.split(r"[,\s]+", text) if part),
    Kind.DURATION: parse_duration,
    Kind.SIZE: parse_size,
    Kind.ADDRESS: _read_address,
}


def _literal(kind: Kind, value: Any) -> str:
    """A value as TOML, as a person would write it."""
    match kind:
        case Kind.BOOL:
            return "true" if value else "false"
        case Kind.INT:
            return f"{value:_}"
        case Kind.TEXT | Kind.ADDRESS:
            return json.dumps(value, ensure_ascii=False)
        case Kind.LIST:
            return json.dumps(list(value), ensure_ascii=False)
        case Kind.DURATION:
            return json.dumps(format_duration(value))
        case Kind.SIZE:
            return json.dumps(format_size(value))
        case _:
            assert_never(kind)


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
    value = _READERS[kind](default) if isinstance(default, str) else default
    spec = {"kind": kind, "doc": doc, "unit": unit, "low": low, "high": high, "choices": choices}
    return field(default=value, metadata=spec)


# -------------------------------------------------------------------------------------- the keys


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
        "one worker process each; 0: the CPUs of the affinity mask, bounded by the cgroup quota",
        low=0,
        high=4_096,  # more cores than any machine has; a typing error beyond it would fork-bomb
    )
    imports: tuple[str, ...] = _key((), Kind.LIST, "modules that every worker imports at start")
    pin: bool = _flag(True, "pin each worker to one core")
    start_timeout: float = _time("30s", "a worker not ready by then is started again", low=0.1)
    drain_timeout: float = _time("30s", "after TERM or `gmpd drain`, running jobs get this long")
    runtime_dir: str = _text("", "of sockets and gmpd.json; empty: see `gmpd config show --origin`")
    state_dir: str = _text("", "of durable jobs; empty: $STATE_DIRECTORY, else the user's own")
    log_level: str = _text(
        "info", "the least that is logged", choices=("debug", "info", "warning", "error")
    )
    log_format: str = _text(
        "auto",
        "auto: console on a terminal, json elsewhere",
        choices=("auto", "console", "json"),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What is beyond them is refused, never dropped silently."""

    queue_jobs: int = _count(1_000_000, "jobs", "accepted and not yet finished")
    queue_bytes: int = _size("1GiB", "their arguments, together")
    value_bytes: int = _size("512MiB", "the arguments of one job, or its result", low=1024)
    batch_jobs: int = _count(4_096, "jobs", "in one message", high=65_536)
    client_window: int = _count(65_536, "jobs", "unfinished ones of one client; then it waits")
    client_grace: float = _time("10s", "a vanished client's volatile jobs are kept this long")
    sessions: int = _count(512, "clients", "connected at once", high=100_000)
    max_gs: int = _count(10_000, "jobs", "started and unfinished on one P")
    max_ms: int = _count(1_000, "threads", "of one worker; then a blocking job waits", high=30_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dispatch:
    """How work reaches the Ps."""

    credit_work: float = _time("2ms", "of fresh work held by a worker, by running averages")
    credit_max: int = _count(256, "jobs", "of fresh work held by a worker, at most", high=65_536)
    handoff_after: float = _time("10ms", "a job blocked this long loses its P", low=0.001)


@dataclass(frozen=True, slots=True, kw_only=True)
class Restart:
    """What happens when workers die."""

    backoff_min: float = _time("100ms", "wait before a worker's second start in a row")
    backoff_max: float = _time("10s", "the wait doubles up to this")
    storm_deaths: int = _count(10, "deaths", "within storm_window make the daemon degraded")
    storm_window: float = _time("60s", "see storm_deaths", low=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Http:
    """The gateway: /metrics, the live page, the JSON API."""

    enabled: bool = _flag(True, "start the gateway")
    listen: str = _key("127.0.0.1:7412", Kind.ADDRESS, "host:port; port 0 takes a free one")


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """Programs that submit, and the command line."""

    autostart: bool = _flag(True, "no daemon runs: start a private one that ends with the client")
    connect_timeout: float = _time("5s", "no answer by then: unreachable", low=0.01)
    liveness: float = _time("10s", "whoever waits on a silent daemon is told then", low=0.5)


# --------------------------------------------------------------------------------- their catalogue


class Key(NamedTuple):
    """What is known of one key, for parsing, documents and `gmpd config`."""

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
        return "GMPD_" + self.name.upper().replace(".", "__")

    def literal(self, value: Any) -> str:
        """`value` as TOML."""
        return _literal(self.kind, value)


SECTIONS: dict[str, type[Any]] = {
    "daemon": Daemon,
    "limits": Limits,
    "dispatch": Dispatch,
    "restart": Restart,
    "http": Http,
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

#: Short names of variables that are often set by hand.
_ALIASES = {"GMPD_RUNTIME_DIR": "daemon.runtime_dir", "GMPD_STATE_DIR": "daemon.state_dir"}


class Layer(Enum):
    """Who said it, strongest first."""

    FLAG = "flag"
    ENVIRONMENT = "environment"
    FILE = "file"
    SYSTEM = "system"  # nobody said it: worked out from this machine and session
    DEFAULT = "default"


class Origin(NamedTuple):
    """Where a value came from: its layer, and the file and line, variable or rule."""

    layer: Layer
    where: str = ""

    def __str__(self) -> str:
        return f"{self.layer.value} {self.where}".rstrip()


class _Entry(NamedTuple):
    """One value that a layer has to offer, not yet read."""

    name: str
    raw: object
    origin: Origin


def _checked(key: Key, raw: object) -> Any:
    """`raw`, from a flag, a variable or TOML, as the attribute's type. ValueError says why not."""
    value = _converted(key.kind, raw)
    if key.choices and value not in key.choices:
        raise _WrongValue(
            f"{value!r} is not one of {', '.join(key.choices)}{_hint(value, key.choices)}"
        )
    for bound, beyond, word in ((key.low, -1, "least"), (key.high, 1, "most")):
        if bound is not None and (value - bound) * beyond > 0:
            least = bound if key.kind is Kind.DURATION else int(bound)
            raise _WrongValue(
                f"{key.literal(value)} is out of range: at {word} {key.literal(least)}"
            )
    return value


def _converted(kind: Kind, raw: object) -> Any:
    if isinstance(raw, str):
        return _READERS[kind](raw)
    match kind:
        case Kind.BOOL if isinstance(raw, bool):
            return raw
        case Kind.INT | Kind.SIZE if isinstance(raw, int) and not isinstance(raw, bool):
            return raw
        case Kind.DURATION if isinstance(raw, float):  # from the wire; `_file_entries` refuses them
            return raw
        case Kind.LIST if isinstance(raw, list | tuple):
            if all(isinstance(item, str) for item in raw):
                return tuple(raw)
    raise _WrongValue(f"{raw!r} is not {kind.value}")


def _hint(wrong: str, known: Iterable[str]) -> str:
    from difflib import get_close_matches  # 3 ms that only a mistake pays

    near = get_close_matches(wrong, list(known), n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else ""


def _hint_key(name: str) -> str:
    """For an unknown key: the same leaf in another section is the likeliest meaning."""
    section, _, leaf = name.rpartition(".")
    homes = [key.name for key in KEYS.values() if key.leaf == leaf]
    if homes:
        return f"; did you mean {homes[0]!r}?"
    here = [key.name for key in KEYS.values() if key.section == section]
    return _hint(name, here) or _hint(name, KEYS)


# ------------------------------------------------------------------------------------- the layers


def _flag_entries(flags: Mapping[str, object], problems: list[str]) -> Iterator[_Entry]:
    for name, raw in flags.items():
        if raw is None or raw == ():  # click's words for "not given"
            continue
        if name not in KEYS:
            problems.append(f"unknown key {name!r} (flag){_hint_key(name)}")
            continue
        yield _Entry(name, raw, Origin(Layer.FLAG))


def _env_entries(env: Mapping[str, str], problems: list[str]) -> Iterator[_Entry]:
    by_variable = {key.variable: key.name for key in KEYS.values()} | _ALIASES
    flat = {variable.replace("__", "_"): variable for variable in by_variable}
    for variable in sorted(env):
        if not variable.startswith("GMPD_"):
            continue
        name = by_variable.get(variable)
        if name is not None:
            yield _Entry(name, env[variable], Origin(Layer.ENVIRONMENT, variable))
        elif variable in flat:
            problems.append(f"unknown variable {variable}; did you mean {flat[variable]!r}?")
        elif "__" in variable:
            problems.append(f"unknown variable {variable}{_hint(variable, by_variable)}")
        # Any other GMPD_X is somebody else's: Kubernetes sets GMPD_PORT for a service named gmpd.


def _file_entries(path: Path, problems: list[str], *, ours: bool) -> Iterator[_Entry]:
    """The values of one file. `ours`: it was found, not named, so a stranger's is refused."""
    text = _read_trusted(path, problems, ours=ours)
    if text is None:
        return
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        problems.append(f"{path}: not TOML: {error}")
        return
    for section, table in document.items():
        where = _place(path, text, section, None)
        if not isinstance(table, dict):
            problems.append(f"{where}: {section!r} stands outside of a section{_hint_key(section)}")
        elif section not in SECTIONS:
            problems.append(f"{where}: unknown section [{section}]{_hint(section, SECTIONS)}")
        else:
            yield from _section_entries(path, text, section, table, problems)


def _section_entries(
    path: Path, text: str, section: str, table: dict[str, object], problems: list[str]
) -> Iterator[_Entry]:
    for leaf, raw in table.items():
        name = f"{section}.{leaf}"
        where = _place(path, text, section, leaf)
        if name not in KEYS:
            problems.append(f"{where}: unknown key {name!r}{_hint_key(name)}")
        elif KEYS[name].kind is Kind.DURATION and isinstance(raw, int | float) and raw != 0:
            problems.append(f'{where}: {name} = {raw} has no unit; write "{raw}s" or "{raw}ms"')
        else:
            value = 0.0 if raw == 0 and KEYS[name].kind is Kind.DURATION else raw
            yield _Entry(name, value, Origin(Layer.FILE, where))


def _place(path: Path, text: str, section: str, leaf: str | None) -> str:
    """`path:line` where a key is set. A search of the text, since tomllib keeps no lines; a file
    that hides the key from it (inline tables, quoted keys) gets the section's line, or none."""
    header = re.compile(rf"\s*\[\s*{re.escape(section)}\s*\]")
    bare = re.compile(rf"\s*{re.escape(section)}\s*[.=]")
    wanted = re.compile(rf"\s*{re.escape(leaf or '')}\s*=")
    inside, found = False, None
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("["):
            inside = header.match(line) is not None
            found = number if inside and found is None else found
        elif (inside and leaf and wanted.match(line)) or (not inside and bare.match(line)):
            return f"{path}:{number}"
    return f"{path}:{found}" if found else str(path)


def _read_trusted(path: Path, problems: list[str], *, ours: bool) -> str | None:
    """The text of a file that no stranger can have written: it names modules to import.

    The rule is OpenSSH's StrictModes. A named file may belong to anybody (a container mounts its
    host's), a found one only to us or to root.
    """
    try:
        with path.open("rb") as file:
            info = os.fstat(file.fileno())
            if info.st_mode & stat.S_IWOTH:
                problems.append(
                    f"{path}: anybody may write it, so it is not read: chmod o-w {path}"
                )
                return None
            if ours and info.st_uid not in (0, os.geteuid()):
                problems.append(
                    f"{path}: belongs to uid {info.st_uid}, so it is not read unasked:"
                    f" name it with --config, or run elsewhere"
                )
                return None
            return file.read().decode()
    except UnicodeDecodeError as error:
        problems.append(f"{path}: not UTF-8 at byte {error.start}")
    except OSError as error:
        problems.append(f"{path}: cannot be read: {error.strerror}")
    return None


def _search(env: Mapping[str, str]) -> list[Path]:
    """The files that are looked for unasked, strongest first."""
    home = env.get("HOME") or "~"
    user = Path(env.get("XDG_CONFIG_HOME") or f"{home}/.config").expanduser()
    found = [Path("gmpd.toml").absolute(), user / "gmpd/config.toml", Path("/etc/gmpd/config.toml")]
    return [path for path in found if path.exists()]


# -------------------------------------------------------------------------------- the directories


def _is_own_dir(path: str) -> bool:
    try:
        info = os.stat(path)
    except OSError:
        return False
    return stat.S_ISDIR(info.st_mode) and info.st_uid == os.geteuid()


def choose_runtime_dir(
    env: Mapping[str, str], uid: int, is_own_dir: Callable[[str], bool] = _is_own_dir
) -> tuple[str, Origin]:
    """Where sockets live when nobody said: (path, why).

    $XDG_RUNTIME_DIR counts only when it is a directory of ours: `sudo` and `su` leave that of the
    former user behind, and a daemon there would be at the mercy of its owner.
    """
    systemd = env.get("RUNTIME_DIRECTORY", "").partition(":")[0]
    if systemd:
        return systemd, Origin(Layer.SYSTEM, "$RUNTIME_DIRECTORY")
    session = env.get("XDG_RUNTIME_DIR", "")
    if session and is_own_dir(session):
        return f"{session}/gmpd", Origin(Layer.SYSTEM, "$XDG_RUNTIME_DIR")
    if uid == 0 and is_own_dir("/run"):
        return "/run/gmpd", Origin(Layer.SYSTEM, "/run is ours")
    return f"/tmp/gmpd-{uid}", Origin(Layer.SYSTEM, "no other place")  # noqa: S108 - made 0700, owner checked


def choose_state_dir(env: Mapping[str, str]) -> tuple[str, Origin]:
    """Where durable jobs live when nobody said: (path, why)."""
    systemd = env.get("STATE_DIRECTORY", "").partition(":")[0]
    if systemd:
        return systemd, Origin(Layer.SYSTEM, "$STATE_DIRECTORY")
    if env.get("XDG_STATE_HOME"):
        return f"{env['XDG_STATE_HOME']}/gmpd", Origin(Layer.SYSTEM, "$XDG_STATE_HOME")
    return str(Path(env.get("HOME") or "~").expanduser() / ".local/state/gmpd"), Origin(
        Layer.SYSTEM, "the user's state directory"
    )


def _settle_dirs(
    values: dict[str, Any], origins: dict[str, Origin], env: Mapping[str, str]
) -> None:
    choices = {
        "daemon.runtime_dir": choose_runtime_dir(env, os.geteuid()),
        "daemon.state_dir": choose_state_dir(env),
    }
    for name, chosen in choices.items():
        if not values.get(name):
            values[name], origins[name] = chosen
        values[name] = str(Path(values[name]).expanduser().absolute())


# ------------------------------------------------------------------------------------- the object


def _check_together(config: Config, problems: list[str]) -> None:
    """What no key can know alone."""
    small, large = "restart.backoff_min", "restart.backoff_max"
    if config.value(small) > config.value(large):
        problems.append(
            f"{small} = {KEYS[small].literal(config.value(small))} ({config.origin(small)}) is more"
            f" than {large} = {KEYS[large].literal(config.value(large))} ({config.origin(large)})"
        )


@dataclass(frozen=True, slots=True)
class Config:
    """All settings, checked: `config.limits.queue_jobs`. Durations are seconds, sizes are bytes.

    `Config()` is the defaults as written, without places; `Config.load()` is what a process uses.
    """

    daemon: Daemon = Daemon()
    limits: Limits = Limits()
    dispatch: Dispatch = Dispatch()
    restart: Restart = Restart()
    http: Http = Http()
    client: Client = Client()
    #: Where each value came from, for those that are not defaults.
    origins: Mapping[str, Origin] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def load(
        cls,
        *,
        flags: Mapping[str, object] | None = None,
        env: Mapping[str, str] | None = None,
        config_file: str | os.PathLike[str] | None = None,
        files: Sequence[str | os.PathLike[str]] | None = None,
    ) -> Config:
        """Read every layer.

        `flags` maps "section.key" to a value or a text; None is skipped. `env` replaces the
        environment. `config_file` is --config. `files`, strongest first, replaces the whole search.
        Raises ConfigError with one line for each problem.
        """
        env = os.environ if env is None else env
        problems: list[str] = []
        entries = list(_flag_entries(flags or {}, problems)) + list(_env_entries(env, problems))
        named = config_file or env.get("GMPD_CONFIG") or None
        if files is None:
            named_files, found_files = ([Path(named)] if named else []), _search(env)
        else:
            named_files, found_files = [Path(path) for path in files], []
        for path in named_files:
            entries += _file_entries(path, problems, ours=False)
        for path in found_files:
            entries += _file_entries(path, problems, ours=True)
        values, origins = _read(entries, problems)
        _settle_dirs(values, origins, env)
        return _assembled(values, origins, problems)

    def override(self, values: Mapping[str, object]) -> Config:
        """This configuration with some keys changed, as if by flags. Raises ConfigError."""
        problems: list[str] = []
        changed, origins = _read(_flag_entries(values, problems), problems)
        kept = {name: self.value(name) for name in KEYS}
        return _assembled(kept | changed, {**self.origins, **origins}, problems)

    def value(self, name: str) -> Any:
        """The value of "section.key". KeyError for an unknown one."""
        key = KEYS[name]
        return getattr(getattr(self, key.section), key.leaf)

    def origin(self, name: str) -> Origin:
        """Where the value of "section.key" came from."""
        return self.origins.get(name, Origin(Layer.DEFAULT))

    def to_wire(self) -> dict[str, dict[str, Any]]:
        """Plain dicts of plain values, for a child process. Origins stay behind."""
        plain: dict[str, dict[str, Any]] = {section: {} for section in SECTIONS}
        for name, key in KEYS.items():
            value = self.value(name)
            plain[key.section][key.leaf] = list(value) if key.kind is Kind.LIST else value
        return plain

    @classmethod
    def from_wire(cls, plain: Mapping[str, Mapping[str, Any]]) -> Config:
        """The counterpart of `to_wire`. Raises ConfigError for what this version does not know."""
        problems: list[str] = []
        flat = {f"{s}.{leaf}": value for s, table in plain.items() for leaf, value in table.items()}
        values, _ = _read(_flag_entries(flat, problems), problems)
        return _assembled(values, {}, problems)


def _read(
    entries: Iterable[_Entry], problems: list[str]
) -> tuple[dict[str, Any], dict[str, Origin]]:
    """Every entry is checked, the first of each name counts."""
    values: dict[str, Any] = {}
    origins: dict[str, Origin] = {}
    for entry in entries:
        try:
            value = _checked(KEYS[entry.name], entry.raw)
        except ValueError as error:
            problems.append(f"{entry.name} ({entry.origin}): {error}")
            continue
        if entry.name not in values:
            values[entry.name], origins[entry.name] = value, entry.origin
    return values, origins


def _assembled(
    values: Mapping[str, Any], origins: Mapping[str, Origin], problems: list[str]
) -> Config:
    sections: dict[str, Any] = {
        section: made(**{KEYS[n].leaf: v for n, v in values.items() if KEYS[n].section == section})
        for section, made in SECTIONS.items()
    }
    config = Config(**sections, origins=origins)
    _check_together(config, problems)
    if problems:
        raise ConfigError("\n".join(problems))
    return config


# --------------------------------------------------------------------------------- the documents


def render(config: Config | None = None, *, active: bool = True) -> str:
    """A file with every key, its meaning and its value; `active=False` comments the values out."""
    config = config or Config()
    lines = [
        "# gmpd: every key, with its default.",
        '# Durations are written "250ms", "30s", "1m30s"; sizes "64MiB", "1GiB".',
        "# Environment: GMPD_LIMITS__QUEUE_JOBS=1000 sets queue_jobs of [limits]; flags are stronger.",
    ]
    for section, cls in SECTIONS.items():
        lines += ["", f"# {cls.__doc__}", f"[{section}]"]
        for key in (key for key in KEYS.values() if key.section == section):
            lines.append(f"# {_meaning(key)}")
            lines.append(
                f"{'' if active else '# '}{key.leaf} = {key.literal(config.value(key.name))}"
            )
    return "\n".join(lines) + "\n"


def _meaning(key: Key) -> str:
    """One line: unit, meaning, and the choices or bounds."""
    if key.choices:
        return f"{key.doc} ({' | '.join(key.choices)})"
    if key.kind is Kind.INT:
        most = "" if key.high is None else f" to {key.high:_.0f}"
        return f"{key.unit} {key.doc} ({key.low:_.0f}{most or ' or more'})"
    return f"{key.kind.value}: {key.doc}"
