"""Who runs a node: the protocol, and the backend of plain Python functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from dynrt.errors import BackendError
from dynrt.ir.graph import Array, ComputeNode, Exit, Graph, NodeId

Function = Callable[[Mapping[str, Array]], Mapping[str, Array]]


class Backend(Protocol):
    """Runs one node's subgraph. May be called from several threads at once."""

    def call(self, node: NodeId, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        """Run ``node``.

        Args:
            node: a compute node or exit.
            inputs: ``(batch, ...)`` by input port; without inputs, nothing says the batch and the
                answer has batch 1.

        Returns:
            ``(batch, ...)`` by output port.

        Raises:
            BackendError: it failed.
        """
        ...

    def close(self) -> None:
        """Let go of what it holds."""
        ...


class CallableBackend:
    """Runs Python functions instead of models: for tests, and for nodes that are no ONNX.

    Args:
        functions: by node; ports in, ports out.
    """

    def __init__(self, functions: Mapping[NodeId, Function]) -> None:
        self._functions = dict(functions)

    def call(self, node: NodeId, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        """Run a function; see :class:`Backend`."""
        if node not in self._functions:
            raise BackendError(f"no function for node {node!r}")
        try:
            return self._functions[node](inputs)
        except BackendError:
            raise
        except Exception as exc:  # a user's function may raise anything
            raise BackendError(f"node {node!r}: {type(exc).__name__}: {exc}") from exc

    def close(self) -> None:
        """Nothing to let go of."""


class CheckedBackend:
    """Holds a backend to what the graph declares.

    Args:
        graph: declares ports and types.
        backend: whom to ask.
    """

    def __init__(self, graph: Graph, backend: Backend) -> None:
        self._backend = backend
        self._types = {
            n.name: tuple((p.name, p.type.dtype, p.type.shape) for p in n.outputs)
            for n in graph.nodes
            if isinstance(n, ComputeNode | Exit)
        }

    def call(self, node: NodeId, inputs: Mapping[str, Array], *, batch: int) -> Mapping[str, Array]:
        """Run ``node`` on ``batch`` samples.

        Raises:
            BackendError: it failed, or gave something else than its ports declare.
        """
        gave = self._backend.call(node, inputs)
        rows = batch if inputs else 1
        for name, dtype, shape in self._types[node]:
            value = gave.get(name)
            if value is None:
                raise BackendError(f"node {node!r} gave no {name!r}, only {sorted(gave)}")
            if value.shape != (rows, *shape) or value.dtype != dtype:
                raise BackendError(
                    f"node {node!r} gave {name!r} as {value.dtype}{list(value.shape)}, "
                    f"declared is {dtype}{[rows, *shape]}"
                )
        return gave

    def close(self) -> None:
        """Close the backend."""
        self._backend.close()
