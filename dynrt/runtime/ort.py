"""onnxruntime, for running: with ``dynrt.runtime.compile`` the only place that imports it.

Defaults are chosen against its worst habit: every session owns a spinning thread pool, so a network
of many sessions stalls itself. Here sessions run on the calling thread, or, for more threads, all
share the process's one global pool.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from threading import Lock
from typing import Any

import onnxruntime

from dynrt.errors import BackendError, first_line
from dynrt.ir.graph import Array, NodeId
from dynrt.runtime.compiled import KEPT, Segment

_pool_lock = Lock()
_pool_threads: int | None = None


def _use_global_pool(threads: int) -> None:
    """Size the process's global pool once; onnxruntime cannot resize it."""
    global _pool_threads  # it is the process that has one pool
    with _pool_lock:
        if not hasattr(onnxruntime, "set_global_thread_pool_sizes"):
            raise BackendError(
                f"threads={threads}: onnxruntime {onnxruntime.__version__} has no pool that sessions "
                "share; use one thread, or a newer onnxruntime"
            )
        if _pool_threads is None:
            onnxruntime.set_global_thread_pool_sizes(threads, 1)
            _pool_threads = threads
        elif _pool_threads != threads:
            raise BackendError(
                f"threads={threads}: this process already runs onnxruntime with {_pool_threads}; "
                "all networks of a process share one pool"
            )


def pool_threads() -> int:
    """Threads of the process's global pool; 1 while there is none."""
    return _pool_threads or 1


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
    if threads == 1 and _pool_threads is None:
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
        lazy: load a model only when it is first called.

    Raises:
        BackendError: onnxruntime refuses a model, or ``threads`` cannot be had.
    """

    def __init__(
        self, models: Mapping[NodeId, bytes], *, threads: int = 1, lazy: bool = False
    ) -> None:
        self._options = session_options(threads)
        self._models = models
        self._waiting = set(models)
        self._lock = Lock()
        self._sessions: dict[NodeId, Any] = {}
        self._outputs: dict[NodeId, list[str]] = {}
        for node in () if lazy else tuple(models):
            self._load(node)

    def _load(self, node: NodeId) -> None:
        if node not in self._waiting:
            return
        model = self._models[node]
        try:
            session = onnxruntime.InferenceSession(
                model, self._options, providers=["CPUExecutionProvider"]
            )
        except Exception as exc:  # its errors share no public root
            raise BackendError(f"node {node!r}: onnxruntime refuses it: {first_line(exc)}") from exc
        self._outputs[node] = [o.name for o in session.get_outputs()]
        self._sessions[node] = session
        self._waiting.discard(node)

    def call(self, node: NodeId, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        """Run one node; see :class:`dynrt.runtime.backends.Backend`."""
        if node in self._waiting:
            with self._lock:
                self._load(node)
        session = self._sessions.get(node)
        if session is None:
            raise BackendError(f"no model for node {node!r}")
        names = self._outputs[node]
        try:
            values = session.run(names, inputs)
        except Exception as exc:  # its errors share no public root
            raise BackendError(f"node {node!r} failed: {first_line(exc)}") from exc
        return dict(zip(names, values, strict=True))

    def inputs(self, node: NodeId) -> tuple[str, ...]:
        """Names that a node's model takes."""
        session = self._sessions.get(node)
        if session is None:
            raise BackendError(f"no model for node {node!r}")
        return tuple(i.name for i in session.get_inputs())

    def close(self) -> None:
        """Drop all sessions; calls fail from then on."""
        self._waiting.clear()
        self._sessions.clear()


class OrtSegments:
    """Sessions of a compiled bundle's segments, run on memory that is bound beforehand.

    Args:
        segments: to load, in order.
        threads: threads that one call may use.

    Raises:
        BackendError: onnxruntime refuses a segment, or ``threads`` cannot be had.
    """

    def __init__(self, segments: Sequence[Segment], *, threads: int = 1) -> None:
        self._as_is = session_options(threads)
        self._as_is.graph_optimization_level = (
            onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL  # it is optimised already
        )
        self._raw = session_options(threads)
        for options in (self._as_is, self._raw):
            # a few operators each: planning their memory costs more than it saves
            options.enable_mem_pattern = False
        self._sessions = [self._load(s, s.model, raw=s.raw) for s in segments]
        self._segments = tuple(replace(s, model=b"") for s in segments)  # loaded: let go of them
        self._gathered: dict[int, Any] = {}

    def _load(self, segment: Segment, model: bytes, *, raw: bool) -> Any:
        try:
            return onnxruntime.InferenceSession(
                model, self._raw if raw else self._as_is, providers=["CPUExecutionProvider"]
            )
        except Exception as exc:  # its errors share no public root
            place = f"segment of {segment.nodes[0]!r}"
            raise BackendError(f"{place}: onnxruntime refuses it: {first_line(exc)}") from exc

    def handle(self, array: Array) -> Any:
        """A tensor that shares the memory of a contiguous array."""
        return onnxruntime.OrtValue.ortvalue_from_numpy(array)

    def bind(
        self, segment: int, takes: Sequence[Any], gives: Sequence[Any]
    ) -> tuple[Callable[[Any], Any], Any]:
        """A call, and its argument, that runs a segment from and into these tensors."""
        return self._bind(self._sessions[segment], segment, takes, gives)

    def bind_kept(
        self, segment: int, takes: Sequence[Any], gives: Sequence[Any], kept: Any
    ) -> tuple[Callable[[Any], Any], Any]:
        """The same for a gathered segment; ``kept`` holds the groups' numbers.

        Raises:
            BackendError: onnxruntime refuses it, or the segment has none.
        """
        part = self._segments[segment]
        if part.gathered is None:
            raise BackendError(f"segment of {part.nodes[0]!r} leaves no channels out")
        if segment not in self._gathered:
            self._gathered[segment] = self._load(part, part.gathered.model, raw=False)
        run, binding = self._bind(self._gathered[segment], segment, takes, gives)
        binding.bind_ortvalue_input(KEPT, kept)
        return run, binding

    def _bind(
        self, session: Any, segment: int, takes: Sequence[Any], gives: Sequence[Any]
    ) -> tuple[Callable[[Any], Any], Any]:
        part = self._segments[segment]
        binding = session.io_binding()
        for take, value in zip(part.takes, takes, strict=True):
            binding.bind_ortvalue_input(take.name, value)
        for give, value in zip(part.gives, gives, strict=True):
            binding.bind_ortvalue_output(give.name, value)
        return session.run_with_iobinding, binding
