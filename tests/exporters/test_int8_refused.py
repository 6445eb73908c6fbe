"""What cannot be quantised or compared, and what the error says."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from torch import nn

from dynrt.bundle import Bundle, build_bundle
from dynrt.errors import ExportError
from dynrt.exporters import int8_observe
from dynrt.exporters.chains import sequential_exits
from dynrt.exporters.int8 import quantise
from dynrt.exporters.int8_compare import compare
from dynrt.exporters.lower import lower
from tests.exporters.int8_networks import (
    IMAGE,
    ONE,
    chain,
    chain_int8,
)
from tests.exporters.networks import (
    pooled_head,
)


def only_pooling() -> Bundle:
    net = sequential_exits("bare", IMAGE, [("pool", nn.MaxPool2d(2))], {"pool": pooled_head(3)})
    return lower(net.build())


def old_opset() -> Bundle:
    model = onnx.load_model_from_string(chain().models["block"])
    model.opset_import[0].version = 12
    models = {**chain().models, "block": model.SerializeToString()}
    return build_bundle(name="old", graph=chain().graph, models=models)


def overflowing() -> Bundle:
    model = onnx.load_model_from_string(chain().models["block"])
    for tensor in model.graph.initializer:
        value = numpy_helper.to_array(tensor)
        if value.ndim == 4:
            tensor.CopyFrom(numpy_helper.from_array(value * np.float32(1e30), tensor.name))
    models = {**chain().models, "block": model.SerializeToString()}
    return build_bundle(name="huge", graph=chain().graph, models=models)


@pytest.mark.parametrize(
    ("bundle", "batches", "keep", "message"),
    [
        (chain, [], (), "bundle 'chain': no calibration data; ranges come from samples"),
        (chain, [ONE[:, :2]], (), r"input 'image' is float32 \(2, 2, 8, 8\); float32\[3x8x8\]"),
        (chain, [ONE.astype(np.float64)], (), "input 'image' is float64"),
        (chain, [ONE[:0]], (), r"the inputs of a batch hold \[0\] samples"),
        (chain, [{"picture": ONE}], (), "the network has no input 'picture'"),
        (chain, [{}], (), "the batch has no input 'image'"),
        (chain, [np.full_like(ONE, np.nan)], (), "a value is not finite"),
        (chain, [ONE], ("blok",), "has no node 'blok' to keep in float"),
        (chain, [ONE], ("stem", "block", "shrink"), "nothing to quantise"),
        (only_pooling, [ONE], (), "no compute node multiplies by weights"),
        (chain_int8, [ONE], (), "node '.*' is quantised already"),
        (old_opset, [ONE], (), "node 'block': operator set 12; int8 needs 13 or later"),
        (overflowing, [ONE], (), r"tensor block\..*: a value is not finite"),
    ],
)  # fmt: skip
def test_what_cannot_be_quantised_is_refused_in_one_line(
    bundle: object, batches: list[object], keep: tuple[str, ...], message: str
) -> None:
    assert callable(bundle)
    with pytest.raises(ExportError, match=message) as caught:
        quantise(bundle(), batches, keep=keep)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_comparing_needs_inputs_and_labels_that_fit() -> None:
    with pytest.raises(ExportError, match="no inputs to compare"):
        compare(chain(), chain_int8(), [])
    with pytest.raises(ExportError, match=r"labels of shape \(3,\) for 2 inputs"):
        compare(chain(), chain_int8(), [(ONE, np.zeros(3, np.int64))])
    with pytest.raises(ExportError, match="2 labels for 4 inputs"):
        compare(chain(), chain_int8(), [(ONE, np.zeros(2, np.int64)), (ONE, None)])


def test_what_onnxruntime_cannot_run_is_refused_with_the_node() -> None:
    model = onnx.load_model_from_string(chain().models["block"])
    conv = next(n for n in model.graph.node if n.op_type == "Conv")
    conv.attribute.extend([helper.make_attribute("auto_pad", "SAME_SIDEWAYS")])
    models = {**chain().models, "block": model.SerializeToString()}
    bundle = build_bundle(name="odd", graph=chain().graph, models=models)
    with pytest.raises(ExportError, match="node 'block': onnxruntime refuses it: Fail"):
        quantise(bundle, [ONE])


def test_a_node_that_fails_on_the_data_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing:
        def run(self, *_: object) -> None:
            raise RuntimeError("no memory\nsecond line")

    broken = SimpleNamespace(InferenceSession=lambda *_, **__: Failing())
    monkeypatch.setattr(int8_observe, "onnxruntime", broken)
    message = "node 'stem' fails on the calibration data: RuntimeError: no memory$"
    with pytest.raises(ExportError, match=message):
        quantise(chain(), [ONE])
