"""Loads a bundle: compiled for this device, or to be run node by node."""

from __future__ import annotations

from functools import partial
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
    if backend is not None:
        read = bundle if isinstance(bundle, Bundle) else read_bundle(resolve(bundle))
        return Network(read.graph, backend, bundle=read)
    # loaded when it is needed
    from dynrt.runtime.cache import compiled_for, is_kept
    from dynrt.runtime.ort import OrtBackend, OrtSegments

    known = partial(is_kept, threads=threads) if mode == "compiled" else None
    read = bundle if isinstance(bundle, Bundle) else read_bundle(resolve(bundle), known=known)
    compiled = compiled_for(read, threads=threads) if mode == "compiled" else None
    nodes = OrtBackend(read.models, threads=threads, lazy=compiled is not None)
    network = Network(read.graph, nodes, bundle=read)
    if compiled is not None:
        segments = OrtSegments(compiled.segments, threads=threads)
        network.compile(compiled.without_models(), segments)
    return network
