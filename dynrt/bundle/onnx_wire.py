"""A bounded reader of ONNX's protobuf wire format, so that no device needs onnx to check a bundle.

It knows the messages of ``onnx.proto`` that plain models use, and refuses every other field: a
field that this walker did not look at is one that onnxruntime will not see either. A field that may
come once may not come twice (protobuf would merge the two, readers differ in how), and a field of
the wrong wire type is refused (protobuf would skip it).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from dynrt.bundle.limits import Limits, bound
from dynrt.errors import BundleModelError

#: How a field is written and what is kept of it. ``int``: varint. ``text``: bounded UTF-8.
#: ``blob``: bytes or a message. ``skip4``: one 32-bit number. ``count...``: of a list of numbers only
#: how many there are; they may be packed or not.
Form = Literal["int", "ints", "text", "blob", "skip4", "count4", "count8", "count_varint"]

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_WIRE: Mapping[Form, int] = {
    "int": _VARINT,
    "ints": _VARINT,
    "text": _BYTES,
    "blob": _BYTES,
    "skip4": _FIXED32,
    "count4": _FIXED32,
    "count8": _FIXED64,
    "count_varint": _VARINT,
}
_PACKED: frozenset[Form] = frozenset(("ints", "count4", "count8", "count_varint"))
_CONTINUED = bytes(range(0x80, 0x100))
_CHUNK_BYTES = 1 << 16
_MAX_PACKED_INTS = 64
_VARINT_BYTES = 10


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a message: its name, its form, and whether it may come more than once."""

    name: str
    form: Form
    many: bool = False


@dataclass(frozen=True, slots=True)
class Spec:
    """A message: the fields that are read, and names of some that are refused, for the error."""

    fields: Mapping[int, Field]
    refused: Mapping[int, str] = field(default_factory=dict)


_DOC = Field("doc_string", "text")
_NOTES = Field("metadata_props", "blob", many=True)

NOTE = Spec({1: Field("key", "text"), 2: Field("value", "text")})
MODEL = Spec(
    {
        1: Field("ir_version", "int"),
        2: Field("producer_name", "text"),
        3: Field("producer_version", "text"),
        4: Field("domain", "text"),
        5: Field("model_version", "int"),
        6: _DOC,
        7: Field("graph", "blob"),
        8: Field("opset_import", "blob", many=True),
        14: _NOTES,
    },
    {
        20: "training information",
        25: "a model-local function",
        26: "a device configuration",
    },
)
OPSET = Spec({1: Field("domain", "text"), 2: Field("version", "int")})
GRAPH = Spec(
    {
        1: Field("node", "blob", many=True),
        2: Field("name", "text"),
        5: Field("initializer", "blob", many=True),
        10: _DOC,
        11: Field("input", "blob", many=True),
        12: Field("output", "blob", many=True),
        13: Field("value_info", "blob", many=True),
        16: _NOTES,
    },
    {
        14: "a quantization annotation",
        15: "a sparse initializer",
    },
)
NODE = Spec(
    {
        1: Field("input", "text", many=True),
        2: Field("output", "text", many=True),
        3: Field("name", "text"),
        4: Field("op_type", "text"),
        5: Field("attribute", "blob", many=True),
        6: _DOC,
        7: Field("domain", "text"),
        9: _NOTES,
    },
    {
        8: "an overload of a function",
        10: "a device configuration",
    },
)
ATTRIBUTE = Spec(
    {
        1: Field("name", "text"),
        2: Field("f", "skip4"),
        3: Field("i", "int"),
        4: Field("s", "text"),
        5: Field("t", "blob"),
        6: Field("g", "blob"),
        7: Field("floats", "count4", many=True),
        8: Field("ints", "count_varint", many=True),
        9: Field("strings", "text", many=True),
        10: Field("tensors", "blob", many=True),
        13: _DOC,
        20: Field("type", "int"),
    },
    {
        11: "a list of subgraphs",
        14: "a type",
        15: "a list of types",
        21: "a reference to a function's attribute",
        22: "a sparse tensor",
        23: "a list of sparse tensors",
    },
)
TENSOR = Spec(
    {
        1: Field("dims", "ints", many=True),
        2: Field("data_type", "int"),
        4: Field("float_data", "count4", many=True),
        5: Field("int32_data", "count_varint", many=True),
        7: Field("int64_data", "count_varint", many=True),
        8: Field("name", "text"),
        9: Field("raw_data", "blob"),
        10: Field("double_data", "count8", many=True),
        11: Field("uint64_data", "count_varint", many=True),
        12: _DOC,
        14: Field("data_location", "int"),
        16: _NOTES,
    },
    {
        3: "a segment of a tensor",
        6: "a tensor of texts",
        13: "external data",
    },
)
VALUE = Spec({1: Field("name", "text"), 2: Field("type", "blob"), 3: _DOC, 4: _NOTES})
TYPE = Spec(
    {1: Field("tensor_type", "blob"), 6: Field("denotation", "text")},
    {
        4: "a sequence type",
        5: "a map type",
        7: "an opaque type",
        8: "a sparse tensor type",
        9: "an optional type",
    },
)
TENSOR_TYPE = Spec({1: Field("elem_type", "int"), 2: Field("shape", "blob")})
SHAPE = Spec({1: Field("dim", "blob", many=True)})
DIMENSION = Spec(
    {
        1: Field("dim_value", "int"),
        2: Field("dim_param", "text"),
        3: Field("denotation", "text"),
    }
)


