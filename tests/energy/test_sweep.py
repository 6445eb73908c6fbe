"""A sweep is counting and pricing point by point: the same in one process, in several, and on Ray."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dynrt.energy import sweep_workers
from dynrt.energy.hardware import load_hardware
from dynrt.energy.sweep import SweepPoint, points, sweep
from dynrt.energy.sweep_workers import Task, run_tasks
from dynrt.energy.tables import load_table
from dynrt.errors import EnergyError, HardwareError, MissingExtraError
from dynrt.ir.graph import NodeId
from dynrt.ir.layers import ConvLayer
from tests.energy.sweeping import CONV, NETWORK, whole
from tests.ray_runs import said_on_ray

EYERISS = load_hardware("eyeriss")
TABLE = load_table("eyeriss-normalised")
KEYS = points(["array=3x5,8x8", "dataflow=ws,os,is", "sram=1:2"])
HUGE = replace(CONV, name="huge", in_h=90_000, in_w=90_000, out_h=90_000, out_w=90_000)


def swept(**options: Any) -> list[SweepPoint]:
    return sweep(NETWORK, EYERISS, TABLE, KEYS, **({"workers": 1} | options))


def test_every_point_is_the_network_counted_and_priced_there() -> None:
    found = swept()
    assert [p.hardware for p in found] == [EYERISS.with_(**k.changes()) for k in KEYS]
    for point in found:
        figures = (point.energy, point.low, point.high, point.cycles, point.macs)
        assert figures == whole(point.hardware, TABLE)
        assert point.low < point.energy < point.high
        assert point.unit == "MACeq"
        assert point.unmodelled_macs == 2 * 77
        assert point.utilisation == point.macs / point.pe_cycles
    assert len({p.energy for p in found}) > 3


def test_a_hand_counted_network() -> None:
    # One product of (1, 40) with (40, 10) in int8 on one 64 x 64 array, weight-stationary: one fold
    # of 2 * 64 + 64 + 1 - 2 cycles, the last one not counted; 1 * 40 * 10 multiplications.
    layers = {NodeId("head"): NETWORK[NodeId("head")]}
    (point,) = sweep(layers, EYERISS, TABLE, points(["array=64x64", "dataflow=ws"]))
    assert (point.macs, point.cycles) == (400, 190)
    assert point.pe_cycles == 190 * 4096
    # MACs 400; register files 4 * 400 at 1; buffer 40 + 400 reads, 10 writes at 6; DRAM the same
    # words at 200: in thousandths.
    words = 40 + 400 + 10
    assert point.energy == 1000 * (400 + 4 * 400 + 6 * words + 200 * words)
    assert point.front


def test_forwarding_is_priced_on_request() -> None:
    plain, with_hops = swept(), swept(hops=True)
    assert all(a.energy < b.energy for a, b in zip(plain, with_hops, strict=True))


def test_other_policies_count_otherwise() -> None:
    keys = points(["dataflow=ws"])
    mended, raw = (
        sweep(NETWORK, EYERISS, TABLE, keys, policy=policy)[0]
        for policy in ("corrected", "scalesim")
    )
    assert mended.energy != raw.energy
    with pytest.raises(EnergyError, match="policy 'none' is not there"):
        sweep(NETWORK, EYERISS, TABLE, keys, policy="none")


def test_the_simulator_agrees() -> None:
    keys = points(["array=8x8", "dataflow=ws,os"])
    ours, theirs = (
        sweep(NETWORK, EYERISS, TABLE, keys, backend=backend, workers=1)
        for backend in ("analytic", "scalesim")
    )
    assert ours == theirs
    with pytest.raises(EnergyError, match="backend 'guess' is not there"):
        sweep(NETWORK, EYERISS, TABLE, keys, backend="guess")


def test_processes_give_the_same() -> None:
    assert swept(workers=2) == swept()


def test_a_long_sweep_goes_on_in_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[int] = []
    real = sweep_workers._in_processes

    def noted(queue: Any, workers: int) -> Any:
        started.append(workers)
        return real(queue, workers)

    monkeypatch.setattr(sweep_workers, "_in_processes", noted)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    assert swept(workers=None) == swept()
    assert started == [2]  # nothing was left for it
    monkeypatch.setattr(sweep_workers, "_HERE_S", 0.0)
    assert swept(workers=None) == swept()
    assert started == [2, 2]
    monkeypatch.setattr("os.cpu_count", lambda: None)
    assert swept(workers=None) == swept()
    assert started == [2, 2]


def test_progress_counts_points_and_each_distinct_layer_is_counted_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[tuple[int, int]] = []
    tasks: list[Task] = []
    real = sweep_workers.count_task

    def noted(task: Task) -> Any:
        tasks.append(task)
        return real(task)

    monkeypatch.setattr(sweep_workers, "count_task", noted)
    found = sweep(
        NETWORK, EYERISS, TABLE, [*KEYS, KEYS[0]], workers=1, progress=lambda *p: seen.append(p)
    )
    assert seen == [(n, len(KEYS)) for n in range(len(KEYS) + 1)]
    assert len(tasks) == 4 * len(KEYS)  # one convolution of three, the product, the pass, the gap
    assert found[0] == found[-1]
    assert len(found) == len(KEYS) + 1


@pytest.mark.parametrize("workers", [1, 2])
def test_a_layer_that_cannot_be_counted_is_named_with_its_place(workers: int) -> None:
    layers = {**NETWORK, NodeId("c"): (HUGE,)}
    with pytest.raises(EnergyError, match=r"^eyeriss\[rows=8.*8x8 ws.: Conv 'huge': ") as caught:
        sweep(layers, EYERISS, TABLE, points(["array=8x8"]), workers=workers)
    assert "\n" not in str(caught.value)


def test_errors_of_other_kinds_keep_what_they_say(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*_: object, **__: object) -> None:
        raise MissingExtraError("scalesim", "energy")

    monkeypatch.setattr(sweep_workers, "count_nodes", absent)
    with pytest.raises(EnergyError, match=r"12x14 ws.: .* scalesim is missing: pip install"):
        sweep(NETWORK, EYERISS, TABLE, points(["dataflow=ws"]), workers=1)


class _Deadly:
    """Ends the process that unpickles it."""

    def __reduce__(self) -> Any:
        return os._exit, (3,)


def test_a_process_that_dies_is_an_error() -> None:
    work: Any = _Deadly()
    task = Task(point=0, work=work, hardware=EYERISS, policy="corrected", backend="analytic")
    with pytest.raises(EnergyError, match="a process of the sweep died: no memory left"):
        list(run_tasks([task] * 2, count=2, workers=2, ray=None))


def test_stopping_half_way_ends_the_processes() -> None:
    began = time.monotonic()
    work = replace(CONV, in_h=224, in_w=224, out_h=224, out_w=224, channels=64, filters=64)
    slow = Task(
        point=0,
        work=replace(work, groups=1),
        hardware=EYERISS.with_(rows=2, cols=2, sram_bytes=4096),
        policy="scalesim",
        backend="scalesim",
    )
    quick = Task(point=0, work=CONV, hardware=EYERISS, policy="corrected", backend="analytic")
    running = run_tasks([quick, slow, slow], count=3, workers=2, ray=None)
    assert next(running)[0] == quick
    running.close()
    assert time.monotonic() - began < 30  # the simulator would take an hour


@pytest.mark.parametrize("workers", [0, -1])
def test_workers_are_at_least_one(workers: int) -> None:
    with pytest.raises(EnergyError, match=f"{workers} workers; at least 1 is needed"):
        swept(workers=workers)


def test_nothing_to_sweep_is_an_error() -> None:
    for layers, keys in (({}, KEYS), ({NodeId("a"): ()}, KEYS), (NETWORK, ())):
        with pytest.raises(EnergyError, match="a sweep needs points, and a network with layers"):
            sweep(layers, EYERISS, TABLE, keys)


def test_a_buffer_that_holds_no_word_is_refused() -> None:
    double: ConvLayer = replace(CONV, dtype="float64")
    hardware = EYERISS.with_(sram_bytes=4)
    with pytest.raises((EnergyError, HardwareError), match="not one float64 word"):
        sweep({NodeId("a"): (double,)}, hardware, TABLE, points(["rows=8"]), workers=1)


def test_ray_must_be_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'dynrt\[ray\]'"):
        swept(ray="auto")


_ON_RAY = """
import json, sys
from dynrt.energy.sweep import sweep
from dynrt.errors import EnergyError
from tests.energy.test_sweep import EYERISS, KEYS, NETWORK, TABLE, HUGE, NodeId, points, swept
import ray

def refused(address):
    try:
        swept(ray=address)
    except EnergyError as exc:
        return str(exc)

said = [refused("127.0.0.1:1"), refused("no address")]
same = swept(ray="local", workers=1) == swept()  # with this dynrt, taken there by Ray
closed = not ray.is_initialized()
ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False,
         object_store_memory=100_000_000)
same &= swept(ray="auto") == swept()
try:
    sweep({**NETWORK, NodeId("c"): (HUGE,)}, EYERISS, TABLE, points(["array=8x8"]), ray="auto")
except EnergyError as exc:
    said.append(str(exc))
still = closed and ray.is_initialized()
ray.shutdown()
print(json.dumps([same, still, said]))
"""


def test_a_ray_cluster_gives_the_same(tmp_path: Path) -> None:
    same, still, (nobody, wrong, huge) = said_on_ray(_ON_RAY, tmp_path)
    assert same
    assert still  # ours is ended; one that was there before is left as it was
    assert nobody.startswith("ray at 127.0.0.1:1: nobody answers there")
    assert wrong.startswith("ray at no address: ")
    assert "(8x8 ws): Conv 'huge': " in huge
