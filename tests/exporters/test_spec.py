"""Any graph can be said as a spec, and what is wrong with one is said in a line."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import dynrt.runtime
from dynrt.errors import ExportError, GraphError
from dynrt.exporters.lower import lower
from dynrt.exporters.parity import prove
from dynrt.exporters.spec import NetworkBuilder, port_ref, wire
from dynrt.ir.graph import Accept, Argmax, Combine, Constant, PortRef, Threshold
from tests.exporters.networks import images


class Zeros(nn.Module):
    def forward(self) -> Tensor:
        return torch.zeros(1, 4)


class Scale(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * x


class Joined(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 2)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        out: Tensor = self.linear(torch.cat([x, y], 1))
        return out


class Kept(nn.Module):
    """A gate with a runtime parameter (McGill's k_cpt): the mean against it."""

    def forward(self, x: Tensor, k: Tensor) -> Tensor:
        return x.mean(1, keepdim=True) - k


def hierarchy() -> NetworkBuilder:
    """D2NN's kind: argmax gate, a dummy node, a constant default, joined leaves."""
    net = NetworkBuilder("hierarchy")
    x = net.input("x", (4,))
    net.gate(
        "choose", nn.Linear(4, 2), {"x": x}, actions=[["left"], ["right", "none"]], rule=Argmax()
    )
    left = net.compute("left", Scale(2), {"x": x})
    right = net.compute("right", Scale(3), {"x": x})
    none = net.compute("none", Zeros(), {})
    net.exit("leaf1", nn.Linear(4, 2), {"x": wire(left, default="zeros")}, outputs=["a"])
    net.exit(
        "leaf2",
        Joined(),
        {"x": wire(right, default=np.ones(4, np.float32)), "none": wire(none, default="left.y")},
        outputs=["a"],
    )
    return net


def test_argmax_dummy_defaults_and_joined_answers() -> None:
    spec = hierarchy().build(combine=Combine(kind="sum"))
    bundle = lower(spec)
    inputs = [{"x": x} for x in images(6, 4)]
    report = prove(spec, bundle, inputs)
    assert {"choose_control[0]=on", "choose_control[1]=on"} <= set(report.covered)
    # gate 4 x 2, leaves 4 x 2 and 8 x 2
    assert bundle.certificate.full_macs == 8 + 8 + 16


def test_runtime_parameters_and_order_of_declaration() -> None:
    net = NetworkBuilder("parameter")
    x = net.input("x", (4,))
    k = net.param("k", 0.25)
    net.exit("final", nn.Linear(4, 2), {"x": wire("block.y", default="block.x")})
    net.compute("block", Scale(2), {"x": x})
    net.gate("gate", Kept(), {"x": x, "k": k}, actions=[["block"]], rule=Threshold(thresholds=(0,)))
    spec = net.build(labels=["a", "b"])
    bundle = lower(spec)
    prove(spec, bundle, [{"x": x} for x in images(4, 4)])
    network = dynrt.runtime.load(bundle)
    ones = np.ones(4, np.float32)
    assert "block" in network.run(ones).path
    network.set(params={"k": 2.0})
    assert "block" not in network.run(ones).path


def test_an_exit_that_only_answers_when_stopped_there() -> None:
    net = NetworkBuilder("never")
    x = net.input("x", (4,))
    net.exit("early", nn.Linear(4, 2), {"x": x}, accept=Accept(kind="never"))
    y = net.compute("body", Scale(2), {"x": x})
    net.exit("final", nn.Linear(4, 2), {"x": y})
    spec = net.build()
    report = prove(spec, lower(spec), [{"x": x} for x in images(3, 4)])
    assert report.covered == ("early", "final")


def test_wires() -> None:
    assert port_ref("a.b") == PortRef("a", "b")
    assert wire("a.y", default="a.x").default == PortRef("a", "x")
    again = wire(wire("a.y"), default=1.5)
    assert again.source == PortRef("a", "y")
    assert again.default == Constant(np.asarray(1.5))
    with pytest.raises(ExportError, match=r"'stem' names no port; write node\.port"):
        port_ref("stem")


def broken(change: Callable[[NetworkBuilder], object]) -> NetworkBuilder:
    net = NetworkBuilder("broken")
    stem = net.compute("stem", Scale(2), {"x": net.input("x", (4,))})
    change(net)
    net.exit("final", nn.Linear(4, 2), {"x": stem})
    return net


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda n: n.compute("b", Scale(1), {"x": "nobody.y"}), "node 'b', input 'x': there is no node 'nobody'"),
        (lambda n: n.compute("b", Scale(1), {"x": "stem.z"}), r"'stem' has no output 'z' but \['y'\]"),
        (lambda n: n.compute("b", Scale(1), {"x": "b.z"}), "node 'b', input 'x': 'b' has no output 'z'"),
        (lambda n: n.compute("b", Scale(1), {"x": "b.y"}), "'broken': b feed each other in a cycle"),
        (lambda n: n.compute("stem", Scale(1), {"x": "x.x"}), "two nodes are called 'stem'"),
        (
            lambda n: n.gate("g", nn.Linear(4, 2), {"x": "stem.y"}, actions=[["stem"]]),
            r"node 'g_control': scores of shape \(2,\) for 1 actions",
        ),
        (lambda n: n.compute("b", Scale(1), {"x": "x.x"}, []), r"node 'b': outputs are \[\]"),
        (lambda n: n.compute("b", Scale(1), {"x": "x.x"}, "y"), "node 'b': outputs are 'y'"),
        (lambda n: n.compute("b", nn.Linear(3, 1), {"x": "x.x"}), "node 'b': the module fails"),
    ],
)  # fmt: skip
def test_what_cannot_be_lowered(change: Callable[[NetworkBuilder], object], says: str) -> None:
    with pytest.raises(ExportError, match=says) as caught:
        lower(broken(change).build())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda n: n.compute("dead", Scale(1), {"x": "x.x"}), "dead-node"),
        (
            lambda n: n.gate(
                "g",
                nn.Linear(4, 1),
                {"x": "x.x"},
                actions=[["stem"]],
                rule=Threshold(thresholds=()),
            ),
            "threshold-count",
        ),
        (lambda n: n.compute("1st", Scale(1), {"x": "x.x"}), "bad-name"),
        (
            lambda n: n.exit("e", nn.Linear(4, 2), {"x": wire("x.x", default=np.zeros(3, "f"))}),
            "default-shape",
        ),
        (lambda n: n.exit("e", nn.Linear(4, 3), {"x": "x.x"}), "answer-type"),
        (lambda n: n.gate("g", nn.Linear(4, 1), {"x": "x.x"}, actions=[["stem"]]), "no-answer"),
    ],
)
def test_a_broken_invariant_is_blamed_on_a_pass(
    change: Callable[[NetworkBuilder], object], code: str
) -> None:
    with pytest.raises(GraphError, match="network 'broken', after pass 'types'") as caught:
        lower(broken(change).build())
    assert code in caught.value.codes
