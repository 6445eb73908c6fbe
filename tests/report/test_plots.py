from __future__ import annotations

import builtins
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dynrt.errors import DataError, MissingExtraError, OutputExistsError
from dynrt.report.gallery import Shown, plot_gallery
from dynrt.report.plots import DDI_TABLE_II, plot_accuracy_against_cost, plot_exits_used
from dynrt.report.records import Record, parse_record
from tests.report.made import evaluation

Plot = Callable[[Path], None]


def record(name: str = "tiny") -> Record:
    return parse_record(evaluation(name=name))


def shown(**change: Any) -> Shown:
    given: dict[str, Any] = {
        "picture": np.arange(48, dtype=np.uint8).reshape(4, 4, 3),
        "name": "made",
        "label": "cat",
        "score": 0.931,
        "exit": "exit2",
        "flops": 38_600_000,
    }
    return Shown(**(given | change))


def accuracy(path: Path, **options: Any) -> None:
    plot_accuracy_against_cost(
        [record(), record("other")], path, references=DDI_TABLE_II, **options
    )


def exits(path: Path, **options: Any) -> None:
    plot_exits_used(record(), path, **options)


def gallery(path: Path, **options: Any) -> None:
    gray = np.full((8, 4, 1), 99, np.uint8)
    items = [shown(), shown(picture=gray), shown(picture=gray[..., 0], name="last", stopped=True)]
    plot_gallery(items, path, columns=2, budget_flops=100_000_000, title="Demo", **options)


ALL: list[Any] = [accuracy, exits, gallery]


def words(path: Path) -> str:
    """The text of an SVG, which keeps it as text."""
    return " ".join(re.findall(r">([^<>]+)</t", path.read_text("utf-8")))


def test_accuracy_against_cost_says_what_each_line_is(tmp_path: Path) -> None:
    path = tmp_path / "plot.svg"
    accuracy(path)
    text = words(path)
    for part in (
        "Accuracy against cost on pixels test (100 inputs)",
        "tiny: mean cost under each hard budget",
        "other: the budget itself, which no input exceeds",
        "tiny: mean cost without a budget (full path: 100 MFLOPs)",
        "DDI paper, table II: ResNet-74 with gates (340 MFLOPs in full)",
        "DDI paper, table II: a static ResNet per budget",
        "MFLOPs per input (2 per multiply-accumulate)",
        "accuracy in %",
    ):
        assert part in text
    plain = tmp_path / "plain.svg"
    plot_accuracy_against_cost([record()], plain, title="Mine")
    assert "Mine" in words(plain)
    assert "DDI" not in words(plain)


def test_the_reference_figures_are_those_of_table_two() -> None:
    # docs: Wang et al., table II: budget in MFLOPs, accuracy of DDI and of the static base.
    ours = {r.label.split(": ")[1][:8]: r.flops_accuracy for r in DDI_TABLE_II}
    assert [f // 10**6 for f, _ in ours["ResNet-7"]] == [58, 74, 117, 144]
    assert [a for _, a in ours["ResNet-7"]] == [0.91, 0.9282, 0.9381, 0.9388]
    assert [a for _, a in ours["a static"]] == [0.907, 0.9125, 0.923, 0.925]


def test_exits_used_names_budgets_and_exits(tmp_path: Path) -> None:
    path = tmp_path / "exits.svg"
    exits(path)
    text = words(path)
    for part in (
        "tiny on pixels test (100 inputs)",
        "50",
        "80",
        "none",
        "exit1",
        "exit2",
        "60",
        "40",
    ):
        assert part in text


def test_the_gallery_says_label_exit_and_cost(tmp_path: Path) -> None:
    path = tmp_path / "gallery.svg"
    gallery(path)
    text = words(path)
    for part in (
        "Demo",
        "made",
        "cat  0.93",
        "exit2 · 38.6 MFLOPs",
        "exit2 (stopped) · 38.6 MFLOPs",
        "hard budget of 100 MFLOPs",
    ):
        assert part in text
    free = tmp_path / "free.svg"
    plot_gallery([shown()], free)
    assert "hard budget" not in words(free)


@pytest.mark.parametrize("plot", ALL)
def test_every_plot_is_written_in_every_format_the_same_each_time(
    plot: Any, tmp_path: Path
) -> None:
    for suffix, magic in ((".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF")):
        first, second = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
        plot(first)
        plot(second)
        assert first.read_bytes().startswith(magic)
        assert first.read_bytes() == second.read_bytes()
    pixels = np.asarray(Image.open(tmp_path / "a.png").convert("RGB"))
    assert min(pixels.shape[:2]) > 300
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 20


@pytest.mark.parametrize("plot", ALL)
def test_an_existing_file_is_replaced_only_with_leave(plot: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_text("mine")
    with pytest.raises(OutputExistsError):
        plot(path)
    assert path.read_text() == "mine"
    plot(path, force=True)
    assert path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("plot", ALL)
def test_unknown_formats_and_places_are_refused(plot: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.jpg: a plot is written as \.png, \.svg, \.pdf"):
        plot(tmp_path / "a.jpg")
    with pytest.raises(DataError, match="cannot be written"):
        plot(tmp_path / "no" / "a.png")


@pytest.mark.parametrize("plot", ALL)
def test_without_matplotlib_it_says_what_to_install(
    plot: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.startswith("matplotlib"):
            raise ModuleNotFoundError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match=r"pip install 'dynrt\[report\]'"):
        plot(tmp_path / "a.png")


def test_nothing_to_draw_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nothing to draw"):
        plot_accuracy_against_cost([], tmp_path / "a.png")
    with pytest.raises(DataError, match="0 pictures in 4 columns"):
        plot_gallery([], tmp_path / "a.png")
    with pytest.raises(DataError, match="1 pictures in 0 columns"):
        plot_gallery([shown()], tmp_path / "a.png", columns=0)


@pytest.mark.parametrize(
    "picture", [np.zeros((4, 4, 3)), np.zeros((4, 4, 2), np.uint8), np.zeros((0, 4), np.uint8)]
)
def test_pictures_of_another_form_are_refused(picture: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"made: the picture is .* is needed"):
        plot_gallery([shown(picture=picture)], tmp_path / "a.png")


def test_importing_the_package_loads_no_matplotlib() -> None:
    code = (
        "import sys, dynrt.report.plots, dynrt.report.gallery, dynrt.calibrate.evaluate\n"
        "import dynrt.calibrate.datasets, dynrt.calibrate.risk\n"
        "print(*sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"matplotlib", "PIL", "torch", "onnx", "onnxruntime"}
    assert heavy.isdisjoint(run.stdout.split())
