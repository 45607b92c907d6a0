"""The settings as one frozen object, put together from the layers."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gmpd.config.keys import (
    KEYS,
    SECTIONS,
    Client,
    Cluster,
    Daemon,
    Dispatch,
    Http,
    Key,
    Limits,
    Recycle,
    Restart,
    Tcp,
    Trace,
    checked,
)
from gmpd.config.layers import (
    Entry,
    Layer,
    Origin,
    env_entries,
    file_entries,
    flag_entries,
    search,
)
from gmpd.config.places import settle_dirs
from gmpd.config.schedules import EXAMPLE, Scheduled, read_schedule, rendered
from gmpd.config.schedules import SECTION as SCHEDULES
from gmpd.config.units import Kind, split_address
from gmpd.errors import ConfigError

#: Hosts of ``tcp.listen`` that are every address of a machine.
EVERYWHERE = frozenset({"0.0.0.0", "::", "*"})  # noqa: S104 - they are refused unless allowed


def _check_together(config: Config, problems: list[str]) -> None:
    """Conditions between keys."""
    small, large = "restart.backoff_min", "restart.backoff_max"
    if config.value(small) > config.value(large):
        problems.append(
            f"{small} = {KEYS[small].literal(config.value(small))} ({config.origin(small)}) is more"
            f" than {large} = {KEYS[large].literal(config.value(large))} ({config.origin(large)})"
        )
    host, _ = split_address(config.tcp.listen)
    if config.tcp.enabled and host in EVERYWHERE and not config.tcp.all_interfaces:
        problems.append(
            f"tcp.listen = {config.tcp.listen} ({config.origin('tcp.listen')}) is every network"
            " of this machine: name one of its addresses, or set tcp.all_interfaces = true"
        )


@dataclass(frozen=True, slots=True)
class Config:
    """All settings, checked: `config.limits.queue_jobs`. Durations are seconds, sizes are bytes.

    `Config()` is the defaults as written, without places; `Config.load()` is what a process uses.
    """

    daemon: Daemon = field(default_factory=Daemon)
    limits: Limits = field(default_factory=Limits)
    dispatch: Dispatch = field(default_factory=Dispatch)
    restart: Restart = field(default_factory=Restart)
    recycle: Recycle = field(default_factory=Recycle)
    trace: Trace = field(default_factory=Trace)
    http: Http = field(default_factory=Http)
    tcp: Tcp = field(default_factory=Tcp)
    cluster: Cluster = field(default_factory=Cluster)
    client: Client = field(default_factory=Client)
    #: The tables ``[cron.NAME]``, which only `gmpd serve` runs.
    cron: Mapping[str, Scheduled] = field(default_factory=dict)
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
        tolerated: list[str] | None = None,
    ) -> Config:
        """Read every layer.

        `flags` maps "section.key" to a value or a text; None is skipped. `env` replaces the
        environment. `config_file` is --config. `files`, strongest first, replaces the whole search.
        Raises ConfigError with one line for each problem; with a `tolerated` list the lines are
        appended to it instead, and everything that can be read counts.
        """
        env = os.environ if env is None else env
        problems: list[str] = []
        entries = list(flag_entries(flags or {}, problems)) + list(env_entries(env, problems))
        named = config_file or env.get("GMPD_CONFIG") or None
        if files is None:
            named_files, found_files = ([Path(named)] if named else []), search(env)
        else:
            named_files, found_files = [Path(path) for path in files], []
        for path in named_files:
            entries += file_entries(path, problems, ours=False)
        for path in found_files:
            entries += file_entries(path, problems, ours=True)
        values, origins = _read(entries, problems)
        settle_dirs(values, origins, env)
        if tolerated is not None:
            tolerated += problems
            problems = []
        return _assembled(values, origins, problems, tolerated)

    def override(self, values: Mapping[str, object]) -> Config:
        """This configuration with some keys changed, as if by flags. Raises ConfigError."""
        problems: list[str] = []
        changed, origins = _read(flag_entries(values, problems), problems)
        kept = {name: self.value(name) for name in KEYS}
        kept |= {f"{SCHEDULES}.{name}": each for name, each in self.cron.items()}
        return _assembled(kept | changed, {**self.origins, **origins}, problems)

    def value(self, name: str) -> Any:
        """The value of "section.key". KeyError for an unknown one."""
        key = KEYS[name]
        return getattr(getattr(self, key.section), key.leaf)

    def origin(self, name: str) -> Origin:
        """Where the value of "section.key" came from."""
        return self.origins.get(name, Origin(Layer.DEFAULT))

    def to_wire(self) -> dict[str, dict[str, Any]]:
        """Plain dicts of plain values for a child process. Origins and schedules are left out."""
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
        values, _ = _read(flag_entries(flat, problems), problems)
        return _assembled(values, {}, problems)


def _read(
    entries: Iterable[Entry], problems: list[str]
) -> tuple[dict[str, Any], dict[str, Origin]]:
    """Every entry is checked, the first of each name counts."""
    values: dict[str, Any] = {}
    origins: dict[str, Origin] = {}
    for entry in entries:
        try:
            value = _checked(entry)
        except (TypeError, ValueError) as error:
            problems.append(f"{entry.name} ({entry.origin}): {error}")
            continue
        if entry.name not in values:
            values[entry.name], origins[entry.name] = value, entry.origin
    return values, origins


def _checked(entry: Entry) -> Any:
    section, _, name = entry.name.partition(".")
    if section != SCHEDULES:
        return checked(KEYS[entry.name], entry.raw)
    assert isinstance(entry.raw, dict)
    return read_schedule(name, entry.raw, entry.origin.where)


def _assembled(
    values: Mapping[str, Any],
    origins: Mapping[str, Origin],
    problems: list[str],
    tolerated: list[str] | None = None,
) -> Config:
    split = [((n.partition(".")[0], n.partition(".")[2]), v) for n, v in values.items()]
    sections: dict[str, Any] = {
        section: made(**{leaf: v for (of, leaf), v in split if of == section})
        for section, made in SECTIONS.items()
    }
    cron = {name: v for (of, name), v in split if of == SCHEDULES}
    config = Config(**sections, cron=cron, origins=origins)
    _check_together(config, problems if tolerated is None else tolerated)
    if problems:
        raise ConfigError("\n".join(problems))
    return config


def render(config: Config | None = None, *, active: bool = True) -> str:
    """A file with every key, its meaning and its value; `active=False` comments the values out."""
    config = config or Config()
    off = "" if active else "# "
    lines = [
        "# gmpd: every key, with its default.",
        '# Durations are written "250ms", "30s", "1m30s"; sizes "64MiB", "1GiB".',
        "# Environment: GMPD_LIMITS__QUEUE_JOBS=1000 sets queue_jobs of [limits].",
    ]
    for section, cls in SECTIONS.items():
        lines += ["", f"# {cls.__doc__}", f"[{section}]"]
        for key in (key for key in KEYS.values() if key.section == section):
            value = key.literal(config.value(key.name))
            lines += [f"# {_meaning(key)}", f"{off}{key.leaf} = {value}"]
    tables = [rendered(name, each.given) for name, each in config.cron.items()]
    return "\n".join(lines) + "\n\n" + ("\n\n".join(tables) + "\n" if tables else EXAMPLE)


def _meaning(key: Key) -> str:
    """One line: unit, meaning, choices or bounds."""
    if key.choices:
        return f"{key.doc} ({' | '.join(key.choices)})"
    if key.kind is Kind.INT:
        most = " or more" if key.high is None else f" to {key.high:_.0f}"
        return f"{key.unit}: {key.doc} ({key.low:_.0f}{most})"
    return f"{key.doc} ({key.kind.value})"
