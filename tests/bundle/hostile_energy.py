"""Hostile kinds of version 3's manifest: sources of energy, energies by kept groups, their bounds."""

from __future__ import annotations

from dynrt.errors import (
    BundleMemberError,
    BundleSizeError,
    CertificateError,
    DynrtError,
    GraphError,
    ManifestError,
)
from tests.bundle.hostile import Base, Hostile, Json, by_manifest, drop, put
from tests.bundle.hostile_tables import COUNTS, LAYERS, Change, Entry
from tests.bundle.samples import energy_bundle, masked_bundle, normalised_bundle

_COST = ("graph", "nodes", "stem", "cost")
_MASK = ("graph", "nodes", "thin", "mask")
ENERGY_ENTRIES: list[Entry] = [
    ("energy left out", ManifestError, "field 'energy' is missing", drop("energy")),
    ("energy is a text", ManifestError, "energy: expected an object", put("energy", to="J")),
    ("energy of no table", ManifestError, "'table' is missing", drop("energy", "table")),
    ("energy and more", ManifestError, "unknown field 'low'", put("energy", "low", to=1)),
    (
        "a blank hardware",
        ManifestError,
        "energy.hardware: is empty",
        put("energy", "hardware", to=""),
    ),
    ("energy in calories", ManifestError, "'cal' is none of", put("energy", "unit", to="cal")),
    ("energy of no source", ManifestError, "and there is no source", put("energy", to=None)),
    (
        "joules from a normalised table",
        ManifestError,
        "the source is in MACeq",
        put("energy", "unit", to="MACeq"),
    ),
    (
        "energy in both units",
        ManifestError,
        "the source is in J",
        put(*_COST, "milli_mac_equivalents", to=1),
    ),
    (
        "a cost without the unit",
        ManifestError,
        "'milli_mac_equivalents' is missing",
        drop(*_COST, "milli_mac_equivalents"),
    ),
    (
        "kept left out",
        ManifestError,
        "'kept_femtojoules' is missing",
        drop(*_MASK, "kept_femtojoules"),
    ),
    (
        "kept in the other unit",
        ManifestError,
        "the source is in J",
        put(*_MASK, "kept_milli_mac_equivalents", to=[1, 1, 1]),
    ),
    (
        "kept below zero",
        ManifestError,
        "kept_femtojoules[0]: -1",
        put(*_MASK, "kept_femtojoules", 0, to=-1),
    ),
    (
        "kept is a number",
        ManifestError,
        "kept_femtojoules: expected an array",
        put(*_MASK, "kept_femtojoules", to=1),
    ),
    (
        "a bound left out",
        ManifestError,
        "'full_milli_mac_equivalents' is",
        drop("certificate", "full_milli_mac_equivalents"),
    ),
    (
        "a bound below zero",
        ManifestError,
        "-1 is not in",
        put("certificate", "full_milli_mac_equivalents", to=-1),
    ),
    ("version 2 with a layer table", ManifestError, "unknown field", put("version", to=2)),
    (
        "a table beyond its bound",
        BundleSizeError,
        "the limit is 8388608",
        put("members", LAYERS, "bytes", to=(1 << 23) + 1),
    ),
]
ENERGY_SENSE: list[Entry] = [
    (
        "kept of too few groups",
        ManifestError,
        "2 energies for 0 to 2",
        put(*_MASK, "kept_femtojoules", to=[1, 2]),
    ),
    (
        "kept of too many groups",
        BundleSizeError,
        "4 items",
        put(*_MASK, "kept_femtojoules", to=[1] * 4),
    ),
]


def _forget(value: Json) -> None:
    """No energies any more, but the source."""
    for node in value["graph"]["nodes"]:
        if "cost" in node:
            node["cost"].update(femtojoules=None, milli_mac_equivalents=None)
        if node.get("mask"):
            node["mask"].update(kept_femtojoules=[], kept_milli_mac_equivalents=[])


def _bare(value: Json) -> None:
    """Version 3, and nothing that needs it."""
    _forget(value)
    value["energy"] = None
    del value["members"][LAYERS], value["members"][COUNTS]


ENERGY_ENTRIES += [
    ("a source of nothing", ManifestError, "no node has femtojoules", _forget),
    ("version 3 for nothing", ManifestError, "nothing here needs version 3", _bare),
]


def _stored(value: Json) -> None:
    value["certificate"]["full_milli_mac_equivalents"] += 1


def _free(value: Json) -> None:
    """Joules as in version 1: without a source, beside tables."""
    value["energy"] = None


FURTHER: list[tuple[str, type[DynrtError], str, Change, Base]] = [
    (
        "a false bound",
        CertificateError,
        "full_milli_mac_equivalents: the bundle",
        _stored,
        normalised_bundle,
    ),
    (
        "tables in version 2",
        BundleMemberError,
        "'layers.json' belongs",
        lambda v: v["members"].update({LAYERS: v["members"]["nodes/stem.onnx"]}),
        masked_bundle,
    ),
    (
        "kept above the node",
        GraphError,
        "kept_femtojoules has 3 values",
        put(*_MASK, "kept_femtojoules", to=[1, 9999, 2]),
        energy_bundle,
    ),
    (
        "joules beside tables",
        ManifestError,
        "has femtojoules, and there is no source",
        _free,
        energy_bundle,
    ),
]

ENERGY_KINDS: list[Hostile] = [
    *(
        hostile
        for kind, error, text, change in ENERGY_ENTRIES + ENERGY_SENSE
        for hostile in by_manifest(f"energy: {kind}", error, text, change, energy_bundle)
    ),
    *(
        hostile
        for kind, error, text, change, base in FURTHER
        for hostile in by_manifest(f"energy: {kind}", error, text, change, base)
    ),
]
