"""SCALE-Sim driven in memory: right counts, typed errors, and no trace of it anywhere."""

from __future__ import annotations

import builtins
import dataclasses
import importlib
import importlib.machinery
import importlib.metadata
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dynrt.energy import simulator, simulator_driver
from dynrt.energy.array import Dataflow, SimCounts, SimLayer, SystolicArray
from dynrt.errors import EnergyError, MissingExtraError, SimulatorError
from tests.energy_cases import DATAFLOWS, require_simulator

require_simulator()

LAYER = SimLayer(height=6, width=6, kernel_h=3, kernel_w=3, channels=2, filters=5)
ARRAY = SystolicArray(
    rows=4, cols=4, dataflow="ws", ifmap_words=1024, filter_words=1024, ofmap_words=1024
)
PRODUCT = SimLayer(height=2, width=2, kernel_h=1, kernel_w=2, channels=1, filters=2)


@pytest.fixture
def fresh() -> Iterator[None]:
    """The library is looked up anew, before and after."""
    simulator_driver.load.cache_clear()
    yield
    simulator_driver.load.cache_clear()


def test_a_product_counted_by_hand() -> None:
    """(2, 2) times (2, 2) on 2x2, weights stationary: one fold.

    Each of the 4 words of either operand is read once, and each of the 4 results written once:
    P*K = K*N = P*N = 4. Two lines load the weights; the input enters over T = 2 lines, its second
    row a line later; results leave after two more rows: 2R + C + T - 2 = 6 lines, the last of which
    begins at cycle 5. 8 products in 5 cycles of 4 elements: 40 %.
    """
    array = dataclasses.replace(ARRAY, rows=2, cols=2)
    counts = simulator.simulate(PRODUCT, array)
    assert dataclasses.replace(counts, compute_utilisation=0.0) == SimCounts(
        macs=8,
        cycles=5,
        stall_cycles=0,
        ifmap_sram_reads=4,
        filter_sram_reads=4,
        ofmap_sram_writes=4,
        ifmap_dram_reads=4,
        filter_dram_reads=4,
        ofmap_dram_writes=4,
        utilisation=40.0,
        mapping_efficiency=100.0,
        compute_utilisation=0.0,
    )