@dataclass(slots=True)
class Message:
    """The fields of one decoded message; lists in the order of the bytes."""

    ints: dict[str, list[int]] = field(default_factory=dict)
    texts: dict[str, list[str]] = field(default_factory=dict)
    blobs: dict[str, list[memoryview]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def text(self, name: str) -> str:
        """The text in a field, empty if it is absent."""
        return self.texts.get(name, [""])[0]

    def number(self, name: str) -> int:
        """The number in a field, 0 if it is absent."""
        return self.ints.get(name, [0])[0]


class Walker:
    """Decodes messages of one member and counts their fields.

    Args:
        place: the member, for messages.
        limits: what is accepted.
        fields: how many fields the members before this one had.
    """

    def __init__(self, place: str, limits: Limits, *, fields: int = 0) -> None:
        self.place = place
        self.limits = limits
        self.fields = fields

    def fail(self, message: str) -> BundleModelError:
        """An error that names the member."""
        return BundleModelError(f"{self.place}: {message}")

    def decode(self, data: memoryview, spec: Spec, what: str) -> Message:
        """The fields of the message ``data``; nested messages stay bytes.

        Args:
            data: the bytes.
            spec: the fields that it may have.
            what: the message, for errors.

        Raises:
            BundleModelError: damaged, a field that plain models do not have, or one twice.
            BundleSizeError: too many fields, or too long a text.
        """
        out = Message()
        seen: set[int] = set()
        at, size = 0, len(data)
        while at < size:
            self.fields += 1
            if self.fields > self.limits.onnx_fields:
                bound(
                    f"{self.place}: ONNX fields up to here",
                    self.fields,
                    self.limits.onnx_fields,
                    "fields",
                )
            tag, at = self._varint(data, at, what)
            number, wire = tag >> 3, tag & 7
            found = spec.fields.get(number)
            if found is None:
                name = spec.refused.get(number, f"the unknown field {number}")
                raise self.fail(f"{what} has {name}, which bundles do not use")
            if number in seen and not found.many:
                raise self.fail(f"{what} has the field {found.name!r} twice")
            seen.add(number)
            if wire == _BYTES:
                length, at = self._varint(data, at, what)
                if length > size - at:
                    raise self.fail(f"{what} ends within its field {found.name!r}")
                self._bytes(out, found, data[at : at + length], what)
                at += length
            elif wire != _WIRE[found.form]:
                raise self.fail(f"{what} has wire type {wire} in its field {found.name!r}")
            elif wire == _VARINT:
                value, at = self._varint(data, at, what)
                self._number(out, found, value, what)
            else:
                at += 4 if wire == _FIXED32 else 8
                if at > size:
                    raise self.fail(f"{what} ends within its field {found.name!r}")
                out.counts[found.name] = out.counts.get(found.name, 0) + 1
        return out

    def _varint(self, data: memoryview, at: int, what: str) -> tuple[int, int]:
        if at < len(data) and data[at] < 0x80:
            return data[at], at + 1
        value = 0
        for i, byte in enumerate(data[at : at + _VARINT_BYTES]):
            value |= (byte & 0x7F) << 7 * i
            if byte < 0x80:
                if value >> 64:
                    break
                return value, at + i + 1
        raise self.fail(f"{what} holds no number at its byte {at}")

    def _number(self, out: Message, found: Field, value: int, what: str) -> None:
        if found.form == "count_varint":
            out.counts[found.name] = out.counts.get(found.name, 0) + 1
            return
        values = out.ints.setdefault(found.name, [])
        values.append(value - (1 << 64) if value >> 63 else value)
        if len(values) > _MAX_PACKED_INTS:
            bound(f"{self.place}: {what}.{found.name}", len(values), _MAX_PACKED_INTS, "numbers")

    def _bytes(self, out: Message, found: Field, data: memoryview, what: str) -> None:
        if found.form == "blob":
            out.blobs.setdefault(found.name, []).append(data)
        elif found.form == "text":
            bound(f"{self.place}: {what}.{found.name}", len(data), self.limits.onnx_text_bytes)
            try:
                text = str(data, "utf-8")
            except UnicodeDecodeError:
                raise self.fail(f"{what}.{found.name} is not UTF-8") from None
            out.texts.setdefault(found.name, []).append(text)
        elif found.form not in _PACKED:
            raise self.fail(f"{what} has wire type {_BYTES} in its field {found.name!r}")
        elif found.form == "ints":
            at = 0
            while at < len(data):
                value, at = self._varint(data, at, what)
                self._number(out, found, value, what)
        else:
            out.counts[found.name] = out.counts.get(found.name, 0) + self._packed(found, data, what)

    def _packed(self, found: Field, data: memoryview, what: str) -> int:
        """How many numbers the packed ``data`` holds."""
        if found.form != "count_varint":
            count, rest = divmod(len(data), 4 if found.form == "count4" else 8)
            if rest:
                raise self.fail(f"{what} ends within a number of its field {found.name!r}")
            return count
        if data and data[-1] >= 0x80:
            raise self.fail(f"{what} ends within a number of its field {found.name!r}")
        return sum(
            len(bytes(data[i : i + _CHUNK_BYTES]).translate(None, _CONTINUED))
            for i in range(0, len(data), _CHUNK_BYTES)
        )
