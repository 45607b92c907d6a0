"""The sources of settings: flags, variables and files, as entries not yet parsed.

Collects problems instead of raising, so that all of them are told at once.
"""

from __future__ import annotations

import os
import re
import stat
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from enum import Enum
from pathlib import Path
from typing import NamedTuple

from gmpd.config.keys import ALIASES, KEYS, SECTIONS, hint, hint_key, hint_variable
from gmpd.config.schedules import SECTION as SCHEDULES
from gmpd.config.units import Kind


class Layer(Enum):
    """The source of a value, strongest first."""

    FLAG = "flag"
    ENVIRONMENT = "environment"
    FILE = "file"
    SYSTEM = "system"  # not set: derived from this machine and session
    DEFAULT = "default"


class Origin(NamedTuple):
    """Where a value came from: its layer, and the file and line, variable or rule."""

    layer: Layer
    where: str = ""

    def __str__(self) -> str:
        return f"{self.layer.value} {self.where}".rstrip()


class Entry(NamedTuple):
    """One value that a layer has to offer, not yet read."""

    name: str
    raw: object
    origin: Origin


def flag_entries(flags: Mapping[str, object], problems: list[str]) -> Iterator[Entry]:
    for name, raw in flags.items():
        if raw is None or raw == ():  # click's words for "not given"
            continue
        if name not in KEYS:
            problems.append(f"unknown key {name!r} (flag){hint_key(name)}")
            continue
        yield Entry(name, raw, Origin(Layer.FLAG))


def env_entries(env: Mapping[str, str], problems: list[str]) -> Iterator[Entry]:
    by_variable = {key.variable: key.name for key in KEYS.values()} | ALIASES
    flat = {variable.replace("__", "_"): variable for variable in by_variable}
    for variable in sorted(env):
        if not variable.startswith("GMPD_"):
            continue
        name = by_variable.get(variable)
        if name is not None:
            yield Entry(name, env[variable], Origin(Layer.ENVIRONMENT, variable))
        elif variable in flat:
            problems.append(f"unknown variable {variable}; did you mean {flat[variable]!r}?")
        elif "__" in variable:
            problems.append(f"unknown variable {variable}{hint_variable(variable, by_variable)}")
        # Any other GMPD_X is not ours: Kubernetes sets GMPD_PORT for a service named gmpd.


def file_entries(path: Path, problems: list[str], *, ours: bool) -> Iterator[Entry]:
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
            problems.append(f"{where}: {section!r} stands outside of a section{hint_key(section)}")
        elif section == SCHEDULES:
            yield from _schedule_entries(path, text, table, problems)
        elif section not in SECTIONS:
            near = hint(section, (*SECTIONS, SCHEDULES))
            problems.append(f"{where}: unknown section [{section}]{near}")
        else:
            yield from _section_entries(path, text, section, table, problems)


def _schedule_entries(
    path: Path, text: str, tables: dict[str, object], problems: list[str]
) -> Iterator[Entry]:
    for name, table in tables.items():
        where = _place(path, text, f"{SCHEDULES}.{name}", None)
        if isinstance(table, dict):
            yield Entry(f"{SCHEDULES}.{name}", table, Origin(Layer.FILE, where))
        else:
            problems.append(f"{where}: {name!r} is no table; a schedule is a table [cron.NAME]")


def _section_entries(
    path: Path, text: str, section: str, table: dict[str, object], problems: list[str]
) -> Iterator[Entry]:
    for leaf, raw in table.items():
        name = f"{section}.{leaf}"
        where = _place(path, text, section, leaf)
        if name not in KEYS:
            problems.append(f"{where}: unknown key {name!r}{hint_key(name)}")
        elif KEYS[name].kind is Kind.DURATION and isinstance(raw, int | float) and raw != 0:
            problems.append(f'{where}: {name} = {raw} has no unit; write "{raw}s" or "{raw}ms"')
        else:
            value = 0.0 if raw == 0 and KEYS[name].kind is Kind.DURATION else raw
            yield Entry(name, value, Origin(Layer.FILE, where))


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

    The rule is OpenSSH's StrictModes. A named file may belong to any user (a container
    mounts its host's), a found one only to us or to root.
    """
    try:
        with path.open("rb") as file:
            info = os.fstat(file.fileno())
            if info.st_mode & stat.S_IWOTH:
                problems.append(
                    f"{path}: every user may write it, so it is not read: chmod o-w {path}"
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


def search(env: Mapping[str, str]) -> list[Path]:
    """The files that are looked for unasked, strongest first."""
    home = env.get("HOME") or "~"
    user = Path(env.get("XDG_CONFIG_HOME") or f"{home}/.config").expanduser()
    found = [user / "gmpd/config.toml", Path("/etc/gmpd/config.toml")]
    with suppress(FileNotFoundError):  # the directory that we stand in was removed
        found.insert(0, Path("gmpd.toml").absolute())
    return [path for path in found if os.path.exists(path)]  # False, too, where we may not look
