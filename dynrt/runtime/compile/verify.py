"""Runs the cut graph beside the uncut one and beside the bundle's own models, on probes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from dynrt.errors import CompileError
from dynrt.ir.graph import Array, ComputeNode, Exit, Graph, PortRef
from dynrt.runtime.compile.probes import Portable, Values, disturbed, relative_error
from dynrt.runtime.compile.runner import Loaded
from dynrt.runtime.compiled import KEPT, PLAIN, Layout, Segment

#: Largest deviation from the bundle's own models, relative to the largest value of the tensor.
TOLERANCE = 1e-3
#: The same where half-precision numbers or rounding to 8 bits take part.
LOOSE_TOLERANCE = 5e-2
_SEED = 7


class Verifier:
    """Checks the segments of one graph.

    Args:
        graph: valid.
        layouts: of its output ports.
        portable: its own models.
        loose: whether :data:`LOOSE_TOLERANCE` is in force.
    """

    def __init__(
        self,
        graph: Graph,
        layouts: Mapping[PortRef, Layout],
        portable: Portable,
        *,
        loose: bool,
    ) -> None:
        self._graph, self._layouts, self._portable = graph, layouts, portable
        self._tolerance = LOOSE_TOLERANCE if loose else TOLERANCE

    def same_values(self, flat: Mapping[PortRef, Array], own: Mapping[PortRef, Array]) -> None:
        """The flat graph gives what the bundle's own models give.

        Raises:
            CompileError: it does not; names the first port.
        """
        for ref, got in flat.items():
            error = relative_error(own[ref], got)
            if not error <= self._tolerance:
                raise CompileError(
                    f"{ref}: the joined graph deviates by {error:.3g} from the node's own model; "
                    f"at most {self._tolerance:g} is allowed"
                )

    def same_bits(
        self,
        segments: Sequence[Segment],
        flat: Sequence[Mapping[PortRef, Array]],
        own: Sequence[Mapping[PortRef, Array]],
    ) -> None:
        """The segments, run in order, give what the uncut graph gives, bit for bit.

        Args:
            segments: all of them, in order.
            flat: what the uncut graph gave, by probe.
            own: what the bundle's own models gave; stands for what the uncut graph does not hold.

        Raises:
            CompileError: one does not; names its first node and the port.
        """
        stored: list[Values] = [{} for _ in flat]
        for segment in segments:
            if segment.raw:  # what it gives is compared by value: it is not cut from the graph
                continue
            run = _loaded(segment)
            for at, values in enumerate(stored):
                inputs = {
                    t.name: self._taken(t.port, values, flat[at], own[at]) for t in segment.takes
                }
                given = run(inputs)
                self._compare(segment, given, flat[at])
                for take, give in segment.overwrites:
                    pair = segment.takes[take].name, segment.gives[give].name
                    self._compare(segment, run.in_place(inputs, [pair]), flat[at])
                values.update({g.port: given[g.name] for g in segment.gives})

    def reads_what_it_takes(self, segment: Segment, values: Mapping[PortRef, Array]) -> bool:
        """Whether a segment still agrees with its nodes when each tensor it takes is another.

        In the uncut graph, tensors are tied to one another; a cut that bypassed one of them would
        only be found out when a default stands in.

        Args:
            segment: cut from the optimised graph.
            values: what every port holds on one probe.
        """
        sources = self._sources(segment)
        if len(sources) < 2:
            return True
        rng = np.random.default_rng(_SEED)
        held: Values = {ref: disturbed(rng, values[ref]) for ref in sources}
        taken = {t.name: self._taken(t.port, {}, held, held) for t in segment.takes}
        given = _loaded(segment)(taken)
        for name in segment.nodes:
            node = self._graph.by_name[name]
            if isinstance(node, ComputeNode | Exit):
                held.update(self._portable.call(self._portable.loaded(name), node, held))
        for give in segment.gives:
            got = self._plain(give.port, given[give.name])
            if not relative_error(held[give.port], got) <= self._tolerance:
                return False
        return True

    def gathers_what_is_kept(self, segment: Segment, values: Mapping[PortRef, Array]) -> bool:
        """Whether a segment's gathered form gives what its node's own model gives under a mask.

        Args:
            segment: of one node, with a gathered form; or without, which is right as it is.
            values: what every port holds on one probe.
        """
        if segment.gathered is None:
            return True
        name, groups = segment.nodes[0], segment.gathered.groups
        node = self._graph.by_name[name]
        if not isinstance(node, ComputeNode | Exit):
            return False
        taken = {t.name: self._taken(t.port, {}, values, values) for t in segment.takes}
        try:
            run = Loaded(segment.gathered.model, optimise=False, place=f"gathered {name!r}")
            own = self._portable.loaded(name)
            for mask in _partial_masks(groups):
                kept = np.flatnonzero(mask)
                inputs = {**taken, KEPT: kept if len(kept) else np.array([groups])}
                want = self._portable.call(own, node, values, mask)
                pairs = [
                    (segment.takes[t].name, segment.gives[g].name) for t, g in segment.overwrites
                ]
                runs = [run(inputs), *(run.in_place(inputs, [pair]) for pair in pairs)]
                for give in segment.gives:
                    for given in runs:
                        got = self._plain(give.port, given[give.name])
                        if not relative_error(want[give.port], got) <= self._tolerance:
                            return False
        except CompileError:  # then the node stays as it was
            return False
        return True

    def _sources(self, segment: Segment) -> list[PortRef]:
        """Output ports outside a segment that its nodes read."""
        inside = set(segment.nodes)
        found: dict[PortRef, None] = {}
        for name in segment.nodes:
            for port in self._graph.by_name[name].inputs:
                source = self._graph.edge_into[PortRef(name, port.name)].source
                if source.node not in inside:
                    found[source] = None
        return list(found)

    def _taken(
        self,
        port: PortRef,
        stored: Mapping[PortRef, Array],
        flat: Mapping[PortRef, Array],
        own: Mapping[PortRef, Array],
    ) -> Array:
        """What an input port takes, as stored: from a segment, or else put into its layout."""
        source = self._graph.edge_into[port].source
        if source in stored:
            return stored[source]
        plain = flat[source] if source in flat else own[source]
        return self._layouts.get(source, PLAIN).from_plain(plain)

    def _plain(self, port: PortRef, value: Array) -> Array:
        node = self._graph.by_name[port.node]
        shape = next(p.type.shape for p in node.outputs if p.name == port.port)
        return self._layouts.get(port, PLAIN).to_plain(value, shape)

    def _compare(
        self, segment: Segment, given: Mapping[str, Array], flat: Mapping[PortRef, Array]
    ) -> None:
        for give in segment.gives:
            got, want = self._plain(give.port, given[give.name]), flat[give.port]
            if not np.array_equal(got, want, equal_nan=want.dtype.kind == "f"):
                raise CompileError(
                    f"the segment of {segment.nodes[0]!r} does not give {give.port} as the uncut "
                    f"graph does: it deviates by {relative_error(want, got):.3g}"
                )


def _partial_masks(groups: int) -> list[Array]:
    """Masks ``(groups,)`` of 0 and 1: none kept, some, all but one."""
    rng = np.random.default_rng(_SEED)
    counts = sorted({0, groups // 2, groups - 1, int(rng.integers(groups))})
    masks = np.zeros((len(counts), groups), np.float32)
    for mask, count in zip(masks, counts, strict=True):
        mask[rng.permutation(groups)[:count]] = 1
    return list(masks)


def _loaded(segment: Segment) -> Loaded:
    return Loaded(segment.model, optimise=segment.raw, place=f"the segment of {segment.nodes[0]!r}")
