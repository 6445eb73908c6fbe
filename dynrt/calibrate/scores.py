"""What calibration needs of a network, collected once: every exit's score and answer per input.

Thresholds can then be tried on a million inputs without running the network again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from dynrt.calibrate.arrays import read_arrays
from dynrt.calibrate.files import write_whole
from dynrt.calibrate.paths import Paths
from dynrt.calibrate.pictures import prepare
from dynrt.errors import BackendError, BudgetError, CalibrationError, DataError
from dynrt.ir.graph import (
    Accept,
    Array,
    ComputeNode,
    ControlNode,
    Exit,
    Graph,
    InputNode,
    Node,
    NodeId,
    PortRef,
    ScoreKind,
)
from dynrt.ir.rules import accept_score, can_accept

if TYPE_CHECKING:
    from dynrt.bundle import Bundle
    from dynrt.calibrate.datasets import Dataset

#: Runs one node on a batch: ``Backend.call`` of ``dynrt.runtime``.
Call = Callable[[NodeId, Mapping[str, Array]], Mapping[str, Array]]
#: Told how many inputs are done, of how many.
Progress = Callable[[int, int], None]

#: What costs of a table are counted in: names of :class:`~dynrt.ir.cost.Cost` fields.
Resource = Literal["macs", "femtojoules", "milli_mac_equivalents"]

_VERSION = 2
_KINDS = get_args(ScoreKind)
_RESOURCES = get_args(Resource)


@dataclass(frozen=True, kw_only=True, eq=False)
class ScoreTable:
    """Every exit's accept score and answer for every input, and what reaching it costs.

    Attributes:
        exits: names, in the order in which they are tried; the last one always answers.
        kinds: what each exit's score is (``always`` and ``never`` have none).
        scores: ``(n, exits)``, float64; larger is surer; NaN where the kind has no score.
        predicted: ``(n, exits)``, int64: the class that each exit would answer.
        labels: ``(n,)``, int64.
        step_macs: int64: MACs of each node of the schedule, heads included: ``(steps,)``, or
            ``(n, steps)`` where gates choose each input's path (0 for what it skips). In the
            units of ``resource``, if that is not MACs.
        step_exit: ``(steps,)``, int64: which exit a step is the head of, or -1.
        step_ahead: ``(n, steps)``, int64, beside costs per input: what must be left of a budget
            before a step for its dearest cost and the cheapest way on to an answer; -1 where the
            budget is not asked. Empty where costs are the same for all inputs.
        step_price: ``(steps,)``, int64: each step's dearest cost. Empty as ``step_ahead``.
        bundle: name of the network.
        bundle_sha256: of its bundle; empty if it came from none.
        data: what the inputs were, such as ``cifar10 validation``.
        resource: what costs are counted in.
    """

    exits: tuple[str, ...]
    kinds: tuple[ScoreKind, ...]
    scores: npt.NDArray[np.float64]
    predicted: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]
    step_macs: npt.NDArray[np.int64]
    step_exit: npt.NDArray[np.int64]
    step_ahead: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros((0, 0), np.int64))
    step_price: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    bundle: str = ""
    bundle_sha256: str = ""
    data: str = ""
    resource: Resource = "macs"

    def __post_init__(self) -> None:
        shape = (len(self.labels), len(self.exits))
        if 0 in shape:
            raise CalibrationError(
                f"a score table of {shape[0]} inputs and {shape[1]} exits is empty"
            )
        if len(set(self.exits)) != shape[1] or len(self.kinds) != shape[1]:
            raise CalibrationError(f"score table: exits {self.exits} and kinds {self.kinds} differ")
        if unknown := set(self.kinds) - set(_KINDS):
            raise CalibrationError(
                f"score table: no such accept rule: {', '.join(sorted(unknown))}"
            )
        if self.resource not in _RESOURCES:
            raise CalibrationError(
                f"score table: costs in {self.resource!r}; {_RESOURCES} are known"
            )
        steps = self.step_exit.shape
        each = (*shape[:1], *steps)
        for name, dtype, wanted in (
            ("scores", np.float64, shape),
            ("predicted", np.int64, shape),
            ("labels", np.int64, shape[:1]),
            ("step_macs", np.int64, each if self.costs_differ else steps),
            ("step_exit", np.int64, (self.step_exit.size,)),
            ("step_ahead", np.int64, each if self.costs_differ else (0, 0)),
            ("step_price", np.int64, steps if self.costs_differ else (0,)),
        ):
            array = getattr(self, name)
            if array.dtype != dtype or array.shape != wanted:
                raise CalibrationError(
                    f"score table: {name} is {array.dtype} {array.shape}, not "
                    f"{np.dtype(dtype)} {wanted}"
                )
        heads = self.step_exit[self.step_exit >= 0]
        if heads.tolist() != list(range(shape[1])) or self.step_exit[-1] < 0:
            raise CalibrationError(
                "score table: its schedule does not pass each exit once, in order"
            )
        if self.step_macs.min() < 0 or self.step_exit.min() < -1:
            raise CalibrationError("score table: a step has negative MACs or belongs to no exit")
        if (of_heads := self.step_macs[..., self.step_exit >= 0]).ndim == 2:
            if (of_heads != of_heads[0]).any():
                raise CalibrationError(
                    "score table: an exit's head costs not the same for all inputs"
                )
            if self.step_ahead.min() < -1 or (self.step_price < self.step_macs.max(axis=0)).any():
                raise CalibrationError("score table: a need or a dearest cost is too small")
        if "always" in self.kinds[:-1]:
            raise CalibrationError("score table: an exit before the last always accepts")
        scored = np.array([k not in ("always", "never") for k in self.kinds])
        if np.isnan(self.scores[:, scored]).any():
            raise CalibrationError("score table: a score is NaN")
        for array in (self.scores, self.predicted, self.labels, self.step_macs, self.step_exit):
            array.setflags(write=False)
        self.step_ahead.setflags(write=False)
        self.step_price.setflags(write=False)

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def correct(self) -> npt.NDArray[np.bool_]:
        """``(n, exits)``: whether each exit's answer is right."""
        out: npt.NDArray[np.bool_] = self.predicted == self.labels[:, None]
        return out

    @property
    def costs_differ(self) -> bool:
        """Whether each input has its own costs, as where gates choose its path."""
        return self.step_macs.ndim == 2

    @cached_property
    def reach_macs(self) -> npt.NDArray[np.int64]:
        """``(exits,)`` or ``(n, exits)``: MACs up to each exit without any head."""
        body = np.where(self.step_exit < 0, self.step_macs, 0).cumsum(axis=-1)
        out: npt.NDArray[np.int64] = body[..., self.step_exit >= 0]
        return out

    @cached_property
    def head_macs(self) -> npt.NDArray[np.int64]:
        """``(exits,)``: MACs of each exit's head, the same for all inputs."""
        heads = self.step_macs[..., self.step_exit >= 0]
        out: npt.NDArray[np.int64] = heads[0] if self.costs_differ else heads
        return out

    @cached_property
    def macs(self) -> npt.NDArray[np.int64]:
        """As :meth:`macs_with`, all scored heads run in passing."""
        asked = [k != "never" for k in self.kinds]
        return self.macs_with(np.array(asked))

    def macs_with(self, asked: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
        """``(exits,)`` or ``(n, exits)``: MACs of a run that ends at each exit.

        Args:
            asked: ``(exits,)``: the heads that are run in passing.
        """
        return self.reach_macs + self.heads_with(asked)

    def heads_with(self, asked: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
        """``(exits,)``: MACs of all heads of a run that ends at each exit."""
        passing = np.where(asked, self.head_macs, 0)
        out: npt.NDArray[np.int64] = passing.cumsum() - passing + self.head_macs
        return out

    @cached_property
    def full_macs(self) -> int:
        """MACs of a run to the last exit without any other head; the mean, where inputs differ."""
        reach = self.reach_macs[..., -1]
        return round(float(reach.mean())) + int(self.head_macs[-1])

    @property
    def full_accuracy(self) -> float:
        """Accuracy of the last exit alone, a fraction."""
        return float(self.correct[:, -1].mean())

    def can_accept(self, thresholds: Mapping[str, float]) -> npt.NDArray[np.bool_]:
        """``(exits,)``: which heads run in passing under ``thresholds`` (the last always answers).

        Raises:
            CalibrationError: a scored exit before the last has no threshold, an unknown one has, or
                one is NaN.
        """
        wanted = {e for e, k in zip(self.exits[:-1], self.kinds, strict=False) if k != "never"}
        if missing := wanted - thresholds.keys():
            raise CalibrationError(f"no threshold for {', '.join(sorted(missing))}")
        if unknown := thresholds.keys() - set(self.exits):
            raise CalibrationError(
                f"a threshold for {', '.join(sorted(unknown))}, which is no exit"
            )
        if any(np.isnan(t) for t in thresholds.values()):
            raise CalibrationError("a threshold is NaN")
        asked = [
            e in wanted and can_accept(Accept(kind=k, port="-"), thresholds[e])
            for e, k in zip(self.exits, self.kinds, strict=True)
        ]
        return np.array(asked)

    def rows(self, index: npt.NDArray[Any]) -> ScoreTable:
        """The inputs that ``index`` (numbers or a mask) selects."""
        return ScoreTable(
            exits=self.exits,
            kinds=self.kinds,
            scores=self.scores[index],
            predicted=self.predicted[index],
            labels=self.labels[index],
            step_macs=self.step_macs[index] if self.costs_differ else self.step_macs,
            step_exit=self.step_exit,
            step_ahead=self.step_ahead[index] if self.costs_differ else self.step_ahead,
            step_price=self.step_price,
            bundle=self.bundle,
            bundle_sha256=self.bundle_sha256,
            data=self.data,
            resource=self.resource,
        )

    def save(self, path: Path, *, force: bool = False) -> None:
        """Write an ``.npz`` file, whole or not at all.

        Raises:
            OutputExistsError: ``path`` exists and ``force`` is not set.
            DataError: it cannot be written.
        """
        arrays = {f.name: np.asarray(getattr(self, f.name)) for f in fields(self)}
        write_whole(
            path,
            lambda stream: np.savez(
                stream, allow_pickle=False, version=np.int64(_VERSION), **arrays
            ),
            force=force,
        )

    @classmethod
    def load(cls, path: Path) -> ScoreTable:
        """Read what :meth:`save` wrote.

        Raises:
            DataError: the file is missing, damaged, or no score table of this version.
        """
        arrays = read_arrays(path)
        wanted = {f.name for f in fields(cls)} | {"version"}
        if arrays.keys() != wanted:
            differ = ", ".join(sorted(arrays.keys() ^ wanted))
            raise DataError(f"{path}: this is no score table (missing or unknown: {differ})")
        version = arrays.pop("version")
        if version.shape or version.dtype.kind not in "iu" or int(version) != _VERSION:
            raise DataError(f"{path}: score table version {version}; {_VERSION} is needed")
        values: dict[str, Any] = dict(arrays)
        for name in ("exits", "kinds", "bundle", "bundle_sha256", "data", "resource"):
            text = arrays[name]
            axes = 1 if name in ("exits", "kinds") else 0
            if text.dtype.kind != "U" or text.ndim != axes:
                raise DataError(f"{path}: {name} is {text.dtype} {text.shape}; text is needed")
            values[name] = tuple(map(str, text)) if axes else str(text)
        if any(arrays[n].ndim == 0 for n in ("labels", "step_exit")):
            raise DataError(f"{path}: a score table's arrays have at least one axis")
        try:
            return cls(**values)
        except CalibrationError as error:
            raise DataError(f"{path}: {error}") from error


def require_chain(graph: Graph) -> None:
    """Check that thresholds can be calibrated from cached scores.

    Raises:
        CalibrationError: more than one exit's answer counts, or there are several inputs.
    """
    if graph.combine.kind != "first":
        raise CalibrationError(
            f"thresholds are calibrated where one exit answers; this network joins several answers "
            f"({graph.combine.kind})"
        )
    if len([n for n in graph.inputs() if n.param is None]) != 1:
        raise CalibrationError("thresholds are calibrated for networks with one input")


def collect(
    bundle: Bundle,
    dataset: Dataset,
    call: Call,
    *,
    batch: int = 250,
    resource: Resource = "macs",
    progress: Progress | None = None,
) -> ScoreTable:
    """Run every exit on every picture, and keep scores and answers.

    Where gates or channel masks choose what runs, they do as in a run without a cap, and each
    input's own costs are kept.

    Args:
        bundle: a network in which every path passes every exit.
        dataset: labelled pictures; never the test set, if thresholds are to come from it.
        call: runs one node; ``OrtBackend(bundle.models).call``.
        batch: pictures at a time.
        resource: what costs are counted in.
        progress: told how far it is.

    Raises:
        CalibrationError: the network is not such a one, or has other classes than the data.
        BudgetError: its costs in that resource are not known.
        BackendError: a node failed or gave NaN.
    """
    graph, preprocessing = bundle.graph, bundle.preprocessing
    require_chain(graph)
    if preprocessing is None:
        raise CalibrationError(f"{bundle.name} takes no pictures (its bundle has no preprocessing)")
    if bundle.labels and len(bundle.labels) < len(dataset.names):
        raise CalibrationError(
            f"{bundle.name} knows {len(bundle.labels)} classes; {dataset.source} has "
            f"{len(dataset.names)}"
        )
    exits = [graph.by_name[name] for name in graph.exits]
    heads = [e for e in exits if isinstance(e, Exit)]
    scores = np.full((len(dataset), len(heads)), np.nan)
    predicted = np.zeros((len(dataset), len(heads)), np.int64)
    chosen = any(isinstance(n, ControlNode) or _masked(n) for n in graph.nodes)
    paths = Paths(graph, call, resource=resource) if chosen else None
    steps = [n for n in map(graph.by_name.__getitem__, graph.order) if not isinstance(n, InputNode)]
    costs = np.zeros((len(dataset), len(steps)) if chosen else 0, np.int64)
    needs = np.zeros_like(costs)
    done = 0
    for pictures, _ in dataset.batches(batch):
        inputs, rows = prepare(pictures, preprocessing), slice(done, done + len(pictures))
        if paths is None:
            outputs = _run_all(graph, call, inputs)
        else:
            outputs, costs[rows], needs[rows] = paths.run(inputs)
        for column, head in enumerate(heads):
            answers = outputs[PortRef(head.name, head.answer)]
            if answers.ndim != 2 or np.isnan(answers).any():
                raise BackendError(f"exit {head.name!r} gave {answers.shape} answers, or NaN")
            predicted[rows, column] = answers.argmax(axis=1)
            if head.accept.scored:
                values = outputs[PortRef(head.name, head.accept.port)]
                scores[rows, column] = [accept_score(head.accept.kind, v) for v in values]
        done += len(pictures)
        if progress is not None:
            progress(done, len(dataset))
    return ScoreTable(
        exits=tuple(h.name for h in heads),
        kinds=tuple(h.accept.kind for h in heads),
        scores=scores,
        predicted=predicted,
        labels=dataset.labels.copy(),
        step_macs=costs if paths is not None else _costs(steps, resource),
        step_exit=np.array(
            [graph.exits.index(s.name) if isinstance(s, Exit) else -1 for s in steps], np.int64
        ),
        step_ahead=needs if paths is not None else np.zeros((0, 0), np.int64),
        step_price=paths.prices if paths is not None else np.zeros(0, np.int64),
        bundle=bundle.name,
        bundle_sha256=bundle.sha256,
        data=dataset.source,
        resource=resource,
    )


def _masked(node: Node) -> bool:
    return isinstance(node, ComputeNode) and node.mask is not None


def _costs(steps: Sequence[Node], resource: Resource) -> npt.NDArray[np.int64]:
    """What each step costs.

    Raises:
        BudgetError: that is not known.
    """
    out: list[int] = []
    for step in steps:
        amount = getattr(step.cost, resource) if isinstance(step, ComputeNode | Exit) else 0
        if amount is None:
            raise BudgetError(f"the {resource} of node {step.name!r} are not known: name a table")
        out.append(amount)
    return np.array(out, np.int64)


def _run_all(graph: Graph, call: Call, inputs: Array) -> dict[PortRef, Array]:
    """Every node's outputs on a batch, by port; tensors that nobody needs any more are dropped."""
    last_use = {
        graph.edge_into[PortRef(name, port.name)].source: at
        for at, name in enumerate(graph.order)
        for port in graph.by_name[name].inputs
    }
    held: dict[PortRef, Array] = {}
    for at, name in enumerate(graph.order):
        node = graph.by_name[name]
        if isinstance(node, InputNode):
            held[PortRef(name, name)] = inputs if node.param is None else node.param.value[None]
        else:
            taken = {
                p.name: _rows(held[graph.edge_into[PortRef(name, p.name)].source], len(inputs))
                for p in node.inputs
            }
            gave = call(name, taken)
            held.update({PortRef(name, p.name): gave[p.name] for p in node.outputs})
        for ref in [r for r, used in last_use.items() if used == at]:
            del held[ref]
    return held


def _rows(value: Array, count: int) -> Array:
    """A parameter, or the output of a node without inputs, is one row: it stands for all."""
    return value if len(value) == count else np.repeat(value, count, axis=0)
