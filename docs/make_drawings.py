"""Makes the drawings of ``docs/measuring.md``: the bench, the shunt, the windows.

Run it from the repository's root::

    python docs/make_drawings.py
"""

from __future__ import annotations

from pathlib import Path
from xml.sax.saxutils import escape

IMAGES = Path(__file__).parent / "images"
_STYLE = """
text { font: 13px sans-serif; fill: #222 } .small { font-size: 11px; fill: #555 }
.mid { text-anchor: middle } .box { fill: #f4f6fa; stroke: #444; stroke-width: 1.4 }
.wire { fill: none; stroke: #444; stroke-width: 1.6 } .power { stroke: #D55E00; stroke-width: 2.4 }
.signal { stroke: #0072B2; stroke-dasharray: 6 3 } .idle { fill: #d6e6f4 } .run { fill: #f8ddb5 }
.cut { fill: #9a9a9a } .brace { fill: none; stroke: #0072B2; stroke-width: 1.4 }
""".strip()


def svg(width: int, height: int, title: str, parts: list[str]) -> str:
    """A drawing that needs nothing else."""
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            f'width="{width}" height="{height}" role="img">',
            f"<title>{escape(title)}</title>",
            f"<style>{_STYLE}</style>",
            f'<rect width="{width}" height="{height}" fill="#fff"/>',
            *parts,
            "</svg>",
            "",
        ]
    )


def box(x: int, y: int, width: int, height: int, lines: list[str]) -> str:
    """A box with centred lines; the first is its name."""
    out = [f'<rect class="box" x="{x}" y="{y}" width="{width}" height="{height}" rx="6"/>']
    top = y + height // 2 - 8 * (len(lines) - 1) + 5
    for i, line in enumerate(lines):
        kind = "mid" if i == 0 else "mid small"
        out.append(text(x + width // 2, top + 16 * i, line, kind))
    return "".join(out)


def text(x: float, y: float, line: str, kind: str = "small") -> str:
    """One line."""
    return f'<text class="{kind}" x="{x:g}" y="{y:g}">{escape(line)}</text>'


def wire(path: str, kind: str = "") -> str:
    """A line."""
    return f'<path class="wire {kind}" d="{path}"/>'


def bench() -> str:
    """Laptop, board, meter and their three lines."""
    return svg(
        760,
        330,
        "The bench: computer, ZedBoard, meter",
        [
            box(20, 40, 170, 90, ["computer", "dynrt measure", "session on disk"]),
            box(430, 40, 290, 130, ["ZedBoard", "J14 USB-UART: agent", "JE: marker", "J21: shunt"]),
            box(120, 230, 260, 70, ["meter", "voltage over J21, or", "INA226 + microcontroller"]),
            box(560, 240, 140, 50, ["12 V supply"]),
            wire("M190 70 H430"),
            text(205, 62, "micro-USB: download, run, read back"),
            wire("M90 130 V265 H120"),
            text(98, 200, "USB or RS-232:"),
            text(98, 215, "samples"),
            wire("M630 240 V170", "power"),
            text(640, 210, "12 V"),
            wire("M480 170 V265 H380", "power"),
            text(385, 258, "J21: 10 mOhm"),
            wire("M430 150 H350 V230", "signal"),
            text(165, 155, "JE1 (MIO13): high in a window"),
            text(165, 170, "and ground, JE5"),
        ],
    )


def shunt() -> str:
    """J21: where the meter's leads go, and what it sees."""
    resistor = "M300 90 l8 -10 l16 20 l16 -20 l16 20 l16 -20 l16 20 l8 -10"
    return svg(
        760,
        250,
        "J21, the current-sense header of the 12 V input",
        [
            text(30, 84, "12 V in", ""),
            wire("M90 90 H300", "power"),
            wire(resistor, "power"),
            wire("M396 90 H640", "power"),
            text(650, 94, "regulators", ""),
            text(348, 66, "10 mOhm", "mid"),
            '<circle cx="270" cy="90" r="4" fill="#222"/><circle cx="426" cy="90" r="4" fill="#222"/>',
            wire("M270 90 V170 H300"),
            wire("M426 90 V170 H396"),
            box(300, 145, 96, 50, ["meter", "100 mV"]),
            text(196, 140, "J21, + lead"),
            text(434, 140, "J21, - lead"),
            text(
                30,
                226,
                "2.56 W at 12 V is 213 mA, so 2.1 mV over J21. Twisted leads; the meter floats: ",
            ),
            text(30, 242, "neither lead may be grounded, both stand at 12 V."),
        ],
    )


def windows() -> str:
    """Two runs, three idle windows, what is cut off and which half serves which run."""
    parts = [text(20, 24, "power"), wire("M60 20 V150 H745")]
    spans = [("idle", 80), ("run", 210), ("idle", 340), ("run", 470), ("idle", 600)]
    for kind, x in spans:
        top = 60 if kind == "run" else 112
        parts.append(f'<rect class="{kind}" x="{x}" y="{top}" width="110" height="{150 - top}"/>')
        for edge in (x, x + 102):
            parts.append(f'<rect class="cut" x="{edge}" y="{top}" width="8" height="{150 - top}"/>')
        parts.append(text(x + 55, 142, kind, "mid small"))
    for left, right, y in ((143, 373, 176), (403, 633, 176)):
        parts.append(f'<path class="brace" d="M{left} {y - 12} V{y} H{right} V{y - 12}"/>')
    parts += [
        text(258, 194, "idle for run 1", "mid small"),
        text(518, 194, "idle for run 2", "mid small"),
        '<path class="brace" d="M395 112 V150" stroke-dasharray="3 3"/>',
        text(
            20,
            222,
            "Gray: samples at the marker's edges, cut off. An idle window between two runs is",
        ),
        text(
            20,
            238,
            "halved, so no sample serves two runs; idle power is interpolated to the run's middle.",
        ),
    ]
    return svg(760, 250, "Windows of a session", parts)


def main() -> None:
    """Write all drawings."""
    for name, drawing in (("bench", bench()), ("shunt", shunt()), ("windows", windows())):
        (IMAGES / f"measuring-{name}.svg").write_text(drawing)


if __name__ == "__main__":
    main()
