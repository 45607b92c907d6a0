"""The commands by name: `gmpd` itself, which finds the one that is called.

Each command is a module of this package with a `command` in it, imported when it is called: nothing
but click is loaded for ``gmpd --help``.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec

import click
from click.shell_completion import CompletionItem

from gmpd.cli.app import App, help_alone, pass_settings
from gmpd.cli.exits import Exit
from gmpd.cli.interrupt import interrupt_ends_process

#: Heading -> command -> what it does, as `gmpd --help` tells it. A command whose module is not in
#: this installation is not told.
COMMANDS: dict[str, dict[str, str]] = {
    "Daemon": {
        "serve": "Run the daemon in the foreground.",
        "up": "Start the daemon in the background.",
        "down": "Stop the daemon after its running jobs.",
        "status": "Show the daemon, its queue, and each P.",
        "ls": "List your daemons, private ones too.",
        "health": "Report the daemon's health by the exit code.",
        "procs": "Show or change the number of Ps.",
        "cluster": "Use the cores of other machines.",
        "reload": "Replace the workers, read the settings again.",
        "drain": "Refuse new jobs, finish running ones, end.",
    },
    "Work": {
        "submit": "Run a function as a job.",
        "map": "Run a function over the lines of stdin.",
        "run": "Run a shell command as a job.",
        "jobs": "List, show, cancel and retry jobs.",
        "cron": "List and run periodic jobs.",
        "explain": "Explain the state of a job.",
    },
    "Insight": {
        "page": "Open the live page in a browser.",
        "top": "Watch the Ps live.",
        "failures": "Show the last failures with their tracebacks.",
        "stacks": "Print the stack of every G.",
        "schedtrace": "Print Go's scheduler trace.",
        "trace": "Record a trace for Perfetto.",
        "bench": "Measure gmpd beside the standard library's pools.",
        "demo": "Run real work on a private daemon; leave nothing behind.",
    },
    "Setup": {
        "config": "Show, write and check the settings.",
        "keys": "Make and revoke keys of other machines.",
        "doctor": "Check this machine for problems.",
        "completions": "Print a completion script for your shell.",
    },
}

_HELP = {name: text for commands in COMMANDS.values() for name, text in commands.items()}


class LazyGroup(click.Group):
    """Knows its commands by name, and imports one when it is needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for name in _HELP if _is_here(name)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _HELP or not _is_here(cmd_name):
            return None
        with interrupt_ends_process():
            command: click.Command = import_module(f"gmpd.cli.{cmd_name}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if self.get_command(ctx, args[0]) is None and not ctx.resilient_parsing:
            ctx.fail(f"there is no command {args[0]!r}{_hint(args[0], self.list_commands(ctx))}")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # click itself would end with 1, which says that a job failed
            ctx.exit(Exit.PIPE)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for heading, commands in COMMANDS.items():
            rows = [(name, text) for name, text in commands.items() if _is_here(name)]
            if rows:
                with formatter.section(heading):
                    formatter.write_dl(rows, col_max=12)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """By the table, since importing every command takes longer than a finger on the tab key."""
        names = [name for name in self.list_commands(ctx) if name.startswith(incomplete)]
        items = [CompletionItem(name, help=_HELP[name]) for name in names]
        return items + click.Command.shell_complete(self, ctx, incomplete)


def _is_here(name: str) -> bool:
    return find_spec(f"gmpd.cli.{name}") is not None


def _hint(wrong: str, known: Sequence[str]) -> str:
    from difflib import get_close_matches

    near = get_close_matches(wrong, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if not value or ctx.resilient_parsing:
        return
    from gmpd import __version__, compiled

    click.echo(f"gmpd {__version__} (Python {sys.version.split()[0]}, {compiled.variant()})")
    ctx.exit()


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: "
    + ", ".join(f"{code.value} {code.meaning}" for code in Exit)
    + "; any other 128 + N: ended by signal N. `gmpd run` ends as its command did, with 127 when"
    " there is no such command.",
    invoke_without_command=True,
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_version,
    help="Show the version and exit.",
)  # fmt: skip
@pass_settings
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Go's scheduler for Python, as a daemon: jobs on every core, and none of them frozen."""
    ctx.ensure_object(App)
    help_alone(ctx)
