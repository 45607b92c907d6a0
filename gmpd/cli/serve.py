"""`gmpd serve`: the daemon, in the foreground."""

from __future__ import annotations

import sys

import click

from gmpd.cli.app import App, standard


def network_flags(tcp: str | None) -> dict[str, object]:
    """The settings that ``--tcp`` stands for."""
    return {} if tcp is None else {"tcp.enabled": True, "tcp.listen": tcp}


@click.command(short_help="Run the daemon in the foreground.")
@click.option("--procs", type=int, metavar="N", help="How many Ps; 0: as the machine allows.")
@click.option(
    "--import", "imports", multiple=True, metavar="MODULE",
    help="A module that every worker imports at start; may be repeated.",
)  # fmt: skip
@click.option("--tcp", metavar="HOST:PORT", help="Take clients of other machines there, too.")
@click.option(
    "--accept-loss", is_flag=True,
    help="Use a store of durable jobs that has lost some, with those that are left.",
)  # fmt: skip
@click.option(
    "--watch", is_flag=True,
    help="For development: replace the workers when a module of yours that they imported changes.",
)  # fmt: skip
@standard
def command(
    app: App,
    procs: int | None,
    imports: tuple[str, ...],
    tcp: str | None,
    accept_loss: bool,
    watch: bool,
) -> int:
    """Run the daemon in the foreground.

    Jobs find the modules that are installed, on PYTHONPATH, and in the directory where you start
    it: start it where your code is.

    TERM or Ctrl-C drains: no more jobs are taken, those that run are finished. A second one stops
    now. HUP reloads, as `gmpd reload` does; when the terminal closes, it drains.
    """
    from gmpd import inherited
    from gmpd.daemon import logs
    from gmpd.daemon.serve import serve

    inherited.settle()
    flags = {"daemon.procs": procs, "daemon.imports": imports or None, **network_flags(tcp)}
    config = app.config(flags)
    log = logs.set_up(config.daemon.log_level, config.daemon.log_format, sys.stderr)
    return serve(
        config,
        announce=log.announce if app.verbosity >= 0 else _say_nothing,
        accept_loss=accept_loss,
        reread=lambda: app.config(flags),
        watch=watch,
    )


def _say_nothing(_: str) -> None:
    pass
