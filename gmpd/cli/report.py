"""How a failed command ends: a sentence on stderr, and an exit code.

The text of an error of gmpd's own tree already says what happened, why, and what to do; here it is
only laid out. Any other exception is a bug of gmpd and is shown with its traceback.
"""

from __future__ import annotations

import errno
import os
import sys
import textwrap
import traceback

import click

from gmpd.cli.app import color_of
from gmpd.cli.exits import Exit, exit_of
from gmpd.errors import GmpdError, InvariantError

#: Errors of the machine, which are no bugs of a program.
MACHINE = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO}
)


def report(error: BaseException) -> int:
    """Tell it to the person; the exit code."""
    match error:
        case SystemExit():
            return error.code if isinstance(error.code, int) else int(error.code is not None)
        case KeyboardInterrupt() | click.Abort():
            return Exit.INTERRUPTED
        case BrokenPipeError():
            return Exit.PIPE
        case click.UsageError():
            _usage(error)
            return Exit.USAGE
        case click.ClickException():
            say_error(error.format_message())
            return error.exit_code
        case GmpdError() if not isinstance(error, InvariantError):
            say_error(str(error) or type(error).__name__, getattr(error, "__notes__", []))
            return exit_of(error)
        case OSError() if error.errno in MACHINE:
            where = f": {error.filename}" if error.filename else ""
            say_error(f"the machine refused: {error.strerror}{where}; `gmpd doctor` looks further")
            return Exit.MACHINE
        case MemoryError():
            say_error("the machine refused: no memory is left")
            return Exit.MACHINE
        case _:
            traceback.print_exception(error)
            say_error("this is a bug in gmpd: please report it with what stands above")
            return Exit.BUG


def say_error(text: str, notes: list[str] | None = None) -> None:
    """The first line after a red word, what follows indented below it. A terminal gets lines that
    end between words.
    """
    first, *rest = [*text.splitlines(), *(notes or [])] or [""]
    color, width = color_of(), _width()
    word = "error: "
    head, *more = _folded(word + first, width)
    red = click.style(word, fg="red", bold=True)
    click.echo(red + head.removeprefix(word), err=True, color=color)
    for line in rest:
        more += _folded(f"  {line}", width)
    for line in more:
        click.echo(line, err=True, color=color)


def _width() -> int | None:
    """Columns of the terminal that stderr is; None for anything else."""
    try:
        return os.get_terminal_size(2).columns or None
    except OSError:
        return None


def _folded(line: str, width: int | None) -> list[str]:
    if width is None or len(line) <= width or line.startswith("   "):  # code, or a log's line
        return [line]
    return textwrap.wrap(
        line, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )


def _usage(error: click.UsageError) -> None:
    say_error(error.format_message())
    if error.ctx is not None:
        click.echo(error.ctx.get_usage(), err=True)
        click.echo(f"Try `{error.ctx.command_path} --help`.", err=True)


def settle_output(code: int) -> int:
    """Flush stdout while a reader that left can still be told from a success."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        code = Exit.PIPE
    if code == Exit.PIPE:  # or the interpreter would complain when it flushes once more
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return int(code)
