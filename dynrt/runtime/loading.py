"""Loads a bundle: compiled for this device, or to be run node by node."""

from __future__ import annotations

from pathlib import Path

from dynrt.bundle import Bundle, read_bundle, resolve
from dynrt.errors import BackendError
from dynrt.runtime.backends import Backend
from dynrt.runtime.network import Mode, Network


def load(
    bundle: str | Path | Bundle,
    *,
    backend: Backend | None = None,
    threads: int = 1,
    mode: Mode = "compiled",
) -> Network:
    """Load a bundle, ready to run.

    Args:
        bundle: a ``.dynrt`` file, a folder, the name of a packaged bundle, or a bundle already read.
        backend: who runs the nodes, one by one; onnxruntime on the CPU by default.
        threads: threads that one call may use; more than one makes all networks of the process
            share one pool of that size.
        mode: ``compiled`` compiles the bundle for this device when it is first loaded there, and
            keeps the result in a cache (``docs/cache.md``); where that cannot be, it warns once
            and runs as ``portable``: node by node, as the bundle has them.

    Raises:
        BundleError, GraphError: the bundle cannot be trusted or read.
        BackendError: a model is refused, or the mode or thread count cannot be had.
    """
    if mode not in ("compiled", "portable"):
        raise BackendError(f"mode {mode!r} is not there; this version has: compiled, portable")
    read = bundle if isinstance(bundle, Bundle) else read_bundle(resolve(bundle))
    if backend is not None:
        return Network(read.graph, backend, bundle=read)
    from dynrt.runtime.ort import OrtBackend, OrtSegments  # loaded when it is needed

    compiled = None
    if mode == "compiled":
        from dynrt.runtime.cache import compiled_for

        compiled = compiled_for(read, threads=threads)
    nodes = OrtBackend(read.models, threads=threads, lazy=compiled is not None)
    network = Network(read.graph, nodes, bundle=read)
    if compiled is not None:
        network.compile(compiled, OrtSegments(compiled.segments, threads=threads))
    return network
