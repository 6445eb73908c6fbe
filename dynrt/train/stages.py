"""One stage of one run: taken from its finished file, imported, or trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from torch import Tensor, nn

from dynrt.errors import RecipeError
from dynrt.train.checkpoint import (
    TensorFile,
    read_tensor_file,
    read_tensors,
    require_same,
    tensors_sha256,
    write_tensor_file,
)
from dynrt.train.gated_stages import gated_network, gated_task, has_branches
from dynrt.train.gates import GateTask, pooled_features
from dynrt.train.loop import StageRun, Task
from dynrt.train.networks import NetworkTask, new_backbone, new_branched
from dynrt.train.pictures import Pictures
from dynrt.train.progress import Journal, Record, Watch
from dynrt.train.recipe import (
    Descent,
    GatedStage,
    GateStage,
    NetworkSpec,
    NetworkStage,
    Rate,
    Recipe,
    StageName,
    Teacher,
    WeightFile,
    WeightStage,
)
from dynrt.train.weights import (
    file_sha256,
    find_weights,
    load_weight_file,
    load_weights,
)
from dynrt.zoo import BranchedResNet, ExitGates, GatedNetwork, ResNet
from dynrt.zoo.exits import ExitNetwork
from dynrt.zoo.gated import CHANNEL_GATES, LAYER_GATES

_IMPORTED = "imported weights"
#: How weights that nothing is learnt from are evaluated.
_EVALUATED = NetworkStage(
    descent=Descent(
        epochs=1,
        batch=1,
        rate=Rate(kind="drops", peak=1.0),
        momentum=0.0,
        momentum_at_peak=0.0,
        weight_decay=0.0,
    ),
    precision="float32",
    channels_last=True,
    exit_weights=(1.0,),
    teacher=None,
    start=None,
)


class _OfGates(TypedDict, total=False):
    """Arguments of :class:`~dynrt.train.loop.StageRun`."""

    clip_norm: float | None
    rates: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Materials:
    """What a run learns from.

    Attributes:
        train, validation: pictures.
        sha256: of both, labels included.
        folders: where the recipe's weight files are looked for.
    """

    train: Pictures
    validation: Pictures
    sha256: str
    folders: Sequence[Path]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One call of ``train``.

    Attributes:
        recipe: with its schedule chosen.
        materials: data and folders.
        out: the folder.
        imported: files that stand for whole stages.
        watch, journal: where it tells and records.
    """

    recipe: Recipe
    materials: Materials
    out: Path
    imported: Mapping[StageName, Path]
    watch: Watch
    journal: Journal

    def first_stage(self) -> StageName:
        """The last network that is imported, or else the first stage: nothing before is needed."""
        names = list(self.recipe.stages)
        networks = [s for s in names if not isinstance(self.recipe.stages[s], GateStage)]
        for stage in reversed(networks):
            path = weights_path(self.out, stage)
            if stage in self.imported:
                return stage
            if path.exists() and _IMPORTED in read_tensor_file(path, kind="weights").identity:
                return stage
        return names[0]

    def finish(self, stage: StageName, before: Mapping[str, Tensor]) -> TensorFile | None:
        """The stage's weights, trained now if need be.

        Args:
            stage: its name.
            before: weights of the stage before it; empty for the first.

        Returns:
            ``None`` if the time was up; the checkpoint then holds everything.

        Raises:
            RecipeError: a file is damaged or foreign, or the loss diverges.
        """
        path = weights_path(self.out, stage)
        given = self.imported.get(stage)
        if path.exists():
            content = read_tensor_file(path, kind="weights")
            if given is not None:
                require_same(path, content.identity, {_IMPORTED: file_sha256(given)})
            elif _IMPORTED not in content.identity:
                require_same(path, content.identity, self._identity(stage, before))
            checkpoint_path(self.out, stage).unlink(missing_ok=True)
            return content
        if given is not None:
            return self._import(stage, given, before, {_IMPORTED: file_sha256(given)})
        identity = self._identity(stage, before)
        settings = self.recipe.stages[stage]
        if isinstance(settings, WeightStage):
            weights = find_weights(settings.weights, self.materials.folders)
            return self._import(stage, weights, before, identity)
        task = self._task(stage, before)
        stage_run = StageRun(
            stage=stage,
            descent=settings.descent,
            identity=identity,
            checkpoint=checkpoint_path(self.out, stage),
            watch=self.watch,
            journal=self.journal,
            **_of_gates(settings),
        )
        records = stage_run.fit(task)
        if records is None:
            return None
        return self._leave(stage, identity, task.module, records)

    def _leave(
        self,
        stage: StageName,
        identity: Mapping[str, str],
        module: nn.Module,
        records: Sequence[Record],
    ) -> TensorFile:
        content = TensorFile(
            kind="weights",
            identity=identity,
            state={"stage": stage, "records": list(records)},
            tensors={k: t.detach().contiguous() for k, t in module.state_dict().items()},
        )
        write_tensor_file(weights_path(self.out, stage), content)
        checkpoint_path(self.out, stage).unlink(missing_ok=True)
        return content

    def _identity(self, stage: StageName, before: Mapping[str, Tensor]) -> dict[str, str]:
        """All that decides a stage's outcome, as hashes that errors can name."""
        identity = {
            "recipe": self.recipe.stage_sha256(stage),
            "data": self.materials.sha256,
        }
        if before:
            identity["stage before it"] = tensors_sha256(before)
        for role, wanted in _weight_files(self.recipe, stage):
            pinned = wanted.sha256
            identity[role] = pinned or file_sha256(find_weights(wanted, self.materials.folders))
        return identity

    def _import(
        self,
        stage: StageName,
        given: Path,
        before: Mapping[str, Tensor],
        identity: Mapping[str, str],
    ) -> TensorFile:
        tensors, _ = read_tensors(given)
        # The stage `ddi` may go on from branches that were trained for another target.
        branched = stage == "iadi" and "ddi" in self.recipe.stages and has_branches(tensors)
        task = self._task("ddi" if branched else stage, before, imported=True)
        load_weights(task.module, tensors, place=str(given))
        record: Record = {
            "stage": stage,
            "epoch": 0,
            "loss": None,
            "accuracy": task.accuracy(),
            "seconds": 0.0,
        }
        if measures := task.measures():
            record["measures"] = measures
        return self._leave(stage, identity, task.module, [record])

    def _task(
        self, stage: StageName, before: Mapping[str, Tensor], *, imported: bool = False
    ) -> Task:
        settings = self.recipe.stages[stage]
        if isinstance(settings, GateStage):
            return self._gate_task(settings, before, imported=imported)
        if isinstance(settings, GatedStage):
            net = gated_network(self.recipe, stage, before, before_stage=self._before(stage))
            return gated_task(
                net,
                self.recipe,
                settings,
                teacher=None if imported else self._teacher(settings.network),
                train=self.materials.train,
                validation=self.materials.validation,
            )
        if isinstance(settings, WeightStage):
            settings, imported = _EVALUATED, True
        module: nn.Module
        if stage == "base":
            module = new_backbone(self.recipe.network, seed=self.recipe.seed)
            if settings.start is not None and not imported:
                load_weight_file(module, find_weights(settings.start, self.materials.folders))
            exit_names: tuple[str, ...] = ("final",)
        else:
            branched = module = new_branched(self._resnet(), seed=self.recipe.seed)
            if before:
                load_weights(branched.backbone, before, place="weights of stage 'base'")
            exit_names = branched.exit_names
        teacher = None if imported else self._teacher(settings)
        return NetworkTask(
            module,
            teacher=teacher,
            stage=settings,
            seed=self.recipe.seed,
            train=self.materials.train,
            validation=self.materials.validation,
            exit_names=exit_names,
        )

    def _resnet(self) -> NetworkSpec:
        """The network, which stage 'branches' has only as a ResNet."""
        spec = self.recipe.network
        if not isinstance(spec, NetworkSpec):
            raise RecipeError(f"recipe {self.recipe.name!r}: stage 'branches' is for ResNets")
        return spec

    def _before(self, stage: StageName) -> str:
        names = list(self.recipe.stages)
        return names[max(0, names.index(stage) - 1)]

    def _teacher(self, settings: NetworkStage) -> ResNet | None:
        wanted: Teacher | None = settings.teacher
        if wanted is None:
            return None
        spec = NetworkSpec(
            depth=wanted.depth, width=wanted.width, classes=self.recipe.network.classes
        )
        teacher = ResNet(spec.depth, width=spec.width, classes=spec.classes)
        load_weight_file(teacher, find_weights(wanted.weights, self.materials.folders))
        return teacher

    def _frozen(self, before: Mapping[str, Tensor]) -> BranchedResNet | GatedNetwork | ExitNetwork:
        """The network that d-gates stand on, with the weights of the stage before them."""
        if "ddi" in self.recipe.stages:
            return gated_network(self.recipe, "ddi", before, before_stage="ddi")
        if "branches" in self.recipe.stages:
            branched = new_branched(self._resnet(), seed=self.recipe.seed)
            load_weights(branched, before, place="weights of stage 'branches'")
            return branched
        backbone = new_backbone(self.recipe.network, seed=self.recipe.seed)
        load_weights(backbone, before, place="weights of stage 'base'")
        return ExitNetwork(backbone, self.recipe.exit_points, grid=self.recipe.exit_grid)

    def _gate_task(
        self, settings: GateStage, before: Mapping[str, Tensor], *, imported: bool
    ) -> GateTask:
        net = self._frozen(before)
        validation = pooled_features(
            net, self.materials.validation, flipped=False, watch=self.watch
        )
        train = validation
        if not imported:
            train = pooled_features(
                net, self.materials.train, flipped=settings.flipped, watch=self.watch
            )
        classifiers = []
        if not isinstance(net, ExitNetwork):
            branches = [net.branch(i) for i in range(len(net.exit_names) - 1)]
            classifiers = [branch.classifier for branch in branches]
        gates = ExitGates(
            [x.shape[1] for x in train.by_exit],
            self.recipe.network.classes,
            baseline=settings.baseline,
        )
        return GateTask(
            gates,
            stage=settings,
            seed=self.recipe.seed,
            train=train,
            validation=validation,
            classifiers=classifiers,
        )


