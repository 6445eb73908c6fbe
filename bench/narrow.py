"""Work made smaller inside a block: channel masks and int8."""

from __future__ import annotations

from functools import partial
from importlib.util import find_spec

import numpy as np

from bench.blocks import mean_of
from bench.files import bundle_of, path_of
from bench.forced import forced_run, half_patterns, loaded, noise
from bench.row import Measurement, MissingError, Request, Row, ratio_row, require
from bench.timing import Alternative, interleaved
from dynrt.ir.graph import ComputeNode
from dynrt.runtime.compile.masked import MaskedPair

#: Largest difference of int8 answers, relative to the largest logit.
_INT8_TOLERANCE = 0.2


def _mask_rows(request: Request, *, name: str) -> list[Row]:
    """Half of the groups against all of them, which the pair runs as its dense session."""
    bundle = bundle_of(name)
    node = bundle.graph.by_name["block"]
    if not isinstance(node, ComputeNode):
        raise TypeError("'block' is no compute node")
    pair = MaskedPair(bundle.models["block"], node)
    if not pair.realised:
        raise MissingError("no group of channels is a whole SIMD block on this CPU")
    ports = {p.name: p.type.shape for p in (*node.inputs, *node.outputs) if p.name in pair.layouts}
    stored = {n: noise(1, *pair.layouts[n].stored_shape(shape)) for n, shape in ports.items()}
    takes = {p.name: stored[p.name] for p in node.inputs if p.name in stored}
    gives = {p.name: stored[p.name] for p in node.outputs}
    bound = pair.bind(takes, gives)
    groups = np.arange(pair.mask.groups, dtype=np.int64)
    half = groups[::2].copy()
    times = interleaved(
        {
            "half": Alternative(call=partial(bound, half)),
            "dense": Alternative(call=partial(bound, groups)),
        },
        request.rounds,
    )
    counted, realised = pair.saved_macs(len(half))
    full = node.cost.macs
    note = (
        f"{len(half)} of {len(groups)} groups of inner channels, against the dense pair; MACs "
        f"counted {1 - counted / full:.3f}, realised {1 - realised / full:.3f}"
    )
    return [ratio_row(f"{name}_half", times["half"], times["dense"], note)]


def _int8_rows(request: Request) -> list[Row]:
    if find_spec("dynrt.exporters.int8") is None:
        raise MissingError("this version of dynrt exports no int8")
    x = noise(3, 32, 32)
    whole, small = loaded(path_of("resnet74-lstm")), loaded(path_of("resnet74-lstm-int8"))
    alternatives: dict[str, Alternative] = {}
    gap = 0.0
    for i, pattern in enumerate(half_patterns(whole.graph)):
        alternatives[f"float{i}"], exact = forced_run(whole, x, pattern)
        alternatives[f"int{i}"], rounded = forced_run(small, x, pattern)
        require(exact.macs == rounded.macs, f"{rounded.macs} MACs in int8, {exact.macs} in fp32")
        spread = float(np.abs(exact.answer).max())
        gap = max(gap, float(np.abs(exact.answer - rounded.answer).max()) / spread)
    require(gap <= _INT8_TOLERANCE, f"int8 answers {gap:.2g} of the largest logit off")
    times = interleaved(alternatives, request.rounds)
    whole.close()
    small.close()
    note = f"int8 dynamic against fp32 dynamic, half of the blocks skipped; answers {gap:.2g} off"
    return [ratio_row("int8_half", mean_of(times, "int"), mean_of(times, "float"), note)]


MEASUREMENTS = (
    Measurement(names=("mask64_half",), rows=partial(_mask_rows, name="mask64")),
    Measurement(names=("mask256_half",), rows=partial(_mask_rows, name="mask256")),
    Measurement(names=("int8_half",), rows=_int8_rows),
)
