"""`gmpd config`: show the settings and where each came from, write a file of them, check one."""

from __future__ import annotations

import os
from pathlib import Path

import click

from gmpd.cli.app import App, help_alone, standard
from gmpd.cli.exits import Exit
from gmpd.config import KEYS, SECTIONS, Config, Layer, render, rendered
from gmpd.errors import ConfigError


@click.group(short_help="Show, write and check the settings.", invoke_without_command=True)
@click.pass_context
def command(ctx: click.Context) -> None:
    """Show, write and check the settings.

    \b
    The first of these places that sets a value wins:
      options · GMPD_SECTION__KEY · --config or $GMPD_CONFIG · ./gmpd.toml
      ~/.config/gmpd/config.toml · /etc/gmpd/config.toml · defaults
    """
    help_alone(ctx)


@command.command(short_help="Print the settings, a section of them, or one.")
@click.argument("key", required=False)
@click.option("--origin", is_flag=True, help="Say where each value came from.")
@standard
def show(app: App, key: str | None, origin: bool) -> None:
    """Print every setting as TOML, or only KEY (limits.queue_jobs, or a section: limits)."""
    config = app.config()
    sections = SECTIONS if key is None else [name for name in SECTIONS if name == key]
    names = [name for name in KEYS if KEYS[name].section in sections or name == key]
    if not names:
        raise click.UsageError(f"there is no key {key!r}{_hint(str(key))}")
    if app.as_json:
        app.json({name: _described(config, name) for name in names})
    elif key is not None and not sections:
        note = f"  # {config.origin(key)}" if origin else ""
        app.data(_written(config, key) + note)
    else:
        for section in sections:
            app.data(_section(config, section, origin=origin))
        for name, each in config.cron.items() if key is None else ():
            note = f"  # {each.where}" if origin else ""
            app.data(rendered(name, each.given).replace("\n", f"{note}\n", 1) + "\n")


def _described(config: Config, name: str) -> dict[str, object]:
    origin = config.origin(name)
    return {
        "value": KEYS[name].shown(config.value(name)),
        "written": _written(config, name),
        "default": KEYS[name].default,
        "layer": origin.layer.value,
        "where": origin.where,
        "doc": KEYS[name].doc,
    }


def _written(config: Config, name: str) -> str:
    """A value as TOML, without secrets."""
    return KEYS[name].literal(KEYS[name].shown(config.value(name)))


def _section(config: Config, section: str, *, origin: bool) -> str:
    lines = [click.style(f"[{section}]", bold=True)]
    for key in (key for key in KEYS.values() if key.section == section):
        line = f"{key.leaf} = {_written(config, key.name)}"
        said = config.origin(key.name)
        if origin:
            shade = {"dim": True} if said.layer is Layer.DEFAULT else {"fg": "green"}
            line = f"{line:<40} {click.style(f'# {said}', **shade)}"
        lines.append(line)
    return "\n".join(lines) + "\n"


def _hint(name: str) -> str:
    from gmpd.config.keys import hint_key

    return hint_key(name)


@command.command(short_help="Write a file with every key and its default.")
@click.argument("path", default="gmpd.toml", type=click.Path(dir_okay=False, allow_dash=True))
@click.option("--force", is_flag=True, help="Replace a file that is there.")
@standard
def init(app: App, path: str, force: bool) -> None:
    """Write a file with every key, its meaning and its default, to PATH (`-` is stdout).

    All keys are commented out: a default that is not written down can still get better.
    """
    text = render(active=False)
    if path == "-":
        app.data(text.rstrip("\n"))
        return
    try:
        _write(Path(path), text, replace=force)
    except FileExistsError:
        raise click.UsageError(f"{path} is there already; --force replaces it") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from error
    app.say(f"wrote {path}; check it with `gmpd config check {path}`")


def _write(path: Path, text: str, *, replace: bool) -> None:
    flags = os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if replace else os.O_EXCL)
    with os.fdopen(os.open(path, flags, 0o644), "w") as file:
        file.write(text)


@command.command(short_help="Check files, by default those that commands here read.")
@click.argument("files", nargs=-1, type=click.Path())
@standard
def check(app: App, files: tuple[str, ...]) -> int:
    """Check FILES, or everything that a command here would read. Tells all problems at once."""
    try:
        config = Config.load(env={}, files=files) if files else app.config()
    except ConfigError as error:
        if not app.as_json:
            raise
        app.json({"ok": False, "problems": str(error).splitlines()})
        return Exit.CONFIG
    said = {Layer.FLAG, Layer.ENVIRONMENT, Layer.FILE}
    given = sorted(name for name, origin in config.origins.items() if origin.layer in said)
    if app.as_json:
        app.json({"ok": True, "problems": [], "set": given})
    else:
        keys = sum(name in KEYS for name in given)
        more = f"; schedules: {', '.join(config.cron)}" if config.cron else ""
        app.data(f"ok: {keys} of {len(KEYS)} keys set, the others have their defaults{more}")
    return Exit.OK
