"""Early exits and gated blocks, said in one call."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import dynrt.runtime
from dynrt.bundle import Bundle
from dynrt.errors import ExportError, GraphError
from dynrt.exporters.chains import Gate, Head, d_gate, gated_blocks, sequential_exits
from dynrt.exporters.lower import lower
from dynrt.exporters.parity import prove
from dynrt.ir.graph import Accept, Exit, PortRef, TensorType
from tests.exporters.networks import (
    Block,
    CellGate,
    TwoHeads,
    bright_images,
    images,
    pooled_head,
    recurrent_modules,
)

IMAGE = TensorType(dtype="float32", shape=(3, 8, 8))
STATE = {name: TensorType(dtype="float32", shape=(5,)) for name in ("h", "c")}


def test_sequential_exits() -> None:
    spec = sequential_exits(
        "chain",
        IMAGE,
        [("stem", nn.Conv2d(3, 8, 3, 1, 1)), ("body", Block(8, 8)), ("tail", Block(8, 16, 2))],
        {
            "stem": pooled_head(8),
            "body": d_gate(TwoHeads(8), threshold=0.3),
            "tail": pooled_head(16),
        },
    ).build(labels=list("abcde"))
    bundle = lower(spec)
    assert bundle.graph.exits == ("exit1", "exit2", "final")
    rules = [n.accept for n in bundle.graph.nodes if isinstance(n, Exit)]
    assert rules == [
        Accept(kind="max_softmax", port="logits", threshold=0.9),
        Accept(kind="hinge", port="distances", threshold=0.3),
        Accept(kind="always"),
    ]
    report = prove(spec, bundle, [{"image": x} for x in images(4, 3, 8, 8)])
    assert report.covered == bundle.graph.exits
    # stem 3 x 3 x 3 x 8 at 64 places, head 8 x 5
    assert bundle.certificate.cheapest_macs == 27 * 8 * 64 + 40


def recurrent() -> Bundle:
    torch.manual_seed(0)
    cell = nn.LSTMCell(6, 5)
    blocks = [("stem", nn.Conv2d(3, 8, 3, 1, 1)), *((f"b{i}", Block(8, 8)) for i in range(3))]
    gates = {f"b{i}": Gate(module=CellGate(cell, 8), threshold=0.5) for i in range(3)}
    exits = {"b0": pooled_head(8), "b2": pooled_head(8)}
    return lower(gated_blocks("ddi", IMAGE, blocks, gates, exits, state=STATE).build())


def test_recurrent_gates_carry_their_state_past_skipped_blocks() -> None:
    stem, blocks, gates, head = recurrent_modules()
    spec = gated_blocks(
        "ddi",
        IMAGE,
        [("stem", stem), *((f"b{i}", b) for i, b in enumerate(blocks))],
        {f"b{i}": g for i, g in enumerate(gates)},
        {"b3": head},
        state=STATE,
    ).build()
    bundle = lower(spec)
    network = dynrt.runtime.load(bundle)
    taken = set()
    for module in (stem, head, *blocks, *gates):
        module.eval()
    for image in bright_images(12):
        with torch.no_grad():  # the network by hand
            x = stem(torch.from_numpy(image[None]))
            h = c = torch.zeros(1, 5)
            path = []
            for block, gate in zip(blocks, gates, strict=True):
                score, h, c = gate(x, h, c)
                path.append(bool(score >= 0.5))
                x = block(x.clone()) if path[-1] else x
            want = head(x).numpy()[0]
        result = network.run(image)
        assert [f"b{i}" in result.path for i in range(4)] == path
        np.testing.assert_allclose(result.answer, want, atol=1e-5)
        taken.add(tuple(path))
    assert len(taken) >= 3
    report = prove(spec, bundle, [{"image": x} for x in images(4, 3, 8, 8)])
    assert len(report.covered) == 1 + 2 * 4


def test_gates_are_wired_for_skipping() -> None:
    bundle = recurrent()
    graph = bundle.graph
    into = {str(e.target): e for e in graph.data}
    assert into["b1.x"].default == PortRef("b0", "x")
    assert into["b1_gate.x"].default == PortRef("b0", "x")
    assert into["b1_gate.h"].source == PortRef("b0_gate", "h_next")
    assert into["b1_gate.h"].default == PortRef("b0_gate", "h")
    assert {n.name for n in graph.inputs()} == {"image", "h_0", "c_0"}
    # everything skipped, nothing asked: the stem and the first head
    assert bundle.certificate.cheapest_macs == 27 * 8 * 64 + 40


def test_a_block_that_changes_the_shape_cannot_be_skipped() -> None:
    class Mean(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.mean((1, 2, 3))[:, None]

    net = gated_blocks("n", IMAGE, [("b", Block(3, 8))], {"b": Mean()}, {"b": pooled_head(8)})
    with pytest.raises(GraphError, match=r"default-shape at b\.x->final\.x"):
        lower(net.build())


@pytest.mark.parametrize(
    ("exits", "says"),
    [
        ({"steem": pooled_head(8), "body": pooled_head(8)}, "exit after 'steem': no such segment; did you mean 'stem'?"),
        ({"stem": pooled_head(8)}, "no exit after the last segment"),
        ({"zzz": pooled_head(8)}, "exit after 'zzz': no such segment$"),
    ],
)  # fmt: skip
def test_wrong_places(exits: dict[str, nn.Module], says: str) -> None:
    segments = [("stem", nn.Conv2d(3, 8, 3)), ("body", Block(8, 8))]
    with pytest.raises(ExportError, match=says.replace("?", r"\?")):
        sequential_exits("n", IMAGE, segments, exits)


def test_names_of_segments_are_unique_and_d_gates_give_distances() -> None:
    segments = [("a", nn.Identity()), ("a", nn.Identity())]
    with pytest.raises(ExportError, match="two segments are called 'a'"):
        sequential_exits("n", IMAGE, segments, {"a": pooled_head(3)})
    with pytest.raises(ExportError, match="a d-gate gives 'distances'; its outputs are logits"):
        d_gate(TwoHeads(8), threshold=0.0, outputs=("logits",))
    alone = d_gate(nn.Linear(8, 5), threshold=1.0, outputs=("distances",))
    assert alone.outputs == ("distances",)


def test_heads_may_be_named() -> None:
    head = Head(module=pooled_head(3), name="first", accept=Accept(kind="never"))
    net = sequential_exits(
        "n",
        IMAGE,
        [("a", nn.ReLU()), ("b", nn.Tanh())],
        {"a": head, "b": pooled_head(3)},
        input_name="picture",
    )
    graph = lower(net.build()).graph
    assert graph.exits == ("first", "final")
    assert graph.inputs()[0].name == "picture"
