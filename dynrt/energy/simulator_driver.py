"""The simulator backend: SCALE-Sim itself on one layer, in memory, without a word.

Nothing of the library is changed. Some of its classes are used by way of sub-classes whose methods
see other globals: a ``max`` that still works where NumPy refuses to turn an array of one element
into a number (2.4 and later), and a progress bar that does nothing (the library's, though silent,
leaves a thread and a semaphore in the process). Buffers are set up with exactly the words asked
for; the library's configuration knows whole kB only.
"""

from __future__ import annotations

import builtins
import functools
import importlib
import importlib.metadata
import importlib.util
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from dynrt.energy.array import SimCounts, SimLayer, SystolicArray
from dynrt.errors import MissingExtraError, SimulatorError, first_line

#: The release whose counts the analytic backend reproduces.
VERSION = "scalesim 3.0.0"
#: What must be importable, besides NumPy.
_PARTS = ("scalesim", "tqdm")
#: Where operands begin in the simulator's address space; they never share a buffer.
_OFFSETS = (0, 10_000_000, 20_000_000)
#: Words a cycle between DRAM and the read buffers, as in the simulator's own CALC mode.
_READ_WORDS_PER_CYCLE = 10
_DATAFLOWS = ("ws", "os", "is")


class UnfinishedError(SimulatorError):
    """A simulation ran out of time or memory, or its process died: no word on the layer itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Library:
    """What is used of SCALE-Sim; it has no types."""

    single_layer: Callable[[], Any]
    config: Callable[[], Any]
    topology: Callable[[], Any]
    layout: Callable[[], Any]
    compute: Mapping[str, Callable[[], Any]]
    scratchpad: Callable[[], Any]


def installed_version() -> str:
    """``scalesim X.Y.Z`` as installed; imports nothing of it.

    Raises:
        MissingExtraError: it, or a package it needs, is not there.
        SimulatorError: it is of another series than 3.0.
    """
    for part in _PARTS:
        if importlib.util.find_spec(part) is None:
            raise MissingExtraError(part, "energy")
    try:
        version = importlib.metadata.version("scalesim")
    except importlib.metadata.PackageNotFoundError:
        raise MissingExtraError("scalesim", "energy") from None
    if version.split(".")[:2] != ["3", "0"]:
        raise SimulatorError(f"scalesim {version} is installed; {VERSION} is what is driven here")
    return f"scalesim {version}"


def simulate(layer: SimLayer, array: SystolicArray) -> SimCounts:
    """What SCALE-Sim counts: dense, bandwidth mode CALC, no custom layout; raw, faults included.

    Nothing is printed, written or warned about, and nothing outside the call changes. It takes
    seconds to minutes, and some hundred bytes for each word that enters or leaves the array.

    Raises:
        MissingExtraError: the simulator is not installed (extra ``energy``).
        SimulatorError: it failed on the layer, does not take it, or is not the release driven here;
            ``UnfinishedError`` where memory was all that it lacked.
    """
    _require_possible(layer, array)
    library = load()
    try:
        with np.errstate(all="ignore"):
            return _run(library, layer, array)
    except MemoryError as exc:
        said = f"{place(layer, array)}: SCALE-Sim ran out of memory: {first_line(exc)}"
        raise UnfinishedError(said) from None
    except (Exception, SystemExit) as exc:  # noqa: BLE001 - a foreign library, whatever it raises
        raise SimulatorError(f"{place(layer, array)}: SCALE-Sim failed: {_reason(exc)}") from None


@functools.cache
def load() -> Library:
    """Import what is used of the simulator, once.

    Raises:
        MissingExtraError: it, or a package it needs, is not there.
        SimulatorError: it is not the release driven here.
    """
    installed_version()
    try:
        memory = importlib.import_module("scalesim.memory.double_buffered_scratchpad_mem")
        buffer = importlib.import_module("scalesim.memory.write_buffer")
        single = importlib.import_module("scalesim.single_layer_sim")
        config = importlib.import_module("scalesim.scale_config")
        topology = importlib.import_module("scalesim.topology_utils")
        layout = importlib.import_module("scalesim.layout_utils")
    except ImportError as exc:
        raise MissingExtraError(exc.name or "scalesim", "energy") from None
    written = _seeing(buffer.write_buffer, tqdm=_NoBar)
    served = _seeing(memory.double_buffered_scratchpad, max=_max, tqdm=_NoBar)

    def scratchpad() -> Any:
        made = served()
        made.ofmap_buf = written()
        return made

    return Library(
        single_layer=single.single_layer_sim,
        config=config.scale_config,
        topology=topology.topologies,
        layout=layout.layouts,
        compute={
            "ws": _seeing(single.systolic_compute_ws, tqdm=_NoBar),
            "os": _seeing(single.systolic_compute_os, tqdm=_NoBar),
            "is": _seeing(single.systolic_compute_is, tqdm=_NoBar),
        },
        scratchpad=scratchpad,
    )


def place(layer: SimLayer, array: SystolicArray) -> str:
    """A layer on an array in one line, for messages."""
    stride = f" stride {layer.stride_h}x{layer.stride_w}"
    return (
        f"layer {layer.height}x{layer.width}x{layer.channels} kernel {layer.kernel_h}x"
        f"{layer.kernel_w} filters {layer.filters}{stride} on {array.rows}x{array.cols} "
        f"{array.dataflow} with {array.ifmap_words}/{array.filter_words}/{array.ofmap_words} words"
    )


def _require_possible(layer: SimLayer, array: SystolicArray) -> None:
    """What the simulator would crash on, or loop over, in ways that say nothing."""
    for thing in (layer, array):
        for field in fields(thing):
            value = getattr(thing, field.name)
            if field.name == "dataflow":
                if value not in _DATAFLOWS:
                    raise SimulatorError(f"{place(layer, array)}: dataflow is ws, os or is")
            elif type(value) is not int or value < 1:
                raise SimulatorError(f"{place(layer, array)}: {field.name} is {value!r}, not 1..")
    if layer.kernel_h > layer.height or layer.kernel_w > layer.width:
        raise SimulatorError(f"{place(layer, array)}: the kernel is larger than the input")


def _run(library: Library, layer: SimLayer, array: SystolicArray) -> SimCounts:
    config = library.config()
    unused_kilobytes = (1, 1, 1)  # the memory system below has its own sizes, in words
    config.update_from_list(
        ["", array.rows, array.cols, *unused_kilobytes, *_OFFSETS, array.dataflow, "CALC", []]
    )
    topology = library.topology()
    numbers = (
        layer.height,
        layer.width,
        layer.kernel_h,
        layer.kernel_w,
        layer.channels,
        layer.filters,
        layer.stride_h,
        layer.stride_w,
    )
    dense = (1, 1)
    topology.load_layer_params_from_list("layer", ["layer", *numbers, *dense])
    topology.topo_calc_hyperparams()
    memory = library.scratchpad()
    memory.set_params(
        verbose=False,
        estimate_bandwidth_mode=True,
        word_size=1,
        ifmap_buf_size_bytes=array.ifmap_words,
        filter_buf_size_bytes=array.filter_words,
        ofmap_buf_size_bytes=array.ofmap_words,
        rd_buf_active_frac=0.5,
        wr_buf_active_frac=0.5,
        ifmap_backing_buf_bw=_READ_WORDS_PER_CYCLE,
        filter_backing_buf_bw=_READ_WORDS_PER_CYCLE,
        ofmap_backing_buf_bw=array.cols,
        config=config,
        topo=topology,
    )
    run = library.single_layer()
    run.set_params(
        layer_id=0,
        config_obj=config,
        topology_obj=topology,
        layout_obj=library.layout(),
        verbose=False,
    )
    run.compute_system = library.compute[array.dataflow]()
    run.set_memory_system(memory)
    run.run()
    return _report(run)


def _report(run: Any) -> SimCounts:
    """The figures of the compute report and the detailed access report."""
    _, cycles, stalls, utilisation, mapping, compute = run.get_compute_report_items()
    items = run.get_detail_report_items()  # start, stop and count of each operand and memory
    reads_and_writes = [_whole(item) for item in items[2::3]]
    return SimCounts(
        macs=_whole(run.num_compute),
        cycles=_whole(cycles),
        stall_cycles=_whole(stalls),
        ifmap_sram_reads=reads_and_writes[0],
        filter_sram_reads=reads_and_writes[1],
        ofmap_sram_writes=reads_and_writes[2],
        ifmap_dram_reads=reads_and_writes[3],
        filter_dram_reads=reads_and_writes[4],
        ofmap_dram_writes=reads_and_writes[5],
        utilisation=float(utilisation),
        mapping_efficiency=float(mapping),
        compute_utilisation=float(compute),
    )


def _whole(value: Any) -> int:
    number = int(value)
    if number != value or number < 0:
        raise ValueError(f"reports {value!r} where a count belongs")
    return number


def _seeing(base: type, **changed: object) -> type:
    """A class like ``base`` whose methods see other globals; those of the module stay."""
    methods = {
        name: types.FunctionType(
            function.__code__,
            {**function.__globals__, **changed},
            name,
            function.__defaults__,
            function.__closure__,
        )
        for name, function in vars(base).items()
        if isinstance(function, types.FunctionType)
    }
    return type(base.__name__, (base,), methods)


class _NoBar:
    """A progress bar that shows nothing and holds nothing."""

    def __init__(self, steps: Iterable[int] = (), **_: object) -> None:
        self._steps = steps

    def __iter__(self) -> Iterator[int]:
        return iter(self._steps)

    def update(self, count: int = 1) -> None:
        """Nothing to show."""

    def close(self) -> None:
        """Nothing to let go."""


def _max(*values: Any) -> Any:
    """``max``, that gives a number where it would give an array of one element."""
    largest = builtins.max(*values)
    return largest.item() if isinstance(largest, np.ndarray) else largest


def _reason(exc: BaseException) -> str:
    if isinstance(exc, SystemExit):
        return f"it called exit({exc.code!r})"
    assert isinstance(exc, Exception)  # noqa: S101 - SystemExit is the only other kind caught
    return f"{type(exc).__name__}: {first_line(exc)}"
