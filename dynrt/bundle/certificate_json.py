"""Certificates <-> JSON: the ``certificate`` field of the manifest."""

from __future__ import annotations

from dynrt.bundle.fields import boolean, integer, items, name, table
from dynrt.bundle.limits import Limits
from dynrt.bundle.versions import TABLES_SINCE
from dynrt.ir.certificate import Certificate, ExitCost

_CERTIFICATE = (
    "answers",
    "cheapest_macs",
    "full_macs",
    "cheapest_femtojoules",
    "full_femtojoules",
    "peak_tensor_bytes",
    "exact",
    "exits",
)
_SINCE_TABLES = ("cheapest_milli_mac_equivalents", "full_milli_mac_equivalents")
_EXIT_COST = ("name", "cheapest_macs", "full_macs")


def certificate_to_json(certificate: Certificate, version: int) -> dict[str, object]:
    """The ``certificate`` field of a manifest of ``version``."""
    rows = [
        {"name": e.name, "cheapest_macs": e.cheapest_macs, "full_macs": e.full_macs}
        for e in certificate.exits
    ]
    return {key: getattr(certificate, key) for key in _keys(version)} | {"exits": rows}


def decode_certificate(value: object, limits: Limits, version: int) -> Certificate:
    """The certificate as it is stored; whether it is the graph's is the reader's business.

    Raises:
        BundleSizeError: more exits than ``limits`` allow.
        ManifestError: a field is missing, unknown, or of the wrong kind.
    """
    place = "certificate"
    entry = table(value, place, _keys(version))

    def whole(key: str) -> int:
        return integer(entry[key], f"{place}.{key}")

    def whole_or_none(key: str) -> int | None:
        return None if entry.get(key) is None else whole(key)

    exits = []
    for i, item in enumerate(items(entry["exits"], f"{place}.exits", limit=limits.nodes)):
        here = f"{place}.exits[{i}]"
        row = table(item, here, _EXIT_COST)
        exits.append(
            ExitCost(
                name=name(row["name"], f"{here}.name"),
                cheapest_macs=integer(row["cheapest_macs"], f"{here}.cheapest_macs"),
                full_macs=integer(row["full_macs"], f"{here}.full_macs"),
            )
        )
    return Certificate(
        answers=boolean(entry["answers"], f"{place}.answers"),
        cheapest_macs=whole("cheapest_macs"),
        full_macs=whole("full_macs"),
        cheapest_femtojoules=whole_or_none("cheapest_femtojoules"),
        full_femtojoules=whole_or_none("full_femtojoules"),
        cheapest_milli_mac_equivalents=whole_or_none("cheapest_milli_mac_equivalents"),
        full_milli_mac_equivalents=whole_or_none("full_milli_mac_equivalents"),
        peak_tensor_bytes=whole("peak_tensor_bytes"),
        exact=boolean(entry["exact"], f"{place}.exact"),
        exits=tuple(exits),
    )


def _keys(version: int) -> tuple[str, ...]:
    return (*_CERTIFICATE, *_SINCE_TABLES) if version >= TABLES_SINCE else _CERTIFICATE
