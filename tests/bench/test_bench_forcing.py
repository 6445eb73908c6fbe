"""What is compared does the same work: forced decisions, static graphs, halves."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
import pytest

import dynrt
from bench import forced
from bench.batches import halve, halving_threshold, varied
from bench.exits import _require_all, to_exit
from bench.forced import forced_bundle, forced_run, gated, half_patterns, loaded, noise, under
from bench.row import MissingError, UnfairError
from bench.static import caller, session_of, static_macs, static_model
from dynrt.exporters import fuse
from dynrt.ir.graph import Array
from dynrt.runtime import Network
from tests.bench.small_networks import leaver, skipper

BLOCKS = ("block2", "block4", "block6")


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DYNRT_CACHE", str(tmp_path_factory.mktemp("cache")))
        made = loaded(skipper())
        yield made
        made.close()


@pytest.fixture(scope="module")
def x() -> Array:
    return noise(3, 32, 32)


def test_gates_are_found_in_order() -> None:
    assert gated(skipper().graph) == BLOCKS


@pytest.mark.parametrize("skipped", [(), ("block4",), ("block2", "block6"), BLOCKS], ids=str)
def test_exactly_the_asked_blocks_are_skipped(
    network: Network, x: Array, skipped: tuple[str, ...]
) -> None:
    alternative, result = forced_run(network, x, skipped)
    assert result.skipped == skipped
    assert {n for n in result.path if n.endswith("_gate")} == {f"{b}_gate" for b in BLOCKS}
    alternative.prepare()
    np.testing.assert_array_equal(alternative.call().answer, result.answer)


def test_decisions_that_do_not_obey_are_noticed(
    network: Network, x: Array, monkeypatch: pytest.MonkeyPatch
) -> None:
    forced_run(network, x, ())
    monkeypatch.setattr(forced, "thresholds", lambda *_: {})
    with pytest.raises(UnfairError, match="0 blocks skipped, not 2"):
        forced_run(network, x, BLOCKS[:2])


def test_a_portable_network_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    load = dynrt.load
    monkeypatch.setattr(dynrt, "load", lambda b, threads: load(b, threads=threads, mode="portable"))
    with pytest.raises(MissingError, match="cannot compile"):
        loaded(skipper())


def test_halves_are_halves_and_always_the_same() -> None:
    patterns = half_patterns(skipper().graph)
    assert [len(p) for p in patterns] == [1, 2, 1, 2]
    assert patterns == half_patterns(skipper().graph)
    assert patterns != half_patterns(skipper().graph, seed=1)


def test_the_static_graph_is_the_network_with_everything_kept(network: Network, x: Array) -> None:
    _, result = forced_run(network, x, ())
    answer = caller(session_of(static_model(skipper())), x[None])()[0][0]
    np.testing.assert_allclose(answer, result.answer, atol=1e-4)
    gates = [skipper().graph.by_name[f"{b}_gate"] for b in BLOCKS]
    gate_macs = sum(getattr(g, "cost").macs for g in gates)  # noqa: B009  # of compute nodes
    assert static_macs(skipper()) == result.macs - gate_macs


def test_the_static_graph_has_a_fixed_batch(x: Array) -> None:
    session = session_of(static_model(skipper(), batch=4))
    assert session.get_inputs()[0].shape == [4, 3, 32, 32]
    assert caller(session, np.stack([x] * 4))()[0].shape == (4, 10)


def test_the_if_graph_takes_the_same_decisions(network: Network, x: Array) -> None:
    for skipped in half_patterns(skipper().graph):
        _, result = forced_run(network, x, skipped)
        fused = session_of(fuse(forced_bundle(skipper(), skipped)))
        np.testing.assert_allclose(caller(fused, x[None])()[0][0], result.answer, atol=1e-4)


@pytest.mark.parametrize("name", ["exit1", "exit2", "final"])
def test_a_run_to_an_exit_asks_every_head_before_it(name: str) -> None:
    net = dynrt.load(leaver(), mode="portable")
    ours = under(net, noise(6), to_exit(leaver(), name))
    ours.prepare()
    result = ours.call()
    _require_all(result, name, static_macs(leaver(), last=name))
    flat = caller(session_of(static_model(leaver(), last=name)), noise(6)[None])()
    np.testing.assert_allclose(flat[-1][0], result.answer, atol=1e-5)


def test_a_head_that_could_not_accept_and_was_left_out_is_noticed() -> None:
    net = dynrt.load(leaver(), mode="portable")
    net.set(thresholds={"exit1": 1.5, "exit2": forced.FAR})
    with pytest.raises(UnfairError, match="MACs, the flat graph"):
        _require_all(net.run(noise(6)), "final", static_macs(leaver()))
    with pytest.raises(UnfairError, match="ended at final, not exit1"):
        _require_all(net.run(noise(6)), "exit1", 0)


def test_a_static_graph_may_leave_out_the_heads_in_between() -> None:
    whole, lone = static_macs(leaver()), static_macs(leaver(), only_answer=True)
    assert whole - lone == 2 * 24
    model = onnx.load_model_from_string(static_model(leaver(), only_answer=True))
    assert [o.name for o in model.graph.output] == ["final.logits"]
    x = noise(6)[None]
    every = caller(session_of(static_model(leaver())), x)()[-1]
    np.testing.assert_array_equal(caller(session_of(model.SerializeToString()), x)()[0], every)


def test_a_halving_threshold_lies_in_the_widest_gap_near_the_middle() -> None:
    scores = np.array([0.1, 0.11, 0.12, 0.13, 0.5, 0.51, 0.52, 0.99], np.float32)
    assert halving_threshold(scores[::-1]) == pytest.approx(0.315, abs=1e-6)
    rng = np.random.default_rng(0).random(32).astype(np.float32)
    kept = (rng >= halving_threshold(rng)).sum()
    assert 12 <= kept <= 20


def test_gates_are_set_so_that_each_keeps_about_half_of_a_batch() -> None:
    net = dynrt.load(skipper(), mode="portable")
    x = varied(32)
    assert set(halve(net, x)) == {f"{b}_gate_control" for b in BLOCKS}
    results = net.run_batch(x)
    for block in BLOCKS:
        assert 10 <= sum(block in r.path for r in results) <= 22
    assert len({r.path for r in results}) > 2
