"""Torch modules and ONNX models to bundles, and bundles to one ONNX file.

Say what the network is with :class:`~dynrt.exporters.spec.NetworkBuilder` or the functions of
:mod:`~dynrt.exporters.chains`, :mod:`~dynrt.exporters.gated` and :mod:`~dynrt.exporters.attach`; then
:func:`~dynrt.exporters.export.export_network` lowers it and proves the result. Importing this
package loads torch and onnx: ``pip install 'dynrt[export]'``.
"""

from dynrt.exporters.attach import attach_exits
from dynrt.exporters.chains import Gate, Head, d_gate, gated_blocks, sequential_exits
from dynrt.exporters.compare import Tolerance
from dynrt.exporters.cut import cut_onnx, read_onnx
from dynrt.exporters.export import export_network
from dynrt.exporters.fused import fuse
from dynrt.exporters.gated import GatedUnit, gated_chain
from dynrt.exporters.lower import lower
from dynrt.exporters.parity import ParityReport, prove
from dynrt.exporters.spec import NetworkBuilder, NetworkSpec, wire
from dynrt.exporters.targets import load_target

__all__ = [
    "Gate",
    "GatedUnit",
    "Head",
    "NetworkBuilder",
    "NetworkSpec",
    "ParityReport",
    "Tolerance",
    "attach_exits",
    "cut_onnx",
    "d_gate",
    "export_network",
    "fuse",
    "gated_blocks",
    "gated_chain",
    "load_target",
    "lower",
    "prove",
    "read_onnx",
    "sequential_exits",
    "wire",
]
