"""`gmpd completions`: the script that teaches a shell our commands and options."""

from __future__ import annotations

import os

import click
from click.shell_completion import get_completion_class

from gmpd.cli.app import App, standard

_INSTALL = {
    "bash": "gmpd completions bash > ~/.local/share/bash-completion/completions/gmpd",
    "zsh": "gmpd completions zsh > ~/.zfunc/_gmpd   # with ~/.zfunc in fpath",
    "fish": "gmpd completions fish > ~/.config/fish/completions/gmpd.fish",
}


@click.command(short_help="Print a completion script for your shell.")
@click.argument("shell", type=click.Choice(sorted(_INSTALL)), required=False)
@standard
def command(app: App, shell: str | None) -> None:
    """Print a completion script for SHELL; by default for the one in $SHELL.

    The script asks `gmpd` itself, so it knows the commands of the version that is installed.
    """
    shell = shell or os.path.basename(os.environ.get("SHELL", ""))
    if shell not in _INSTALL:
        raise click.UsageError(f"name your shell: {', '.join(sorted(_INSTALL))}")
    root = click.get_current_context().find_root().command
    made = get_completion_class(shell)
    assert made is not None, shell
    app.data(made(root, {}, "gmpd", "_GMPD_COMPLETE").source())
    app.say(f"# to install:\n# {_INSTALL[shell]}")
