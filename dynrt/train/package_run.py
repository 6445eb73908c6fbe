"""A finished run's folder as a network to export, whatever was trained in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from dynrt.bundle import Bundle
from dynrt.errors import RecipeError
from dynrt.exporters import NetworkSpec, lower
from dynrt.exporters.plain import Weights
from dynrt.train.checkpoint import tensors_sha256
from dynrt.train.gated_stages import gated_network
from dynrt.train.networks import new_backbone
from dynrt.train.package import RunAbout, about_run, finished_stage, network_spec, run_weights
from dynrt.train.package_gated import GateRule, Parted, gated_spec
from dynrt.train.recipe import StageName
from dynrt.train.stages import weights_path
from dynrt.train.weights import load_weights
from dynrt.zoo import ExitGates, GatedNetwork
from dynrt.zoo.exits import ExitNetwork


def run_spec(
    out: Path,
    thresholds: Mapping[str, float] | None = None,
    *,
    name: str | None = None,
    rule: GateRule = "hinge",
    card: Mapping[str, object] | None = None,
) -> tuple[NetworkSpec, dict[str, str]]:
    """The dynamic network of a run, and a line on its weights for the bundle's provenance.

    A run with the stage ``branches`` gives branches with d-gates. Of one with layer or channel gates
    it is the network of the last stage that is finished, ``ddi`` or ``iadi``, with d-gates if these
    are. Any other has d-gates on its backbone alone.

    Args:
        out: folder that ``train`` filled.
        thresholds: by exit.
        name: of the bundle; by default the recipe's.
        rule: which of its d-gates decide; ``softmax`` where there are no branches without gates.
        card: added to what the run itself knows.

    Raises:
        RecipeError: the stages that this takes are not finished, or its files are damaged.
    """
    about = about_run(out)
    card = {**about.card(out), **(card or {})}
    called = name or about.recipe.name
    if "branches" in about.recipe.stages:
        if rule != "hinge":
            raise RecipeError(f"{out}: the exits of a run with 'branches' accept by distances")
        weights: Mapping[str, Tensor] = run_weights(out)
        spec = network_spec(
            weights,
            thresholds,
            name=called,
            labels=about.labels,
            preprocessing=about.preprocessing,
            card=card,
        )
    else:
        network, gates, weights = _run_network(out, about)
        spec = gated_spec(
            network,
            gates,
            thresholds,
            name=called,
            rule=rule,
            labels=about.labels,
            preprocessing=about.preprocessing,
            card=card,
        )
    return spec, {"trained_weights_sha256": tensors_sha256(weights)}


def trained_bundle(
    out: Path,
    thresholds: Mapping[str, float] | None = None,
    *,
    name: str | None = None,
    rule: GateRule = "hinge",
    card: Mapping[str, object] | None = None,
    precision: Weights = "float16",
) -> Bundle:
    """The bundle of a run; arguments as of :func:`run_spec`, and in which ``precision`` it is stored.

    Raises:
        RecipeError: as :func:`run_spec`.
        ExportError: a module cannot be lowered.
    """
    spec, provenance = run_spec(out, thresholds, name=name, rule=rule, card=card)
    return lower(spec, weights=precision, provenance=provenance)


def _run_network(
    out: Path, about: RunAbout
) -> tuple[Parted, ExitGates | None, Mapping[str, Tensor]]:
    """What a run trained: the network, its d-gates, and the weights of both."""
    recipe = about.recipe
    if recipe.gates is None:
        weights, _ = finished_stage(out, "base")
        backbone = new_backbone(recipe.network, seed=recipe.seed)
        load_weights(backbone, weights, place="weights of stage 'base'")
        points = ExitNetwork(backbone.eval(), recipe.exit_points, grid=recipe.exit_grid)
        of_gates, _ = finished_stage(out, "gates")
        return (
            points,
            _gates(of_gates, points.feature_sizes, points.classes),
            {**weights, **of_gates},
        )
    stage: StageName = "ddi" if weights_path(out, "ddi").exists() else "iadi"
    weights, _ = finished_stage(out, stage)
    net = gated_network(recipe, stage, weights, before_stage=stage).eval()
    if stage == "iadi" or not weights_path(out, "gates").exists():
        return net, None, weights
    of_gates, _ = finished_stage(out, "gates")
    return net, branch_gates(net, of_gates), {**weights, **of_gates}


def branch_gates(net: GatedNetwork, weights: Mapping[str, Tensor]) -> ExitGates:
    """The d-gates on the branches of ``net``.

    Args:
        net: with branches.
        weights: of the stage ``gates``, with or without the cross-entropy baseline's.

    Raises:
        RecipeError: they do not fit the branches.
    """
    sizes = [net.branch(i).feature_size for i in range(len(net.exit_names) - 1)]
    return _gates(weights, sizes, net.chain.classes)


def _gates(weights: Mapping[str, Tensor], sizes: Sequence[int], classes: int) -> ExitGates:
    gates = ExitGates(sizes, classes, baseline=any(k.startswith("softmax_") for k in weights))
    load_weights(gates, weights, place="weights of the d-gates")
    return gates.eval()
