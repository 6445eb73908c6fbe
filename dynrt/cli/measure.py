"""``dynrt measure``: the board, its meter, and energies that hold what they say."""

from __future__ import annotations

import importlib
from typing import Any

import click

#: Commands in the order of the help page; each is in the module ``measure_NAME``.
COMMANDS = {
    "run": "Verify a network on the board and measure its energy per inference.",
    "check": "Greet board and meter, and show what they say.",
    "ports": "List serial ports and kinds of meters.",
    "list": "List stored sessions.",
    "replay": "Compute a stored session's figures again from its raw bytes.",
    "fit": "Fit an energy table's values to sessions.",
}


class _Commands(click.Group):
    """Imports a command's module when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, in the order of the help page."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command's module, or say that there is none."""
        if cmd_name not in COMMANDS:
            return None
        found: click.Command = importlib.import_module(f"dynrt.cli.measure_{cmd_name}").command
        if all(p.name != "debug" for p in found.params):
            found.params.append(
                click.Option(["--debug"], is_flag=True, expose_value=False, hidden=True)
            )
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands, without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """As click, but a wrong name lists the right ones."""
        if args and args[0] not in COMMANDS:
            raise click.UsageError(f"no command {args[0]!r}; there are {', '.join(COMMANDS)}", ctx)
        return super().resolve_command(ctx, args)


@click.command(cls=_Commands, name="measure", no_args_is_help=True)
def command() -> None:
    """Measure energy on a board, emulated or real.

    `dynrt measure run --emulated` needs no hardware. docs/measuring.md says how to wire a ZedBoard
    and a meter. Every figure says whether it is emulated or of hardware.
    """
