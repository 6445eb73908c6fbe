"""What the figures are held to: a bar that must be reached, and an aim."""

from __future__ import annotations

from dataclasses import dataclass

from bench.row import Row


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """A bound on one figure.

    Attributes:
        bar: must be reached.
        aim: should be.
        at_least: larger is better.
    """

    bar: float
    aim: float
    at_least: bool = False

    def met(self, value: float) -> bool:
        """Whether ``value`` reaches the bar."""
        return value >= self.bar if self.at_least else value <= self.bar


BARS: dict[str, Bar] = {
    "half_skip_saving": Bar(bar=0.90, aim=0.95, at_least=True),
    "all_keep": Bar(bar=1.10, aim=1.03),
    "all_skip": Bar(bar=0.060, aim=0.050),
    "exit2": Bar(bar=1.03, aim=1.01),
    "exit4": Bar(bar=1.03, aim=1.01),
    "exit6": Bar(bar=1.03, aim=1.01),
    "if_graph": Bar(bar=1.25, aim=1.35, at_least=True),
    "batch32_half": Bar(bar=1.15, aim=1.08),
    "mask64_half": Bar(bar=0.70, aim=0.60),
    "mask256_half": Bar(bar=0.57, aim=0.53),
    "int8_half": Bar(bar=0.65, aim=0.50),
    "load_ms": Bar(bar=30, aim=20),
    "extra_rss_mb": Bar(bar=8, aim=5),
    "two_threads_half": Bar(bar=0.75, aim=0.62),
    "nodes_2000_over_100": Bar(bar=1.20, aim=1.0),
    "cascade_us": Bar(bar=6, aim=6),
    "real_decisions_58M": Bar(bar=0.90, aim=0.95, at_least=True),
    "real_decisions_74M": Bar(bar=0.90, aim=0.95, at_least=True),
    "real_decisions_117M": Bar(bar=0.90, aim=0.95, at_least=True),
    "real_decisions_144M": Bar(bar=0.90, aim=0.95, at_least=True),
    "openvino_static": Bar(bar=1.6, aim=1.75, at_least=True),
    "resnet74_speedup": Bar(bar=300, aim=300, at_least=True),
    "imagenet_layer_speedup": Bar(bar=100, aim=100, at_least=True),
    "resnet74_cold_s": Bar(bar=0.2, aim=0.1),
    "resnet50_cold_s": Bar(bar=10, aim=5),
    "resnet50_peak_mb": Bar(bar=1000, aim=500),
}


def verdict(row: Row) -> str:
    """``reached``, ``MISSED``, or nothing where there is no bar; the bar beside it."""
    bar = BARS.get(row.name)
    if bar is None:
        return ""
    sign = ">=" if bar.at_least else "<="
    return f"{'reached' if bar.met(row.value) else 'MISSED'} {sign} {bar.bar:g}"
