"""Suite ``peers``: static runtimes with the whole network, over dynrt with half of it skipped.

All run the same picture through ResNet-74 at fp32 on one thread, batch 1, in turns in one process.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from bench.blocks import NETWORK, mean_of
from bench.files import bundle_of, path_of
from bench.forced import forced_run, half_patterns, loaded, noise
from bench.row import Measurement, MissingError, Request, Row, ratio_row, require
from bench.static import caller, session_of, static_model
from bench.strides import without_strided_slices
from bench.timing import Alternative, interleaved
from dynrt.ir.graph import Array

#: A call that gives the answer, ``(1, classes)`` or ``(classes,)``.
Answering = Callable[[], Array]
_TOLERANCE = 1e-3


def need(module: str, package: str | None = None) -> None:
    """Check that a peer is installed.

    Raises:
        MissingError: it is not.
    """
    if find_spec(module) is None:
        raise MissingError(f"{package or module} is not installed (pip install 'dynrt[bench]')")


def ort_static(model: bytes, x: Array, _: Path) -> Answering:
    """onnxruntime with the unsplit graph."""
    call = caller(session_of(model), x)
    return lambda: np.asarray(call()[0])


def openvino_static(model: bytes, x: Array, _: Path) -> Answering:
    """OpenVINO, tuned for latency, its inputs bound; fp32, as all others."""
    need("openvino")
    import openvino

    core = openvino.Core()
    options = {
        "INFERENCE_NUM_THREADS": 1,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
    }
    compiled = core.compile_model(core.read_model(model), "CPU", options)
    request = compiled.create_infer_request()
    request.set_input_tensor(openvino.Tensor(np.ascontiguousarray(x), shared_memory=True))
    answer = request.get_output_tensor(0).data

    def run() -> Array:
        request.infer(share_outputs=True)
        return np.asarray(answer)

    return run


def _torch_network() -> Any:
    import torch

    from bench.networks import resnet74

    torch.set_num_threads(1)
    return resnet74()


def torch_eager(_: bytes, x: Array, __: Path) -> Answering:
    """torch as it is written, without gradients."""
    need("torch")
    import torch

    net, picture = _torch_network(), torch.from_numpy(x)

    def run() -> Array:
        with torch.inference_mode():
            return np.asarray(net(picture))

    return run


def torch_compile(_: bytes, x: Array, __: Path) -> Answering:
    """torch.compile with frozen weights, which is its fastest way on a CPU."""
    need("torch")
    import torch
    from torch._inductor import config

    config.freezing = True
    net, picture = _torch_network(), torch.from_numpy(x)
    try:
        compiled = torch.compile(net)
        with torch.no_grad():
            compiled(picture)
    except Exception as exc:  # without a C++ compiler, or on a Python it does not know
        raise MissingError(f"torch.compile fails here: {_brief(exc)}") from exc

    def run() -> Array:
        with torch.no_grad():
            return np.asarray(compiled(picture))

    return run


def ncnn(model: bytes, x: Array, folder: Path) -> Answering:
    """ncnn, its weights converted by pnnx from the same ONNX graph; fp32 throughout."""
    need("ncnn")
    need("pnnx")
    import ncnn as library

    converted = _converted(model, x, folder)
    net = library.Net()
    options = net.opt
    options.num_threads = 1
    options.use_fp16_packed = options.use_fp16_storage = options.use_fp16_arithmetic = False
    options.use_bf16_storage = False
    library.set_omp_num_threads(1)
    if net.load_param(f"{converted}.param") or net.load_model(f"{converted}.bin"):
        raise MissingError("ncnn refuses the converted network")
    source, target = net.input_names()[0], net.output_names()[0]
    picture = np.ascontiguousarray(x[0])

    def run() -> Array:
        extractor = net.create_extractor()
        extractor.input(source, library.Mat(picture))
        status, answer = extractor.extract(target)
        require(status == 0, f"ncnn fails with {status}")
        return np.array(answer)

    return run


def _converted(model: bytes, x: Array, folder: Path) -> Path:
    """Files of the network for ncnn, without their suffix."""
    import subprocess

    import pnnx

    source = folder / "static.onnx"
    source.write_bytes(without_strided_slices(model))
    shape = ",".join(map(str, x.shape))
    command = [pnnx.EXEC_PATH, str(source), f"inputshape=[{shape}]", "fp16=0"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    made = folder / "static.ncnn.param"
    if done.returncode != 0 or not made.exists():
        raise MissingError(f"pnnx cannot convert the graph (exit status {done.returncode})")
    return made.with_suffix("")


def _brief(exc: Exception) -> str:
    return (str(exc) or type(exc).__name__).splitlines()[0][:120]


PEERS: dict[str, Callable[[bytes, Array, Path], Answering]] = {
    "ort_static": ort_static,
    "openvino_static": openvino_static,
    "torch_eager": torch_eager,
    "torch_compile": torch_compile,
    "ncnn": ncnn,
}


def checked(answering: Answering, expected: Array, name: str) -> Alternative:
    """A peer whose answer is that of the others.

    Raises:
        UnfairError: it computes something else.
    """
    gap = float(np.abs(np.asarray(answering()).reshape(-1) - expected).max())
    require(gap <= _TOLERANCE, f"{name} answers {gap:.2g} off")
    return Alternative(call=answering)


def _rows(request: Request, *, name: str) -> list[Row]:
    """One peer and dynrt, in turns; a peer that cannot run takes no other with it."""
    x = noise(3, 32, 32)
    model = static_model(bundle_of(NETWORK))
    with tempfile.TemporaryDirectory() as place, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the peers' own
        answering = PEERS[name](model, x[None], Path(place))
        network = loaded(path_of(NETWORK))
        _, whole = forced_run(network, x, ())
        alternatives = {"peer": checked(answering, whole.answer, name)}
        share = 0.0
        patterns = half_patterns(network.graph)
        for i, pattern in enumerate(patterns):
            alternatives[f"half{i}"], result = forced_run(network, x, pattern)
            share += result.macs / whole.macs / len(patterns)
        times = interleaved(alternatives, request.rounds)
        network.close()
    peer_ms = 1e3 * float(np.median(times["peer"]))
    note = f"{PEERS[name].__doc__} {peer_ms:.3g} ms; dynrt runs {share:.3f} of the MACs"
    return [ratio_row(name, times["peer"], mean_of(times, "half"), note)]


MEASUREMENTS = tuple(Measurement(names=(n,), rows=partial(_rows, name=n)) for n in PEERS)
