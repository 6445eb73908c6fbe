"""Layers to access counts: the jobs of a layer, what a backend says of them, and the policy.

Notation, as in ``docs/energy-model.md``: a layer multiplies ``P`` output pixels by ``K`` taps by
``N`` filters; a fold covers ``Sr`` x ``Sc`` of two of them and runs over ``T``, the third.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from dynrt.energy import analytic
from dynrt.energy.array import SimCounts, SimLayer, SystolicArray
from dynrt.energy.backend import AnalyticBackend, Backend, Job
from dynrt.energy.folds import folds_of, hops_of
from dynrt.energy.hardware import Hardware
from dynrt.energy.policy import DEFAULT_POLICY, Policy, policy_named
from dynrt.errors import EnergyError
from dynrt.ir.counts import AccessCounts, CountTable, Gap, NodeCounts, TypedCounts
from dynrt.ir.graph import NodeId
from dynrt.ir.layers import (
    WORD_BITS,
    ConvLayer,
    GemmLayer,
    Layer,
    LayerTable,
    PassLayer,
    UnmodelledLayer,
)

_NO_VECTOR_UNIT = "the simulator has no unit for operators without multiplications"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Counted:
    """One layer's counts, or the gap that it leaves."""

    typed: TypedCounts | None = None
    gap: Gap | None = None


class Counter:
    """Counts layers of one number format after another; each distinct shape once.

    Args:
        hardware: on which.
        policy: under which.
        backend: by what.
    """

    def __init__(self, hardware: Hardware, *, policy: Policy, backend: Backend) -> None:
        self.hardware, self.policy, self.backend = hardware, policy, backend
        self._arrays: dict[str, SystolicArray] = {}
        self._raw: dict[Job, SimCounts] = {}
        self._done: dict[Layer, _Counted] = {}

    def array(self, dtype: str) -> SystolicArray:
        """The array as words of a number format see it."""
        if dtype not in self._arrays:
            self._arrays[dtype] = self.hardware.array(dtype)
        return self._arrays[dtype]

    def validate(self, layers: Iterable[Layer]) -> None:
        """Find out whether ``layers`` can be counted at all.

        Raises:
            EnergyError: one cannot; the message names it.
        """
        for layer in layers:
            job = self._job(layer)
            try:
                if job is not None:
                    analytic.validate(*job)
            except EnergyError as exc:
                raise EnergyError(f"{layer.op} {layer.name!r}: {exc}") from exc

    def prepare(self, layers: Iterable[Layer]) -> None:
        """Have the backend count all distinct shapes of ``layers`` at once.

        Raises:
            EnergyError: a layer that cannot be counted.
        """
        jobs = [job for layer in layers if (job := self._job(layer)) is not None]
        new = [job for job in dict.fromkeys(jobs) if job not in self._raw]
        if new:
            self._raw.update(self.backend.count(new))

    def node(self, layers: Sequence[Layer], *, mask_groups: int = 0) -> NodeCounts:
        """What a node takes; also by kept groups where it has a mask of so many."""
        typed, gaps = self._sum(layers)
        fewer = (
            [_kept_layer(layer, kept, mask_groups) for layer in layers]
            for kept in range(mask_groups + 1 if mask_groups else 0)
        )
        return NodeCounts(typed=typed, gaps=gaps, kept=tuple(self._sum(own)[0] for own in fewer))

    def _sum(self, layers: Sequence[Layer]) -> tuple[tuple[TypedCounts, ...], tuple[Gap, ...]]:
        self.prepare(layers)
        sums: dict[str, AccessCounts] = {}
        gaps: dict[tuple[str, str], Gap] = {}
        for layer in layers:
            counted = self._layer(layer)
            if counted.typed is not None:
                dtype = counted.typed.dtype
                sums[dtype] = sums.get(dtype, AccessCounts()) + counted.typed.counts
            if counted.gap is not None:
                key = (counted.gap.op, counted.gap.reason)
                gaps[key] = _joined(gaps[key], counted.gap) if key in gaps else counted.gap
        typed = tuple(TypedCounts(dtype=d, counts=sums[d]) for d in sorted(sums))
        return typed, tuple(gaps[key] for key in sorted(gaps))

    def _layer(self, layer: Layer) -> _Counted:
        key = layer if isinstance(layer, UnmodelledLayer) else replace(layer, name="", masked=None)
        if key not in self._done:
            self._done[key] = self._count(key)
        return self._done[key]

    def _count(self, layer: Layer) -> _Counted:
        if isinstance(layer, UnmodelledLayer):
            return _Counted(
                gap=Gap(
                    op=layer.op,
                    count=1,
                    macs=layer.macs,
                    bytes_moved=layer.bytes_moved,
                    reason=layer.reason,
                )
            )
        if isinstance(layer, PassLayer):
            return self._pass(layer)
        array = self.array(layer.dtype)
        job = self._job(layer)
        if job is None:  # a part of a masked layer of which nothing is left
            return _Counted()
        if job not in self._raw:
            self._raw.update(self.backend.count([job]))
        raw = self._raw[job]
        if self.policy.corrected:
            one = self._corrected(layer, job[0], array, raw)
        else:
            one = _as_simulated(job[0], array, raw)
        repeat = layer.groups if isinstance(layer, ConvLayer) else layer.repeat
        return _Counted(typed=TypedCounts(dtype=layer.dtype, counts=one.times(repeat)))

    def _pass(self, layer: PassLayer) -> _Counted:
        reads, writes = layer.reads_words, layer.writes_words
        if layer.view or (layer.fused and not self.policy.corrected):
            return _Counted()
        if not self.policy.corrected:
            moved = (reads + writes) * WORD_BITS[layer.dtype] // 8
            return _Counted(
                gap=Gap(op=layer.op, count=1, macs=0, bytes_moved=moved, reason=_NO_VECTOR_UNIT)
            )
        if layer.fused:
            reads = writes = 0
        counts = AccessCounts(
            operations=layer.operations,
            sram_ifmap_reads=reads,
            sram_ofmap_writes=writes,
            dram_ifmap_reads=reads,
            dram_ofmap_writes=writes,
        )
        return _Counted(typed=TypedCounts(dtype=layer.dtype, counts=counts))

    def _job(self, layer: Layer) -> Job | None:
        if isinstance(layer, ConvLayer) and layer.channels and layer.filters:
            return _conv_job(layer), self.array(layer.dtype)
        if isinstance(layer, GemmLayer) and layer.k and layer.n:
            return _gemm_job(layer), self.array(layer.dtype)
        return None

    def _corrected(
        self,
        layer: ConvLayer | GemmLayer,
        job: SimLayer,
        array: SystolicArray,
        raw: SimCounts,
    ) -> AccessCounts:
        sram_ifmap, dram_ifmap = raw.ifmap_sram_reads, raw.ifmap_dram_reads
        if isinstance(layer, ConvLayer) and _is_uneven(layer):
            sram_ifmap, dram_ifmap = analytic.real_ifmap_reads(layer, array)
        folds = folds_of(job, array)
        outputs = folds.pixels * folds.filters
        sums = _partial_sums(job, array, self.policy)
        return replace(
            _as_simulated(job, array, raw),
            sram_ifmap_reads=sram_ifmap,
            dram_ifmap_reads=dram_ifmap,
            sram_ofmap_writes=outputs + sums.on_chip + sums.through_dram,
            sram_ofmap_reads=sums.on_chip + sums.through_dram,
            dram_ofmap_writes=outputs + sums.through_dram,
            dram_ofmap_reads=sums.through_dram,
        )


