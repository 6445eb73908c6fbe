"""onnxruntime while compiling: optimise a model whole, and run models once or twice.

Sessions here are loaded one after another and dropped; none of them outlives the compilation.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

from dynrt.errors import BackendError, CompileError, first_line
from dynrt.ir.graph import Array
from dynrt.runtime import ort

NCHWC = "com.microsoft.nchwc"
_PROVIDERS = ["CPUExecutionProvider"]


def use_threads(threads: int) -> None:
    """Say how many threads networks of this process use; more than one share the process's pool.

    Raises:
        CompileError: below 1, or not what this process already uses.
    """
    if threads == 1:
        return  # compiling takes one thread of whatever pool there is
    try:
        ort.session_options(threads)
    except BackendError as exc:
        raise CompileError(str(exc)) from exc


def _options(*, optimise: bool) -> Any:
    # once a process has a pool, onnxruntime refuses sessions that do without it
    options = ort.session_options(ort.pool_threads())
    levels = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimise else levels.ORT_DISABLE_ALL
    return options


def optimised(model: onnx.ModelProto, *, place: str) -> onnx.ModelProto:
    """``model`` as onnxruntime would run it on this machine.

    Raises:
        CompileError: onnxruntime refuses it, or there is no room for a temporary file.
    """
    options = _options(optimise=True)
    try:
        with tempfile.TemporaryDirectory(prefix="dynrt-") as folder:
            target = Path(folder) / "optimised.onnx"
            options.optimized_model_filepath = str(target)
            onnxruntime.InferenceSession(model.SerializeToString(), options, providers=_PROVIDERS)
            return onnx.load_model_from_string(target.read_bytes())
    except Exception as exc:  # onnxruntime's and protobuf's errors share no public root
        raise CompileError(f"{place}: it cannot be optimised: {first_line(exc)}") from exc


class Loaded:
    """A model, loaded.

    Args:
        model: ONNX bytes.
        optimise: whether onnxruntime may rewrite it; what is cut from an optimised graph must stay.
        place: names it in errors.

    Raises:
        CompileError: onnxruntime refuses it.
    """

    def __init__(self, model: bytes, *, optimise: bool, place: str) -> None:
        self._place = place
        try:
            self._session = onnxruntime.InferenceSession(
                model, _options(optimise=optimise), providers=_PROVIDERS
            )
        except Exception as exc:  # its errors share no public root
            raise CompileError(f"{place}: onnxruntime refuses it: {first_line(exc)}") from exc
        self.outputs = [o.name for o in self._session.get_outputs()]

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """All outputs.

        Raises:
            CompileError: the run failed.
        """
        try:
            values = self._session.run(self.outputs, dict(inputs))
        except Exception as exc:  # its errors share no public root
            raise CompileError(f"{self._place} failed: {first_line(exc)}") from exc
        return dict(zip(self.outputs, values, strict=True))

    def in_place(
        self, inputs: Mapping[str, Array], pairs: Sequence[tuple[str, str]]
    ) -> dict[str, Array]:
        """All outputs, some of them written over copies of inputs.

        Args:
            inputs: by name.
            pairs: names of an input and of the output that takes its memory.

        Raises:
            CompileError: the run failed.
        """
        over = {give: take for take, give in pairs}
        try:
            binding = self._session.io_binding()
            values = {}
            for name, array in inputs.items():
                copy = np.array(array, order="C")  # owned here, so that writing over it is no harm
                values[name] = copy, onnxruntime.OrtValue.ortvalue_from_numpy(copy)
                binding.bind_ortvalue_input(name, values[name][1])
            for name in self.outputs:
                if name in over:
                    binding.bind_ortvalue_output(name, values[over[name]][1])
                else:
                    binding.bind_output(name)
            self._session.run_with_iobinding(binding)
            given = binding.get_outputs()
            return {name: np.array(given[i].numpy()) for i, name in enumerate(self.outputs)}
        except Exception as exc:  # its errors share no public root
            raise CompileError(f"{self._place} failed in place: {first_line(exc)}") from exc


@cache
def channel_block() -> int:
    """Channels per block of onnxruntime's blocked layout on this machine; 1 if it has none.

    Blocking a tensor of four channels fills it up to one whole block.
    """
    node = helper.make_node("ReorderInput", ["x"], ["y"], domain=NCHWC)
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4, 1, 1])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    model = helper.make_model(
        helper.make_graph([node], "block", [x], [y]),
        opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid(NCHWC, 1)],
        ir_version=8,
    )
    try:
        run = Loaded(model.SerializeToString(), optimise=False, place="the blocked layout")
        return int(run({"x": np.zeros((1, 4, 1, 1), np.float32)})["y"].shape[1])
    except CompileError:
        return 1
