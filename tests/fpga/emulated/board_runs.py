"""Networks for the emulated board, and sessions of one that must all come out the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dynrt.bundle import Bundle, read_bundle, resolve
from dynrt.calibrate.pictures import prepare
from dynrt.cli import demo
from dynrt.exporters.board import BoardProgram, lower_to_board
from dynrt.fpga.board import Board
from dynrt.fpga.emulated.bench import EmulatedBench
from dynrt.fpga.emulated.damage import Damage
from dynrt.fpga.manifest import FREE
from dynrt.fpga.records import SampleRecord
from dynrt.fpga.verify import Verified, compare, expected
from dynrt.ir.graph import Array
from tests.runtime.compiling import gated_chain

#: A line on which about every third frame of a session is hurt.
BAD_LINE = Damage(flip=3e-4, drop=3e-4, double=1e-4, insert=1e-4)
#: The host's patience with a damaged line; a clean one is waited for.
_IMPATIENT_S = 0.3
_RETRIES = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """A bundle, lowered, with inputs as both sides take them."""

    bundle: Bundle
    program: BoardProgram
    inputs: tuple[Mapping[str, Array], ...]

    @property
    def blocks(self) -> tuple[bytes, ...]:
        """Inputs as the board reads them."""
        return tuple(self.program.pack(sample) for sample in self.inputs)

    def verify(self, records: Sequence[SampleRecord]) -> Verified:
        """The board's records against onnxruntime."""
        wanted = expected(self.bundle, FREE, list(self.inputs))
        return compare(self.bundle.graph, self.program.decisions, wanted, records)


def network(bundle: Bundle, samples: Array) -> Network:
    """``samples`` of a network with one input, batch first."""
    program = lower_to_board(bundle)
    (name,) = program.inputs
    inputs = tuple({name: sample} for sample in samples)
    return Network(bundle=bundle, program=program, inputs=inputs)


def small_network(count: int = 6) -> Network:
    """Four gated blocks, 1.3 M MACs at most; each gate keeps some of the inputs and skips others."""
    rng = np.random.default_rng(1)
    samples = (
        rng.standard_normal((6, 3, 16, 16)) * np.array([0.2, 1, 3, 6, 2, 4])[:, None, None, None]
    )
    samples += 3 * rng.standard_normal((6, 3, 1, 1))
    return network(gated_chain(4, 8, size=16), samples[:count].astype(np.float32))


def packaged_network(pictures: Array | None = None) -> Network:
    """The packaged ResNet-38 with pictures, uint8; the demo's by default."""
    bundle = read_bundle(resolve("resnet38-ddi"))
    assert bundle.preprocessing is not None
    shown = np.stack([p for _, p in demo.pictures()]) if pictures is None else pictures
    return network(bundle, prepare(shown, bundle.preprocessing))


def session(
    bench: EmulatedBench,
    net: Network,
    *,
    damage: Damage | None = None,
    expect_s: float = 600.0,
) -> list[SampleRecord]:
    """Download the network, run every input once, and give its records.

    A line that may lose the end of a run is not waited for so long.
    """
    bad = damage is not None
    with bench.board(
        damage=damage,
        timeout_s=_IMPATIENT_S if bad else 2.0,
        retries=_RETRIES if bad else 8,
    ) as board:
        return run(board, net, expect_s=0.0 if bad else expect_s)


def run(board: Board, net: Network, *, expect_s: float = 600.0) -> list[SampleRecord]:
    """``session`` with a board that is there."""
    board.download(net.program.table_bytes, net.program.weights, net.blocks)
    board.run(expect_s=expect_s)
    return board.records()


def differences(records: Sequence[SampleRecord], first: Sequence[SampleRecord]) -> list[str]:
    """In what a session is not the first one: outcomes bit by bit, and ticks."""
    found = []
    if len(records) != len(first):
        return [f"{len(records)} records instead of {len(first)}"]
    for i, (have, want) in enumerate(zip(records, first, strict=True)):
        if not have.same_outcome(want):
            found.append(f"input {i}: another outcome")
        if have.ticks != want.ticks:
            found.append(f"input {i}: {have.ticks} ticks instead of {want.ticks}")
    return found
