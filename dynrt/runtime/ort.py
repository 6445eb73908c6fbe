"""onnxruntime: the only module that imports it.

Defaults are chosen against its worst habit: every session owns a spinning thread pool, so a network
of many sessions stalls itself. Here sessions run on the calling thread, or, for more threads, all
share the process's one global pool.
"""

from __future__ import annotations

from collections.abc import Mapping
from threading import Lock
from typing import Any

import onnxruntime

from dynrt.errors import BackendError
from dynrt.ir.graph import Array, NodeId

_pool_lock = Lock()
_pool_threads: int | None = None


def _use_global_pool(threads: int) -> None:
    """Size the process's global pool once; onnxruntime cannot resize it."""
    global _pool_threads  # it is the process that has one pool
    with _pool_lock:
        if _pool_threads is None:
            onnxruntime.set_global_thread_pool_sizes(threads, 1)
            _pool_threads = threads
        elif _pool_threads != threads:
            raise BackendError(
                f"threads={threads}: this process already runs onnxruntime with {_pool_threads}; "
                "all networks of a process share one pool"
            )


def session_options(threads: int) -> onnxruntime.SessionOptions:
    """Options of one session: quiet, sequential, no pool of its own, no memory arena.

    Raises:
        BackendError: ``threads`` is below 1, or differs from what this process already uses.
    """
    if threads < 1:
        raise BackendError(f"threads={threads}: at least 1 is needed")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.enable_cpu_mem_arena = False
    if threads == 1:
        options.intra_op_num_threads = 1
    else:
        _use_global_pool(threads)
        options.use_per_session_threads = False
    return options


class OrtBackend:
    """One session per node on the CPU. ``call`` is safe from several threads.

    Args:
        models: ONNX bytes by node; what was hashed is what runs.
        threads: threads that one call may use.

    Raises:
        BackendError: onnxruntime refuses a model, or ``threads`` cannot be had.
    """

    def __init__(self, models: Mapping[NodeId, bytes], *, threads: int = 1) -> None:
        options = session_options(threads)
        self._sessions: dict[NodeId, Any] = {}
        self._outputs: dict[NodeId, list[str]] = {}
        for node, model in models.items():
            try:
                session = onnxruntime.InferenceSession(
                    model, options, providers=["CPUExecutionProvider"]
                )
            except Exception as exc:  # its errors share no public root
                raise BackendError(f"node {node!r}: onnxruntime refuses it: {_brief(exc)}") from exc
            self._sessions[node] = session
            self._outputs[node] = [o.name for o in session.get_outputs()]

    def call(self, node: NodeId, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        """Run one node; see :class:`dynrt.runtime.backends.Backend`."""
        session = self._sessions.get(node)
        if session is None:
            raise BackendError(f"no model for node {node!r}")
        names = self._outputs[node]
        try:
            values = session.run(names, inputs)
        except Exception as exc:  # its errors share no public root
            raise BackendError(f"node {node!r} failed: {_brief(exc)}") from exc
        return dict(zip(names, values, strict=True))

    def close(self) -> None:
        """Drop all sessions; calls fail from then on."""
        self._sessions.clear()


def _brief(exc: Exception) -> str:
    """The first line of onnxruntime's message."""
    text = str(exc).strip().splitlines()
    return text[0][:300] if text else type(exc).__name__
