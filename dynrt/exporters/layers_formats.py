"""In which number format an operator works."""

from __future__ import annotations

import onnx

from dynrt.exporters.layers_facts import Facts
from dynrt.ir.layers import WORD_BITS


def widest(dtypes: list[str]) -> str:
    """The number format of most bits; the last of several."""
    return max(reversed(dtypes), key=lambda d: WORD_BITS.get(d, 0))


def product_format(node: onnx.NodeProto, facts: Facts) -> str:
    """Number format in which an operator that multiplies does so."""
    second = 3 if node.op_type.startswith("QLinear") else 1
    return multiplied_format(facts, node.input[0], node.input[min(second, len(node.input) - 1)])


def multiplied_format(facts: Facts, a: str, b: str) -> str:
    """Number format in which ``a`` and ``b`` are multiplied.

    That of the stored integers where both come from ``DequantizeLinear``, also through views and
    transpositions: a quantised model multiplies those, whatever its ONNX says in between.
    """
    stored = [_stored_format(facts, a), _stored_format(facts, b)]
    if not all("int" in dtype for dtype in stored):
        stored = [facts.types[a].dtype, facts.types[b].dtype]
    return widest(stored)


def _stored_format(facts: Facts, tensor: str) -> str:
    first = facts.first(tensor)
    while (i := facts.producers.get(first)) is not None:
        node = facts.nodes[i]
        if node.op_type != "Transpose":
            break
        first = facts.first(node.input[0])
    return facts.types[first].dtype
