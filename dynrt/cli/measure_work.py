"""What a session runs: the network on the board's terms, its inputs, and what onnxruntime says."""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import dynrt
from dynrt.bundle import Bundle
from dynrt.bundle.board_table import BoardLimits
from dynrt.calibrate.datasets import load_dataset
from dynrt.calibrate.pictures import prepare
from dynrt.cli import demo, inputs
from dynrt.errors import DataError, InputError, SessionError
from dynrt.exporters.board import BoardProgram, lower_to_board
from dynrt.fpga.cases import path_cases, skipping_cases
from dynrt.fpga.conduct import Ports
from dynrt.fpga.manifest import FREE, Case, Manifest
from dynrt.fpga.rules import Rules
from dynrt.fpga.session import Load
from dynrt.fpga.verify import expected
from dynrt.fpga.wire import BoardInfo

#: So many pictures where nothing else is said.
COUNT = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """A network, ready for a board.

    Attributes:
        bundle: the network.
        program: lowered.
        samples: inputs.
        given: names of the inputs as a person gave them.
        data: the data set as a person gave it.
    """

    bundle: Bundle
    program: BoardProgram
    samples: tuple[inputs.Sample, ...]
    given: tuple[str, ...] = ()
    data: str | None = None

    def load(self, cases: Sequence[Case]) -> Load:
        """What is downloaded, and what onnxruntime makes of it in each case."""
        values = [sample.values for sample in self.samples]
        return Load(
            table=self.program.table_bytes,
            weights=self.program.weights,
            inputs=tuple(self.program.pack(each) for each in values),
            graph=self.bundle.graph,
            expected=tuple(expected(self.bundle, case, values) for case in cases),
        )

    def plan(self, path: str, cases: tuple[Case, ...], ports: Ports, rules: Rules) -> Manifest:
        """What the session sets out to do."""
        now = dt.datetime.now(dt.UTC)
        return Manifest(
            bundle=self.bundle.name,
            sha256=self.bundle.sha256,
            bundle_path=path,
            inputs=tuple(sample.name for sample in self.samples),
            given=self.given,
            data=self.data,
            cases=cases,
            meter=ports.meter_name,
            meter_settings=ports.settings.as_json(),
            rules=rules,
            dynrt=dynrt.__version__,
            created=now.strftime("%Y-%m-%dT%H:%M:%SZ"),
            decisions=self.program.decisions,
        )


def work_of(
    bundle: Bundle,
    samples: Sequence[inputs.Sample],
    info: BoardInfo,
    *,
    given: Sequence[str] = (),
    data: str | None = None,
) -> Work:
    """Lower the network for the board that answered; ``given`` and ``data`` are kept for a resume.

    Raises:
        BoardFitError: it does not fit, or an operator is not on the board.
    """
    limits = BoardLimits(
        table_bytes=info.table_cap,
        weights_bytes=info.weights_cap,
        arena_bytes=info.arena_cap,
        inputs_bytes=info.inputs_cap,
    )
    program = lower_to_board(bundle, limits=limits)
    return Work(
        bundle=bundle, program=program, samples=tuple(samples), given=tuple(given), data=data
    )


def cases_of(bundle: Bundle, *, paths: bool, skip: tuple[float, ...]) -> tuple[Case, ...]:
    """The cases that were asked for; the network as it is comes first.

    Raises:
        SessionError: nothing can be skipped.
    """
    cases = [FREE]
    if paths:
        cases += path_cases(bundle.graph)
    if skip:
        cases += skipping_cases(bundle.graph, skip)
    names = [case.name for case in cases]
    return tuple(case for i, case in enumerate(cases) if case.name not in names[:i])


def samples_of(
    bundle: Bundle, names: Sequence[str], data: str | None, count: int
) -> list[inputs.Sample]:
    """The inputs: those that are named, or of a data set, or the demo pictures.

    Raises:
        DataError, InputError: they cannot be read, or there are none.
    """
    if data is not None:
        return _of_dataset(bundle, data, count)
    read: Iterator[inputs.Sample | inputs.Unreadable]
    read = inputs.samples(names, bundle) if names else iter(_demo(bundle))
    out: list[inputs.Sample] = []
    for sample in itertools.islice(read, None if names else count):
        if isinstance(sample, inputs.Unreadable):
            raise sample.error
        out.append(sample)
    if not out:
        raise InputError("no inputs: nothing to measure")
    return out


def _demo(bundle: Bundle) -> Iterator[inputs.Sample]:
    """The demo pictures, then the same seen in a mirror."""
    pictures = list(demo.pictures())
    mirrored = [(f"{name}, mirrored", pixels[:, ::-1]) for name, pixels in pictures]
    yield from inputs.picture_samples([*pictures, *mirrored], bundle)


def _of_dataset(bundle: Bundle, data: str, count: int) -> list[inputs.Sample]:
    rule = bundle.preprocessing
    nodes = [node for node in bundle.graph.inputs() if node.param is None]
    if rule is None or len(nodes) != 1:
        raise DataError(f"{bundle.name} takes no pictures: give inputs instead of --data")
    dataset = load_dataset(data, size=(rule.height, rule.width)).first(count)
    values = np.asarray(prepare(dataset.pictures, rule))
    return [
        inputs.Sample(name=f"{dataset.source}[{i}]", values={nodes[0].name: values[i]})
        for i in range(len(dataset))
    ]


def same_network(bundle: Bundle, plan: Manifest) -> None:
    """Refuse to go on with another network than the session's.

    Raises:
        SessionError: it is another.
    """
    if bundle.sha256 != plan.sha256:
        raise SessionError(
            f"the session is of {plan.bundle} {plan.sha256[:12]}; {plan.bundle_path} is now "
            f"{bundle.name} {bundle.sha256[:12]}"
        )


def default_folder(bundle: Bundle) -> Path:
    """A new folder below ``measurements``, named by time and network."""
    now = dt.datetime.now(dt.UTC).strftime("%Y%m%d-%H%M%S")
    base = Path("measurements") / f"{now}-{bundle.name}"
    tries = itertools.chain([base], (base.with_name(f"{base.name}-{i}") for i in range(2, 1000)))
    return next(path for path in tries if not path.exists())
