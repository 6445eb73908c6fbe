"""Small nodes, decisions, and the loop over them: native where the extension was built, else numpy.

``DYNRT_KERNELS=plain`` in the environment chooses numpy.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from dynrt.runtime.kernels import plain
from dynrt.runtime.kernels.program import Program

if TYPE_CHECKING:
    from dynrt.runtime.kernels.hop import Hop, follow
    from dynrt.runtime.kernels.protocol import Kernels

__all__ = ["KERNELS", "Hop", "Kernels", "Program", "follow"]

KERNELS: Kernels = plain
if os.environ.get("DYNRT_KERNELS") != "plain":
    try:
        from dynrt.runtime.kernels import native
    except ImportError:  # not built: every kernel has a twin in numpy
        pass
    else:
        KERNELS = native

if not TYPE_CHECKING:
    Hop, follow = KERNELS.Hop, KERNELS.follow
