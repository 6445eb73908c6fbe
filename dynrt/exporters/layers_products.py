"""Operators that multiply, as layers; why there is no model of one is given back as a text."""

from __future__ import annotations

import math
from collections.abc import Mapping

import onnx

from dynrt.exporters.draft import attribute_int, attribute_text
from dynrt.exporters.layers_convolutions import Made, Maker, conv, conv_transpose
from dynrt.exporters.layers_facts import Facts
from dynrt.exporters.layers_formats import multiplied_format
from dynrt.ir.layers import GemmLayer, PassLayer


def product_layers(node: onnx.NodeProto, facts: Facts, *, name: str) -> Made | None:
    """The layers of an operator that multiplies; ``None`` for one of another kind.

    Args:
        node: every tensor of it is known.
        facts: of its graph.
        name: of the layers; a second one gets a suffix.
    """
    maker = PRODUCTS.get(node.op_type)
    return None if maker is None else maker(node, facts, name)


def _gemm(node: onnx.NodeProto, facts: Facts, name: str) -> Made:
    a = facts.shape(node.input[0])
    m, n = facts.shape(node.output[0])
    k = a[0] if attribute_int(node, "transA", 0) else a[1]
    return _product(node, facts, name, m=m, k=k, n=n)


def _matmul(second: int) -> Maker:
    """``second``: position of the second factor among the inputs."""

    def layers(node: onnx.NodeProto, facts: Facts, name: str) -> Made:
        a, b = facts.shape(node.input[0]), facts.shape(node.input[second])
        m = a[-2] if len(a) > 1 else 1
        n = b[-1] if len(b) > 1 else 1
        stacks = max(len(a), len(b), 2) - 2
        of_a = (1,) * (stacks - len(a[:-2])) + a[:-2]
        of_b = (1,) * (stacks - len(b[:-2])) + b[:-2]
        repeat = 1
        for first, other in zip(of_a, of_b, strict=True):
            if other == 1:  # one second factor for all: more rows of one product
                m *= first
            elif first == 1:  # one first factor for all: more columns
                n *= other
            else:
                repeat *= other
        return _product(node, facts, name, m=m, k=a[-1], n=n, repeat=repeat, second=second)

    return layers


def _product(
    node: onnx.NodeProto,
    facts: Facts,
    name: str,
    *,
    m: int,
    k: int,
    n: int,
    repeat: int = 1,
    second: int = 1,
) -> Made:
    layer = GemmLayer(
        name=name,
        op=node.op_type,
        dtype=multiplied_format(facts, node.input[0], node.input[second]),
        m=m,
        k=k,
        n=n,
        repeat=repeat,
    )
    return (layer,) if layer.macs else ()


def _einsum(node: onnx.NodeProto, facts: Facts, name: str) -> Made:
    """One product of two operands by their letters; of one operand, a sum or a transposition."""
    equation = attribute_text(node, "equation", "").replace(" ", "")
    left, arrow, given = equation.partition("->")
    terms = left.split(",")
    letters = "".join(terms)
    result = given if arrow else "".join(sorted(c for c in set(letters) if letters.count(c) == 1))
    if "." in equation or len(terms) > 2:
        return f"{equation!r} is not one plain product; its multiplications are not counted"
    if len(terms) == 1:
        reads, writes = facts.words(node.input[0]), facts.words(node.output[0])
        return (
            PassLayer(
                name=name,
                op=node.op_type,
                dtype=facts.types[node.input[0]].dtype,
                reads_words=reads,
                writes_words=writes,
                operations=reads if set(letters) - set(result) else 0,
            ),
        )
    first, other = terms
    alone = set(letters) - set(result) - (set(first) & set(other))
    if alone or any(len(set(term)) < len(term) for term in terms):
        return f"{equation!r} sums or takes a diagonal within one operand"
    sizes = {
        letter: size
        for term, tensor in zip(terms, node.input, strict=True)
        for letter, size in zip(term, facts.shape(tensor), strict=True)
    }

    def sized(which: set[str]) -> int:
        return math.prod(sizes[letter] for letter in which)

    both, kept = set(first) & set(other), set(result)
    return _product(
        node,
        facts,
        name,
        m=sized(set(first) - both),
        k=sized(both - kept),
        n=sized(set(other) - both),
        repeat=sized(both & kept),
    )


def _recurrent(gates: int, states: int, updates: int) -> Maker:
    """``gates`` with products; ``states`` kept; ``updates``: operations of a unit beside its gates."""

    def layers(node: onnx.NodeProto, facts: Facts, name: str) -> Made:
        x, w, r = (facts.shape(n) for n in node.input[:3])
        steps, batch = (x[1], x[0]) if attribute_int(node, "layout", 0) == 1 else (x[0], x[1])
        directions, hidden = w[0], r[-1]
        biased = len(node.input) > 3 and node.input[3] != ""
        peeps = len(node.input) > 7 and node.input[7] != ""
        more = [node.input[i] for i, given in ((3, biased), (7, peeps)) if given]
        dtype = multiplied_format(facts, node.input[0], node.input[1])
        units = steps * batch * directions * hidden
        entering = GemmLayer(
            name=f"{name}/input",
            op=node.op_type,
            dtype=dtype,
            m=steps * batch,
            k=x[2],
            n=gates * hidden,
            repeat=directions,
        )
        recurring = GemmLayer(
            name=f"{name}/recurrent",
            op=node.op_type,
            dtype=dtype,
            m=batch,
            k=hidden,
            n=gates * hidden,
            repeat=steps * directions,
        )
        # Each gate adds its two products, its bias, and has an activation.
        each = gates * (3 if biased else 2) + updates + (6 if peeps else 0)
        unitwise = PassLayer(
            name=f"{name}/units",
            op=node.op_type,
            dtype=facts.types[node.input[0]].dtype,
            reads_words=units * (2 * gates + states) + sum(map(facts.words, more)),
            writes_words=units * states,
            operations=units * each,
        )
        return (*(p for p in (entering, recurring) if p.macs), unitwise)

    return layers


#: Every operator that multiplies.
PRODUCTS: Mapping[str, Maker] = {
    "Conv": conv(1),
    "ConvInteger": conv(1),
    "QLinearConv": conv(3),
    "ConvTranspose": conv_transpose,
    "Gemm": _gemm,
    "MatMul": _matmul(1),
    "MatMulInteger": _matmul(1),
    "QLinearMatMul": _matmul(3),
    "Einsum": _einsum,
    "LSTM": _recurrent(4, 2, 5),  # c = f * c + i * g, h = o * tanh(c)
    "GRU": _recurrent(3, 1, 5),  # r * h, h = (1 - z) * n + z * h
    "RNN": _recurrent(1, 1, 0),
}