def _of_gates(settings: NetworkStage | GatedStage | GateStage) -> _OfGates:
    """What the optimiser does otherwise where there are gates."""
    if not isinstance(settings, GatedStage):
        return {}
    rates = {LAYER_GATES: settings.gate_rate, CHANNEL_GATES: settings.channel_rate}
    return {"clip_norm": settings.clip_norm, "rates": rates}


def weights_path(out: Path, stage: StageName) -> Path:
    """Where a finished stage leaves its weights."""
    return out / f"{stage}.safetensors"


def checkpoint_path(out: Path, stage: StageName) -> Path:
    """Where a stage under way keeps itself."""
    return out / f"{stage}.checkpoint.safetensors"


def refuse_foreign(out: Path, recipe: Recipe) -> None:
    """Check all that ``out`` holds of a run against ``recipe``, before anything is written.

    Raises:
        RecipeError: a file is damaged, or of another recipe, schedule or network.
    """
    for stage in recipe.stages:
        for path, kind in (
            (weights_path(out, stage), "weights"),
            (checkpoint_path(out, stage), "checkpoint"),
        ):
            if not path.exists():
                continue
            found = read_tensor_file(path, kind=kind).identity
            if _IMPORTED not in found:
                wanted = recipe.stage_sha256(stage)
                require_same(path, {"recipe": found.get("recipe", "")}, {"recipe": wanted})


def check_imports(recipe: Recipe, finished: Mapping[str, Path]) -> dict[StageName, Path]:
    """The files that stand for whole stages.

    Raises:
        RecipeError: no such stage in the recipe, or no such file.
    """
    out: dict[StageName, Path] = {}
    for name, path in finished.items():
        stage = next((s for s in recipe.stages if s == name), None)
        if stage is None:
            known = ", ".join(recipe.stages)
            raise RecipeError(f"finished stage {name!r}: recipe {recipe.name!r} has {known}")
        if not Path(path).is_file():
            raise RecipeError(f"finished stage {name!r}: there is no file {path}")
        out[stage] = Path(path)
    return out


def _weight_files(recipe: Recipe, stage: StageName) -> list[tuple[str, WeightFile]]:
    settings = recipe.stages[stage]
    if isinstance(settings, GateStage):
        return []
    if isinstance(settings, WeightStage):
        return [("weights", settings.weights)]
    if isinstance(settings, GatedStage):
        settings = settings.network
    out = []
    if settings.start is not None:
        out.append(("start", settings.start))
    if settings.teacher is not None:
        out.append(("teacher", settings.teacher.weights))
    return out
