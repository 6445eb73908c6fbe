"""``dynrt measure list``: the sessions that are stored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from dynrt.cli import options
from dynrt.cli.text import table, to_json
from dynrt.errors import SessionError
from dynrt.fpga.replay import replay
from dynrt.fpga.store import sessions_in, torn_bytes


@click.command()
@click.argument(
    "folder", type=click.Path(path_type=Path, file_okay=False), default=Path("measurements")
)
@options.json_option
def command(folder: Path, as_json: bool) -> None:
    """List the sessions in FOLDER (measurements, if it is left out), each replayed."""
    sessions = [_describe(path) for path in sessions_in(folder)]
    if as_json:
        click.echo(to_json({"sessions": sessions}))
    elif not sessions:
        click.echo(f"no sessions in {folder}")
    else:
        click.echo(_page(sessions))


def _describe(path: Path) -> dict[str, Any]:
    try:
        record = replay(path).to_json(str(path))
        record["torn_bytes"] = torn_bytes(path)
    except SessionError as exc:
        return {"session": str(path), "status": "damaged", "reasons": [str(exc)], "valid": False}
    return record


def _page(sessions: list[dict[str, Any]]) -> str:
    rows = []
    for each in sessions:
        own = each.get("dynamic_j")
        joules = "-" if own is None else f"{own['mean']:.4g} {own['source']}"
        rows.append(
            [
                each["session"],
                each.get("source", "-"),
                each.get("bundle", {}).get("name", "-"),
                "valid" if each["valid"] else each["status"].replace("done", "not valid"),
                str(len(each.get("cases", []))),
                joules,
                each["reasons"][0] if each["reasons"] else "",
            ]
        )
    titles = ["session", "source", "network", "status", "cases", "dynamic J", "why not"]
    return table(titles, rows, elastic=6, width=160)
