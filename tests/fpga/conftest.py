"""The emulated board for tests: skipped visibly where QEMU or the cross compiler is missing, failed
where they must be there (``CI`` is set).

``needs`` names what a test takes of the machine; ``agent_elf`` is the agent for QEMU, built once;
``bench`` one running bench that tests share (each downloads its own network and leaves the board
alive); ``new_bench`` starts one that a test may kill.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NoReturn

import pytest

from dynrt.fpga.emulated.bench import EmulatedBench
from dynrt.fpga.emulated.virtual_meter import VirtualPower
from dynrt.fpga.firmware_build import build

NewBench = Callable[..., EmulatedBench]

#: Program and the Debian package that brings it.
QEMU = ("qemu-system-arm", "qemu-system-arm")
CROSS_COMPILER = ("arm-linux-gnueabihf-gcc-12", "gcc-12-arm-linux-gnueabihf")


def needs(*tools: tuple[str, str]) -> None:
    """Skip the test if a program is missing; fail it in CI, where all must be there."""
    for program, package in tools:
        if shutil.which(program) is None:
            _missing(f"{program} is missing: apt-get install {package}")


def _missing(text: str) -> NoReturn:
    if os.environ.get("CI"):
        pytest.fail(f"{text} (it must be there in CI)")
    pytest.skip(text)


@pytest.fixture(scope="session")
def agent_elf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The agent, built for QEMU."""
    needs(CROSS_COMPILER, QEMU)
    return build("qemu", tmp_path_factory.mktemp("agent"))


@pytest.fixture(scope="session")
def bench(agent_elf: Path) -> Iterator[EmulatedBench]:
    """One emulated board that tests share."""
    with EmulatedBench(firmware=agent_elf) as running:
        yield running


@pytest.fixture
def new_bench(agent_elf: Path) -> Iterator[NewBench]:
    """Starts benches that end with the test."""
    with ExitStack() as stack:

        def start(power: VirtualPower | None = None, **settings: int) -> EmulatedBench:
            made = EmulatedBench(firmware=agent_elf, power=power, **settings)
            return stack.enter_context(made)

        yield start
