"""The pages of ``dynrt energy``: the objects of ``--json`` as tables for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dynrt.cli.text import table

Record = Mapping[str, Any]

#: Columns of the energy levels, in the order in which they are shown.
LEVELS = {
    "mac": "MAC",
    "register_file": "RF",
    "hop": "hops",
    "buffer": "buffer",
    "dram": "DRAM",
    "operation": "other ops",
}
_JOULES = (("J", 1.0), ("mJ", 1e-3), ("uJ", 1e-6), ("nJ", 1e-9), ("pJ", 1e-12))
_MACS = (("GMACeq", 1e9), ("MMACeq", 1e6), ("kMACeq", 1e3), ("MACeq", 1.0))


def scale_of(unit: str, amounts: Iterable[float]) -> tuple[str, float]:
    """The prefixed unit in which the largest of ``amounts`` is easy to read, and its size."""
    units = _JOULES if unit == "J" else _MACS
    largest = max(amounts, default=0.0)
    return next((item for item in units if largest >= item[1]), units[-1])


def digits(amount: float) -> str:
    """``amount`` with three digits, without an exponent where that is short."""
    if amount == 0:
        return "0"
    if amount < 0.001:
        return f"{amount:.1g}"
    places = 3 if amount < 0.1 else 2 if amount < 10 else 1 if amount < 100 else 0
    return f"{amount:.{places}f}"


def percent(share: float | None) -> str:
    """A share for people; a dash where there is none."""
    return "-" if share is None else f"{100 * share:.1f} %"


def page(record: Record) -> str:
    """One network on one hardware: nodes, exits, total, gaps and sources."""
    parts = [
        f"{record['bundle']['name']} on {hardware_line(record)}",
        "",
        _nodes(record),
        "",
        _exits(record),
        "",
        *gap_lines(record),
        *source_lines(record),
    ]
    return "\n".join(parts)


def hardware_line(record: Record) -> str:
    """Name, array and buffers."""
    hardware = record["details"]["hardware"]
    sizes = [hardware[f"{operand}_sram_bytes"] for operand in ("ifmap", "filter", "ofmap")]
    return (
        f"{record['hardware']}: {hardware['rows']}x{hardware['cols']} {hardware['dataflow']}, "
        f"buffers {'/'.join(_kilobytes(size) for size in sizes)} kB"
    )


def _kilobytes(size_bytes: int) -> str:
    return f"{size_bytes / 1024:g}"


def _nodes(record: Record) -> str:
    nodes: Sequence[Record] = record["nodes"]
    total: Record = record["total"]
    unit, factor = scale_of(record["unit"], [node["energy"] for node in nodes])
    levels = [level for level in LEVELS if level in total["levels"]]
    rows = [_row(node["name"], node, levels, factor) for node in nodes]
    rows.append(_row("all nodes", total, levels, factor))
    titles = ["node", "MMACs", "kcycles", "used", *(LEVELS[level] for level in levels)]
    titles += [unit, "low .. high"]
    return table(titles, rows, right=tuple(range(1, len(titles))))


def _row(name: str, item: Record, levels: Sequence[str], factor: float) -> list[str]:
    return [
        name,
        digits(item["macs"] / 1e6),
        digits(item["cycles"] / 1e3),
        percent(item["utilisation"]),
        *(digits(item["levels"].get(level, 0.0) / factor) for level in levels),
        digits(item["energy"] / factor),
        f"{digits(item['low'] / factor)} .. {digits(item['high'] / factor)}",
    ]


def _exits(record: Record) -> str:
    ways = [way for item in record["exits"] for way in (item["cheapest"], item["full"])]
    unit, factor = scale_of(record["unit"], [way["energy"] for way in ways])

    def cells(way: Record) -> list[str]:
        bounds = f"{digits(way['low'] / factor)} .. {digits(way['high'] / factor)}"
        return [digits(way["energy"] / factor), bounds]

    rows = [[e["name"], *cells(e["cheapest"]), *cells(e["full"])] for e in record["exits"]]
    titles = ["exit", f"cheapest {unit}", "low .. high", f"full {unit}", "low .. high"]
    return table(titles, rows, right=(1, 2, 3, 4))


def gap_lines(record: Record) -> list[str]:
    """What is not in the energies, said in words."""
    lines = []
    if record["missing"]:
        lines.append(f"not in the table, so not in the energy: {', '.join(record['missing'])}")
    if record["left_out"]:
        lines.append(f"left out, priced only on request: {', '.join(record['left_out'])}")
    gaps = record["unmodelled"]
    if not gaps["operators"]:
        lines.append("every operator is modelled")
        return lines
    moved = "an unknown amount" if gaps["bytes"] is None else f"{gaps['bytes']} bytes"
    lines.append(
        f"NOT modelled: {gaps['count']} operators, {percent(gaps['macs_share'])} of the MACs, "
        f"{moved} moved"
    )
    rows = [
        [gap["node"], gap["op"], str(gap["count"]), str(gap["macs"]), gap["reason"]]
        for gap in gaps["operators"]
    ]
    lines.append(table(["node", "operator", "count", "MACs", "why"], rows, right=(2, 3), elastic=4))
    return lines


def source_lines(record: Record) -> list[str]:
    """What counted, and by what it is priced."""
    details = record["details"]
    counted = {
        "bundle": "counts stored in the bundle",
        "now": "counted now",
    }[record["counts_from"]]
    return [
        f"counts: {record['backend']}, policy {record['policy']} ({details['policy']}); {counted}",
        f"prices: {record['table']} ({details['table']['technology']})",
        f"hardware: {details['hardware']['source']}",
        f"source: {record['source']}",
    ]


def grid_page(record: Record) -> str:
    """One network on several hardware files and dataflows: a row for each hardware."""
    runs: Sequence[Record] = record["runs"]
    unit, factor = scale_of(record["unit"], [run["total"]["energy"] for run in runs])
    flows = list(dict.fromkeys(run["dataflow"] for run in runs))
    by_place = {(run["row"], run["dataflow"]): run["total"] for run in runs}
    names = list(dict.fromkeys(run["row"] for run in runs))

    def cell(name: str, flow: str, kind: str) -> str:
        total = by_place.get((name, flow))
        if total is None:
            return "-"
        if kind == "energy":
            bounds = f"{digits(total['low'] / factor)} .. {digits(total['high'] / factor)}"
            return f"{digits(total['energy'] / factor)} ({bounds})"
        if kind == "cycles":
            return digits(total["cycles"] / 1e3)
        return percent(total["utilisation"])

    parts = [f"{record['bundle']['name']}, all nodes"]
    for kind, title in (
        ("energy", f"{unit} (low .. high)"),
        ("cycles", "kcycles"),
        ("used", "of the array used"),
    ):
        rows = [[name, *(cell(name, flow, kind) for flow in flows)] for name in names]
        parts += ["", title, table(["hardware", *flows], rows, right=range(1, len(flows) + 1))]
    parts += ["", *gap_lines(record)]
    parts.append(
        f"counts: {record['backend']}, policy {record['policy']}; prices: {record['table']}"
    )
    return "\n".join(parts)
