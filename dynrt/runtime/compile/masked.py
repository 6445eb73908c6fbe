"""A node with a channel mask, run so that what the mask drops costs no time.

    pair = MaskedPair(bundle.models["block"], graph.by_name["block"])
    call = pair.bind(takes, gives)  # stored arrays, as pair.layouts says
    call(kept)  # int64 indices of the kept groups, rising

Two sessions: one of all channels, one that gathers the weights of the kept groups
(:mod:`dynrt.runtime.compile.mask_gather`). Where that is not possible (a group is no whole SIMD
block, or the node applies its mask in another way) the node's own ONNX runs everything and
multiplies by the mask: the multiplications are then counted as saved and no time is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime

from dynrt.errors import BackendError, CompileError
from dynrt.ir.graph import Array, ComputeNode, Port
from dynrt.runtime.compile.mask_form import MaskForm, mask_form
from dynrt.runtime.compile.mask_gather import gathered
from dynrt.runtime.compile.mask_segment import LoneSegment, blocked_segment, plain_segment
from dynrt.runtime.compile.mask_sessions import load_session
from dynrt.runtime.compiled import KEPT, PLAIN, Layout

#: Largest deviation from the node's own ONNX, relative to its largest output.
_TOLERANCE = 1e-3
Call = Callable[[Array], None]


class MaskedPair:
    """Sessions of one masked node.

    Args:
        model: the node's plain ONNX.
        node: with a mask.
        threads: that one call may use.

    Attributes:
        layouts: how the tensors of the ports, the mask's left out, are stored.
        realised: whether dropped groups save time, and not only counted multiplications.

    Raises:
        CompileError: the node has no mask, or onnxruntime refuses its model.
    """

    def __init__(self, model: bytes, node: ComputeNode, *, threads: int = 1) -> None:
        if node.mask is None:
            raise CompileError(f"node {node.name!r} has no channel mask")
        self.node, self.mask = node, node.mask
        self._takes = tuple(p for p in node.inputs if p.name != node.mask.port)
        self._whole = load_session(model, threads=threads)
        self._dense: onnxruntime.InferenceSession | None = None
        self._sparse: onnxruntime.InferenceSession | None = None
        ports = (*self._takes, *node.outputs)
        self._tensors: Mapping[str, str] = {p.name: p.name for p in ports}
        self.layouts: Mapping[str, Layout] = dict.fromkeys(self._tensors, PLAIN)
        form = mask_form(model, node)
        for segment in self._segments(form) if form is not None else ():
            if form is not None and self._adopt(form, segment, threads):
                break

    @property
    def realised(self) -> bool:
        """Whether dropped groups save time."""
        return self._sparse is not None

    def saved_macs(self, kept: int) -> tuple[int, int]:
        """Multiplications counted as saved when ``kept`` groups are kept, and those really saved."""
        counted = (self.mask.groups - kept) * self.mask.group_macs
        if not self.realised:
            return counted, 0
        # With no group kept one block of zeros still runs.
        return counted, (self.mask.groups - max(kept, 1)) * self.mask.group_macs

    def bind(self, takes: Mapping[str, Array], gives: Mapping[str, Array]) -> Call:
        """A call on fixed memory.

        Args:
            takes: stored batches by input port, the mask's left out; C-contiguous.
            gives: the same by output port; written by each call.

        Returns:
            Takes the kept groups, rising int64 ``(k,)``, the same for every sample of the batch.

        Raises:
            BackendError: a port is missing, or an array is not what its port stores.
        """
        self._require(takes, self._takes)
        self._require(gives, self.node.outputs)
        arrays = {**takes, **gives}
        if self._sparse is None or self._dense is None:
            return self._bound_whole(arrays)
        return _Bound(self, arrays, self._dense, self._sparse)

    def run(self, inputs: Mapping[str, Array], kept: Sequence[int]) -> dict[str, Array]:
        """Outputs for plain batches ``(n, ...)`` by input port; for tests, not for speed.

        Raises:
            BackendError: a port is missing or of another shape, or a group does not exist.
        """
        groups = np.asarray(kept, np.int64).reshape(-1)
        valid = not len(groups) or (groups.min() >= 0 and groups.max() < self.mask.groups)
        if not valid or np.any(np.diff(groups) <= 0):
            raise BackendError(
                f"node {self.node.name!r}: kept groups {groups.tolist()} are not rising numbers "
                f"below {self.mask.groups}"
            )
        missing = [p.name for p in self._takes if p.name not in inputs]
        if missing:
            raise BackendError(f"node {self.node.name!r}: input {missing[0]!r} is missing")
        takes = {p.name: self.layouts[p.name].from_plain(inputs[p.name]) for p in self._takes}
        takes = {k: np.ascontiguousarray(v) for k, v in takes.items()}
        batch = len(next(iter(takes.values()))) if takes else 1
        gives = {
            p.name: np.empty(
                (batch, *self.layouts[p.name].stored_shape(p.type.shape)), p.type.dtype
            )
            for p in self.node.outputs
        }
        self.bind(takes, gives)(groups)
        return {
            p.name: self.layouts[p.name].to_plain(gives[p.name], p.type.shape)
            for p in self.node.outputs
        }

    # --- making

    def _segments(self, form: MaskForm) -> list[LoneSegment]:
        """What to try, the best first."""
        ports = (*self._takes, *self.node.outputs)
        blocked = blocked_segment(form.model, self._takes, self.node.outputs)
        plain = plain_segment(form.model, ports)
        return [plain] if blocked is None else [blocked, plain]

    def _adopt(self, form: MaskForm, segment: LoneSegment, threads: int) -> bool:
        """Use ``segment`` if its channels can be gathered and it computes the same."""
        sparse = gathered(segment.model, between=form.between, groups=self.mask.groups)
        if sparse is None:
            return False
        before = (self._tensors, self.layouts)
        self._tensors, self.layouts = segment.tensors, segment.layouts
        try:
            self._dense, self._sparse = (
                load_session(bytes(m.SerializeToString()), optimise=False, threads=threads)
                for m in (segment.model, sparse)
            )
            same = self._same()
        except (CompileError, BackendError):
            same = False
        if not same:
            self._dense = self._sparse = None
            self._tensors, self.layouts = before
        return same

    def _same(self) -> bool:
        """Whether both sessions give what the node's own ONNX gives, on noise."""
        rng = np.random.default_rng(0)
        groups = self.mask.groups
        some = np.sort(rng.permutation(groups)[: max(1, groups // 2)])
        for batch, kept in ((1, np.arange(groups)), (2, some), (1, some[:1]), (1, some[:0])):
            inputs = {
                p.name: rng.standard_normal((batch, *p.type.shape)).astype(p.type.dtype)
                for p in self._takes
            }
            mask = np.zeros((batch, groups), np.float32)
            mask[:, kept] = 1
            names = [p.name for p in self.node.outputs]
            want = self._whole.run(names, {**inputs, self.mask.port: mask})
            got = self.run(inputs, kept.tolist())
            for name, value in zip(names, want, strict=True):
                far = float(np.abs(got[name] - value).max())
                if not far <= _TOLERANCE * max(1.0, float(np.abs(value).max())):
                    return False
        return True

    # --- running

    def _require(self, arrays: Mapping[str, Array], ports: Sequence[Port]) -> None:
        for port in ports:
            got = arrays.get(port.name)
            if got is None:
                raise BackendError(f"node {self.node.name!r}: port {port.name!r} is missing")
            want = self.layouts[port.name].stored_shape(port.type.shape)
            if got.shape[1:] != want or got.dtype.name != port.type.dtype:
                raise BackendError(
                    f"node {self.node.name!r}: port {port.name!r} stores {port.type.dtype}{want}, "
                    f"not {got.dtype.name}{got.shape[1:]}"
                )
            if not got.flags.c_contiguous:
                raise BackendError(f"node {self.node.name!r}: {port.name!r} is not contiguous")

    def _bound_whole(self, arrays: Mapping[str, Array]) -> Call:
        """The node's own ONNX with the mask as 0 and 1."""
        batch = len(next(iter(arrays.values())))
        mask = np.empty((batch, self.mask.groups), np.float32)
        call = self.binding(self._whole, arrays, {self.mask.port: mask})

        def run(kept: Array) -> None:
            mask.fill(0)
            mask[:, kept] = 1
            call()

        return run

    def binding(
        self,
        session: onnxruntime.InferenceSession,
        arrays: Mapping[str, Array],
        more: Mapping[str, Array],
    ) -> Callable[[], None]:
        """``session`` on fixed memory: arrays by port, and ``more`` inputs by tensor name."""
        binding = session.io_binding()
        given = {p.name for p in self.node.outputs}
        held: list[Any] = [session, binding]
        rows = [(self._tensors[k], k in given, v) for k, v in arrays.items()]
        for name, output, array in (*rows, *((k, False, v) for k, v in more.items())):
            value = onnxruntime.OrtValue.ortvalue_from_numpy(array)
            held += [array, value]
            if output:
                binding.bind_ortvalue_output(name, value)
            else:
                binding.bind_ortvalue_input(name, value)

        start, bound = session._sess.run_with_iobinding, binding._iobinding  # half the overhead

        def run(_held: tuple[Any, ...] = tuple(held)) -> None:
            start(bound, None)

        return run


class _Bound:
    """One call of a pair on fixed memory: a binding per number of kept groups, made when needed."""

    def __init__(
        self,
        pair: MaskedPair,
        arrays: Mapping[str, Array],
        dense: onnxruntime.InferenceSession,
        sparse: onnxruntime.InferenceSession,
    ) -> None:
        self._pair, self._arrays, self._sparse = pair, arrays, sparse
        self._groups = pair.mask.groups
        self._dense = pair.binding(dense, arrays, {})
        self._by_count: dict[int, tuple[Array, Callable[[], None]]] = {}

    def __call__(self, kept: Array) -> None:
        count = len(kept)
        if count == self._groups:
            self._dense()
            return
        known = self._by_count.get(count)
        if known is None:
            # With nothing kept, the block of zeros behind the last group.
            index = np.full(max(count, 1), self._groups, np.int64)
            known = self._by_count[count] = (
                index,
                self._pair.binding(self._sparse, self._arrays, {KEPT: index}),
            )
        if count:
            known[0][:] = kept
        known[1]()
