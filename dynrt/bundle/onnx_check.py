"""Whether a member is plain ONNX with the declared ports, without parsing it by onnx.

Plain means: operators of ``ai.onnx`` only, all data inside, no functions, no loops (a node's cost
is a constant of the bundle, and a loop's is not; ``If`` may choose between branches), tensors as long
as they say, ports named and typed as the graph declares with a first axis ``batch``. What the
operators compute is not looked at.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from dynrt.bundle import onnx_wire as wire
from dynrt.bundle.limits import Limits, bound
from dynrt.bundle.names import member_of, shown
from dynrt.bundle.onnx_wire import Message, Walker
from dynrt.ir.graph import ComputeNode, Exit, Port

MIN_OPSET, MAX_OPSET = 11, 28
MIN_IR, MAX_IR = 4, 14
BATCH = "batch"

_DOMAINS = ("", "ai.onnx")
_ELEMENT: Mapping[str, int] = {
    "float32": 1,
    "uint8": 2,
    "int8": 3,
    "int32": 6,
    "int64": 7,
    "bool": 9,
    "float16": 10,
    "float64": 11,
}
#: Bits of one element in ``raw_data``, and the typed field that may hold them instead.
_STORAGE: Mapping[int, tuple[int, str]] = {
    1: (32, "float_data"),
    2: (8, "int32_data"),
    3: (8, "int32_data"),
    4: (16, "int32_data"),
    5: (16, "int32_data"),
    6: (32, "int32_data"),
    7: (64, "int64_data"),
    9: (8, "int32_data"),
    10: (16, "int32_data"),
    11: (64, "double_data"),
    12: (32, "uint64_data"),
    13: (64, "uint64_data"),
    16: (16, "int32_data"),
    17: (8, "int32_data"),
    18: (8, "int32_data"),
    19: (8, "int32_data"),
    20: (8, "int32_data"),
    21: (4, "int32_data"),
    22: (4, "int32_data"),
}
_TYPED = ("float_data", "int32_data", "int64_data", "double_data", "uint64_data")


class ModelChecker:
    """Checks the models of one bundle, and bounds how many fields they have together.

    Args:
        limits: what is accepted.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._fields = 0

    def check(self, data: bytes, node: ComputeNode | Exit) -> None:
        """Check the ONNX of ``node``.

        Raises:
            BundleModelError: it is not plain ONNX with the node's ports; names what is wrong.
            BundleSizeError: too many fields, too deep, or too long a text.
        """
        walk = Walker(member_of(node.name), self._limits, fields=self._fields)
        _check_model(walk, data, node)
        self._fields = walk.fields


def _check_model(walk: Walker, data: bytes, node: ComputeNode | Exit) -> None:
    model = walk.decode(memoryview(data), wire.MODEL, "the model")
    if not MIN_IR <= (version := model.number("ir_version")) <= MAX_IR:
        raise walk.fail(f"IR version {version} is not in {MIN_IR}..{MAX_IR}")
    _check_opsets(walk, model)
    _check_notes(walk, model, "the model")
    if "graph" not in model.blobs:
        raise walk.fail("holds no graph")
    graph = walk.decode(model.blobs["graph"][0], wire.GRAPH, "the graph")
    held, made = _check_graph(walk, graph, "the graph", walk.limits.onnx_depth)
    inputs = [walk.decode(v, wire.VALUE, "an input") for v in graph.blobs.get("input", [])]
    outputs = [walk.decode(v, wire.VALUE, "an output") for v in graph.blobs.get("output", [])]
    _check_ports(walk, inputs, node.inputs, "input")
    _check_ports(walk, outputs, node.outputs, "output", constant=not node.inputs)
    taken = {p.name for p in node.inputs}
    if both := sorted(taken & (held | made)):
        raise walk.fail(f"input {shown(both[0])} is also computed or stored inside")
    for port in node.outputs:
        if port.name not in held | made | taken:
            raise walk.fail(f"output {shown(port.name)} is never computed")


def _check_opsets(walk: Walker, model: Message) -> None:
    versions = []
    for data in model.blobs.get("opset_import", []):
        opset = walk.decode(data, wire.OPSET, "an operator set")
        if opset.text("domain") not in _DOMAINS:
            raise walk.fail(
                f"imports the operators of {shown(opset.text('domain'))}, not of ai.onnx"
            )
        versions.append(opset.number("version"))
    if len(versions) != 1:
        raise walk.fail(f"imports ai.onnx {len(versions)} times, not once")
    if not MIN_OPSET <= versions[0] <= MAX_OPSET:
        raise walk.fail(f"operator set {versions[0]} is not in {MIN_OPSET}..{MAX_OPSET}")


def _check_graph(walk: Walker, graph: Message, what: str, depth: int) -> tuple[set[str], set[str]]:
    """The names of the tensors that are stored, and of those that nodes make, in ``graph``."""
    _check_notes(walk, graph, what)
    held = {
        _check_tensor(walk, data, "an initializer") for data in graph.blobs.get("initializer", [])
    }
    made: set[str] = set()
    for data in graph.blobs.get("node", []):
        made.update(_check_node(walk, data, depth))
    for data in graph.blobs.get("value_info", []):
        value = walk.decode(data, wire.VALUE, "a value")
        _check_notes(walk, value, "a value")
        if "type" in value.blobs:
            walk.decode(value.blobs["type"][0], wire.TYPE, f"value {shown(value.text('name'))}")
    return held, made


