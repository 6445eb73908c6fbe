"""The command line: one module per command, imported when that command is called.

Results go to stdout, everything else to stderr. Exit status: 0 done, 1 an error (one line,
``error: ...``), 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any, NoReturn

import click

from dynrt.errors import DynrtError

#: Commands in the order of the help page, with their one-line help; the module has the name.
COMMANDS = {
    "run": "Run inputs through a network under a hard budget.",
    "inspect": "Show what a bundle is made of and what it costs.",
    "models": "List the bundles that come with dynrt.",
    "train": "Train a recipe; an interrupted training goes on where it stopped.",
    "export": "Write a bundle and prove that it computes what its source computes.",
    "calibrate": "Set thresholds for an accuracy, an average budget or a risk.",
    "eval": "Measure accuracy and cost on a data set, per budget.",
    "profile": "Measure where the time goes on this device.",
    "energy": "Model energy on an accelerator, per node, level, exit and path.",
    "measure": "Measure energy on a board, emulated or real.",
    "report": "Make the papers' tables with ours beside them, and draw records.",
    "doctor": "Say what is installed, what works, and what to do about the rest.",
}


class _ClosedOutputError(click.ClickException):
    """Whoever read stdout went away before all was written."""


def _debug_option() -> click.Option:
    return click.Option(
        ["--debug"],
        is_flag=True,
        expose_value=False,  # main() looks for it: errors come before and after parsing
        help="Show the traceback of an error.",
    )


def _print_version(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value:
        from dynrt import __version__

        click.echo(f"dynrt {__version__}")
        ctx.exit()


class _Commands(click.Group):
    """Finds a command's module when it is called, and turns errors into one line and a status."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, in the order of the help page."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command's module, or say that there is none."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"dynrt.cli.{cmd_name}").command
        if all(p.name != "debug" for p in command.params):
            command.params.append(_debug_option())
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands, without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; everything that it printed has reached stdout afterwards."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError as exc:
            _discard_stdout()
            raise _ClosedOutputError(
                "standard output was closed before everything was written"
            ) from exc
        return result

    def main(self, args: Sequence[str] | None = None, **extra: Any) -> NoReturn:  # type: ignore[override]
        """Run with ``args`` (or the process's), then exit with the status."""
        extra["standalone_mode"] = False
        arguments = sys.argv[1:] if args is None else list(args)
        debug = "--debug" in arguments
        status: object = 0
        try:
            status = self._main(arguments, {"prog_name": "dynrt"} | extra)
        except Exception as exc:  # noqa: BLE001 - the last resort turns every error into one line
            status, message = describe(exc)
            if debug:
                traceback.print_exc()
            click.echo(f"error: {message}", err=True)
        sys.exit(status if isinstance(status, int) else 0)

    def _main(self, arguments: list[str], extra: dict[str, Any]) -> object:
        """Click's own main; without its stand-alone mode it returns the status."""
        return super().main(arguments, **extra)


def _discard_stdout() -> None:
    """Point stdout at nothing, so that the flush at exit finds no closed pipe."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    os.close(nothing)


def one_line(text: str) -> str:
    """``text`` with its line breaks and control characters turned into spaces."""
    printable = "".join(c if c.isprintable() else " " for c in text)
    return " ".join(printable.split())


def describe(exc: Exception) -> tuple[int, str]:
    """Exit status and one line for any exception that a command let through."""
    if isinstance(exc, click.exceptions.NoArgsIsHelpError):
        return 2, "a command is needed; dynrt --help lists them"
    if isinstance(exc, click.UsageError):
        hint = f" (see {exc.ctx.command_path} --help)" if exc.ctx is not None else ""
        return 2, one_line(exc.format_message()) + hint
    if isinstance(exc, click.Abort):
        return 130, "interrupted"
    if isinstance(exc, click.ClickException):
        return exc.exit_code, one_line(exc.format_message())
    if isinstance(exc, DynrtError):
        return 1, one_line(str(exc))
    if isinstance(exc, OSError):
        place = f"{exc.filename}: " if exc.filename is not None else ""
        return 1, one_line(f"{place}{exc.strerror or exc}")
    kind = type(exc).__name__
    return 1, one_line(f"internal error, {kind}: {exc}; --debug shows where")


@click.command(
    cls=_Commands,
    name="dynrt",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
def main() -> None:
    """Dynamic neural networks on edge devices, under a hard budget.

    Amounts are written 100M (FLOPs; one multiply-accumulate is two), 50MMAC, 2mJ or 5ms.
    """


main.params.append(_debug_option())
main.params.append(
    click.Option(
        ["--version"],
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_print_version,
        help="Print the version.",
    )
)
