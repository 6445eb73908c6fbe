"""Exits: against the flat graph up to the exit, and a cascade's cost per stage."""

from __future__ import annotations

import itertools

import numpy as np

from bench.files import bundle_of, path_of
from bench.forced import FAR, loaded, noise, under
from bench.row import Measurement, Request, Row, derived_row, ratio_row, require
from bench.static import caller, session_of, static_macs, static_model
from bench.timing import Alternative, interleaved
from dynrt.bundle import Bundle
from dynrt.ir.graph import Exit, NodeId
from dynrt.runtime import Result

EXITS = ("exit2", "exit4", "exit6")


def to_exit(bundle: Bundle, name: NodeId) -> dict[NodeId, float]:
    """Thresholds under which the run ends at ``name``, every head before it having been asked.

    A head that cannot accept would not be asked, so no threshold is above what its rule can give:
    a softmax probability reaches 1 only where it saturates, which :func:`_require_all` would see.
    """
    exits = bundle.graph.exits
    bounds: dict[NodeId, float] = {}
    for before in itertools.takewhile(lambda e: e != name, exits):
        node = bundle.graph.by_name[before]
        hinge = isinstance(node, Exit) and node.accept.kind == "hinge"
        bounds[before] = FAR if hinge else 1.0
    return bounds if name == exits[-1] else {**bounds, name: -FAR}


def _require_all(result: Result, name: NodeId, macs: int) -> None:
    """Check that a run did exactly what the flat graph does.

    Raises:
        UnfairError: it ended elsewhere, or left something out.
    """
    require(result.exit == name, f"ended at {result.exit}, not {name}")
    require(result.macs == macs, f"{result.macs} MACs, the flat graph {macs}")


def _exit_rows(request: Request) -> list[Row]:
    bundle, x = bundle_of("resnet74-exits"), noise(3, 32, 32)
    network = loaded(path_of("resnet74-exits"))
    alternatives: dict[str, Alternative] = {}
    for name in EXITS:
        ours = under(network, x, to_exit(bundle, name))
        ours.prepare()
        _require_all(network.run(x), name, static_macs(bundle, last=name))
        alternatives[name] = ours
        flat = session_of(static_model(bundle, last=name))
        alternatives[f"{name}_flat"] = Alternative(call=caller(flat, x[None]))
    times = interleaved(alternatives, request.rounds)
    network.close()
    note = "time to the exit, all heads before it asked, against one flat graph of the same"
    return [ratio_row(name, times[name], times[f"{name}_flat"], note) for name in EXITS]


def _cascade_rows(request: Request) -> list[Row]:
    """Four nets, all asked; their own time is one graph of all four, less one call's fixed cost."""
    bundle, x = bundle_of("cascade"), noise(3, 112, 112)
    exits = bundle.graph.exits
    network = loaded(path_of("cascade"))
    ours = under(network, x, to_exit(bundle, exits[-1]))
    ours.prepare()
    _require_all(network.run(x), exits[-1], static_macs(bundle))
    alternatives = {
        "ours": ours,
        "flat": Alternative(call=caller(session_of(static_model(bundle)), x[None])),
        "nothing": Alternative(call=caller(session_of(_identity()), x[None, :, :1, :1])),
    }
    for name in exits:
        alone = session_of(_lone(bundle, name))
        alternatives[name] = Alternative(call=caller(alone, x[None]))
    times = interleaved(alternatives, request.rounds)
    network.close()
    own = [float(np.median(times[n] - times["nothing"])) * 1e6 for n in exits]
    note = (
        f"us per stage over the nets' own time ({', '.join(f'{us:.0f}' for us in own)} us): "
        "all four asked, less one graph of all four without the fixed cost of its call"
    )
    return [
        derived_row(
            "cascade_us",
            lambda a, flat, nothing: 1e6 * (a - (flat - nothing)) / len(exits),
            times["ours"],
            times["flat"],
            times["nothing"],
            note=note,
            unit="us",
        )
    ]


def _lone(bundle: Bundle, name: NodeId) -> bytes:
    """One net of the cascade."""
    return static_model(bundle, last=name, only_answer=True)


def _identity() -> bytes:
    """A model that computes nothing, to find what a call costs."""
    from onnx import TensorProto, helper

    kind = (TensorProto.FLOAT, [1, 3, 1, 1])
    x, y = (helper.make_tensor_value_info(name, *kind) for name in "xy")
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "nothing", [x], [y])
    opset = helper.make_opsetid("", 17)
    return bytes(helper.make_model(graph, opset_imports=[opset], ir_version=8).SerializeToString())


MEASUREMENTS = (
    Measurement(names=EXITS, rows=_exit_rows),
    Measurement(names=("cascade_us",), rows=_cascade_rows),
)