def _check_node(walk: Walker, data: memoryview, depth: int) -> Sequence[str]:
    node = walk.decode(data, wire.NODE, "a node")
    op, domain = node.text("op_type"), node.text("domain")
    what = f"node {shown(node.text('name') or op)}"
    if domain not in _DOMAINS:
        raise walk.fail(f"{what}: operator {shown(op)} is of {shown(domain)}, not of ai.onnx")
    _check_notes(walk, node, what)
    for raw in node.blobs.get("attribute", []):
        attribute = walk.decode(raw, wire.ATTRIBUTE, f"an attribute of {what}")
        for tensor in (*attribute.blobs.get("t", []), *attribute.blobs.get("tensors", [])):
            _check_tensor(walk, tensor, f"a tensor of {what}")
        for inner in attribute.blobs.get("g", []):
            if op != "If":
                raise walk.fail(
                    f"{what}: {shown(op)} runs a subgraph; of these only 'If' is bounded"
                )
            level = walk.limits.onnx_depth - depth + 1
            bound(f"{walk.place}: 'If' inside 'If'", level, walk.limits.onnx_depth, "levels")
            branch = walk.decode(inner, wire.GRAPH, f"a branch of {what}")
            if "input" in branch.blobs:
                raise walk.fail(f"a branch of {what} has inputs")
            for value in branch.blobs.get("output", []):
                walk.decode(value, wire.VALUE, f"an output of a branch of {what}")
            _check_graph(walk, branch, f"a branch of {what}", depth - 1)
    return node.texts.get("output", [])


def _check_notes(walk: Walker, message: Message, what: str) -> None:
    for data in message.blobs.get("metadata_props", []):
        walk.decode(data, wire.NOTE, f"metadata of {what}")


def _check_tensor(walk: Walker, data: memoryview, what: str) -> str:
    """Whether a tensor holds just what its shape and type ask for; its name."""
    tensor = walk.decode(data, wire.TENSOR, what)
    _check_notes(walk, tensor, what)
    name = tensor.text("name")
    called = f"{what} {shown(name)}"
    if tensor.number("data_location"):
        raise walk.fail(f"{called} has external data; bundles hold all of theirs")
    kind = tensor.number("data_type")
    if kind not in _STORAGE:
        raise walk.fail(f"{called} is of element type {kind}, which bundles do not use")
    dims = tensor.ints.get("dims", [])
    if any(n < 0 for n in dims):
        raise walk.fail(f"{called} has an axis of {min(dims)}")
    elements = math.prod(dims)
    bits, typed = _STORAGE[kind]
    places = [n for n in _TYPED if tensor.counts.get(n)]
    if "raw_data" in tensor.blobs:
        got, want = len(tensor.blobs["raw_data"][0]), (elements * bits + 7) // 8
        if places or got != want:
            raise walk.fail(f"{called} has {got} bytes of raw data, and its shape needs {want}")
        return name
    if any(n != typed for n in places):
        raise walk.fail(f"{called} of element type {kind} has numbers in {places[0]}")
    got = tensor.counts.get(typed, 0)
    want = (elements + 1) // 2 if bits == 4 else elements
    if got != want:
        raise walk.fail(f"{called} has {got} numbers, and its shape needs {want}")
    return name


def _check_ports(
    walk: Walker,
    values: Sequence[Message],
    ports: Sequence[Port],
    role: str,
    *,
    constant: bool = False,
) -> None:
    by_name = {p.name: p for p in ports}
    names = [v.text("name") for v in values]
    if sorted(names) != sorted(by_name):
        raise walk.fail(
            f"its {role}s are {_listed(names)}, and the graph declares {_listed(by_name)}"
        )
    for value in values:
        _check_notes(walk, value, f"an {role}")
        port = by_name[value.text("name")]
        what = f"{role} {shown(port.name)}"
        if "type" not in value.blobs:
            raise walk.fail(f"{what} has no type")
        kind = walk.decode(value.blobs["type"][0], wire.TYPE, what)
        if "tensor_type" not in kind.blobs:
            raise walk.fail(f"{what} is no tensor")
        tensor = walk.decode(kind.blobs["tensor_type"][0], wire.TENSOR_TYPE, what)
        if tensor.number("elem_type") != _ELEMENT[port.type.dtype]:
            raise walk.fail(
                f"{what} has element type {tensor.number('elem_type')}, and the graph declares "
                f"{port.type.dtype} ({_ELEMENT[port.type.dtype]})"
            )
        if "shape" not in tensor.blobs:
            raise walk.fail(f"{what} has no shape")
        _check_shape(walk, tensor.blobs["shape"][0], port, what, constant=constant)


def _check_shape(walk: Walker, data: memoryview, port: Port, what: str, *, constant: bool) -> None:
    """The axes must be ``batch`` and then the port's; without inputs the first may be 1."""
    axes: list[int | str] = []
    shape = walk.decode(data, wire.SHAPE, f"the shape of {what}")
    for raw in shape.blobs.get("dim", []):
        dim = walk.decode(raw, wire.DIMENSION, f"an axis of {what}")
        if len(dim.ints) + ("dim_param" in dim.texts) > 1:
            raise walk.fail(f"an axis of {what} has both a size and a name")
        axes.append(dim.number("dim_value") if dim.ints else dim.text("dim_param"))
    if axes != [BATCH, *port.type.shape] and not (constant and axes == [1, *port.type.shape]):
        raise walk.fail(
            f"{what} has the shape {_listed(axes)}, and the graph declares "
            f"{_listed([BATCH, *port.type.shape])}"
        )


def _listed(values: Sequence[object] | Mapping[str, object]) -> str:
    """At most eight of ``values`` in brackets."""
    some = [v if isinstance(v, int) else shown(v)[1:-1] or "?" for v in list(values)[:8]]
    more = ", ..." if len(values) > 8 else ""
    return f"[{', '.join(map(str, some))}{more}]"
