"""One torch module to one plain ONNX graph, and the port types it turns out to have."""

from __future__ import annotations

import copy
import io
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from dynrt.errors import ExportError
from dynrt.exporters.compare import Tolerance, largest_error
from dynrt.exporters.foreign import brief
from dynrt.exporters.plain import OPSET, Weights, constant_model, plain_model
from dynrt.exporters.session import run_model
from dynrt.ir.graph import DTYPES, Array, Port, TensorType

#: The module is traced at this batch, then tried at 1 and 3, so that no size is baked in.
_TRACE_BATCH = 2
_TRY_BATCH = 3
#: Most that a sample's output may change with its batch: sums in another order.
_BATCH_TOLERANCE = Tolerance(absolute=1e-3, relative=1e-3)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeExport:
    """One exported node.

    Attributes:
        model: plain ONNX.
        inputs: ports in the order of the module's arguments.
        outputs: ports in the order of the module's results.
    """

    model: bytes
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]


def frozen_copy(module: nn.Module) -> nn.Module:
    """A copy in evaluation mode that changes no argument in place, on the CPU, without gradients."""
    frozen = copy.deepcopy(module).cpu().eval()
    for part in frozen.modules():
        if getattr(part, "inplace", None) is True:
            setattr(part, "inplace", False)  # noqa: B010  # no attribute of nn.Module itself
    for weight in frozen.parameters():
        weight.requires_grad_(False)
    return frozen


def probe_inputs(ports: Sequence[Port], *, batch: int, seed: int) -> dict[str, Array]:
    """Inputs to try a node with: small normal numbers, or zeros for whole numbers."""
    rng = np.random.default_rng(seed)
    out: dict[str, Array] = {}
    for port in ports:
        shape = (batch, *port.type.shape)
        if port.type.dtype.startswith("float"):
            out[port.name] = rng.standard_normal(shape).astype(port.type.dtype)
        else:
            out[port.name] = np.zeros(shape, port.type.dtype)
    return out


def call_module(
    module: nn.Module, inputs: Sequence[Array], outputs: Sequence[str], *, place: str
) -> dict[str, Array]:
    """Outputs of ``module`` by name.

    Args:
        module: takes tensors in order; gives a tensor, a tuple or list of tensors, or a mapping.
        inputs: arrays with the batch axis; not changed.
        outputs: names of the results.
        place: names the node in errors.

    Raises:
        ExportError: the module fails, or does not give ``outputs``.
    """
    tensors = [torch.from_numpy(np.array(value)) for value in inputs]
    try:
        with torch.no_grad():
            given = module(*tensors)
    except Exception as exc:
        raise ExportError(f"{place}: the module fails: {brief(exc)}") from exc
    return {k: v.numpy() for k, v in _by_name(given, outputs, place).items()}


def _by_name(given: object, outputs: Sequence[str], place: str) -> dict[str, Tensor]:
    if isinstance(given, Mapping):
        if missing := [name for name in outputs if name not in given]:
            raise ExportError(f"{place}: the module gives {sorted(given)}, not {missing[0]!r}")
        values: list[object] = [given[name] for name in outputs]
    else:
        values = list(given) if isinstance(given, tuple | list) else [given]
    if len(values) != len(outputs):
        raise ExportError(
            f"{place}: the module gives {len(values)} tensors for {len(outputs)} "
            f"outputs ({', '.join(outputs)})"
        )
    out: dict[str, Tensor] = {}
    for name, value in zip(outputs, values, strict=True):
        if not isinstance(value, Tensor):
            raise ExportError(f"{place}: output {name!r} is {type(value).__name__}, not a tensor")
        out[name] = value.detach()
    return out


