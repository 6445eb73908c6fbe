"""A masked node, gathered: the same numbers as its own ONNX, and less work."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import combinations

import numpy as np
import onnx
import pytest

from dynrt.bundle import Bundle
from dynrt.errors import BackendError, CompileError
from dynrt.exporters import lower
from dynrt.exporters.session import run_model
from dynrt.ir.graph import Array, ComputeNode
from dynrt.runtime.compile import masked as module
from dynrt.runtime.compile.mask_form import mask_form
from dynrt.runtime.compile.mask_gather import blocked_conv, gathered, simd_block
from dynrt.runtime.compile.mask_segment import blocked_segment
from dynrt.runtime.compile.mask_sessions import load_session, optimised
from dynrt.runtime.compile.masked import MaskedPair
from dynrt.runtime.compiled import KEPT
from dynrt.zoo import MaskedBlock
from tests.exporters.masked_networks import one_block
from tests.exporters.networks import images, seeded

GROUPS = 4


def node_of(bundle: Bundle) -> ComputeNode:
    node = bundle.graph.by_name["block"]
    assert isinstance(node, ComputeNode)
    return node


@cache
def bundle_of(groups: int = GROUPS, c_in: int = 64, stride: int = 1) -> Bundle:
    block = seeded(MaskedBlock(c_in, 64, stride, groups=groups))
    return lower(one_block(block, groups, (c_in, 8, 8), 64))


@cache
def pair_of(groups: int = GROUPS, c_in: int = 64, stride: int = 1) -> MaskedPair:
    bundle = bundle_of(groups, c_in, stride)
    return MaskedPair(bundle.models["block"], node_of(bundle))


def portable(bundle: Bundle, x: Array, kept: tuple[int, ...]) -> Array:
    mask = np.zeros((len(x), node_of(bundle).inputs[1].type.shape[0]), np.float32)
    mask[:, kept] = 1
    return run_model(bundle.models["block"], {"x": x, "mask": mask}, place="block")["y"]


SETS = [k for n in range(GROUPS + 1) for k in combinations(range(GROUPS), n)]


@pytest.mark.parametrize("kept", SETS, ids=str)
def test_every_set_of_groups_gives_what_the_onnx_gives(kept: tuple[int, ...]) -> None:
    x = images(2, 64, 8, 8, seed=len(kept))
    got = pair_of().run({"x": x}, kept)["y"]
    np.testing.assert_allclose(got, portable(bundle_of(), x, kept), atol=1e-4, rtol=1e-4)


def test_borders_are_blocked_where_onnxruntime_blocks() -> None:
    block = simd_block()
    kinds = {layout.kind for layout in pair_of().layouts.values()}
    assert kinds == ({"plain"} if block is None else {"nchwc"})
    assert pair_of().realised == (block is not None)


def test_gathering_everything_is_the_dense_session_bit_for_bit() -> None:
    bundle = bundle_of()
    form = mask_form(bundle.models["block"], node_of(bundle))
    assert form is not None
    assert (form.channels, form.source != form.reader) == (64, True)
    whole = optimised(form.model)
    sparse = gathered(whole, between=form.between, groups=GROUPS)
    assert sparse is not None
    x = images(1, 64, 8, 8)
    dense = load_session(whole.SerializeToString(), optimise=False).run(["y"], {"x": x})[0]
    session = load_session(sparse.SerializeToString(), optimise=False)
    kept = np.arange(GROUPS, dtype=np.int64)
    assert np.array_equal(session.run(["y"], {"x": x, KEPT: kept})[0], dense)


def test_the_gathering_model_multiplies_less() -> None:
    """Not by the clock: the shapes of the weights it makes."""
    bundle = bundle_of()
    form = mask_form(bundle.models["block"], node_of(bundle))
    assert form is not None
    sparse = gathered(optimised(form.model), between=form.between, groups=GROUPS)
    assert sparse is not None
    conv = blocked_conv(sparse.graph, form.between)
    assert conv is not None
    sparse.graph.output.append(onnx.ValueInfoProto(name=conv.input[1]))
    session = load_session(sparse.SerializeToString(), optimise=False)
    kept = np.array([0, 3], np.int64)
    weight = session.run([conv.input[1]], {"x": images(1, 64, 8, 8), KEPT: kept})[0]
    assert weight.shape == (32, 64, 3, 3)


@pytest.mark.parametrize(("c_in", "stride"), [(64, 2), (32, 1)])
def test_other_shapes_are_right_too(c_in: int, stride: int) -> None:
    x = images(1, c_in, 8, 8)
    for kept in ((0, 1, 2, 3), (1, 3), ()):
        got = pair_of(GROUPS, c_in, stride).run({"x": x}, kept)["y"]
        want = portable(bundle_of(GROUPS, c_in, stride), x, kept)
        np.testing.assert_allclose(got, want, atol=1e-4, rtol=1e-4)


def test_groups_below_a_block_run_everything_and_say_so() -> None:
    pair, bundle = pair_of(32), bundle_of(32)  # two channels each
    assert not pair.realised
    x, kept = images(2, 64, 8, 8), (0, 5, 6, 31)
    got = pair.run({"x": x}, kept)["y"]
    np.testing.assert_allclose(got, portable(bundle, x, kept), atol=1e-4, rtol=1e-4)
    each = pair.mask.group_macs
    assert pair.saved_macs(4) == (28 * each, 0)


def test_counted_and_realised_savings_are_told_apart() -> None:
    pair = pair_of()
    each = pair.mask.group_macs
    assert pair.realised
    assert pair.saved_macs(4) == (0, 0)
    assert pair.saved_macs(1) == (3 * each, 3 * each)
    assert pair.saved_macs(0) == (4 * each, 3 * each)


def test_one_binding_serves_changing_masks() -> None:
    pair, bundle = pair_of(), bundle_of()
    x = images(1, 64, 8, 8)
    stored = pair.layouts["x"].from_plain(x)
    out = np.zeros((1, *pair.layouts["y"].stored_shape((64, 8, 8))), np.float32)
    call = pair.bind({"x": stored}, {"y": out})
    for kept in ((0, 1), (2, 3), (), (0, 1, 2, 3), (1, 2), (3,), (0, 1)):
        call(np.array(kept, np.int64))
        got = pair.layouts["y"].to_plain(out, (64, 8, 8))
        np.testing.assert_allclose(got, portable(bundle, x, kept), atol=1e-4, rtol=1e-4)


def test_a_pair_that_computes_something_else_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(segment: onnx.ModelProto, *, between: str, groups: int) -> onnx.ModelProto | None:
        made = gathered(segment, between=between, groups=groups)
        assert made is not None
        for tensor in made.graph.initializer:
            if tensor.name == "dynrt/deep/rows":
                value = onnx.numpy_helper.to_array(tensor)[:, ::-1]
                tensor.CopyFrom(onnx.numpy_helper.from_array(value.copy(), tensor.name))
        return made

    monkeypatch.setattr(module, "gathered", wrong)
    bundle = bundle_of()
    pair = MaskedPair(bundle.models["block"], node_of(bundle))
    assert not pair.realised
    x = images(1, 64, 8, 8)
    got = pair.run({"x": x}, (1, 2))["y"]
    np.testing.assert_allclose(got, portable(bundle, x, (1, 2)), atol=1e-4, rtol=1e-4)


def test_a_cpu_that_blocks_nothing_runs_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dynrt.runtime.compile.mask_gather.simd_block", lambda: None)
    monkeypatch.setattr("dynrt.runtime.compile.mask_segment.simd_block", lambda: None)
    bundle = bundle_of()
    node = node_of(bundle)
    assert blocked_segment(bundle.models["block"], node.inputs[:1], node.outputs) is None
    assert not MaskedPair(bundle.models["block"], node).realised


@pytest.mark.parametrize("kept", [(4,), (-1,), (1, 0), (2, 2)])
def test_groups_that_are_not_there_are_refused(kept: tuple[int, ...]) -> None:
    with pytest.raises(BackendError, match="kept groups"):
        pair_of().run({"x": images(1, 64, 8, 8)}, kept)


def _arrays() -> tuple[dict[str, Array], dict[str, Array]]:
    pair = pair_of()
    x = pair.layouts["x"].from_plain(images(1, 64, 8, 8))
    return {"x": x}, {"y": np.zeros_like(x)}


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda t, g: t.pop("x"), "port 'x' is missing"),
        (lambda t, g: g.pop("y"), "port 'y' is missing"),
        (lambda t, g: t.update(x=t["x"][:, :32]), "stores float32"),
        (lambda t, g: g.update(y=g["y"].astype(np.float64)), "not float64"),
        (lambda t, g: t.update(x=t["x"].transpose(0, 1, 3, 2)), "not contiguous"),
    ],
)
def test_memory_that_does_not_fit_is_refused(
    change: Callable[[dict[str, Array], dict[str, Array]], object], text: str
) -> None:
    takes, gives = _arrays()
    change(takes, gives)
    with pytest.raises(BackendError, match=text):
        pair_of().bind(takes, gives)


def test_a_node_without_a_mask_is_refused() -> None:
    bundle = bundle_of()
    node = node_of(bundle)
    bare = ComputeNode(name="block", inputs=node.inputs, outputs=node.outputs, cost=node.cost)
    with pytest.raises(CompileError, match="has no channel mask"):
        MaskedPair(bundle.models["block"], bare)
    assert mask_form(bundle.models["block"], bare) is None


def test_no_file_is_left_behind(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    optimised(bundle_of().models["block"])
    assert not list(__import__("pathlib").Path(str(tmp_path)).iterdir())
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path) + "/missing")
    with pytest.raises(CompileError, match="cannot be compiled"):
        optimised(bundle_of().models["block"])


def test_a_model_that_onnxruntime_refuses_is_one_line() -> None:
    with pytest.raises(CompileError, match="refuses") as caught:
        load_session(b"no model")
    assert "\n" not in str(caught.value)
