"""`gmpd keys`: the keys of clients that may connect from other machines."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import click

from gmpd import rundir
from gmpd.cli.app import App, help_alone, standard
from gmpd.cli.exits import Exit
from gmpd.config import Config, split_address
from gmpd.errors import ConfigError, DaemonUnreachable
from gmpd.keys import AllowedClient, ClientKey, KeyDirectory, Role, checked_address
from gmpd.netpoll import new_secret, public_of

#: Of a public key, what a table has room for.
SHOWN = 16


@click.group(short_help="Make and revoke keys of other machines.", invoke_without_command=True)
@click.pass_context
def command(ctx: click.Context) -> None:
    """Make, list, export and revoke keys, without which no other machine gets in.

    \b
      gmpd keys init                       once, where the daemon runs
      gmpd keys add alice                  for each client
      gmpd keys export alice > alice.key   carry this file to the client, over ssh for example
      gmpd serve --tcp 192.0.2.7:7411      and there: gmpd.Client(key="alice.key")
    """
    help_alone(ctx)


@command.command(short_help="Make the daemon's own key.")
@standard
def init(app: App) -> int:
    """Make the directory of keys, and in it the daemon's own key."""
    directory = _directory(app)
    directory.create(new_secret())
    app.say(f"made {directory.path}; next: `gmpd keys add NAME` for each client")
    return Exit.OK


@command.command(short_help="Let a client connect.")
@click.argument("name")
@click.option(
    "--role", type=click.Choice([role.value for role in Role]), default=Role.SUBMIT.value,
    help="submit: run registered functions, see its own jobs; read: look at the daemon's state;"
    " admin: everything.",
)  # fmt: skip
@click.option(
    "--pickle", is_flag=True,
    help="Take and give Python objects. Its owner can then run any code as the daemon's user.",
)  # fmt: skip
@standard
def add(app: App, name: str, role: str, pickle: bool) -> int:
    """Make a key for the client NAME. A running daemon knows it at once."""
    directory, secret = _directory(app), new_secret()
    directory.server_secret()
    directory.add(AllowedClient(name, public_of(secret), Role(role), pickle, secret))
    app.say(f"added {name} ({role}); `gmpd keys export {name}` prints what it needs")
    return Exit.OK


@command.command(short_help="List the keys.")
@standard
def ls(app: App) -> int:
    """List the clients that may connect; no secrets."""
    clients = _directory(app).clients()
    if app.as_json:
        app.json([_as_map(client) for client in clients])
        return Exit.OK
    rows = [("NAME", "ROLE", "VALUES", "PUBLIC KEY")]
    for client in clients:
        values = "pickle" if client.pickle else "plain"
        rows.append((client.name, client.role.value, values, client.public.hex()[:SHOWN] + "…"))
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    for row in rows if clients else []:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        app.data("  ".join([*cells, row[3]]))
    if not clients:
        app.say("no client may connect; `gmpd keys add NAME` makes a key")
    return Exit.OK


def _as_map(client: AllowedClient) -> dict[str, object]:
    return {
        "name": client.name,
        "role": client.role.value,
        "pickle": client.pickle,
        "public": client.public.hex(),
    }


@command.command(short_help="Let a client connect no more.")
@click.argument("name")
@standard
def revoke(app: App, name: str) -> int:
    """Remove the key of the client NAME. A running daemon cuts its connections within a second."""
    try:
        _directory(app).revoke(name)
    except ConfigError as error:
        app.say(str(error))
        return Exit.NOT_FOUND
    app.say(f"revoked {name}; its durable jobs stay: `gmpd jobs ls` lists them")
    return Exit.OK


@command.command(short_help="Print the line that a client needs.")
@click.argument("name", required=False)
@click.option("--to", metavar="HOST:PORT", help="Where the client finds the daemon.")
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False), metavar="FILE",
    help="Write it to a new file that only you can read, instead of stdout.",
)  # fmt: skip
@standard
def export(app: App, name: str | None, to: str | None, output: str | None) -> int:
    """Print the one line that the client NAME needs: the daemon's address and public key, and the
    client's own secret. It is all that the daemon knows the client by: carry it like a password.

    Without NAME that of the only client.
    """
    directory = _directory(app)
    client = directory.client(name or _only(directory))
    if not client.secret:
        raise ConfigError(
            f"the secret of {client.name!r} is not kept here: `gmpd keys revoke {client.name}` and"
            f" `gmpd keys add {client.name}` make a new key"
        )
    address = _address(app, to)
    key = ClientKey(client.name, public_of(directory.server_secret()), client.secret, address)
    if output is None:
        app.data(key.text)
    else:
        _write(Path(output), key.text)
        app.say(f"wrote {output}; on the other machine: chmod 600, and gmpd.Client(key=…)")
    if to is None:
        app.say(f"the client will look for the daemon at {address}; --to HOST:PORT names another")
    return Exit.OK


def _only(directory: KeyDirectory) -> str:
    names = [client.name for client in directory.clients()]
    if len(names) != 1:
        raise click.UsageError(f"which one? There are {', '.join(names) or 'none'}")
    return names[0]


def _write(path: Path, text: str) -> None:
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from error
    with os.fdopen(fd, "w") as file:
        file.write(f"{text}\n")


def _directory(app: App) -> KeyDirectory:
    return KeyDirectory(app.config().tcp.keys)


def _address(app: App, to: str | None) -> str:
    """Where a client on another machine finds the daemon: as asked for, else where it listens, by
    the name of this machine if that is every network or this machine alone."""
    config = app.config()
    try:
        if to is not None:
            return checked_address(f"tcp://{to.removeprefix('tcp://')}")
        host, port = split_address(_listens(config))
        if host in ("0.0.0.0", "::", "127.0.0.1", "::1", "localhost"):  # noqa: S104 - only compared
            host = socket.gethostname()
        return checked_address(f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}")
    except ValueError as error:
        raise click.UsageError(f"--to: {error}") from None


def _listens(config: Config) -> str:
    """The address of the running daemon, else the one in the settings."""
    try:
        found = rundir.read_discovery(config.daemon.runtime_dir).endpoints.get("tcp", "")
    except (DaemonUnreachable, ConfigError):
        found = ""
    return found.removeprefix("tcp://") or config.tcp.listen
