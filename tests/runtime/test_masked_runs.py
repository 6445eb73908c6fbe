"""Masked networks from torch to the compiled mode: the same answers, and dropped groups do not run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynrt.bundle import Bundle
from dynrt.exporters import NetworkSpec, lower
from dynrt.ir.certificate import certify
from dynrt.ir.cost import Budget
from dynrt.ir.graph import ComputeNode
from dynrt.runtime import Network
from dynrt.runtime.cache import compiled_for
from dynrt.runtime.compile import compile_bundle, mask_whole
from dynrt.runtime.compile.mask_gather import gathered
from dynrt.runtime.compiled import Compiled
from dynrt.runtime.machine import Choice
from dynrt.zoo import MaskedBlock
from tests.exporters.masked_networks import dynamic, gated, given_masks, one_block
from tests.exporters.networks import images, seeded
from tests.oracle import over_budget
from tests.runtime.masked_runs import assert_same, gathered_nodes, network_of, reference

GROUPS = 4


@cache
def bundle_of(name: str) -> Bundle:
    specs: dict[str, Callable[[], NetworkSpec]] = {
        "gated": gated,
        "given": given_masks,
        "dynamic": dynamic,
        "fine": lambda: given_masks(32),
        "single": lambda: given_masks(1),
        "param": lambda: one_block(
            seeded(MaskedBlock(64, 64, groups=GROUPS)), GROUPS, (64, 8, 8), 64
        ),
    }
    return lower(specs[name]())


@cache
def compiled_of(name: str) -> Compiled:
    return compile_bundle(bundle_of(name))


def both_ways(monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    monkeypatch.setattr(Choice, "pick", lambda self, size: way)


@pytest.mark.parametrize(
    ("name", "nodes"),
    [
        ("gated", {"block": 4}),
        ("given", {"one": 4, "two": 4}),
        ("single", {"one": 1, "two": 1}),
        ("param", {"block": 4}),
        ("dynamic", {"b0": 4, "b1": 4, "b2": 2}),
        ("fine", {}),  # groups of two and four channels are no whole block
    ],
)
def test_masked_nodes_are_compiled_whole_and_gathered(name: str, nodes: dict[str, int]) -> None:
    compiled = compiled_of(name)
    assert gathered_nodes(compiled) == nodes
    for segment in compiled.segments:
        if segment.gathered is None:
            continue
        mask = segment.gathered.mask
        node = bundle_of(name).graph.by_name[mask.node]
        assert isinstance(node, ComputeNode)
        assert node.mask is not None
        assert (segment.nodes, mask.port, segment.raw) == ((mask.node,), node.mask.port, False)
        assert mask not in [t.port for t in segment.takes]
        assert compiled.layouts[bundle_of(name).graph.edge_into[mask].source].kind == "plain"


def test_a_masked_block_hands_over_blocked_tensors() -> None:
    layouts = compiled_of("dynamic").layouts
    assert {str(r): k.kind for r, k in layouts.items() if str(r)[0] == "b"} == {
        "b0.y": "nchwc",
        "b1.y": "nchwc",
        "b2.y": "nchwc",
    }


@pytest.mark.parametrize("keep", [(1, 1, 1, 1), (0, 1, 1, 1), (0, 0, 1, 0), (0, 0, 0, 0)], ids=str)
def test_only_a_mask_that_leaves_something_out_is_gathered(keep: tuple[int, ...]) -> None:
    bundle = bundle_of("param")
    network, engine = network_of(bundle, compiled_of("param"))
    network.set(params={"keep": np.array(keep, np.float32)})
    x = images(1, 64, 8, 8)[0]
    got = network.run(x)
    node = bundle.graph.by_name["block"]
    assert isinstance(node, ComputeNode)
    assert node.mask is not None
    assert got.macs == certify(bundle.graph).full_macs - keep.count(0) * node.mask.group_macs
    if all(keep):
        assert (engine.dense, engine.sparse) == (Counter(block=1), Counter())
    else:
        kept = tuple(np.flatnonzero(keep).tolist()) or (GROUPS,)
        assert (engine.dense, engine.sparse) == (Counter(), Counter({("block", kept): 1}))
    portable, _ = network_of(bundle, None)
    portable.set(params={"keep": np.array(keep, np.float32)})
    assert_same(got, portable.run(x))


def test_a_mask_may_change_from_run_to_run() -> None:
    bundle = bundle_of("given")
    network, engine = network_of(bundle, compiled_of("given"))
    portable, _ = network_of(bundle, None)
    masks = [(1, 0, 0, 1), (0, 1, 1, 0), (1, 1, 1, 1), (0, 0, 0, 0), (1, 0, 0, 1), (1, 1, 1, 1)]
    for i, mask in enumerate(masks):
        inputs = {"x": images(1, 3, 8, 8, seed=i)[0], "keep": np.array(mask, np.float32)}
        for trace in (False, True):
            assert_same(network.run(inputs, trace=trace), portable.run(inputs), mask)
    assert engine.sparse == {
        (node, kept): n
        for node in ("one", "two")
        for kept, n in {(0, 3): 4, (1, 2): 2, (4,): 2}.items()
    }
    assert (engine.dense["one"], engine.dense["two"]) == (4, 4)


VALUES = [0.0, 0.4999, 0.5, 1.0, -3.0, 2.0]
MASKS = st.lists(
    st.lists(st.sampled_from(VALUES), min_size=GROUPS, max_size=GROUPS), min_size=1, max_size=6
)


@cache
def given_networks() -> tuple[Network, Network]:
    bundle = bundle_of("given")
    return network_of(bundle, compiled_of("given"))[0], network_of(bundle, None)[0]


@settings(max_examples=40, deadline=None)
@given(masks=MASKS, seed=st.integers(0, 99), way=st.sampled_from(["one", "together"]))
def test_a_batch_may_have_a_mask_per_sample(masks: list[list[float]], seed: int, way: str) -> None:
    network, portable = given_networks()
    batch = {
        "x": images(len(masks), 3, 8, 8, seed=seed),
        "keep": np.array(masks, np.float32),
    }
    with pytest.MonkeyPatch.context() as patch:
        both_ways(patch, way)
        results = network.run_batch(batch)
    for i, (got, want) in enumerate(zip(results, portable.run_batch(batch), strict=True)):
        assert_same(got, want, (i, masks[i]))


def test_in_a_batch_only_the_rows_that_drop_groups_are_gathered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    both_ways(monkeypatch, "together")
    network, engine = network_of(bundle_of("given"), compiled_of("given"))
    keep = np.ones((5, GROUPS), np.float32)
    keep[1, 0] = keep[3, 2:] = 0
    network.run_batch({"x": images(5, 3, 8, 8), "keep": keep})
    assert (engine.dense["stem"], engine.dense["one"], engine.dense["two"]) == (1, 1, 1)
    each = {(1, 2, 3): 1, (0, 1): 1}
    assert engine.sparse == {(n, kept): c for n in ("one", "two") for kept, c in each.items()}


def test_compiled_portable_and_reference_agree_under_budgets(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bundle = bundle_of("dynamic")
    network, engine = network_of(bundle, compiled_of("dynamic"))
    portable, _ = network_of(bundle, None)
    x = images(12, 3, 8, 8) + 2 * images(12, 3, 1, 1, seed=1)
    bounds = certify(bundle.graph)
    caps = np.linspace(bounds.cheapest_macs, bounds.full_macs, 7).astype(int).tolist()
    exits, macs, forced = set(), set(), set()
    for budget in (None, *(Budget(macs=cap) for cap in caps)):
        wanted = [reference(bundle, {"x": row}, budget) for row in x]
        batches = [portable.run_batch(x, budget=budget)]
        for way in ("one", "together"):
            both_ways(monkeypatch, way)
            batches += [network.run_batch(x, budget=budget) for _ in range(2)]
        for i, want in enumerate(wanted):
            alone = network.run(x[i], budget=budget)
            traced = network.run(x[i], budget=budget, trace=True)
            assert traced.trace is not None
            assert sum(s.cost.macs for s in traced.trace.steps) == want.macs
            for got in (alone, traced, *(batch[i] for batch in batches)):
                assert_same(got, want, (budget, i))
                assert over_budget(got, budget) == []
            exits.add(want.exit)
            macs.add(want.macs)
            forced.add(want.forced)
    assert exits == {"early", "final"}
    assert forced == {True, False}
    assert len(macs) > 8
    assert {node for node, _ in engine.sparse} == {"b0", "b1", "b2"}
    assert engine.dense["b2"]


def test_a_gate_that_drops_groups_of_the_probes_is_no_trouble() -> None:
    """The flat graph keeps every group, whatever the gate says while compiling."""
    spec = gated()
    bundle = lower(spec)
    network, engine = network_of(bundle, compile_bundle(bundle))
    for scale in (1, 4, 16):
        for row in images(6, 3, 8, 8, seed=scale) * np.float32(scale):
            assert_same(network.run(row), reference(bundle, {"x": row}))
    assert engine.sparse


def test_fine_groups_are_charged_though_they_run() -> None:
    bundle = bundle_of("fine")
    network, engine = network_of(bundle, compiled_of("fine"))
    rng = np.random.default_rng(0)
    for seed in range(4):
        keep = (rng.random(32) < 0.5).astype(np.float32)
        inputs = {"x": images(1, 3, 8, 8, seed=seed)[0], "keep": keep}
        got = network.run(inputs)
        assert_same(got, reference(bundle, inputs))
        assert got.macs < certify(bundle.graph).full_macs
    assert not engine.sparse


def test_the_cache_keeps_the_gathered_form(tmp_path: Path) -> None:
    bundle = bundle_of("dynamic")
    first = compiled_for(bundle, threads=1, folder=tmp_path)

    def never(bundle: Bundle, *, threads: int = 1) -> Compiled:
        raise AssertionError("compiled although it is there")

    again = compiled_for(bundle, threads=1, folder=tmp_path, compile=never)
    assert again is not None
    assert again == first
    assert gathered_nodes(again) == {"b0": 4, "b1": 4, "b2": 2}
    network, engine = network_of(bundle, again)
    for row in images(6, 3, 8, 8) + 2 * images(6, 3, 1, 1, seed=1):
        assert_same(network.run(row), reference(bundle, {"x": row}))
    assert engine.sparse


Gathers = Callable[..., onnx.ModelProto | None]


def _backwards(segment: onnx.ModelProto, *, between: str, groups: int) -> onnx.ModelProto | None:
    """Keeps the other groups in the second convolution."""
    made = gathered(segment, between=between, groups=groups)
    assert made is not None
    for tensor in made.graph.initializer:
        if tensor.name == "dynrt/deep/rows":
            value = onnx.numpy_helper.to_array(tensor)[:, ::-1].copy()
            tensor.CopyFrom(onnx.numpy_helper.from_array(value, tensor.name))
    return made


def _broken(segment: onnx.ModelProto, *, between: str, groups: int) -> onnx.ModelProto | None:
    made = gathered(segment, between=between, groups=groups)
    assert made is not None
    made.graph.node[0].op_type = "NoSuchOperator"
    return made


def _only_alone(segment: onnx.ModelProto, *, between: str, groups: int) -> onnx.ModelProto | None:
    """Finds nothing in what was cut from a network."""
    alone = "x" in [i.name for i in segment.graph.input]
    return gathered(segment, between=between, groups=groups) if alone else None


@pytest.mark.parametrize("wrong", [_backwards, _broken, _only_alone])
def test_a_gathered_form_that_is_wrong_is_not_used(
    monkeypatch: pytest.MonkeyPatch, wrong: Gathers
) -> None:
    monkeypatch.setattr(mask_whole, "gathered", wrong)
    bundle = bundle_of("given")
    compiled = compile_bundle(bundle)
    assert gathered_nodes(compiled) == {}
    raw = {s.nodes: len(s.takes) for s in compiled.segments if s.raw}
    assert raw == {("one",): 2, ("two",): 2}
    network, _ = network_of(bundle, compiled)
    for mask in ((1, 0, 0, 1), (1, 1, 1, 1), (0, 0, 0, 0)):
        inputs = {"x": images(1, 3, 8, 8)[0], "keep": np.array(mask, np.float32)}
        assert_same(network.run(inputs), reference(bundle, inputs))


def test_a_node_of_another_form_takes_its_mask_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mask_whole, "mask_form", lambda model, node: None)
    bundle = bundle_of("given")
    compiled = compile_bundle(bundle)
    assert gathered_nodes(compiled) == {}
    assert not any(s.raw for s in compiled.segments)
    inputs = {"x": images(1, 3, 8, 8)[0], "keep": np.array([1, 0, 0, 1], np.float32)}
    network, _ = network_of(bundle, compiled)
    assert_same(network.run(inputs), reference(bundle, inputs))
