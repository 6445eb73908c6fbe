"""What a program waits for: importing dynrt, loading the default bundle, the first answer.

Every sample is a fresh interpreter; the alternatives take turns.
"""

from __future__ import annotations

import subprocess
import sys

from bench.row import Measurement, Request, Row, row_of

#: Fresh interpreters at most: they cost seconds.
_MOST_PROCESSES = 15
_IMPORT = """
import time
import numpy
start = time.perf_counter()
import dynrt
print(time.perf_counter() - start)
"""

_FIRST = """
import time
import numpy, onnxruntime
start = time.perf_counter()
import dynrt
loaded = dynrt.load("resnet38-ddi")
middle = time.perf_counter()
loaded.run(numpy.zeros((3, 32, 32), numpy.float32), budget="100M")
end = time.perf_counter()
loaded.run(numpy.zeros((3, 32, 32), numpy.float32), budget="100M")
print(middle - start, end - middle, time.perf_counter() - end)
"""


def _sample(code: str) -> list[float]:
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return [float(text) for text in run.stdout.split()]


def rows(request: Request) -> list[Row]:
    """Seconds and milliseconds of a start, over fresh interpreters."""
    imports: list[float] = []
    starts: list[list[float]] = []
    for _ in range(min(request.rounds, _MOST_PROCESSES)):
        imports += _sample(_IMPORT)
        starts.append(_sample(_FIRST))
    load_s = [s[0] for s in starts]
    first_s = [s[0] + s[1] for s in starts]
    next_ms = [1e3 * s[2] for s in starts]
    return [
        row_of("import_ms", [1e3 * s for s in imports], "ms", "import dynrt, behind import numpy"),
        row_of("load_s", load_s, "s", "dynrt.load of the default bundle, behind onnxruntime"),
        row_of("first_answer_s", first_s, "s", "the same and the first answer"),
        row_of("second_answer_ms", next_ms, "ms", "the second answer"),
    ]


MEASUREMENTS = (
    Measurement(names=("import_ms", "load_s", "first_answer_s", "second_answer_ms"), rows=rows),
)
