"""The command line: turns a command's exception into a sentence and an exit code.

Data goes to stdout, messages to stderr. This module imports nothing of the standard library, so
that `main` decides what Ctrl-C does before the imports that take time.
"""

from __future__ import annotations

from gmpd.cli.interrupt import end_process_on_interrupt, interrupt_ends_process

#: For type checkers, as in ``typing``; what is imported below reads files.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(args: Sequence[str] | None = None) -> int:
    """The entry point of the `gmpd` script. Returns the exit code, and never raises.

    Without ``args`` it reads the command line, and the process ends with it: Ctrl-C no longer
    raises then, or the interpreter's own end would print a traceback.
    """
    with interrupt_ends_process():
        from gmpd import inherited
        from gmpd.cli.commands import cli
        from gmpd.cli.exits import Exit
        from gmpd.cli.report import report, settle_output

    try:
        inherited.open_missing()
        result = cli.main(
            args=None if args is None else list(args), prog_name="gmpd", standalone_mode=False
        )
        code = result if isinstance(result, int) else Exit.OK
    except BaseException as error:  # noqa: BLE001 - the top of the process: everything ends as a code
        code = report(error)
    if args is None:
        end_process_on_interrupt()
    return settle_output(code)
