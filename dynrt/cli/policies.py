"""``--policy FILE``: thresholds, or levels for a stream's average, put in force."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import click

from dynrt.bundle import Bundle
from dynrt.calibrate.average import AveragePolicy
from dynrt.calibrate.average_file import read_any_policy
from dynrt.calibrate.thresholds import Calibration
from dynrt.errors import PolicyError
from dynrt.ir.graph import Array
from dynrt.runtime import BudgetSource, Network, Result

policy_option = click.option(
    "--policy",
    "policy_file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="What `dynrt calibrate --policy` or `--average` wrote: thresholds, or an average to keep.",
)


def read_policy_for(bundle: Bundle, path: Path) -> Calibration | AveragePolicy:
    """The policy in ``path``.

    Raises:
        DataError: the file is no policy.
        PolicyError: it was made for another network.
    """
    policy = read_any_policy(path)
    if policy.bundle_sha256 != bundle.sha256:
        raise PolicyError(
            f"{path} was calibrated on {policy.bundle or 'another network'} "
            f"({policy.bundle_sha256[:12]}), not on {bundle.name} ({bundle.sha256[:12]})"
        )
    return policy


def source_of(policy: AveragePolicy, network: Network) -> BudgetSource:
    """A stream's budget source, which moves the network's thresholds."""
    return policy.source(lambda thresholds: network.set(thresholds=thresholds))


class Streamed:
    """A network whose inputs are a stream under an average, one at a time."""

    def __init__(self, network: Network, policy: AveragePolicy) -> None:
        self._network, self._source = network, source_of(policy, network)

    def run(self, inputs: Mapping[str, Array], *, trace: bool = False) -> Result:
        """Answer one input under what the bucket holds, and take what it spent.

        Raises:
            BudgetError: the bucket holds less than the cheapest answer.
        """
        result = self._network.run(inputs, budget=self._source.next(), trace=trace)
        self._source.spent(result)
        return result

    def run_batch(self, inputs: Mapping[str, Array], *, trace: bool = False) -> list[Result]:
        """Answer several inputs, one after the other."""
        count = len(next(iter(inputs.values())))
        return [
            self.run({name: value[i] for name, value in inputs.items()}, trace=trace)
            for i in range(count)
        ]
