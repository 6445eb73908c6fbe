"""The full network: what it is made of, what it costs, and that it computes what it should."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest

from dynrt.calibrate.observe import Setting, observe
from dynrt.calibrate.pictures import prepare
from dynrt.errors import CompileError, DataError
from dynrt.exporters.macs import count_macs
from dynrt.ir.cost import Budget
from dynrt.ir.graph import ComputeNode
from dynrt.report.skipping import gated_units, skipping_ratio
from dynrt.report.tables_figures import How, early_exits_closed, figures, timed, versions
from dynrt.report.tables_full import full_call, full_cost, full_model, plain_nodes
from dynrt.report.tables_timing import time_settings
from dynrt.runtime import load
from tests.cli.colours import BLOCK_MACS, HEAD_MACS, STEM_MACS, colour_bundle
from tests.report.networks import gated, masked, noise


def test_the_full_network_is_blocks_and_the_last_head() -> None:
    bundle = colour_bundle(energy=True)
    assert plain_nodes(bundle.graph) == {"stem", "block1", "final"}
    cost = full_cost(bundle.graph)
    assert cost.macs == STEM_MACS + BLOCK_MACS + HEAD_MACS
    assert cost.femtojoules == 1000 * cost.macs
    dynamic = gated()
    assert plain_nodes(dynamic.graph) == {"stem", "b0", "b1", "b2", "final"}
    assert gated_units(dynamic.graph) == ("b1",)


@pytest.mark.parametrize("make", [gated, colour_bundle])
def test_its_graph_has_its_cost_and_no_gate(make) -> None:  # type: ignore[no-untyped-def]
    bundle = make()
    full = full_model(bundle)
    model = onnx.load_model_from_string(full.model)
    assert count_macs(model, place="full").macs == full_cost(bundle.graph).macs
    assert len(model.graph.input) == len(model.graph.output) == 1
    assert full.masks_left == ()


def test_it_answers_what_the_network_answers_with_everything_kept() -> None:
    bundle = colour_bundle()
    picture = np.random.default_rng(1).standard_normal((3, 8, 8)).astype(np.float32)
    (given,) = full_call(full_model(bundle))(picture)
    with load(bundle, mode="portable") as network:
        network.set(thresholds={"exit1": float("inf")})
        wanted = network.run(picture).answer
    np.testing.assert_allclose(given[0], wanted, rtol=1e-5)


def test_a_mask_that_is_not_recognised_is_ones() -> None:
    bundle = gated()
    odd = onnx.load_model_from_string(bundle.models["b0"])
    # the mask is rounded first, which no masked block here does
    for op in odd.graph.node:
        op.input[:] = ["rounded" if name == "mask" else name for name in op.input]
    odd.graph.node.insert(0, onnx.helper.make_node("Floor", ["mask"], ["rounded"]))
    models = {**bundle.models, "b0": odd.SerializeToString()}
    full = full_model(replace(bundle, models=models))
    assert full.masks_left == ("b0",)
    picture = np.random.default_rng(1).standard_normal((3, 8, 8)).astype(np.float32)
    (one,) = full_call(full)(picture)
    (other,) = full_call(full_model(bundle))(picture)
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_what_cannot_be_run_says_so() -> None:
    bundle = colour_bundle()
    with pytest.raises(CompileError, match="onnxruntime refuses it"):
        full_call(replace(full_model(bundle), model=b"nothing"))
    # the mask is another input of this network, and nothing of its full one
    assert len(onnx.load_model_from_string(full_model(masked()).model).graph.input) == 1
    session = onnxruntime.InferenceSession(
        full_model(bundle).model, providers=["CPUExecutionProvider"]
    )
    assert session.get_inputs()[0].shape[0] == 1


def test_savings_add_up_and_are_of_layers_channels_and_gates() -> None:
    bundle, data = gated(), noise(50)
    with load(bundle, mode="portable") as network:
        (seen,) = observe(network, data, [Setting(name="x")], charges=True)
        results = [network.run(x) for x in prepare(data.pictures, bundle.preprocessing)]  # type: ignore[arg-type]
    assert seen.macs.tolist() == [r.macs for r in results]
    assert seen.charged is not None
    assert seen.charged.sum(axis=1).tolist() == seen.macs.tolist()
    own = figures(seen, bundle.graph)
    whole = full_cost(bundle.graph).macs
    saved = own["layers_saved"] + own["channels_saved"] - own["overhead"]
    assert own["flops_saved"] == pytest.approx(saved)
    assert own["flops_saved"] == pytest.approx(1 - seen.macs.mean() / whole)
    # by hand, input by input
    plain = plain_nodes(bundle.graph)
    cost = {n.name: n.cost.macs for n in bundle.graph.nodes if isinstance(n, ComputeNode)}
    skipped = np.mean([sum(cost[n] for n in r.skipped if n in plain) for r in results])
    # the last head is left out too where a run ends before it
    heads = np.mean([r.exit != "final" for r in results]) * (
        whole - sum(cost[n] for n in plain if n in cost)
    )
    assert own["layers_saved"] == pytest.approx((skipped + heads) / whole)
    assert own["channels_saved"] > 0.1
    assert own["overhead"] > 0
    ratio = skipping_ratio(seen, bundle.graph)
    assert ratio.tolist() == [float("b1" in r.skipped) for r in results]


def test_energy_is_a_share_where_it_is_modelled_and_none_elsewhere() -> None:
    data = noise(20)
    closed = Setting(name="closed", thresholds={"exit1": float("inf")})
    for energy in (True, False):
        bundle = colour_bundle(energy=energy)
        data = replace(data, labels=data.labels % 3, names=("r", "g", "b"))
        with load(bundle, mode="portable") as network:
            (seen,) = observe(network, data, [closed])
        own = figures(seen, bundle.graph)
        assert own["flops_saved"] == 0.0
        assert (own["energy_saved"], own["energy_unit"]) == ((0.0, "J") if energy else (None, None))
    assert early_exits_closed(colour_bundle().graph) == {"exit1": float("inf")}


class _Clock:
    """Goes on by a second per look; calls may push it."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_time_saved_is_of_medians_and_flops_saved_of_the_same_inputs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bundle, clock = colour_bundle(), _Clock()
    inputs = prepare(noise(12).pictures, bundle.preprocessing)  # type: ignore[arg-type]
    turns: list[str] = []
    with load(bundle, mode="portable") as network:
        network.set(budget="1M", thresholds={"exit1": 0.5})
        before = network.policy
        real = network.run

        def run(picture, **options):  # type: ignore[no-untyped-def]
            turns.append(str(network.policy.budget))
            clock.now += 0.25
            return real(picture, **options)

        monkeypatch.setattr(network, "run", run)

        def full(_: object) -> None:
            turns.append("full")
            clock.now += 1.0

        settings = [
            Setting(name="cheap", budget=Budget(macs=STEM_MACS + HEAD_MACS)),
            Setting(name="dear", thresholds={"exit1": float("inf")}, budget=Budget(macs=10**6)),
        ]
        macs = full_cost(bundle.graph).macs
        found = time_settings(network, settings, full, macs, inputs, rounds=4, clock=clock)
        assert network.policy == before
        with pytest.raises(DataError, match="12 inputs cannot be timed in 13 rounds"):
            time_settings(network, settings, full, macs, inputs, rounds=13)
    cheap, dear = found
    assert (cheap.seconds, cheap.full_seconds, cheap.time_saved) == (0.25, 1.0, 0.75)
    assert cheap.flops_saved == pytest.approx(1 - (STEM_MACS + HEAD_MACS) / macs)
    assert cheap.ratio == pytest.approx(0.75 / cheap.flops_saved)
    assert cheap.low == pytest.approx(cheap.ratio)
    assert (dear.flops_saved, dear.ratio, dear.low) == (0.0, None, None)
    # each round goes on its own pictures (3, and 3 untimed before), every other one backwards
    order = [name for i, name in enumerate(turns) if i % 6 == 0]
    first, second, last = f"{2 * (STEM_MACS + HEAD_MACS)} FLOPs", "2000000 FLOPs", "full"
    assert order == [first, second, last, last, second, first] * 2


def test_time_is_left_out_on_request() -> None:
    bundle = colour_bundle()
    with load(bundle, mode="portable") as network:
        assert timed(network, bundle, noise(5), [Setting(name="a")], How(timed=0)) == [None]
        (one,) = timed(network, bundle, noise(5), [Setting(name="a")], How(timed=5, rounds=10))
    assert one is not None
    assert one.inputs == 5
    assert one.full_seconds > 0


def test_bundles_of_one_name_are_told_apart() -> None:
    one = colour_bundle()
    other = replace(one, sha256="ef" * 32)
    assert versions([one, one, other]) == {"colours": one.sha256, "colours (2)": other.sha256}
