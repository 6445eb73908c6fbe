"""What is known of a node's ONNX graph before its layers are made: shapes, constants, aliases, readers.

A tensor is *static* where constants and shapes alone determine it, *data-shaped* where its shape
depends on the values of an input, and an *alias* where it is another tensor's words under another
shape, or those words as a ``DequantizeLinear`` reads them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import onnx

from dynrt.errors import ExportError
from dynrt.exporters.shapes import at_batch_1, inferred, measured, unknown_tensors
from dynrt.ir.graph import TensorType

STANDARD_DOMAINS = ("", "ai.onnx")
#: Operators whose result's shape is a matter of the data.
_DATA_SHAPED = frozenset(["Compress", "NonMaxSuppression", "NonZero", "Unique"])
#: Inputs that say what shape the result has.
_SHAPE_INPUTS: Mapping[str, tuple[int, ...]] = {
    "CenterCropPad": (1,),
    "ConstantOfShape": (0,),
    "Expand": (1,),
    "OneHot": (1,),
    "Pad": (1, 3),
    "Range": (0, 1, 2),
    "Reshape": (1,),
    "Resize": (2, 3),
    "Slice": (1, 2, 3, 4),
    "Split": (1,),
    "Tile": (1,),
    "TopK": (1,),
    "Upsample": (1,),
}
#: Operators that give other numbers each time.
_RANDOM = frozenset(
    [
        "Bernoulli",
        "Multinomial",
        "RandomNormal",
        "RandomNormalLike",
        "RandomUniform",
        "RandomUniformLike",
    ]
)
_ALWAYS_VIEWS = frozenset(["Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"])
#: Views in some cases: of one tensor, of as many words, to the same type, over axes of size 1.
_VIEWS_OF_SOME = frozenset(
    [
        "Cast",
        "CastLike",
        "Concat",
        "Dropout",
        "Expand",
        "Max",
        "Mean",
        "Min",
        "Split",
        "Sum",
        "Tile",
        "Transpose",
    ]
)
#: Operators that may be views.
VIEWS = _ALWAYS_VIEWS | _VIEWS_OF_SOME


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Of one graph at batch 1.

    Attributes:
        nodes: operators in graph order.
        types: element type and shape of each tensor that is known.
        static: tensors that constants and shapes alone determine.
        data_shaped: tensors whose shape depends on data.
        views: positions of operators that only give another shape.
        on_the_way_in: positions of ``DequantizeLinear`` that their readers apply to what they read.
        same: the tensor whose stored words each alias holds.
        readers: positions of the operators that read the words of each tensor, by its first name.
        ends: first names of the graph's outputs.
        producers: position of the operator that makes each tensor.
    """

    nodes: tuple[onnx.NodeProto, ...]
    types: Mapping[str, TensorType]
    static: frozenset[str]
    data_shaped: frozenset[str]
    views: frozenset[int]
    on_the_way_in: frozenset[int]
    same: Mapping[str, str]
    readers: Mapping[str, tuple[int, ...]]
    ends: frozenset[str]
    producers: Mapping[str, int]

    def first(self, tensor: str) -> str:
        """The tensor whose stored words ``tensor`` holds."""
        return self.same.get(tensor, tensor)

    def shape(self, tensor: str) -> tuple[int, ...]:
        """Its shape at batch 1."""
        return self.types[tensor].shape

    def words(self, tensor: str) -> int:
        """How many elements it has."""
        return math.prod(self.types[tensor].shape)

    def moving(self, node: onnx.NodeProto) -> tuple[str, ...]:
        """First names of the inputs that depend on data, with repetitions."""
        return tuple(self.first(n) for n in node.input if n and n not in self.static)

    def live(self, node: onnx.NodeProto) -> tuple[str, ...]:
        """First names of the outputs that somebody reads."""
        names = (self.first(n) for n in node.output if n)
        return tuple(n for n in names if self.readers.get(n) or n in self.ends)


def standard(node: onnx.NodeProto) -> bool:
    """Whether an operator is one of ONNX's own."""
    return node.domain in STANDARD_DOMAINS


def subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The graphs that an operator such as ``If`` holds."""
    for item in node.attribute:
        if item.type == onnx.AttributeProto.GRAPH:
            yield item.g
        yield from item.graphs


def captured(node: onnx.NodeProto) -> set[str]:
    """Every name that the subgraphs of ``node`` read; those of outer tensors among them."""
    names: set[str] = set()
    for graph in subgraphs(node):
        names.update(o.name for o in graph.output)
        for inner in graph.node:
            names.update(n for n in inner.input if n)
            names |= captured(inner)
    return names


def facts_of(model: onnx.ModelProto, *, place: str) -> Facts:
    """Look at ``model``.

    Raises:
        ExportError: an axis of an input other than the batch has no fixed size, or shapes do not
            fit.
    """
    _require_fixed(model, place)
    types, certain = _types(model, place)
    nodes = tuple(model.graph.node)
    static, data_shaped = _static_and_data_shaped(model, nodes, certain)
    unknown = data_shaped | {n for node in nodes for n in node.output if n and n not in types}
    views = frozenset(
        i
        for i, node in enumerate(nodes)
        if standard(node)
        and not unknown.intersection((*node.input, *node.output))
        and not static.issuperset(node.output)
        and _is_view(node, types, static)
    )
    way_in = _on_the_way_in(model, nodes, views)
    same = _aliases(nodes, views | way_in)
    readers: dict[str, dict[int, None]] = {}
    for i, node in enumerate(nodes):
        if i in views or i in way_in or node.op_type in ("Shape", "Size"):
            continue
        for name in (*node.input, *sorted(captured(node))):
            readers.setdefault(same.get(name, name), {})[i] = None
    return Facts(
        nodes=nodes,
        types=types,
        static=frozenset(static),
        data_shaped=frozenset(data_shaped),
        views=views,
        on_the_way_in=way_in,
        same=same,
        readers={k: tuple(v) for k, v in readers.items()},
        ends=frozenset(same.get(o.name, o.name) for o in model.graph.output),
        producers={n: i for i, node in enumerate(nodes) for n in node.output if n},
    )


def _require_fixed(model: onnx.ModelProto, place: str) -> None:
    """Only the first axis of an input may be free."""
    initial = {t.name for t in model.graph.initializer}
    for info in model.graph.input:
        kind = info.type.tensor_type
        if info.name in initial:
            continue
        if not kind.HasField("shape"):
            raise ExportError(f"{place}: input {info.name!r} has no shape")
        for axis, dim in enumerate(kind.shape.dim):
            if axis and not dim.HasField("dim_value"):
                named = f" ({dim.dim_param!r})" if dim.dim_param else ""
                raise ExportError(
                    f"{place}: axis {axis}{named} of input {info.name!r} has no fixed size; "
                    "only the first, the batch, may vary"
                )


def _types(model: onnx.ModelProto, place: str) -> tuple[dict[str, TensorType], set[str]]:
    """Types of all tensors as far as they can be known; and which of them inference knows.

    Where an operator that nobody knows stops both inference and a run on zeros, the types that the
    model declares for its tensors are believed.
    """
    fixed = at_batch_1(model)
    types = inferred(fixed, place=place)
    certain = set(types)
    missing = unknown_tensors(fixed, types)
    if not missing:
        return types, certain
    try:
        types.update(measured(fixed, types, missing, place=place))
    except ExportError:
        fixed.graph.value_info.extend(_declared(model, set(missing)))
        types.update(inferred(fixed, place=place))
        certain = set(types)
    return types, certain


def _declared(model: onnx.ModelProto, missing: set[str]) -> list[onnx.ValueInfoProto]:
    """What a model says of its tensors, the batch being 1."""
    batch = {
        i.type.tensor_type.shape.dim[0].dim_param
        for i in model.graph.input
        if i.type.tensor_type.shape.dim
    }
    out = []
    for info in (*model.graph.value_info, *model.graph.output):
        if info.name in missing and info.type.tensor_type.HasField("shape"):
            copy = onnx.ValueInfoProto()
            copy.CopyFrom(info)
            for dim in copy.type.tensor_type.shape.dim:
                if dim.HasField("dim_param") and dim.dim_param in batch:
                    dim.Clear()
                    dim.dim_value = 1
            out.append(copy)
    return out


def _static_and_data_shaped(
    model: onnx.ModelProto, nodes: tuple[onnx.NodeProto, ...], certain: set[str]
) -> tuple[set[str], set[str]]:
    static = {t.name for t in model.graph.initializer}
    shaped: set[str] = set()
    for node in nodes:
        reads = [n for n in node.input if n]
        outputs = [n for n in node.output if n]
        nested = any(True for _ in subgraphs(node))
        if not standard(node) or nested:
            if nested or not shaped.isdisjoint(reads):
                shaped.update(n for n in outputs if n not in certain)
            continue
        if node.op_type in ("Shape", "Size"):
            settled = shaped.isdisjoint(reads)
        elif not reads:
            settled = node.op_type == "Constant"
        else:
            settled = static.issuperset(reads) and node.op_type not in _RANDOM
        if settled:
            static.update(outputs)
            continue
        sizes = [node.input[i] for i in _SHAPE_INPUTS.get(node.op_type, ()) if i < len(node.input)]
        if node.op_type in _DATA_SHAPED or any(n and n not in static for n in sizes):
            shaped.update(outputs)
        elif not shaped.isdisjoint(reads):
            shaped.update(n for n in outputs if n not in certain)
    return static, shaped


def _is_view(node: onnx.NodeProto, types: Mapping[str, TensorType], static: set[str]) -> bool:
    """Whether ``node`` gives the words that it is given; its tensors are known."""
    if node.op_type in _ALWAYS_VIEWS:
        return True
    if node.op_type not in _VIEWS_OF_SOME:
        return False
    before, after = types[node.input[0]], types[node.output[0]]
    if node.op_type == "Dropout":  # a third input is the switch of its training mode
        return len(node.input) < 3 or node.input[2] == ""
    if node.op_type in ("Cast", "CastLike"):
        return before.dtype == after.dtype
    if node.op_type == "Transpose":
        order = next((tuple(a.ints) for a in node.attribute if a.name == "perm"), None)
        axes = tuple(range(len(before.shape)))[::-1] if order is None else order
        moved = [a for a in axes if before.shape[a] != 1]
        return moved == sorted(moved)
    alone = sum(1 for n in node.input if n) == 1 or node.op_type in ("Expand", "Split", "Tile")
    return alone and math.prod(before.shape) == math.prod(after.shape)


def _on_the_way_in(
    model: onnx.ModelProto, nodes: tuple[onnx.NodeProto, ...], views: frozenset[int]
) -> frozenset[int]:
    """``DequantizeLinear`` operators of whose result nobody outside the graph sees the words."""
    seen = {o.name for o in model.graph.output}
    found = []
    for i in reversed(range(len(nodes))):
        node = nodes[i]
        if i in views and node.output[0] in seen:
            seen.add(node.input[0])
        elif node.op_type == "DequantizeLinear" and standard(node) and node.output[0] not in seen:
            found.append(i)
    return frozenset(found)


def _aliases(nodes: tuple[onnx.NodeProto, ...], through: frozenset[int]) -> dict[str, str]:
    same: dict[str, str] = {}
    for i, node in enumerate(nodes):
        if i in through:
            same[node.output[0]] = same.get(node.input[0], node.input[0])
    return same
