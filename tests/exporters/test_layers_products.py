"""Convolutions and products as layers: what each attribute of an operator becomes."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from onnx import TensorProto

from dynrt.errors import ExportError
from dynrt.exporters.layers import layers_of
from dynrt.ir.layers import ConvLayer, GemmLayer, PassLayer, UnmodelledLayer
from tests.exporters.onnx_models import Shape, int64, layers, model, only, op


def conv(x: Shape, w: Shape, **attributes: object) -> onnx.ModelProto:
    return model([op("Conv", "x w", "y", **attributes)], {"x": x}, constants={"w": w})


def test_every_attribute_of_a_convolution() -> None:
    proto = conv(
        ("batch", 4, 11, 9),
        (6, 2, 3, 2),
        group=2,
        strides=[2, 1],
        dilations=[2, 3],
        pads=[1, 0, 2, 4],
    )
    # height: 11 + 1 + 2 - (2 * 2 + 1) = 9, / 2 + 1 = 5 (floor); width: 9 + 0 + 4 - (3 + 1) + 1 = 10
    assert only(proto) == ConvLayer(
        name="Conv:y",
        op="Conv",
        dtype="float32",
        in_h=11,
        in_w=9,
        out_h=5,
        out_w=10,
        channels=4,
        filters=6,
        groups=2,
        kernel_h=3,
        kernel_w=2,
        stride_h=2,
        stride_w=1,
        dilation_h=2,
        dilation_w=3,
        pad_top=1,
        pad_left=0,
        pad_bottom=2,
        pad_right=4,
    )


def test_a_convolution_over_one_axis_has_height_1() -> None:
    layer = only(conv(("batch", 3, 16), (4, 3, 5), pads=[2, 1], strides=[3]))
    assert isinstance(layer, ConvLayer)
    assert (layer.in_h, layer.out_h, layer.kernel_h, layer.stride_h) == (1, 1, 1, 1)
    assert (layer.pad_top, layer.pad_bottom, layer.pad_left, layer.pad_right) == (0, 0, 2, 1)
    assert (layer.in_w, layer.out_w, layer.kernel_w, layer.stride_w) == (16, 5, 5, 3)


def test_a_depthwise_convolution_keeps_its_groups() -> None:
    layer = only(conv(("batch", 6, 5, 5), (6, 1, 3, 3), group=6, pads=[1, 1, 1, 1]))
    assert isinstance(layer, ConvLayer)
    assert (layer.groups, layer.channels, layer.filters) == (6, 6, 6)
    assert layer.macs == 25 * 6 * 9


@pytest.mark.parametrize(
    ("auto", "pads"),
    [
        # width 6, kernel 4, stride 3: 2 outputs, (2 - 1) * 3 + 4 - 6 = 1 zero; height 6, kernel 3,
        # stride 1: 2 zeros
        ("SAME_UPPER", (1, 0, 1, 1)),
        ("SAME_LOWER", (1, 1, 1, 0)),
        ("VALID", (0, 0, 0, 0)),
    ],
)
def test_automatic_padding(auto: str, pads: tuple[int, ...]) -> None:
    layer = only(conv(("batch", 1, 6, 6), (1, 1, 3, 4), auto_pad=auto, strides=[1, 3]))
    assert isinstance(layer, ConvLayer)
    assert (layer.pad_top, layer.pad_left, layer.pad_bottom, layer.pad_right) == pads
    want = (4, 1) if auto == "VALID" else (6, 2)
    assert (layer.out_h, layer.out_w) == want


@settings(max_examples=60, deadline=None)
@given(
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    stride=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    dilation=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    pads=st.lists(st.integers(0, 3), min_size=4, max_size=4),
    groups=st.integers(1, 3),
    auto=st.sampled_from(["NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"]),
)
def test_any_convolution_fits_together(
    size: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    dilation: tuple[int, int],
    pads: list[int],
    groups: int,
    auto: str,
) -> None:
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    given = pads if auto == "NOTSET" else [0, 0, 0, 0]
    room = [n + given[i] + given[i + 2] for i, n in enumerate(size)]
    same = auto.startswith("SAME")
    assume(same or all(r <= n for r, n in zip(reach, room, strict=True)))
    layer = only(
        conv(
            ("batch", 2 * groups, *size),
            (groups, 2, *kernel),
            group=groups,
            strides=stride,
            dilations=dilation,
            auto_pad=auto,
            **({"pads": pads} if auto == "NOTSET" else {}),
        )
    )
    assert isinstance(layer, ConvLayer)
    for axis in "hw":
        before, after = ("top", "bottom") if axis == "h" else ("left", "right")
        padded = (
            getattr(layer, f"in_{axis}")
            + getattr(layer, f"pad_{before}")
            + getattr(layer, f"pad_{after}")
        )
        span = getattr(layer, f"dilation_{axis}") * (getattr(layer, f"kernel_{axis}") - 1) + 1
        steps = (padded - span) // getattr(layer, f"stride_{axis}") + 1
        assert getattr(layer, f"out_{axis}") == steps


def test_pictures_that_a_node_makes_of_one_sample_are_listed_one_by_one() -> None:
    nodes = [op("Reshape", "x shape", "p"), op("Conv", "p w", "y")]
    constants = {"w": (5, 3, 3, 3), "shape": int64(-1, 3, 8, 8)}
    made = layers(model(nodes, {"x": ("batch", 4, 3, 8, 8)}, constants=constants))
    assert [type(layer) for layer in made] == [PassLayer, *[ConvLayer] * 4]
    assert made[1].macs == 36 * 5 * 27
    many = layers(model(nodes, {"x": ("batch", 300, 3, 8, 8)}, constants=constants))
    assert isinstance(many[1], UnmodelledLayer)
    assert many[1].macs == 300 * 36 * 5 * 27
    assert many[1].reason == "a convolution over 300 pictures at once; at most 256 are listed"


def test_a_convolution_over_three_axes_is_listed_with_its_share() -> None:
    layer = only(conv(("batch", 2, 4, 5, 6), (3, 2, 2, 2, 2)))
    # 3 * 4 * 5 outputs of 3 filters, 16 taps each; words: 240 in, 48 weights, 180 out
    assert layer == UnmodelledLayer(
        name="Conv:y",
        op="Conv",
        macs=60 * 3 * 16,
        bytes_moved=4 * (240 + 48 + 180),
        reason="a convolution over 3 axes",
    )


def test_a_convolution_that_cuts_its_input_is_refused() -> None:
    with pytest.raises(ExportError, match="n: shapes do not fit"):
        layers_of(conv(("batch", 1, 6, 6), (1, 1, 3, 3), pads=[-1, 0, 0, 0]), place="n")


def test_a_transposed_convolution_is_a_product_and_a_pass() -> None:
    nodes = [op("ConvTranspose", "x w b", "y", group=2, strides=[2, 2], pads=[1, 0, 0, 0])]
    made = layers(model(nodes, {"x": ("batch", 4, 3, 5)}, constants={"w": (4, 3, 3, 2), "b": (6,)}))
    # 15 positions of 2 channels per group, 3 filters of 3 x 2 taps, 2 groups
    product = GemmLayer(
        name="ConvTranspose:y", op="ConvTranspose", dtype="float32", m=15, k=2, n=18, repeat=2
    )
    # Height: 3 positions, stride 2, 3 taps make 7 rows, the first is cut off: of 9 (position, tap)
    # pairs 8 land on 6 rows. Width: 5 positions, stride 2, 2 taps: 10 pairs on 10 columns.
    # Each of the 6 channels: 80 results on 60 places, 20 additions; a bias adds 360 more.
    assert made == (
        product,
        PassLayer(
            name="ConvTranspose:y/overlaps",
            op="ConvTranspose",
            dtype="float32",
            reads_words=15 * 6 * 6 + 6,
            writes_words=6 * 6 * 10,
            operations=6 * 20 + 360,
        ),
    )


@pytest.mark.parametrize(
    "auto", [{"auto_pad": "SAME_UPPER"}, {"auto_pad": "SAME_LOWER"}, {"output_shape": [3]}]
)
def test_a_transposed_convolution_whose_padding_follows_from_its_output(
    auto: dict[str, object],
) -> None:
    # 3 positions, stride 1, 2 taps: 4 places, 3 are kept. Cut in front or behind, one result of 6 is
    # lost; 5 on 3 places are 2 additions.
    made = layers(
        model(
            [op("ConvTranspose", "x w", "y", **auto)],
            {"x": ("batch", 1, 3)},
            constants={"w": (1, 1, 2)},
        )
    )
    assert isinstance(made[1], PassLayer)
    assert (made[1].operations, made[1].writes_words) == (2, 3)


def test_transposed_operands_of_a_gemm() -> None:
    node = [op("Gemm", "x w", "y", transA=1, transB=1)]
    layer = only(model(node, {"x": (5, 3)}, constants={"w": (7, 5)}))
    want = GemmLayer(name="Gemm:y", op="Gemm", dtype="float32", m=3, k=5, n=7)
    assert layer == want


@pytest.mark.parametrize(
    ("a", "b", "want"),
    [
        ((2, 5, 3), (3, 4), (10, 3, 4, 1)),  # one matrix of weights for all rows
        ((1, 6, 5, 3), (1, 6, 3, 4), (5, 3, 4, 6)),  # attention: six heads
        ((1, 5, 3), (6, 3, 4), (5, 3, 24, 1)),  # one first factor: more columns
        ((2, 1, 5, 3), (1, 6, 3, 4), (10, 3, 24, 1)),
        ((3,), (3, 4), (1, 3, 4, 1)),
        ((5, 3), (3,), (5, 3, 1, 1)),
        ((3,), (6, 3, 4), (1, 3, 24, 1)),
        ((2, 6, 5, 3), (3,), (60, 3, 1, 1)),
        ((3,), (3,), (1, 3, 1, 1)),
        ((2, 0, 3), (3, 4), None),  # nothing to multiply
    ],
)
def test_stacked_products(
    a: tuple[int, ...], b: tuple[int, ...], want: tuple[int, int, int, int] | None
) -> None:
    made = layers(model([op("MatMul", "a b", "y")], {"a": a, "b": b}))
    products = [layer for layer in made if isinstance(layer, GemmLayer)]
    found = [(layer.m, layer.k, layer.n, layer.repeat) for layer in products]
    assert found == ([] if want is None else [want])


@pytest.mark.parametrize(
    ("equation", "shapes", "want"),
    [
        ("bik,bjk->bij", [(1, 4, 3), (1, 5, 3)], (4, 3, 5, 1)),
        ("bhqd, bhkd -> bhqk", [(1, 2, 5, 4), (1, 2, 6, 4)], (5, 4, 6, 2)),
        ("ij,jk", [(2, 3), (3, 4)], (2, 3, 4, 1)),  # the result is what stands there once: ik
        ("i,j->ij", [(3,), (4,)], (3, 1, 4, 1)),
        ("ij,ij->ij", [(3, 4), (3, 4)], (1, 1, 1, 12)),
        ("ij,ij->", [(3, 4), (3, 4)], (1, 12, 1, 1)),
    ],
)
def test_einsum_by_its_letters(
    equation: str, shapes: list[tuple[int, ...]], want: tuple[int, int, int, int]
) -> None:
    proto = model(
        [op("Einsum", "a b", "y", equation=equation)], dict(zip("ab", shapes, strict=True))
    )
    layer = only(proto)
    assert isinstance(layer, GemmLayer)
    assert (layer.m, layer.k, layer.n, layer.repeat) == want


def test_einsum_that_is_no_product_of_matrices() -> None:
    summed = only(model([op("Einsum", "a b", "y", equation="ij,k->i")], {"a": (2, 3), "b": (4,)}))
    assert isinstance(summed, UnmodelledLayer)
    assert (summed.macs, summed.bytes_moved) == (24, 4 * (6 + 4 + 2))
    assert summed.reason == "'ij,k->i' sums or takes a diagonal within one operand"
    row = only(model([op("Einsum", "a", "y", equation="ij->i")], {"a": (2, 3)}))
    assert isinstance(row, PassLayer)
    assert (row.reads_words, row.writes_words, row.operations) == (6, 2, 6)
    turned = only(model([op("Einsum", "a", "y", equation="ij->ji")], {"a": (2, 3)}))
    assert isinstance(turned, PassLayer)
    assert turned.operations == 0


@pytest.mark.parametrize(
    ("kind", "gates", "states", "updates"), [("LSTM", 4, 2, 5), ("GRU", 3, 1, 5), ("RNN", 1, 1, 0)]
)
def test_recurrent_layers_step_by_step(kind: str, gates: int, states: int, updates: int) -> None:
    node = op(kind, "x w r b", "y", hidden_size=5, direction="bidirectional")
    constants = {"w": (2, gates * 5, 6), "r": (2, gates * 5, 5), "b": (2, 2 * gates * 5)}
    entering, recurring, units = layers(model([node], {"x": (7, 1, 6)}, constants=constants))
    # 7 steps of one sample: one product of all inputs, one of the state at each step, both twice
    assert isinstance(entering, GemmLayer)
    assert isinstance(recurring, GemmLayer)
    assert (entering.m, entering.k, entering.n, entering.repeat) == (7, 6, gates * 5, 2)
    assert (recurring.m, recurring.k, recurring.n, recurring.repeat) == (1, 5, gates * 5, 14)
    # 7 * 2 * 5 units; each gate adds two products and a bias and has an activation
    assert isinstance(units, PassLayer)
    assert units.operations == 70 * (3 * gates + updates)
    assert units.reads_words == 70 * (2 * gates + states) + 2 * 2 * gates * 5
    assert units.writes_words == 70 * states


def test_a_recurrent_layer_with_the_batch_first_and_peepholes() -> None:
    node = op("LSTM", "x w r _ _ _ _ p", "y", hidden_size=5, layout=1)
    constants = {"w": (1, 20, 6), "r": (1, 20, 5), "p": (1, 15)}
    entering, recurring, units = layers(model([node], {"x": ("batch", 7, 6)}, constants=constants))
    assert isinstance(entering, GemmLayer)
    assert isinstance(recurring, GemmLayer)
    assert (entering.m, recurring.repeat) == (7, 7)
    assert isinstance(units, PassLayer)
    # 35 units, no bias; three peepholes multiply and add
    assert units.operations == 35 * (2 * 4 + 5 + 6)
    assert units.reads_words == 35 * 10 + 15


def test_integers_multiply_as_integers() -> None:
    kinds = {"x": TensorProto.UINT8, "a": TensorProto.INT8}
    w = np.ones((4, 3, 3, 3), np.int8)
    whole = only(
        model(
            [op("ConvInteger", "x w", "y")], {"x": ("batch", 3, 5, 5)}, "y", {"w": w}, dtypes=kinds
        )
    )
    assert isinstance(whole, ConvLayer)
    assert whole.dtype == "int8"
    b = np.ones((3, 2), np.uint8)
    product = only(
        model([op("MatMulInteger", "a b", "y")], {"a": ("batch", 3)}, "y", {"b": b}, dtypes=kinds)
    )
    assert isinstance(product, GemmLayer)
    assert product.dtype == "uint8"
    scale, zero = np.float32(1), np.uint8(0)
    constants = {
        "w": w,
        "s": np.asarray(scale),
        "z": np.asarray(zero),
        "zw": np.asarray(np.int8(0)),
    }
    quantised = only(
        model(
            [op("QLinearConv", "x s z w s zw s z", "y", pads=[1, 1, 1, 1])],
            {"x": ("batch", 3, 5, 5)},
            "y",
            constants,
            dtypes=kinds,
        )
    )
    assert isinstance(quantised, ConvLayer)
    assert (quantised.dtype, quantised.out_h, quantised.filters) == ("int8", 5, 4)
    both = only(
        model(
            [op("QLinearMatMul", "x s z b s z s z", "y")],
            {"x": ("batch", 3)},
            "y",
            {"b": b, **{k: constants[k] for k in ("s", "z")}},
            dtypes=kinds,
        )
    )
    assert isinstance(both, GemmLayer)
    assert (both.m, both.k, both.n, both.dtype) == (1, 3, 2, "uint8")


def test_half_weights_multiply_in_the_type_they_are_cast_to() -> None:
    half = np.ones((4, 2), np.float16)
    nodes = [op("Cast", "w", "f", to=TensorProto.FLOAT), op("MatMul", "x f", "y")]
    layer = only(model(nodes, {"x": ("batch", 4)}, constants={"w": half}))
    assert isinstance(layer, GemmLayer)
    assert layer.dtype == "float32"
    kinds = {"x": TensorProto.FLOAT16}
    small = only(
        model([op("MatMul", "x w", "y")], {"x": ("batch", 4)}, "y", {"w": half}, dtypes=kinds)
    )
    assert isinstance(small, GemmLayer)
    assert small.dtype == "float16"
