"""Shared by all commands: the settings, printing, and the options for both.

`@standard` gives a command ``--config``, ``--runtime-dir``, ``-v``, ``-q``, ``--json``, and hands
it the `App`. The options are understood before and after the command's name.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

import click

if TYPE_CHECKING:
    from gmpd.config import Config

P = ParamSpec("P")
R = TypeVar("R")
F = TypeVar("F", bound=Callable[..., Any])


@dataclass(slots=True)
class App:
    """The one object of a call of the command line."""

    config_file: str | None = None
    #: Settings given as options, "section.key" -> value.
    flags: dict[str, object] = field(default_factory=dict)
    as_json: bool = False
    verbosity: int = 0
    #: The pid of the daemon that is meant, or of the program whose private daemon it is.
    of: int | None = None
    #: Faults of settings that were reported: a command may read them more than once.
    _reported: set[str] = field(default_factory=set)

    def config(self, flags: Mapping[str, object] | None = None) -> Config:
        """The settings, with the command's own options on top. Raises ConfigError."""
        from gmpd.config import Config

        self._find_place()
        return Config.load(flags={**self.flags, **(flags or {})}, config_file=self.config_file)

    def config_to_reach(self) -> Config:
        """The settings for a command that only talks to a running daemon.

        A broken file must not keep an operator from `gmpd down`: the fault is reported on
        stderr and left out.
        """
        from gmpd.config import Config

        self._find_place()
        problems: list[str] = []
        config = Config.load(flags=self.flags, config_file=self.config_file, tolerated=problems)
        for problem in problems:
            if problem in self._reported:
                continue
            self._reported.add(problem)
            self.say(f"warning: {problem}; this setting is ignored here")
        return config

    def _find_place(self) -> None:
        """The runtime directory that ``--of`` means, as a flag. Raises DaemonUnreachable."""
        if self.of is None:
            return
        from gmpd.cli.daemons import directory_of

        pid, self.of = self.of, None
        self.flags["daemon.runtime_dir"] = directory_of(pid, self.config_to_reach())

    def data(self, text: str) -> None:
        """A line for the reader of stdout."""
        click.echo(text, color=color_of())

    def print(self, text: str) -> None:
        """Text of a job for the reader of stdout, as it is; not with --json."""
        if not self.as_json:
            click.echo(text, nl=False, color=color_of())

    def json(self, value: object, *, indent: int | None = 2) -> None:
        """A document on stdout; `indent=None` for a line of NDJSON."""
        import json

        click.echo(json.dumps(value, indent=indent, ensure_ascii=False))

    def say(self, text: str, *, level: int = 0) -> None:
        """A line for the person: stderr. -q silences level 0, -v shows level 1."""
        if self.verbosity >= level:
            click.echo(text, err=True, color=color_of())


def color_of(env: Mapping[str, str] | None = None) -> bool | None:
    """Whether to colour, by NO_COLOR, FORCE_COLOR and TERM=dumb; None: on a terminal."""
    env = os.environ if env is None else env
    if env.get("NO_COLOR"):
        return False
    if env.get("FORCE_COLOR"):
        return True
    if env.get("TERM") == "dumb":
        return False
    return None


#: Options that are settings.
_FLAGS = {
    "runtime_dir": "daemon.runtime_dir",
    "address": "client.address",
    "key": "client.key",
}


def _store(attribute: str) -> Callable[[click.Context, click.Parameter, Any], None]:
    def callback(ctx: click.Context, param: click.Parameter, value: Any) -> None:
        if value is None or value is False or value == 0:
            return
        app = ctx.ensure_object(App)
        if attribute in _FLAGS:
            app.flags[_FLAGS[attribute]] = value
        elif attribute in ("louder", "quieter"):
            app.verbosity += value if attribute == "louder" else -value
        else:
            setattr(app, attribute, value)

    return callback


def _store_key(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
    """A key itself is refused, as other users can see the command line of a process."""
    if value is not None and not os.path.exists(value):
        words = "there is no such file; `gmpd keys export NAME` prints its content"
        if value.lstrip().startswith("gmpd-key-"):
            words = (
                "every user of this machine can see a key in the command line: revoke it, write the"
                " next one to a file, and name that"
            )
        raise click.BadParameter(words, ctx, param)
    _store("key")(ctx, param, value)


_OF = click.option(
    "--of", type=click.IntRange(min=1), metavar="PID", expose_value=False, callback=_store("of"),
    help="The daemon with this pid, or of the program with it: gmpd ls.",
)  # fmt: skip
_OPTIONS = [
    click.option(
        "--config", type=click.Path(dir_okay=False), metavar="FILE", expose_value=False,
        callback=_store("config_file"), help="Read this file of settings, too.",
    ),
    click.option(
        "--runtime-dir", type=click.Path(file_okay=False), metavar="DIR", expose_value=False,
        callback=_store("runtime_dir"), help="Where the daemon's sockets are.",
    ),
    _OF,
    click.option(
        "--address", metavar="tcp://HOST:PORT", expose_value=False, callback=_store("address"),
        help="A daemon on another machine.",
    ),
    click.option(
        "--key", "key_file", metavar="FILE", expose_value=False, callback=_store_key,
        help="The key for a daemon on another machine; also: GMPD_KEY.",
    ),
    click.option(
        "-v", "--verbose", count=True, expose_value=False, callback=_store("louder"),
        help="Say more.",
    ),
    click.option(
        "-q", "--quiet", count=True, expose_value=False, callback=_store("quieter"),
        help="Say less.",
    ),
]  # fmt: skip

_JSON = click.option(
    "--json", is_flag=True, expose_value=False, callback=_store("as_json"),
    help="Print JSON for programs.",
)  # fmt: skip


def help_alone(ctx: click.Context) -> None:
    """A group without one of its commands is asked what it can do."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help(), color=color_of())
        ctx.exit()


def pass_settings(function: F, *, of: bool = True) -> F:
    """Add the options that every command understands. ``of``: ``--of PID``, too."""
    for option in reversed(_OPTIONS):
        if of or option is not _OF:
            function = option(function)
    return function


def standard(function: Callable[Concatenate[App, P], R]) -> Callable[P, R]:
    """Add these and ``--json``, and hand the command its App."""
    return pass_settings(_JSON(_with_app(function)))


def standard_of_file(function: Callable[Concatenate[App, P], R]) -> Callable[P, R]:
    """As ``standard``, but a PID comes before the name: ``--of`` of the command is a file."""
    return pass_settings(_JSON(_with_app(function)), of=False)


def _with_app(function: Callable[Concatenate[App, P], R]) -> Callable[P, R]:
    @functools.wraps(function)
    def with_app(*args: P.args, **kwargs: P.kwargs) -> R:
        return function(click.get_current_context().ensure_object(App), *args, **kwargs)

    return with_app
