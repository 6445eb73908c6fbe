"""What ``dynrt run`` prints: a table, or one JSON object, both as results come."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import click

from dynrt.bundle import Bundle
from dynrt.cli import one_line, records
from dynrt.cli.energies import energy_of, energy_source, energy_unit
from dynrt.cli.text import WIDTH, Column, budget_text, heading, line, megaflops, short_path, to_json
from dynrt.ir.cost import Budget
from dynrt.ir.flow import gates_of
from dynrt.runtime import Result
from dynrt.units import macs_to_flops


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What stands above the results.

    Attributes:
        bundle: what runs.
        mode: how.
        budget: hard cap for each input.
    """

    bundle: Bundle
    mode: str
    budget: Budget


class TablePrinter:
    """Rows as they come, a summary at the end. A path is shown without the gates along it."""

    def __init__(self, head: Head) -> None:
        self._head = head
        self._flops: list[int] = []
        self._stopped = 0
        self._exits: Counter[str] = Counter()
        bundle = head.bundle
        self._gates = gates_of(bundle.graph)
        unit = energy_unit(bundle)
        self._with_energy = unit is not None
        label = min(12, max((len(name) for name in bundle.labels), default=5))
        exit_ = min(12, max(len(name) for name in bundle.graph.exits) + 1)
        fixed = [
            Column(title="input", width=20, keep="end"),
            Column(title="label", width=max(5, label)),
            Column(title="score", width=5, align="right"),
            Column(title="exit", width=max(5, exit_)),
            Column(title="MFLOPs", width=7, align="right"),
            Column(title="ms", width=6, align="right"),
        ]
        if self._with_energy:
            fixed.insert(5, Column(title="energy", width=7 if unit == "J" else 10, align="right"))
        taken = sum(column.width + 2 for column in fixed)
        self._columns = [*fixed, Column(title="path", width=max(8, WIDTH - taken))]

    def __enter__(self) -> TablePrinter:
        return self

    def row(self, name: str, result: Result) -> None:
        """Print one result; the first brings the heading."""
        if not self._flops:
            click.echo(
                f"{self._head.bundle.name}, {self._head.mode}; "
                f"hard budget for each input: {budget_text(self._head.budget)}"
            )
            click.echo(heading(self._columns))
        stopped = not result.accepted
        self._flops.append(result.flops)
        self._stopped += stopped
        self._exits[result.exit] += 1
        cells = [
            one_line(name),
            str(result.index) if result.label is None else result.label,
            f"{result.score:.2f}",
            result.exit + ("*" if stopped else ""),
            megaflops(result.flops),
            f"{result.seconds * 1e3:.1f}",
            short_path([name for name in result.path if name not in self._gates]),
        ]
        if self._with_energy:
            energy = energy_of(result)
            cells.insert(5, "" if energy is None else str(energy))
        click.echo(line(self._columns, cells))

    def __exit__(self, *_exc: object) -> None:
        if not self._flops:
            return
        exits = ", ".join(
            f"{exit_} {self._exits[exit_]}"
            for exit_ in self._head.bundle.graph.exits
            if self._exits[exit_]
        )
        full = macs_to_flops(self._head.bundle.certificate.full_macs)
        click.echo(
            f"{len(self._flops)} inputs: mean {megaflops(sum(self._flops) / len(self._flops))}, "
            f"worst {megaflops(max(self._flops))} MFLOPs (the full network: {megaflops(full)}); "
            f"exits: {exits}"
        )
        if self._stopped:
            click.echo(f"* stopped there by the budget ({self._stopped} of {len(self._flops)})")
        if self._with_energy:
            click.echo(f"energy: {energy_source(self._head.bundle)}; modelled, not measured")
        else:
            click.echo("energy: not modelled, this bundle carries no energy table")


class JsonPrinter:
    """One JSON object, written as its results come."""

    def __init__(self, head: Head) -> None:
        self._bundle = head.bundle
        self._head = records.run_head(head.bundle, mode=head.mode, budget=head.budget)
        self._open = False

    def __enter__(self) -> JsonPrinter:
        return self

    def row(self, name: str, result: Result) -> None:
        """Write one result; the first brings the head."""
        record = records.result_record(name, result, self._bundle)
        self._begin(",\n")
        click.echo(to_json(record, indent=None), nl=False)

    def _begin(self, between: str) -> None:
        text = between if self._open else to_json(self._head, indent=None)[:-1] + ', "results": [\n'
        click.echo(text, nl=False)
        self._open = True

    def __exit__(self, kind: type[BaseException] | None, *_exc: object) -> None:
        # A run that was refused before its first result leaves stdout empty.
        if self._open or kind is None:
            self._begin("\n")
            click.echo("]}")
