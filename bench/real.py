"""The packaged network's own decisions on real pictures, under the budgets that it was made for."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from bench.forced import loaded
from bench.row import Measurement, MissingError, Request, Row, derived_row
from bench.static import session_of, static_macs, static_model
from dynrt.bundle import read_bundle, resolve
from dynrt.calibrate.datasets import load_dataset
from dynrt.calibrate.pictures import prepare
from dynrt.ir.graph import Array
from dynrt.runtime import Result

T = TypeVar("T")

BUNDLE = "resnet38-ddi"
BUDGETS = ("58M", "74M", "117M", "144M")
_STATIC = "static"
_WARM_UPS = 3


def timed(call: Callable[[Array], T], pictures: Sequence[Array]) -> tuple[float, list[T]]:
    """Mean seconds of one call, and what each gave; the first pictures are run before, untimed."""
    for picture in pictures[:_WARM_UPS]:
        call(picture)
    began = time.perf_counter()
    given = [call(picture) for picture in pictures]
    return (time.perf_counter() - began) / len(pictures), given


def _rows(request: Request) -> list[Row]:
    """Each round takes the next part of the test set; budgets and the static graph take turns."""
    if request.data is None:
        raise MissingError("needs --data cifar10:DIR")
    bundle = read_bundle(resolve(BUNDLE))
    if bundle.preprocessing is None:
        raise MissingError(f"{BUNDLE} takes no pictures")
    inputs = prepare(load_dataset(request.data).pictures, bundle.preprocessing)
    network = loaded(bundle)
    macs = static_macs(bundle, only_answer=True)
    session = session_of(static_model(bundle, only_answer=True))
    name = session.get_inputs()[0].name
    seconds: dict[str, list[float]] = {key: [] for key in (_STATIC, *BUDGETS)}
    shares: dict[str, list[float]] = {key: [] for key in BUDGETS}
    for number, part in enumerate(np.array_split(inputs, request.rounds)):
        pictures = list(part)
        for key in seconds if number % 2 == 0 else reversed(seconds):
            if key == _STATIC:
                mean_s, _ = timed(lambda x: session.run(None, {name: x[None]}), pictures)
            else:
                network.set(budget=key)
                mean_s, results = timed(network.run, pictures)
                shares[key].append(_share(results, macs))
            seconds[key].append(mean_s)
    network.close()
    return [_row(key, seconds[key], seconds[_STATIC], shares[key]) for key in BUDGETS]


def _share(results: Sequence[Result], macs: int) -> float:
    return float(np.mean([r.macs for r in results])) / macs


def _row(
    budget: str, ours: Sequence[float], static: Sequence[float], shares: Sequence[float]
) -> Row:
    return derived_row(
        f"real_decisions_{budget}",
        lambda t, whole, share: (1 - t / whole) / (1 - share),
        np.asarray(ours),
        np.asarray(static),
        np.asarray(shares),
        note=(
            f"time saved / MACs saved, own decisions on the test pictures; "
            f"MACs {float(np.mean(shares)):.3f}, time {np.median(ours) / np.median(static):.3f} "
            "of the static backbone without exits"
        ),
    )


MEASUREMENTS = (Measurement(names=tuple(f"real_decisions_{b}" for b in BUDGETS), rows=_rows),)
