"""One ONNX model run once or many times, one thread, on the CPU."""

from __future__ import annotations

from collections.abc import Mapping

import onnxruntime

from dynrt.errors import ExportError
from dynrt.exporters.foreign import brief
from dynrt.ir.graph import Array
from dynrt.runtime.ort import session_options


def run_model(model: bytes, inputs: Mapping[str, Array], *, place: str) -> Mapping[str, Array]:
    """All outputs of ``model`` by name.

    Raises:
        ExportError: onnxruntime refuses the model or the inputs.
    """
    try:
        session = onnxruntime.InferenceSession(
            model, session_options(1), providers=["CPUExecutionProvider"]
        )
        names = [o.name for o in session.get_outputs()]
        return dict(zip(names, session.run(names, inputs), strict=True))
    except Exception as exc:  # its errors share no public root
        raise ExportError(f"{place}: onnxruntime cannot run it: {brief(exc)}") from exc
