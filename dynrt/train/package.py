"""From finished weights to a bundle: the backbone in segments, an exit head with d-gate per branch."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from dynrt.bundle import Bundle, Preprocessing
from dynrt.errors import RecipeError
from dynrt.exporters import Head, NetworkSpec, d_gate, lower, sequential_exits
from dynrt.exporters.plain import Weights
from dynrt.ir.graph import Accept, TensorType
from dynrt.train.checkpoint import read_tensor_file, tensors_sha256
from dynrt.train.recipe import Recipe, StageName
from dynrt.train.recipe_file import load_recipe
from dynrt.train.stages import weights_path
from dynrt.train.weights import load_weights
from dynrt.zoo import BranchedResNet, ExitGates, exit_heads, segments

CIFAR10_LABELS = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
CIFAR10_PREPROCESSING = Preprocessing(
    height=32, width=32, channels=3, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
)
#: A d-gate's margin: where a run is not calibrated yet, an exit accepts what lies outside of it.
UNCALIBRATED = 1.0


def network_spec(
    weights: Mapping[str, Tensor],
    thresholds: Mapping[str, float] | None = None,
    *,
    name: str = "resnet38-ddi",
    labels: Sequence[str] = CIFAR10_LABELS,
    preprocessing: Preprocessing = CIFAR10_PREPROCESSING,
    card: Mapping[str, object] | None = None,
) -> NetworkSpec:
    """The dynamic network that finished weights form.

    Nodes ``stem``, ``block1``, ...; exits ``exit1``, ... with ``logits`` (the answer) and
    ``distances`` (accepted by), then ``final``, which always answers.

    Args:
        weights: ``backbone.*``, ``branches.I.*`` and ``gates.I.*``; the baseline's
            ``softmax_gates.*`` are left aside. Depth, width and classes are read off their shapes.
        thresholds: least distance that each exit accepts; :data:`UNCALIBRATED` where none is given.
        name: of the bundle.
        labels: of the classes.
        preprocessing: of pictures.
        card: the model card.

    Raises:
        RecipeError: a tensor is missing or of another shape, a threshold is for no exit, or the
            labels are not as many as the classes.
    """
    net, gates = _modules(weights)
    heads = exit_heads(net, gates)
    wanted = dict(thresholds or {})
    early = [exit_name for exit_name, _, _ in heads[:-1]]
    if unknown := sorted(wanted.keys() - set(early)):
        raise RecipeError(f"threshold for {unknown[0]!r}; the early exits are {', '.join(early)}")
    if len(labels) != net.backbone.classes:
        raise RecipeError(f"{len(labels)} labels for {net.backbone.classes} classes")
    exits: dict[str, Head] = {
        at: d_gate(head, threshold=wanted.get(exit_name, UNCALIBRATED))
        for exit_name, at, head in heads[:-1]
    }
    exit_name, at, head = heads[-1]
    if at in exits:
        raise RecipeError(f"two exits after {at!r}: a network of so few blocks has no bundle")
    exits[at] = Head(module=head, accept=Accept(kind="always"), name=exit_name)
    shape = (preprocessing.channels, preprocessing.height, preprocessing.width)
    builder = sequential_exits(
        name, TensorType(dtype="float32", shape=shape), segments(net.backbone), exits
    )
    return builder.build(labels=labels, preprocessing=preprocessing, card=card)


def build_bundle(
    weights: Mapping[str, Tensor],
    thresholds: Mapping[str, float] | None = None,
    *,
    name: str = "resnet38-ddi",
    labels: Sequence[str] = CIFAR10_LABELS,
    preprocessing: Preprocessing = CIFAR10_PREPROCESSING,
    card: Mapping[str, object] | None = None,
    provenance: Mapping[str, str] | None = None,
    precision: Weights = "float16",
) -> Bundle:
    """Lower finished weights to a bundle.

    Args:
        weights: as :func:`network_spec` takes them, and so are the next five.
        thresholds: by exit.
        name: of the bundle.
        labels: of the classes.
        preprocessing: of pictures.
        card: the model card.
        provenance: added to the versions of what made it and the weights' SHA-256.
        precision: in which weights are stored.

    Raises:
        RecipeError: the weights, thresholds or labels do not fit together.
        ExportError: a module cannot be lowered.
    """
    spec = network_spec(
        weights, thresholds, name=name, labels=labels, preprocessing=preprocessing, card=card
    )
    made_from = {"trained_weights_sha256": tensors_sha256(weights)}
    return lower(spec, weights=precision, provenance={**made_from, **(provenance or {})})


def run_weights(out: Path) -> dict[str, Tensor]:
    """The weights that a finished run left in ``out``, as :func:`network_spec` takes them.

    Raises:
        RecipeError: the run is not finished, or its files are damaged.
    """
    return {**finished_stage(out, "branches")[0], **finished_stage(out, "gates")[0]}


def run_bundle(
    out: Path,
    thresholds: Mapping[str, float] | None = None,
    *,
    card: Mapping[str, object] | None = None,
    precision: Weights = "float16",
) -> Bundle:
    """The bundle of the finished run in ``out``; its card says how it was trained.

    Args:
        out: folder that ``train`` filled.
        thresholds: by exit; :data:`UNCALIBRATED` where none is given.
        card: added to what the run itself knows.
        precision: in which weights are stored.

    Raises:
        RecipeError: the run is not finished, or its files are damaged.
        ExportError: a module cannot be lowered.
    """
    about = about_run(out)
    return build_bundle(
        run_weights(out),
        thresholds,
        name=about.recipe.name,
        labels=about.labels,
        preprocessing=about.preprocessing,
        card={**about.card(out), **(card or {})},
        precision=precision,
    )


def _modules(weights: Mapping[str, Tensor]) -> tuple[BranchedResNet, ExitGates]:
    """The network and its d-gates, of the depth, width and classes that the weights have."""
    try:
        width = weights["backbone.conv1.weight"].shape[0]
        classes = weights["backbone.linear.bias"].shape[0]
    except (KeyError, IndexError) as error:
        raise RecipeError("weights: no backbone.conv1.weight and backbone.linear.bias") from error
    stage = {name.split(".")[2] for name in weights if name.startswith("backbone.layer1.")}
    if not stage:
        raise RecipeError("weights: no block backbone.layer1.0")
    net = BranchedResNet(6 * len(stage) + 2, classes=classes, width=width)
    gates = ExitGates(
        [net.branch(i).feature_size for i in range(len(net.branches))], classes, baseline=False
    )
    own = {k: t for k, t in weights.items() if not k.startswith("softmax_gates.")}
    of_gates = {k: t for k, t in own.items() if k.startswith("gates.")}
    load_weights(net, {k: t for k, t in own.items() if k not in of_gates}, place="weights")
    load_weights(gates, of_gates, place="weights of the d-gates")
    return net.eval(), gates.eval()


def finished_stage(out: Path, stage: StageName) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Weights and last validation accuracy of a stage that a run finished.

    Raises:
        RecipeError: it is not finished, or its file is damaged.
    """
    path = weights_path(out, stage)
    if not path.exists():
        raise RecipeError(f"{out}: stage {stage!r} is not finished: there is no {path.name}")
    content = read_tensor_file(path, kind="weights")
    records = content.state["records"]
    if not isinstance(records, list) or not records:
        raise RecipeError(f"{path}: damaged: it holds no records")
    return dict(content.tensors), dict(records[-1]["accuracy"])