def counts(
    layer: Layer,
    hardware: Hardware,
    *,
    policy: str = DEFAULT_POLICY,
    backend: Backend | None = None,
) -> AccessCounts:
    """Access counts of one layer.

    Args:
        layer: any but one that has no model.
        hardware: on which.
        policy: name of the policy.
        backend: our closed forms by default.

    Raises:
        EnergyError: the layer has no model under this policy, or cannot be counted.
    """
    counter = Counter(hardware, policy=policy_named(policy), backend=backend or AnalyticBackend())
    node = counter.node((layer,))
    if node.gaps:
        raise EnergyError(f"layer {layer.name!r} ({layer.op}): {node.gaps[0].reason}")
    return node.typed[0].counts if node.typed else AccessCounts()


def count_nodes(
    layers: LayerTable,
    hardware: Hardware,
    *,
    policy: str = DEFAULT_POLICY,
    backend: Backend | None = None,
    mask_groups: Mapping[NodeId, int] | None = None,
) -> CountTable:
    """Access counts of a network, node by node.

    Args:
        layers: its layer table.
        hardware: on which.
        policy: name of the policy.
        backend: our closed forms by default; distinct shapes are counted once.
        mask_groups: of nodes with a channel mask, into how many groups it divides the channels.

    Raises:
        EnergyError: a layer cannot be counted; the message names the node.
    """
    used = backend or AnalyticBackend()
    chosen = policy_named(policy)
    counter = Counter(hardware, policy=chosen, backend=used)
    for name, own in layers.items():
        try:
            counter.validate(own)
        except EnergyError as exc:
            raise EnergyError(f"node {name!r}: {exc}") from exc
    counter.prepare(layer for own in layers.values() for layer in own)
    nodes = {
        name: counter.node(own, mask_groups=(mask_groups or {}).get(name, 0))
        for name, own in layers.items()
    }
    return CountTable(
        hardware=hardware.to_json(), policy=chosen.name, backend=used.version, nodes=nodes
    )


