"""From a trained gated network, or a backbone with d-gates, to a bundle.

A network says its parts (:mod:`dynrt.zoo.parts`); here they become nodes with layer gates, channel
masks and exits. Exits with a d-gate leave by its distances; DDI's branches without one are there for
budgets only, and answer when a run is stopped behind them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

from torch import nn

from dynrt.bundle import Bundle, Preprocessing
from dynrt.errors import RecipeError
from dynrt.exporters import Gate, Head, NetworkSpec, lower
from dynrt.exporters.gated import GatedUnit, gated_chain
from dynrt.exporters.plain import Weights
from dynrt.ir.graph import Accept, TensorType
from dynrt.train.package import CIFAR10_LABELS, CIFAR10_PREPROCESSING, UNCALIBRATED
from dynrt.zoo import DecisionGate, ExitGates
from dynrt.zoo.exits import VectorHead
from dynrt.zoo.parts import ExitPart, GatedParts

#: By which a d-gate accepts: its own distances, or the softmax of the cross-entropy baseline.
GateRule = Literal["hinge", "softmax"]
#: Least softmax that the baseline's gate accepts where a run is not calibrated yet.
UNCALIBRATED_SOFTMAX = 0.9
#: A layer gate's unit runs from this score on, in training as later.
RUNS_FROM = 0.5


class Parted(Protocol):
    """A network that can be cut into parts."""

    def export_parts(self) -> GatedParts:
        """Its parts, in evaluation mode."""
        ...


def gated_spec(
    network: Parted,
    gates: ExitGates | None = None,
    thresholds: Mapping[str, float] | None = None,
    *,
    name: str,
    rule: GateRule = "hinge",
    labels: Sequence[str] = CIFAR10_LABELS,
    preprocessing: Preprocessing = CIFAR10_PREPROCESSING,
    card: Mapping[str, object] | None = None,
) -> NetworkSpec:
    """The dynamic network that a trained network forms.

    Nodes are named as its parts (``stem``, ``block1``, ...), with ``block2_gate`` and
    ``block2_mask`` where it has such gates and ``dense2_join`` behind dense layers. An early exit
    gives ``logits`` (the answer) where it has a classifier, and ``distances`` where it has a d-gate.

    Args:
        network: a ``GatedNetwork`` or an ``ExitNetwork``.
        gates: a d-gate for each early exit, or ``None``: then exits never accept by themselves.
        thresholds: least score that each exit accepts; a d-gate's margin (:data:`UNCALIBRATED`),
            or :data:`UNCALIBRATED_SOFTMAX`, where none is given.
        name: of the bundle.
        rule: ``softmax``: the gates of the cross-entropy baseline decide.
        labels: of the classes.
        preprocessing: of pictures.
        card: the model card.

    Raises:
        RecipeError: gates, thresholds or labels do not fit the network, or an exit has neither
            classifier nor gate.
        ExportError: the parts do not fit together.
    """
    parts = network.export_parts()
    early, last = parts.exits[:-1], parts.exits[-1]
    chosen = _gates(gates, len(early), rule)
    wanted = dict(thresholds or {})
    if unknown := sorted(wanted.keys() - {exit_.name for exit_ in early}):
        known = ", ".join(exit_.name for exit_ in early) or "none"
        raise RecipeError(f"threshold for {unknown[0]!r}; the early exits are {known}")
    if chosen is None and wanted:
        raise RecipeError(f"threshold for {min(wanted)!r}, and the network has no d-gates")
    _require_labels(labels, last)
    exits: dict[str, Head] = {}
    for i, exit_ in enumerate(parts.exits):
        if exit_.after in exits:
            raise RecipeError(f"two exits after {exit_.after!r}: a network of so few units")
        gate = chosen[i] if chosen is not None and exit_ is not last else None
        exits[exit_.after] = _head(exit_, gate, rule, wanted.get(exit_.name), final=exit_ is last)
    units = [
        GatedUnit(
            name=part.name,
            module=part.module,
            gate=None
            if part.layer_gate is None
            else Gate(module=part.layer_gate, threshold=RUNS_FROM),
            channel_gate=part.channel_gate,
            dense=part.dense,
            repeats=part.previous,
        )
        for part in parts.parts
    ]
    shape = (preprocessing.channels, preprocessing.height, preprocessing.width)
    builder = gated_chain(
        name,
        TensorType(dtype="float32", shape=shape),
        units,
        exits,
        state={k: TensorType(dtype="float32", shape=(n,)) for k, n in parts.state.items()},
    )
    return builder.build(labels=labels, preprocessing=preprocessing, card=card)


def gated_bundle(
    network: Parted,
    gates: ExitGates | None = None,
    thresholds: Mapping[str, float] | None = None,
    *,
    name: str,
    rule: GateRule = "hinge",
    labels: Sequence[str] = CIFAR10_LABELS,
    preprocessing: Preprocessing = CIFAR10_PREPROCESSING,
    card: Mapping[str, object] | None = None,
    provenance: Mapping[str, str] | None = None,
    precision: Weights = "float16",
) -> Bundle:
    """Lower a trained network to a bundle.

    Args:
        network: as :func:`gated_spec` takes it, and so are the next seven.
        gates: by exit.
        thresholds: by exit.
        name: of the bundle.
        rule: what decides.
        labels: of the classes.
        preprocessing: of pictures.
        card: the model card.
        provenance: added to the versions of what made it.
        precision: in which weights are stored.

    Raises:
        RecipeError: network, gates, thresholds or labels do not fit together.
        ExportError: a module cannot be lowered.
    """
    spec = gated_spec(
        network,
        gates,
        thresholds,
        name=name,
        rule=rule,
        labels=labels,
        preprocessing=preprocessing,
        card=card,
    )
    return lower(spec, weights=precision, provenance=provenance)


def _gates(gates: ExitGates | None, exits: int, rule: GateRule) -> list[DecisionGate] | None:
    """The d-gates that decide, one for each early exit."""
    if gates is None:
        return None
    hinge, soft = gates.layers()
    chosen = hinge if rule == "hinge" else soft
    if len(chosen) != exits:
        raise RecipeError(f"{len(chosen)} {rule} d-gates for {exits} early exits")
    return chosen


def _require_labels(labels: Sequence[str], last: ExitPart) -> None:
    classes = None if last.classifier is None else last.classifier.out_features
    if classes is not None and len(labels) != classes:
        raise RecipeError(f"{len(labels)} labels for {classes} classes")


def _head(
    exit_: ExitPart,
    gate: DecisionGate | None,
    rule: GateRule,
    threshold: float | None,
    *,
    final: bool,
) -> Head:
    """An exit's module with its results by name, and how it accepts."""
    layers: dict[str, nn.Module] = {}
    if exit_.classifier is not None:
        layers["logits"] = exit_.classifier
    if gate is not None:
        # Where the gate alone is behind the vector, the baseline's scores are the exit's logits.
        port = "distances" if rule == "hinge" else ("softmax" if layers else "logits")
        layers[port] = gate
    if not layers:
        raise RecipeError(f"{exit_.name}: no classifier and no d-gate: it would have no answer")
    if final:
        accept = Accept(kind="always")
    elif gate is None:
        accept = Accept(kind="never")
    elif rule == "hinge":
        least = UNCALIBRATED if threshold is None else threshold
        accept = Accept(kind="hinge", port="distances", threshold=least)
    else:
        least = UNCALIBRATED_SOFTMAX if threshold is None else threshold
        accept = Accept(kind="max_softmax", port=list(layers)[-1], threshold=least)
    return Head(
        module=VectorHead(exit_.pooled, *layers.values()).eval(),
        outputs=tuple(layers),
        accept=accept,
        name=exit_.name,
    )