@dataclass(frozen=True, slots=True, kw_only=True)
class RunAbout:
    """What a run's folder says of itself.

    Attributes:
        recipe: with its schedule chosen.
        data: what it was trained on.
        labels: of the classes.
        height, width: of the pictures.
    """

    recipe: Recipe
    data: str
    labels: tuple[str, ...]
    height: int
    width: int

    @property
    def preprocessing(self) -> Preprocessing:
        """Of pictures, as in training."""
        pictures = self.recipe.pictures
        return Preprocessing(
            height=self.height,
            width=self.width,
            channels=len(pictures.mean),
            mean=pictures.mean,
            std=pictures.std,
        )

    def card(self, out: Path) -> dict[str, object]:
        """How it was trained, with the accuracy of every stage that is finished in ``out``."""
        recipe = self.recipe
        return {
            "summary": recipe.summary,
            "recipe": recipe.name,
            "schedule": recipe.schedule,
            "seed": recipe.seed,
            "data": self.data,
            "validation_accuracy": {
                stage: finished_stage(out, stage)[1]
                for stage in recipe.stages
                if weights_path(out, stage).exists()
            },
        }


def about_run(out: Path) -> RunAbout:
    """Read what the folder ``out`` of a run says of itself.

    Raises:
        RecipeError: it is no such folder.
    """
    path = out / "run.json"
    try:
        about = json.loads(path.read_text("utf-8"))
        height, width = about["picture_size"]
        return RunAbout(
            recipe=load_recipe(out / "recipe.toml", schedule=about["schedule"]),
            data=str(about["data"]),
            labels=tuple(str(label) for label in about["labels"]),
            height=int(height),
            width=int(width),
        )
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise RecipeError(f"{path}: this is no folder that dynrt train filled") from error
