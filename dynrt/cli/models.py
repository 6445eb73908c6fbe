"""``dynrt models``: the bundles that come with dynrt."""

from __future__ import annotations

from typing import Any

import click

from dynrt.bundle import PackagedModel, packaged_models, read_bundle
from dynrt.cli.options import json_option
from dynrt.cli.text import megaflops, table, to_json
from dynrt.units import macs_to_flops


@click.command()
@json_option
def command(as_json: bool) -> None:
    """List the bundles that come with dynrt, and what each reached."""
    models = [_describe(model) for model in packaged_models()]
    click.echo(to_json({"models": models}) if as_json else _page(models))


def _describe(model: PackagedModel) -> dict[str, Any]:
    """A bundle as its manifest and its card tell it; what the card does not say is null."""
    bundle = read_bundle(model.path)
    card = bundle.card
    return {
        "name": model.name,
        "file": str(model.path),
        "bytes": model.size_bytes,
        "sha256": bundle.sha256,
        "full_flops": macs_to_flops(bundle.certificate.full_macs),
        "cheapest_flops": macs_to_flops(bundle.certificate.cheapest_macs),
        "exits": list(bundle.graph.exits),
        "labels": list(bundle.labels),
        "accuracy": card.get("accuracy"),
        "card": card,
    }


def _page(models: list[dict[str, Any]]) -> str:
    if not models:
        return "no bundle comes with this dynrt"
    rows = []
    for model in models:
        accuracy = model["accuracy"]
        rows.append(
            [
                model["name"],
                f"{megaflops(model['cheapest_flops'])}-{megaflops(model['full_flops'])}",
                str(len(model["exits"])),
                f"{accuracy:.2%}" if isinstance(accuracy, float) else "",
                f"{model['bytes'] / 1e6:.2f}",
                _first_text(model["card"], "summary", "data"),
            ]
        )
    titles = ["name", "MFLOPs", "exits", "accuracy", "MB", "about"]
    return table(titles, rows, right=(1, 2, 3, 4), elastic=5)


def _first_text(card: dict[str, Any], *names: str) -> str:
    """The first of the card's fields that is a text."""
    return next((card[name] for name in names if isinstance(card.get(name), str)), "")
