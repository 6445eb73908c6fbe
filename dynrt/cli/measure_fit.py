"""``dynrt measure fit``: an energy table's values from sessions."""

from __future__ import annotations

from pathlib import Path

import click

from dynrt.calibrate.files import write_text
from dynrt.cli import energy_runs, options
from dynrt.cli.bundles import open_bundle
from dynrt.cli.text import table, to_json
from dynrt.errors import OutputExistsError, SessionError
from dynrt.fpga.fit import Equation, Fit, fit, table_text
from dynrt.fpga.modelled import path_words
from dynrt.fpga.replay import Outcome, replay
from dynrt.ir.counts import CountTable


@click.command()
@click.argument(
    "sessions", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="SESSION..."
)
@click.option("--bundle", "bundle_name", metavar="BUNDLE", help="Instead of what sessions name.")
@click.option("--hardware", metavar="H", help="Whose counts; without it what the bundle carries.")
@click.option("--name", metavar="NAME", help="Of the table; without it fitted-SOURCE-NETWORK.")
@click.option(
    "-o",
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE.toml",
    help="Write the table; dynrt energy --table reads it.",
)
@options.force_option
@options.json_option
def command(
    sessions: tuple[Path, ...],
    bundle_name: str | None,
    hardware: str | None,
    name: str | None,
    out: Path | None,
    force: bool,
    as_json: bool,
) -> None:
    """Fit an energy table's values to the dynamic energies of the cases of SESSIONS.

    Non-negative least squares of energies against access counts; run sessions with --paths or --skip
    so that there are several cases. Values that the cases cannot tell apart are named, not invented.
    """
    if out is not None and out.exists() and not force:
        raise OutputExistsError(f"{out} exists; it is replaced only with --force")
    outcomes = [replay(folder) for folder in sessions]
    first = outcomes[0]
    for folder, found in zip(sessions, outcomes, strict=True):
        if found.source != first.source:
            raise SessionError(f"{folder}: {found.source}, and {sessions[0]} is {first.source}")
        if found.sha256 != first.sha256:
            raise SessionError(f"{folder}: of another network than {sessions[0]}")
    bundle = open_bundle(bundle_name or first.bundle_path)
    if bundle.sha256 != first.sha256:
        raise SessionError(f"{bundle.name}: not the network of {sessions[0]}")
    asked = energy_runs.Asked(hardware=(hardware,) if hardware else ())
    run = energy_runs.run(bundle, asked)
    equations = [e for found in outcomes for e in equations_of(found, run.counts)]
    fitted = fit(equations, source=first.source, sessions=len(sessions))
    text = table_text(
        fitted,
        name=name or f"fitted-{first.source}-{bundle.name}"[:64],
        hardware=run.hardware,
        network=bundle.name,
        sessions=", ".join(folder.name for folder in sessions),
    )
    if out is not None:
        write_text(out, text, force=force)
        click.echo(f"wrote {out}", err=True)
    record = {"hardware": run.hardware.name, "network": bundle.name, **fitted.to_json()}
    click.echo(to_json(record) if as_json else _page(fitted, run.hardware.name))


def equations_of(found: Outcome, counts: CountTable) -> list[Equation]:
    """The cases of a session that have an energy.

    Raises:
        SessionError: the session is not done, or its network is another.
    """
    if found.status != "done":
        raise SessionError(f"a session that is {found.status}: nothing is fitted to it")
    out = []
    for case in found.cases:
        own = case.estimate.dynamic_j
        if own is None or case.estimate.verdict not in ("resolved", "wide"):
            continue
        words = path_words(case, counts)
        out.append(
            Equation(name=case.name, words=words, joules=own.mean, error_j=own.standard_error)
        )
    return out


def _page(fitted: Fit, hardware: str) -> str:
    values = [[v.what, f"{v.pj:.4g}", f"{v.low_pj:.4g}", f"{v.high_pj:.4g}"] for v in fitted.values]
    left = [
        [name, f"{fitted.measured[name] * 1e3:.4g}", f"{1e3 * own:+.2g}"]
        for name, own in fitted.residuals.items()
    ]
    lines = [
        f"fit to {fitted.sessions} session(s), {fitted.source}, counts on {hardware}",
        table([f"pJ, {fitted.source}", "value", "low", "high"], values, right=(1, 2, 3)),
        "",
        table(["case", f"mJ, {fitted.source}", "less fitted"], left, right=(1, 2)),
        f"R2 {fitted.r_squared:.5f}, condition {fitted.condition:.3g}",
    ]
    if fitted.merged:
        lines.append(f"not told apart, left to the others: {', '.join(fitted.merged)}")
    if fitted.source == "emulated":
        lines.append("emulated: these are no measured energies")
    return "\n".join(lines)
