"""From a spec and real inputs to a proven bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from dynrt.bundle import Bundle
from dynrt.errors import ExportError
from dynrt.exporters.compare import Tolerance
from dynrt.exporters.lower import lower, with_provenance
from dynrt.exporters.parity import FORCED_INPUTS, Inputs, ParityReport, prove
from dynrt.exporters.plain import Weights
from dynrt.exporters.spec import NetworkSpec
from dynrt.ir.graph import Array


def export_network(
    spec: NetworkSpec,
    inputs: Array | Sequence[Inputs],
    *,
    weights: Weights = "float32",
    tolerance: Tolerance | None = None,
    forced_inputs: int = FORCED_INPUTS,
    provenance: Mapping[str, str] | None = None,
) -> tuple[Bundle, ParityReport]:
    """Lower ``spec``, prove that the bundle computes the same, and note the proof in it.

    With float16 weights the network is first proven with float32 ones: that one's tolerance finds
    what is wired wrongly, the wider one of rounded weights might not.

    Args:
        spec: the network.
        inputs: real samples to prove it on: by input name, or one array ``(n, ...)`` for a network
            of one input.
        weights: how weights are stored.
        tolerance: by default that of ``weights``.
        forced_inputs: how many inputs run under each forced decision.
        provenance: more lines for the bundle.

    Raises:
        ExportError: the network cannot be lowered.
        GraphError: its graph breaks an invariant.
        ParityError: the bundle computes something else.
    """
    samples = samples_of(spec, inputs)
    if weights == "float16":
        prove(spec, lower(spec), samples, forced_inputs=forced_inputs)
    bundle = lower(spec, weights=weights, provenance=provenance)
    report = prove(spec, bundle, samples, tolerance=tolerance, forced_inputs=forced_inputs)
    return with_provenance(bundle, {"parity": str(report)}), report


def samples_of(spec: NetworkSpec, inputs: Array | Sequence[Inputs]) -> list[Inputs]:
    """Samples by input name, from them or from one array ``(n, ...)``.

    Raises:
        ExportError: an array for a network of several inputs.
    """
    if not isinstance(inputs, np.ndarray):
        return list(inputs)
    names = [n.name for n in spec.inputs if n.param is None]
    if len(names) != 1:
        raise ExportError(
            f"network {spec.name!r} has inputs {', '.join(names)}; give samples by name"
        )
    return [{names[0]: row} for row in inputs]
