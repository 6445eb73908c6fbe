"""``dynrt train`` and ``dynrt export``: from pictures to a bundle that runs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from dynrt.bundle import read_bundle
from tests.cli.conftest import Ask, Invoke
from tests.train.tiny import tiny_pictures, tiny_recipe

#: A network of torch modules as somebody's own file would say it: 4 numbers, an exit after half.
MODULE = """
import torch
from torch import nn
from dynrt.exporters import Head, sequential_exits
from dynrt.ir.graph import Accept, TensorType

def network():
    torch.manual_seed(0)
    first = nn.Sequential(nn.Linear(4, 8), nn.ReLU())
    second = nn.Sequential(nn.Linear(8, 8), nn.ReLU())
    accept = Accept(kind="max_softmax", port="logits", threshold=0.4)
    exits = {
        "first": Head(module=nn.Linear(8, 3), accept=accept, name="early"),
        "second": Head(module=nn.Linear(8, 3), accept=Accept(kind="always"), name="late"),
    }
    kind = TensorType(dtype="float32", shape=(4,))
    return sequential_exits("mine", kind, [("first", first), ("second", second)], exits).build()

number = 3
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module in the working directory, with a name of its own."""
    name = f"mine_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    return name


def _plain_onnx(path: Path) -> Path:
    """Two matrix products with a ReLU between them."""
    rng = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name)
        for name, shape in (("w1", (4, 5)), ("w2", (5, 2)))
    ]
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "w2"], ["y"]),
    ]
    ports = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", size])
        for name, size in (("x", 4), ("y", 2))
    ]
    graph = helper.make_graph(nodes, "g", ports[:1], ports[1:], weights)
    opset = helper.make_opsetid("", 17)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=8), path)
    return path


def test_export_a_module(ask: Ask, module: str, tmp_path: Path) -> None:
    told = ask("export", f"{module}:network", "-o", "mine.dynrt", "--samples", 8)
    bundle = read_bundle(tmp_path / "mine.dynrt")
    assert told["bundle"] == {"name": "mine", "sha256": bundle.sha256}
    assert told["file"] == "mine.dynrt"
    assert told["fused"] is None
    # 4 * 8 + 8 * 8 for the segments, 8 * 3 for each of two heads
    assert told["full_flops"] == 2 * (4 * 8 + 8 * 8 + 2 * 8 * 3)
    assert told["cheapest_flops"] == 2 * (4 * 8 + 8 * 3)
    assert told["parity"]["inputs"] == 8
    assert sorted(told["parity"]["covered"]) == ["early", "late"]
    assert told["parity"]["max_abs_error"] <= 1e-4
    assert "8 inputs" in bundle.provenance["parity"]


def test_export_refuses_to_overwrite_and_force_does(
    invoke: Invoke, module: str, tmp_path: Path
) -> None:
    target = tmp_path / "mine.dynrt"
    target.write_text("precious")
    refused = invoke("export", f"{module}:network", "-o", target)
    assert refused.exit_code == 1
    assert "--force" in refused.stderr
    assert target.read_text() == "precious"
    done = invoke("export", f"{module}:network", "-o", target, "--force")
    assert done.exit_code == 0, done.stderr
    assert "parity: 16 inputs" in done.stdout
    assert read_bundle(target).name == "mine"


def test_export_an_onnx_model_cut_at_a_tensor(ask: Ask, tmp_path: Path) -> None:
    model = _plain_onnx(tmp_path / "plain.onnx")
    told = ask("export", model, "-o", tmp_path / "p.dynrt", "--cut", "r")
    assert told["parity"] is None
    bundle = read_bundle(tmp_path / "p.dynrt")
    assert bundle.name == "plain"
    assert bundle.graph.exits == ("final",)
    assert len(bundle.models) == 2
    x = np.ones((1, 4), np.float32)
    np.save(tmp_path / "x.npy", x[0])
    answer = ask("run", tmp_path / "p.dynrt", tmp_path / "x.npy")["results"][0]["output"]
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    assert answer == pytest.approx(session.run(None, {"x": x})[0][0].tolist(), rel=1e-5)


def test_export_a_bundle_as_one_fused_file(
    ask: Ask, colours: Path, pictures: Path, tmp_path: Path
) -> None:
    told = ask("export", colours, "--fused", tmp_path / "one.onnx")
    assert told["file"] is None
    session = onnxruntime.InferenceSession(
        tmp_path / "one.onnx", providers=["CPUExecutionProvider"]
    )
    hard = ask("run", colours, pictures / "c_hard.png")["results"][0]
    x = np.full((1, 3, 8, 8), 120 / 255, np.float32)
    x[:, 2] = 140 / 255
    answer, where = session.run(["answer", "exit"], {session.get_inputs()[0].name: x})
    assert answer[0].tolist() == pytest.approx(hard["output"], rel=1e-5)
    assert read_bundle(colours).graph.exits[int(where.item())] == hard["exit"]


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["{m}:network"], 2, "-o BUNDLE"),
        (["{m}:nothing", "-o", "x"], 1, "nothing"),
        (["{m}:number", "-o", "x"], 1, "int"),
        (["no_such_module_here:x", "-o", "x"], 1, "no_such_module_here"),
        (["neither", "-o", "x"], 1, "neither"),
        (["no.onnx", "-o", "x"], 1, "no.onnx"),
        (["{m}.py", "-o", "x"], 1, "MODULE:OBJECT"),
        (["plain.onnx", "-o", "x", "--cut", "q"], 1, "'q'"),
        (["{m}:network", "-o", "x", "--cut", "q"], 2, "--cut"),
        (["{m}:network", "-o", "no/such/x"], 1, "no/such/x"),
        (["{m}:network", "-o", "x", "--data", "npz:d.npz"], 1, "no pictures"),
        (["{m}:network", "-o", "x", "--samples", "0"], 2, "--samples"),
        (["empty", "-o", "x"], 1, "empty"),
        (["{m}:network", "-o", "x", "--gates", "softmax"], 2, "--gates"),
        (["{m}:network", "-o", "x", "--name", "mine"], 2, "--name"),
        (["gone.dynrt", "--fused", "x"], 1, "gone.dynrt"),
    ],
)
def test_wrong_export_is_one_line(
    invoke: Invoke, module: str, tmp_path: Path, arguments: list[str], status: int, says: str
) -> None:
    _plain_onnx(tmp_path / "plain.onnx")
    (tmp_path / "empty").mkdir()
    result = invoke("export", *(a.format(m=module) for a in arguments))
    assert result.exit_code == status, result.stderr
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert says in result.stderr
    assert "internal error" not in result.stderr
    assert not (tmp_path / "x").exists()


def test_export_without_torch_says_what_to_install(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    result = invoke("export", "some:thing", "-o", tmp_path / "x")
    assert result.exit_code == 1
    assert result.stderr == "error: torch is missing: pip install 'dynrt[export]'\n"


def test_from_pictures_to_answers(invoke: Invoke, ask: Ask, tmp_path: Path) -> None:
    data = tiny_pictures(tmp_path / "pictures.npz", side=32)
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(
        tiny_recipe(epochs=1)
        .replace("depth = 8", "depth = 26")
        .replace("[0.5, 1.0, 1.0, 1.0]", "[1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]")
    )
    run = tmp_path / "run"
    first = invoke("train", recipe, "--data", data, "-o", run)
    assert first.exit_code == 0, first.stderr
    assert "tiny (cpu) is in" in first.stdout
    assert "base epoch 1/1 step" in first.stderr
    assert "left" in first.stderr
    again = ask("train", recipe, "--data", data, "-o", run)
    assert again["finished"] is True
    assert again["recipe"] == "tiny"
    assert sorted(again["weights"]) == ["base", "branches", "gates"]
    records = [json.loads(line) for line in Path(again["records"]).read_text().splitlines()]
    assert len(records) == 3

    out = tmp_path / "tiny.dynrt"
    told = ask("export", run, "-o", out, "--data", data, "--samples", 4)
    assert told["parity"]["inputs"] == 4
    assert sorted(told["parity"]["covered"]) == sorted(read_bundle(out).graph.exits)
    assert len(told["parity"]["covered"]) == 7
    seen = ask("eval", out, "--data", data, "--budgets", told["cheapest_flops"])
    assert seen["n"] == 48
    assert seen["points"][0]["max_flops"] == told["cheapest_flops"]


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["nosuchrecipe", "--data", "npz:d.npz", "-o", "run"], 1, "nosuchrecipe"),
        (["{r}", "--data", "npz:no.npz", "-o", "run"], 1, "no such file"),
        (["{r}", "--data", "npz:d.npz", "-o", "run", "--schedule", "soon"], 2, "--schedule"),
        (["{r}", "-o", "run"], 2, "--data"),
    ],
)
def test_wrong_training_is_one_line(
    invoke: Invoke,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    status: int,
    says: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    tiny_pictures(tmp_path / "d.npz")
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(tiny_recipe())
    result = invoke("train", *(a.format(r=recipe) for a in arguments))
    assert result.exit_code == status
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert says in result.stderr
    assert "internal error" not in result.stderr
