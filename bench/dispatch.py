"""Suite ``dispatch``: dynrt's compiled mode against onnxruntime with the same network unsplit."""

from __future__ import annotations

from bench import batches, blocks, exits, narrow, processes, real, scaling

MEASUREMENTS = (
    *blocks.MEASUREMENTS,
    *exits.MEASUREMENTS,
    *batches.MEASUREMENTS,
    *narrow.MEASUREMENTS,
    *processes.MEASUREMENTS,
    *scaling.MEASUREMENTS,
    *real.MEASUREMENTS,
)
