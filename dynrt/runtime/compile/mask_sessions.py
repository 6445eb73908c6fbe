"""onnxruntime sessions for masks: run a model once, optimise one, load an optimised one as it is."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

import onnx
import onnxruntime

from dynrt.errors import CompileError, first_line
from dynrt.ir.graph import Array
from dynrt.runtime.ort import pool_threads, session_options


def load_session(
    model: bytes, *, optimise: bool = True, threads: int = 1
) -> onnxruntime.InferenceSession:
    """A session of ``model``, on the CPU.

    Raises:
        CompileError: onnxruntime refuses it.
    """
    options = session_options(threads)
    if not optimise:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return _session(model, options)


def run_once(model: bytes, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
    """All outputs of ``model`` by name.

    Raises:
        CompileError: onnxruntime refuses the model or the inputs.
    """
    session = load_session(model, threads=pool_threads())
    names = [o.name for o in session.get_outputs()]
    try:
        return dict(zip(names, session.run(names, dict(inputs)), strict=True))
    except Exception as exc:  # its errors share no public root
        raise CompileError(f"onnxruntime cannot run a masked node: {first_line(exc)}") from exc


def optimised(model: bytes) -> onnx.ModelProto:
    """``model`` as onnxruntime rewrites it for this CPU, blocked convolutions included.

    Raises:
        CompileError: onnxruntime refuses it, or there is no room for a temporary file.
    """
    options = session_options(pool_threads())
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    try:
        with tempfile.TemporaryDirectory(prefix="dynrt-") as folder:
            path = Path(folder) / "optimised.onnx"
            options.optimized_model_filepath = str(path)
            _session(model, options)
            return onnx.load_model_from_string(path.read_bytes())
    except OSError as exc:
        raise CompileError(f"a masked node cannot be compiled: {first_line(exc)}") from exc


def _session(model: bytes, options: onnxruntime.SessionOptions) -> onnxruntime.InferenceSession:
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as exc:  # its errors share no public root
        raise CompileError(f"onnxruntime refuses a masked node: {first_line(exc)}") from exc
