"""Compiles a bundle on the device that runs it; the only part of the runtime that knows onnx.

The nodes are joined into one flat graph, which onnxruntime optimises whole; that graph is cut at the
borders between nodes that do not always run together. Cutting first and optimising each piece would
put a change of layout at every border.
"""

from dynrt.runtime.compile.pipeline import compile_bundle

__all__ = ["compile_bundle"]