class _Ordered(nn.Module):
    """The module with its results as a tuple in the declared order."""

    def __init__(self, module: nn.Module, outputs: Sequence[str], place: str) -> None:
        super().__init__()
        self.module = module
        self.names = tuple(outputs)
        self.place = place

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Tensors in, tensors out."""
        return tuple(_by_name(self.module(*inputs), self.names, self.place).values())


def output_ports(
    module: nn.Module, inputs: Sequence[Port], outputs: Sequence[str], *, place: str
) -> tuple[Port, ...]:
    """Types of what ``module`` gives for inputs of these types, found by running it.

    Raises:
        ExportError: the module fails, or an output has no batch axis or a type that ports lack.
    """
    shapes = []
    for batch in (_TRACE_BATCH, _TRY_BATCH) if inputs else (1,):
        values = probe_inputs(inputs, batch=batch, seed=0)
        given = call_module(module, [values[p.name] for p in inputs], outputs, place=place)
        for name, value in given.items():
            if value.ndim == 0 or value.shape[0] != batch:
                raise ExportError(
                    f"{place}: output {name!r} has shape {value.shape} for a batch of {batch}; "
                    "its first axis must be the batch"
                )
            if value.dtype.name not in DTYPES:
                raise ExportError(
                    f"{place}: output {name!r} is {value.dtype.name}; use {', '.join(DTYPES)}"
                )
        shapes.append({k: (v.dtype.name, v.shape[1:]) for k, v in given.items()})
    for name in outputs:
        if len({s[name] for s in shapes}) > 1:
            raise ExportError(f"{place}: the shape of output {name!r} depends on the batch")
    return tuple(
        Port(name=n, type=TensorType(dtype=shapes[0][n][0], shape=shapes[0][n][1])) for n in outputs
    )


def export_node(
    module: nn.Module,
    inputs: Sequence[Port],
    outputs: Sequence[str],
    *,
    weights: Weights = "float32",
    place: str,
) -> NodeExport:
    """Export ``module`` as one plain ONNX graph.

    Args:
        module: in any mode and on any device; it is copied, not changed.
        inputs: ports in the order of its arguments; none for a dummy node.
        outputs: names of its results in order, or keys if it gives a mapping.
        weights: how initialisers are stored.
        place: names the node in errors.

    Raises:
        ExportError: the module fails, cannot be exported, or treats samples of a batch differently
            from single ones.
    """
    frozen = frozen_copy(module)
    ports = output_ports(frozen, inputs, outputs, place=place)
    if not inputs:
        given = call_module(frozen, [], outputs, place=place)
        return NodeExport(model=constant_model(given, ports), inputs=(), outputs=ports)
    raw = _traced(_Ordered(frozen, outputs, place), inputs, outputs, place)
    model = plain_model(
        raw,
        sources={p.name: p.name for p in inputs},
        results={p.name: p.name for p in ports},
        inputs=inputs,
        outputs=ports,
        weights=weights,
        place=place,
    )
    require_per_sample(model, inputs, ports, place=place)
    return NodeExport(model=model, inputs=tuple(inputs), outputs=ports)


def _traced(
    module: nn.Module, inputs: Sequence[Port], outputs: Sequence[str], place: str
) -> onnx.ModelProto:
    names = [p.name for p in inputs]
    values = probe_inputs(inputs, batch=_TRACE_BATCH, seed=1)
    example = tuple(torch.from_numpy(values[name]) for name in names)
    buffer = io.BytesIO()
    try:
        with _quiet():
            torch.onnx.export(
                module,
                example,
                buffer,  # type: ignore[arg-type]  # the tracing exporter takes buffers
                dynamo=False,
                opset_version=OPSET,
                input_names=names,
                output_names=list(outputs),
                dynamic_axes={name: {0: "batch"} for name in (*names, *outputs)},
            )
    except ExportError:
        raise
    except Exception as exc:
        raise ExportError(f"{place}: torch cannot export it: {brief(exc)}") from exc
    return onnx.load_model_from_string(buffer.getvalue())


@contextmanager
def _quiet() -> Iterator[None]:
    """Export without torch's notes on its own exporter, and with attention spelt out.

    What the notes warn of is tested after the export. The fused attention of evaluation mode has no
    ONNX form; the plain one computes the same.
    """
    fused = torch.backends.mha.get_fastpath_enabled()
    log = torch._C._jit_onnx_log
    torch.backends.mha.set_fastpath_enabled(False)
    # When an export fails torch prints the whole graph; its own switch for that has no effect.
    setattr(torch._C, "_jit_onnx_log", _print_nothing)  # noqa: B010  # of a C module
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        setattr(torch._C, "_jit_onnx_log", log)  # noqa: B010
        torch.backends.mha.set_fastpath_enabled(fused)


def _print_nothing(*_: object) -> None:
    """In the place of torch's log."""


def require_per_sample(
    model: bytes, inputs: Sequence[Port], outputs: Sequence[Port], *, place: str
) -> None:
    """Check that ``model`` gives each sample of a batch what it gives the sample alone.

    Raises:
        ExportError: a batch size was baked in, samples mix, or a declared type is not kept.
    """
    batch = probe_inputs(inputs, batch=_TRY_BATCH, seed=2)
    together = run_model(model, batch, place=place)
    for i in range(_TRY_BATCH):
        alone = run_model(model, {k: v[i : i + 1] for k, v in batch.items()}, place=place)
        for port in outputs:
            row, one = together[port.name][i : i + 1], alone[port.name]
            want = (1, *port.type.shape)
            if one.shape != want or row.shape != want or one.dtype.name != port.type.dtype:
                raise ExportError(
                    f"{place}: output {port.name!r} is {one.dtype.name}{one.shape} alone and "
                    f"{row.dtype.name}{row.shape} in a batch; declared {port.type}"
                )
            if not largest_error(row, one) <= _BATCH_TOLERANCE.allowed(row):
                raise ExportError(
                    f"{place}: output {port.name!r} of a sample depends on the rest of its batch"
                )
