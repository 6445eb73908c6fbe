"""Peers, files and child processes of the benchmarks."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import onnx
import pytest

from bench import files, peers
from bench.files import MAKERS, ROOT, content_version
from bench.forced import noise
from bench.peers import checked, need, ort_static, torch_eager
from bench.processes import run_child
from bench.row import MissingError, UnfairError
from bench.static import caller, session_of, static_model
from bench.strides import without_strided_slices
from tests.bench.small_networks import skipper


@pytest.fixture(scope="module")
def model() -> bytes:
    return static_model(skipper())


def test_a_peer_that_is_not_installed_is_missing() -> None:
    need("numpy")
    with pytest.raises(MissingError, match="nowhere is not installed"):
        need("no_such_module", "nowhere")


@pytest.mark.parametrize("name", ["openvino_static", "ncnn"])
def test_peers_do_without_one_another(
    name: str, model: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "find_spec", lambda _: None)
    with pytest.raises(MissingError, match="dynrt\\[bench\\]"):
        peers.PEERS[name](model, noise(1, 3, 32, 32), tmp_path)


def test_peers_must_answer_alike(model: bytes, tmp_path: Path) -> None:
    x = noise(1, 3, 32, 32)
    answer = np.asarray(ort_static(model, x, tmp_path)())[0]
    checked(ort_static(model, x, tmp_path), answer, "ort_static")
    with pytest.raises(UnfairError, match="ort_static answers"):
        checked(ort_static(model, x, tmp_path), answer + 0.01, "ort_static")


def test_torch_runs_the_measured_network(tmp_path: Path) -> None:
    assert torch_eager(b"", noise(1, 3, 32, 32), tmp_path)().shape == (1, 10)


def test_strided_slices_become_pooling_and_compute_the_same(model: bytes) -> None:
    plain = without_strided_slices(model)
    kinds = [op.op_type for op in onnx.load_model_from_string(plain).graph.node]
    assert "Slice" not in kinds
    assert kinds.count("MaxPool") == 4
    x = noise(1, 3, 32, 32)
    np.testing.assert_allclose(
        caller(session_of(plain), x)()[0], caller(session_of(model), x)()[0], atol=1e-5
    )


def test_slices_that_leave_something_out_stay() -> None:
    cut = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["": 17]>
        g (float[1,2,8,8] x) => (float[1,2,7,8] y)
        <int64[1] one = {1}, int64[1] end = {9}, int64[1] axis = {2}>
        { y = Slice(x, one, end, axis, one) }"""
    )
    kept = onnx.load_model_from_string(without_strided_slices(cut.SerializeToString()))
    assert [op.op_type for op in kept.graph.node] == ["Slice"]


def test_bundles_are_made_anew_when_what_makes_them_changes(tmp_path: Path) -> None:
    for maker in MAKERS:
        source, target = ROOT / maker, tmp_path / maker
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    before = content_version(tmp_path)
    assert before == content_version()
    (tmp_path / "dynrt/zoo/resnet.py").write_text("changed = True\n")
    assert content_version(tmp_path) != before


def test_a_bundle_is_made_once_by_a_process_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[list[str]] = []

    def run(command: list[str], **_: object) -> None:
        made.append(command)
        Path(command[-1]).write_bytes(b"x")

    monkeypatch.setenv("DYNRT_BENCH_CACHE", str(tmp_path / "nets"))
    monkeypatch.setattr(subprocess, "run", run)
    files.path_of.cache_clear()
    first = files.path_of("cascade")
    files.path_of.cache_clear()
    assert files.path_of("cascade") == first
    files.path_of.cache_clear()
    assert len(made) == 1
    assert made[0][-3:] == ["bench.networks", "cascade", str(first)]
    assert first.name == f"cascade-{content_version()}.dynrt"


def test_the_folder_is_outside_of_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DYNRT_BENCH_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert files.folder() == Path("/somewhere/dynrt-bench")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert ROOT not in files.folder().parents


def test_children_report_time_and_memory(model: bytes, tmp_path: Path) -> None:
    file = tmp_path / "static.onnx"
    file.write_bytes(model)
    assert 0 < run_child("static_load", str(file))["seconds"] < 60
    memory = run_child("static_rss", str(file))
    assert 10 < memory["now"] <= memory["peak"]
