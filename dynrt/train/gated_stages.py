"""Makes the tasks of the stages ``open``, ``iadi`` and ``ddi``."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from dynrt.errors import RecipeError
from dynrt.train.iadi import GatedTask
from dynrt.train.iadi_losses import RunCost, skipping_costs
from dynrt.train.networks import new_gated
from dynrt.train.pictures import Pictures
from dynrt.train.recipe import GatedStage, Recipe, Resource, StageName
from dynrt.train.weights import load_weights
from dynrt.zoo import GatedNetwork, ResNet, count_costs
from dynrt.zoo.gate_costs import GatedCosts

_BRANCHES = "branches."


def gated_network(
    recipe: Recipe, stage: StageName, before: Mapping[str, Tensor], *, before_stage: str
) -> GatedNetwork:
    """The network of a stage, with the weights of the stage before it.

    Args:
        recipe: with gates.
        stage: ``open``, ``iadi`` or ``ddi``; the last has branches.
        before: weights; empty for those of the seed.
        before_stage: whose they are, for messages.

    Raises:
        RecipeError: the weights are of another network, or there are no gates.
    """
    if recipe.gates is None:
        raise RecipeError(f"recipe {recipe.name!r}: stage {stage!r} without a table 'gates'")
    spec, seed = recipe.network, recipe.seed
    if stage == "open":
        net = new_gated(spec, recipe.gates, branches=False, seed=seed)
        if before:
            # Before the gates came; the same keys, whatever masks the units have now.
            load_weights(net.backbone, before, place=f"weights of stage {before_stage!r}")
        net.freeze_backbone()
        return net
    net = new_gated(spec, recipe.gates, branches=stage == "ddi", seed=seed)
    if before:
        own = {k: t for k, t in net.state_dict().items() if k.startswith(_BRANCHES)}
        new = {} if has_branches(before) else own
        load_weights(net, {**new, **before}, place=f"weights of stage {before_stage!r}")
    return net


def has_branches(weights: Mapping[str, Tensor]) -> bool:
    """Whether they are of a network with branches."""
    return any(name.startswith(_BRANCHES) for name in weights)


def gated_task(
    net: GatedNetwork,
    recipe: Recipe,
    settings: GatedStage,
    *,
    teacher: ResNet | None,
    train: Pictures,
    validation: Pictures,
) -> GatedTask:
    """What trains ``net``.

    Raises:
        RecipeError: the hardware or table of an energy is not known.
    """
    height, width = train.size
    computation = RunCost(count_costs(net, height=height, width=width), net)
    measured = {"saved": computation, "skipped": RunCost(skipping_costs(net), net)}
    cost = RunCost(_costs(net, settings.resource, height, width), net)
    if settings.resource.kind == "energy":
        measured["energy"] = cost
    return GatedTask(
        net,
        teacher=teacher,
        stage=settings,
        cost=cost,
        measured=measured,
        seed=recipe.seed,
        train=train,
        validation=validation,
    )


def _costs(net: GatedNetwork, resource: Resource, height: int, width: int) -> GatedCosts:
    if resource.kind == "skipping":
        return skipping_costs(net)
    if resource.kind == "computation":
        return count_costs(net, height=height, width=width)
    from dynrt.train.gated_energy import energy_costs  # exporting needs onnx

    if resource.hardware is None or resource.table is None:
        raise RecipeError("resource 'energy' needs a hardware and a table")
    return energy_costs(
        net, hardware=resource.hardware, table=resource.table, height=height, width=width
    )