# --- layers as jobs


def _conv_job(layer: ConvLayer) -> SimLayer:
    """One group, without padding: the input that the outputs reach, undilated."""
    return SimLayer(
        height=(layer.out_h - 1) * layer.stride_h + layer.kernel_h,
        width=(layer.out_w - 1) * layer.stride_w + layer.kernel_w,
        kernel_h=layer.kernel_h,
        kernel_w=layer.kernel_w,
        channels=layer.channels // layer.groups,
        filters=layer.filters // layer.groups,
        stride_h=layer.stride_h,
        stride_w=layer.stride_w,
    )


def _gemm_job(layer: GemmLayer) -> SimLayer:
    """A product as a convolution whose kernel is as wide as the input."""
    return SimLayer(
        height=layer.m, width=layer.k, kernel_h=1, kernel_w=layer.k, channels=1, filters=layer.n
    )


def _is_uneven(layer: ConvLayer) -> bool:
    """Whether the job's input is not the layer's: padding, dilation."""
    pads = (layer.pad_top, layer.pad_left, layer.pad_bottom, layer.pad_right)
    return any(pads) or layer.dilation_h > 1 or layer.dilation_w > 1


# --- raw counts to access counts


def _as_simulated(job: SimLayer, array: SystolicArray, raw: SimCounts) -> AccessCounts:
    """The simulator's own counts; hops are ours, it has none."""
    ifmap, filters, ofmap = hops_of(job, array)
    return AccessCounts(
        macs=raw.macs,
        cycles=raw.cycles,
        stall_cycles=raw.stall_cycles,
        pe_cycles=raw.cycles * array.rows * array.cols,
        sram_ifmap_reads=raw.ifmap_sram_reads,
        sram_filter_reads=raw.filter_sram_reads,
        sram_ofmap_writes=raw.ofmap_sram_writes,
        dram_ifmap_reads=raw.ifmap_dram_reads,
        dram_filter_reads=raw.filter_dram_reads,
        dram_ofmap_writes=raw.ofmap_dram_writes,
        hops_ifmap=ifmap,
        hops_filter=filters,
        hops_ofmap=ofmap,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _PartialSums:
    """Words of partial sums that are written and read again, by where they stay."""

    on_chip: int = 0
    through_dram: int = 0


def _partial_sums(job: SimLayer, array: SystolicArray, policy: Policy) -> _PartialSums:
    """Partial sums of all row folds but the last, once each.

    A column fold's sums, ``T`` times its columns, wait together for the next row fold.
    """
    if array.dataflow == "os":
        return _PartialSums()  # they never leave their processing element
    folds = folds_of(job, array)
    again = folds.row_folds - 1
    full, rest = divmod(folds.in_cols, array.cols)
    on_chip = through = 0
    for cols, many in ((array.cols, full), (rest, 1)):
        words = folds.in_time * cols
        if policy.partial_sums == "buffer" and words <= array.ofmap_words:
            on_chip += again * words * many
        else:
            through += again * words * many
    return _PartialSums(on_chip=on_chip, through_dram=through)


# --- channel masks


def _kept_layer(layer: Layer, kept: int, groups: int) -> Layer:
    """A layer with ``kept`` of ``groups`` groups of its node's masked channels left."""
    if isinstance(layer, ConvLayer) and layer.masked is not None:
        if layer.masked == "filters":
            return replace(layer, filters=layer.filters * kept // groups)
        return replace(layer, channels=layer.channels * kept // groups)
    if isinstance(layer, GemmLayer) and layer.masked is not None:
        if layer.masked == "filters":
            return replace(layer, n=layer.n * kept // groups)
        return replace(layer, k=layer.k * kept // groups)
    if isinstance(layer, PassLayer) and layer.masked is not None:
        return replace(
            layer,
            reads_words=layer.reads_words * kept // groups,
            writes_words=layer.writes_words * kept // groups,
            operations=layer.operations * kept // groups,
        )
    return layer


def _joined(a: Gap, b: Gap) -> Gap:
    known = a.bytes_moved is not None and b.bytes_moved is not None
    return Gap(
        op=a.op,
        count=a.count + b.count,
        macs=a.macs + b.macs,
        bytes_moved=(a.bytes_moved or 0) + (b.bytes_moved or 0) if known else None,
        reason=a.reason,
    )
