"""The text form, pinned."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from dynrt.ir.graph import Constant, InputNode, Threshold
from dynrt.ir.text import to_text
from tests.ir.test_check import V, add, compute, edge, edges, high_low, node

HIGH_LOW = """\
input x:float32[4]
gate(a=x.x) -> y:float32[2] 5 MAC
control q(scores=gate.y) argmax of 2
high(a=x.x if q[0]) -> y:float32[4] 50 MAC
exit first(a=high.y) -> y:float32[4] answer y accept hinge(y) >= 1 1 MAC
low(a=x.x if q[1]) -> y:float32[4] 10 MAC
exit last(a=low.y ?high.y) -> y:float32[4] answer y accept always 1 MAC
exits first last combine first"""


def test_high_low() -> None:
    assert to_text(high_low()) == HIGH_LOW


def test_defaults_thresholds_parameters_and_dummies() -> None:
    zero, ramp = Constant(np.zeros(4, "f4")), Constant(np.arange(4, dtype="f4"))
    graph = node("q", rule=Threshold(thresholds=(0.5, 1.0)))(high_low())
    graph = edges(drop="last.a", e=edge("low.y", "last.a", zero))(graph)
    graph = edges(drop="first.a", e=edge("high.y", "first.a", ramp))(graph)
    graph = add(InputNode(name="k", type=V, param=zero), replace(compute("idle"), outputs=()))(
        graph
    )
    text = to_text(graph)
    assert "control q(scores=gate.y) threshold 0.5, 1" in text
    assert "last(a=low.y ?0)" in text
    assert "first(a=high.y ?tensor)" in text
    assert "input k:float32[4] parameter" in text
    assert "idle() ->" in text
