"""An int8 network against the float one it came from, on data that neither was fitted to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass

import numpy as np

from dynrt.bundle import Bundle, replace_parts
from dynrt.errors import ExportError
from dynrt.exporters.int8_observe import Batch, as_batch, run_everything
from dynrt.ir.graph import Array, ControlNode, Exit, NodeId, PortRef
from dynrt.runtime import Network, Result
from dynrt.runtime.ort import OrtBackend
from dynrt.units import macs_to_flops


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitComparison:
    """One exit's head, run on every input.

    Attributes:
        name: of the exit.
        same_answers: share of inputs on which both networks answer alike.
        float_accuracy, int8_accuracy: fractions; ``None`` without labels.
    """

    name: NodeId
    same_answers: float
    float_accuracy: float | None
    int8_accuracy: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Int8Report:
    """Both networks on the same inputs, each under its own decisions and thresholds.

    Attributes:
        inputs: how many.
        data: what they were.
        same_paths: share of inputs on which the same nodes ran and the same exit answered.
        same_answers: share of inputs with the same answer.
        float_accuracy, int8_accuracy: fractions; ``None`` without labels.
        float_mean_macs, int8_mean_macs: spent per input.
        float_bytes, int8_bytes: of all ONNX in the bundles.
        exits: each exit by itself; empty where control nodes decide what an exit sees.
    """

    inputs: int
    data: str
    same_paths: float
    same_answers: float
    float_accuracy: float | None
    int8_accuracy: float | None
    float_mean_macs: float
    int8_mean_macs: float
    float_bytes: int
    int8_bytes: int
    exits: tuple[ExitComparison, ...]

    def __str__(self) -> str:
        accuracy = (
            ""
            if self.float_accuracy is None or self.int8_accuracy is None
            else f"accuracy {self.int8_accuracy:.2%} (float {self.float_accuracy:.2%}), "
        )
        return (
            f"on {self.inputs} inputs of {self.data}: {accuracy}same path on "
            f"{self.same_paths:.2%}, same answer on {self.same_answers:.2%}; "
            f"{self.int8_bytes / self.float_bytes:.2f} of the bytes"
        )


@dataclass(slots=True, kw_only=True)
class _Seen:
    """What one network did, over all inputs."""

    paths: list[tuple[NodeId, ...]]
    answers: list[int]
    macs: list[int]
    heads: dict[NodeId, list[int]]


def compare(
    original: Bundle,
    quantised: Bundle,
    batches: Iterable[tuple[Batch, Array | None]],
    *,
    data: str = "the data given",
) -> Int8Report:
    """Run both networks and count where they differ.

    Args:
        original: the float network.
        quantised: what :func:`dynrt.exporters.int8.quantise` made of it.
        batches: inputs as ``quantise`` takes them, with labels ``(n,)`` or ``None``; either all
            batches have labels or none has.
        data: what they are, for the report.

    Raises:
        ExportError: no inputs, wrong ones, or labels for some batches only.
        BackendError: a node fails, or answers NaN.
    """
    bundles = (original, quantised)
    backends = [OrtBackend(b.models) for b in bundles]
    seen = [_Seen(paths=[], answers=[], macs=[], heads={}) for _ in bundles]
    labels: list[int] = []
    try:
        networks = [
            Network(b.graph, back, bundle=b) for b, back in zip(bundles, backends, strict=True)
        ]
        for batch, truth in batches:
            inputs, size = as_batch(original.graph, batch)
            if truth is not None:
                if truth.shape != (size,):
                    raise ExportError(f"labels of shape {truth.shape} for {size} inputs")
                labels.extend(int(v) for v in truth)
            for bundle, network, backend, notes in zip(
                bundles, networks, backends, seen, strict=True
            ):
                _note(notes, network.run_batch(inputs))
                _note_heads(notes, bundle, backend, inputs)
    finally:
        for backend in backends:
            backend.close()
    return _report(bundles, seen, labels, data)


def with_report(bundle: Bundle, report: Int8Report) -> Bundle:
    """``bundle`` with the comparison in its card and provenance."""
    own: dict[str, object] = {"int8": asdict(report) | {"exits": [asdict(e) for e in report.exits]}}
    if report.int8_accuracy is not None:
        own |= {
            "accuracy": report.int8_accuracy,
            "mean_flops": macs_to_flops(round(report.int8_mean_macs)),
            "measured_on": report.data,
        }
    return replace_parts(
        bundle,
        card={**bundle.card, **own},
        provenance={**bundle.provenance, "int8": str(report)},
    )


def _note(notes: _Seen, results: Iterable[Result]) -> None:
    for result in results:
        notes.paths.append(result.path)
        notes.answers.append(result.index)
        notes.macs.append(result.macs)


def _note_heads(
    notes: _Seen, bundle: Bundle, backend: OrtBackend, inputs: Mapping[str, Array]
) -> None:
    graph = bundle.graph
    if any(isinstance(n, ControlNode) for n in graph.nodes):
        return
    values = run_everything(graph, backend.call, inputs, exits=graph.exits)
    for name in graph.exits:
        node = graph.by_name[name]
        if isinstance(node, Exit):
            answers = values[PortRef(name, node.answer)]
            flat = answers.reshape(len(answers), -1)
            notes.heads.setdefault(name, []).extend(int(v) for v in flat.argmax(axis=1))


def _report(
    bundles: tuple[Bundle, Bundle], seen: list[_Seen], labels: list[int], data: str
) -> Int8Report:
    count = len(seen[0].answers)
    if not count:
        raise ExportError("no inputs to compare the int8 network on")
    if labels and len(labels) != count:
        raise ExportError(f"{len(labels)} labels for {count} inputs")
    truth = np.array(labels)

    def accuracy(answers: list[int]) -> float | None:
        return float((np.array(answers) == truth).mean()) if labels else None

    first, second = seen
    exits = tuple(
        ExitComparison(
            name=name,
            same_answers=_share(first.heads[name], second.heads[name]),
            float_accuracy=accuracy(first.heads[name]),
            int8_accuracy=accuracy(second.heads[name]),
        )
        for name in first.heads
    )
    return Int8Report(
        inputs=count,
        data=data,
        same_paths=_share(first.paths, second.paths),
        same_answers=_share(first.answers, second.answers),
        float_accuracy=accuracy(first.answers),
        int8_accuracy=accuracy(second.answers),
        float_mean_macs=float(np.mean(first.macs)),
        int8_mean_macs=float(np.mean(second.macs)),
        float_bytes=sum(map(len, bundles[0].models.values())),
        int8_bytes=sum(map(len, bundles[1].models.values())),
        exits=exits,
    )


def _share(
    a: list[int] | list[tuple[NodeId, ...]], b: list[int] | list[tuple[NodeId, ...]]
) -> float:
    """Share of places at which both are alike."""
    return sum(x == y for x, y in zip(a, b, strict=True)) / len(a)