@pytest.mark.parametrize("dataflow", DATAFLOWS)
@pytest.mark.parametrize("kilobytes", [(1, 2, 1), (3, 1, 2)])
def test_the_memory_system_of_ours_is_the_simulators_own(
    dataflow: Dataflow, kilobytes: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library, set up by itself from whole kB, counts what it counts with our buffers."""
    memory = importlib.import_module("scalesim.memory.double_buffered_scratchpad_mem")
    monkeypatch.setattr(memory, "max", _max_of_arrays, raising=False)
    layer = SimLayer(height=12, width=11, kernel_h=3, kernel_w=3, channels=9, filters=17)
    sizes = [1024 * size for size in kilobytes]
    array = SystolicArray(
        rows=8,
        cols=6,
        dataflow=dataflow,
        ifmap_words=sizes[0],
        filter_words=sizes[1],
        ofmap_words=sizes[2],
    )
    ours = simulator.simulate(layer, array)
    theirs = _by_itself(layer, array, kilobytes)
    assert ours.ifmap_dram_reads > 12 * 11 * 9 or kilobytes[0] == 3, "the buffer should overflow"
    got = (ours.cycles, ours.stall_cycles, ours.utilisation, ours.mapping_efficiency)
    assert (*got, ours.compute_utilisation) == tuple(theirs.get_compute_report_items()[1:])
    assert [
        ours.ifmap_sram_reads,
        ours.filter_sram_reads,
        ours.ofmap_sram_writes,
        ours.ifmap_dram_reads,
        ours.filter_dram_reads,
        ours.ofmap_dram_writes,
    ] == theirs.get_detail_report_items()[2::3]


def _max_of_arrays(*values: Any) -> Any:
    largest = builtins.max(*values)
    return largest.item() if isinstance(largest, np.ndarray) else largest


def _by_itself(layer: SimLayer, array: SystolicArray, kilobytes: tuple[int, int, int]) -> Any:
    config = importlib.import_module("scalesim.scale_config").scale_config()
    offsets = [0, 10_000_000, 20_000_000]
    config.update_from_list(
        ["r", array.rows, array.cols, *kilobytes, *offsets, array.dataflow, "CALC", []]
    )
    topology = importlib.import_module("scalesim.topology_utils").topologies()
    sizes = [layer.height, layer.width, layer.kernel_h, layer.kernel_w]
    rest = [layer.channels, layer.filters, layer.stride_h, layer.stride_w, 1, 1]
    topology.load_layer_params_from_list("l", ["l", *sizes, *rest])
    topology.topo_calc_hyperparams()
    run = importlib.import_module("scalesim.single_layer_sim").single_layer_sim()
    layout = importlib.import_module("scalesim.layout_utils").layouts()
    run.set_params(config_obj=config, topology_obj=topology, layout_obj=layout, verbose=False)
    run.run()
    return run


def test_sizes_need_not_be_kilobytes() -> None:
    """Of 100 words the buffer drops what it has after 50, of 199 the same, of 200 after 100."""
    reads = [
        simulator.simulate(LAYER, dataclasses.replace(ARRAY, ifmap_words=words)).ifmap_dram_reads
        for words in (100, 199, 200)
    ]
    assert reads[0] == reads[1] > reads[2] >= 6 * 6 * 2


def test_nothing_is_said_left_or_changed(tmp_path: Path) -> None:
    """In a fresh process with warnings as errors: no output, file, thread, lock or new global."""
    script = """
import os, sys, threading
from dynrt.energy.array import SimLayer, SystolicArray
from dynrt.energy.simulator import simulate
layer = SimLayer(height=6, width=6, kernel_h=3, kernel_w=3, channels=2, filters=5)
for dataflow in ("ws", "os", "is"):
    array = SystolicArray(
        rows=4, cols=4, dataflow=dataflow, ifmap_words=500, filter_words=500, ofmap_words=99
    )
    simulate(layer, array)
import scalesim.memory.double_buffered_scratchpad_mem as memory
import scalesim.single_layer_sim as single
import tqdm
assert "max" not in vars(memory), "a global of the library"
assert memory.tqdm is tqdm.tqdm and single.systolic_compute_ws.__module__.startswith("scalesim")
assert "_lock" not in vars(tqdm.tqdm), "a semaphore"
assert threading.active_count() == 1, threading.enumerate()
assert os.listdir() == [], os.listdir()
assert "multiprocessing.resource_tracker" not in sys.modules or (
    sys.modules["multiprocessing.resource_tracker"]._resource_tracker._fd is None
), "a process"
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        cwd=tmp_path,
        env={"PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("layer", "array", "said"),
    [
        ({"height": 2}, {}, "kernel is larger"),
        ({"kernel_w": 7}, {}, "kernel is larger"),
        ({"channels": 0}, {}, "channels is 0"),
        ({"filters": -1}, {}, "filters is -1"),
        ({"stride_h": 1.0}, {}, "stride_h is 1.0"),
        ({"width": True}, {}, "width is True"),
        ({}, {"rows": 0}, "rows is 0"),
        ({}, {"ifmap_words": 0}, "ifmap_words is 0"),
        ({}, {"dataflow": "rs"}, "dataflow is ws, os or is"),
    ],
)
def test_what_is_no_layer_is_refused(
    layer: dict[str, Any], array: dict[str, Any], said: str
) -> None:
    with pytest.raises(SimulatorError, match=said):
        simulator.simulate(dataclasses.replace(LAYER, **layer), dataclasses.replace(ARRAY, **array))


@pytest.mark.parametrize(
    ("layer", "array", "said"),
    [
        (LAYER, {"ifmap_words": 99}, "ValueError: cannot reshape"),
        (LAYER, {"ofmap_words": 1}, "IndexError"),
        (
            SimLayer(height=1, width=1, kernel_h=1, kernel_w=1, channels=1, filters=1),
            {"rows": 1, "cols": 1, "dataflow": "os"},
            "ZeroDivisionError",
        ),
    ],
)
def test_a_crash_inside_names_layer_array_and_reason(
    layer: SimLayer, array: dict[str, Any], said: str
) -> None:
    with pytest.raises(SimulatorError, match=said) as caught:
        simulator.simulate(layer, dataclasses.replace(ARRAY, **array))
    text = str(caught.value)
    assert text.startswith(f"layer {layer.height}x{layer.width}x{layer.channels} kernel")
    assert "words: SCALE-Sim failed: " in text
    assert "\n" not in text
    assert caught.value.__cause__ is None
    assert isinstance(caught.value, EnergyError)


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        (SystemExit(3), r"it called exit\(3\)"),
        (MemoryError(), r"words: SCALE-Sim ran out of memory: MemoryError$"),
        (RuntimeError("first\nsecond"), "RuntimeError: first$"),
    ],
)
def test_whatever_it_raises_is_one_of_our_errors(
    raised: BaseException, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    single = importlib.import_module("scalesim.single_layer_sim")

    def run(self: object) -> None:
        raise raised

    monkeypatch.setattr(single.single_layer_sim, "run", run)
    with pytest.raises(SimulatorError, match=said):
        simulator.simulate(LAYER, ARRAY)


def test_an_interrupt_stays_an_interrupt(monkeypatch: pytest.MonkeyPatch) -> None:
    single = importlib.import_module("scalesim.single_layer_sim")

    def run(self: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(single.single_layer_sim, "run", run)
    with pytest.raises(KeyboardInterrupt):
        simulator.simulate(LAYER, ARRAY)


def test_a_count_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    single = importlib.import_module("scalesim.single_layer_sim")

    def items(self: object) -> list[float]:
        return [0, 10.5, 0, 0.0, 0.0, 0.0]

    monkeypatch.setattr(single.single_layer_sim, "get_compute_report_items", items)
    with pytest.raises(SimulatorError, match=r"reports 10.5 where a count belongs"):
        simulator.simulate(LAYER, ARRAY)


@pytest.mark.parametrize("part", ["scalesim", "tqdm"])
@pytest.mark.usefixtures("fresh")
def test_without_the_extra(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec

    def found(name: str, package: str | None = None) -> importlib.machinery.ModuleSpec | None:
        return None if name == part else find(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", found)
    with pytest.raises(
        MissingExtraError, match=rf"{part} is missing: pip install 'dynrt\[energy]'"
    ):
        simulator.simulate(LAYER, ARRAY)


@pytest.mark.usefixtures("fresh")
def test_a_folder_that_is_only_called_scalesim(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    with pytest.raises(MissingExtraError, match="scalesim is missing"):
        simulator.simulate(LAYER, ARRAY)


@pytest.mark.usefixtures("fresh")
def test_an_installation_that_lacks_a_part(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> object:
        raise ImportError("no pandas", name="pandas")

    monkeypatch.setattr(importlib, "import_module", broken)
    with pytest.raises(MissingExtraError, match="pandas is missing"):
        simulator.simulate(LAYER, ARRAY)


@pytest.mark.parametrize("version", ["2.0.2", "3.1.0", "30.0.0", "4", "three"])
@pytest.mark.usefixtures("fresh")
def test_another_release_is_refused(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda name: version)
    with pytest.raises(SimulatorError, match=f"scalesim {version} is installed; scalesim 3.0.0"):
        simulator.simulate(LAYER, ARRAY)


@pytest.mark.usefixtures("fresh")
def test_another_patch_of_the_series_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "3.0.7")
    assert simulator.installed_version() == "scalesim 3.0.7"
    assert simulator.simulate(PRODUCT, ARRAY).macs == 8
