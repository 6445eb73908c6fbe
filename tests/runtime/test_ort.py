"""The onnxruntime backend on small real models."""

from __future__ import annotations

import subprocess
import sys
import threading

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from dynrt.errors import BackendError
from dynrt.runtime import Network
from dynrt.runtime.ort import OrtBackend
from tests.ir.test_reference import ALWAYS, NEVER, exits_chain

X = np.array([1.0, 2.0, 3.0, 4.0], np.float32)


def plus_one() -> bytes:
    graph = helper.make_graph(
        [helper.make_node("Add", ["a", "one"], ["y"])],
        "plus_one",
        [helper.make_tensor_value_info("a", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor("one", TensorProto.FLOAT, [1], [1.0])],
    )
    opset = [helper.make_opsetid("", 17)]
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=opset, ir_version=8)
    return bytes(model.SerializeToString())


def models() -> dict[str, bytes]:
    graph, _ = exits_chain(NEVER, ALWAYS)
    return dict.fromkeys((n.name for n in graph.nodes if n.name != "x"), plus_one())


def test_real_models_run_alone_and_in_a_batch() -> None:
    graph, _ = exits_chain(NEVER, ALWAYS)
    with Network(graph, OrtBackend(models())) as network:
        assert network.run(X).answer.tolist() == (X + 3).tolist()
        assert network.run(X, budget="22").answer.tolist() == (X + 2).tolist()
        batch = network.run_batch(np.stack([X, X + 1]))
        assert [r.answer.tolist() for r in batch] == [(X + 3).tolist(), (X + 4).tolist()]


def test_one_network_serves_several_threads() -> None:
    graph, _ = exits_chain(NEVER, ALWAYS)
    network = Network(graph, OrtBackend(models()))
    wrong: list[int] = []

    def work(i: int) -> None:
        for _ in range(50):
            if network.run(X + i).answer.tolist() != (X + i + 3).tolist():
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert wrong == []


def test_refused_models_and_failing_calls_are_named() -> None:
    with pytest.raises(BackendError, match="node 'b0': onnxruntime refuses it"):
        OrtBackend({"b0": b"no model"})
    backend = OrtBackend({"b0": plus_one()})
    with pytest.raises(BackendError, match="node 'b0' failed"):
        backend.call("b0", {"a": np.zeros((1, 5), np.float32)})
    with pytest.raises(BackendError, match="no model for node 'b1'"):
        backend.call("b1", {})
    backend.close()
    with pytest.raises(BackendError, match="no model for node 'b0'"):
        backend.call("b0", {})
    with pytest.raises(BackendError, match="threads=0"):
        OrtBackend({}, threads=0)


def test_many_sessions_start_no_threads_of_their_own() -> None:
    code = (
        "import sys; sys.path.insert(0, '.')\n"
        "from pathlib import Path\n"
        "from dynrt.runtime.ort import OrtBackend\n"
        "from tests.runtime.test_ort import plus_one\n"
        "tasks = lambda: len(list(Path('/proc/self/task').iterdir()))\n"
        "one = OrtBackend({'n': plus_one()}); before = tasks()\n"
        "many = OrtBackend({f'n{i}': plus_one() for i in range(40)})\n"
        "print(tasks() - before)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "0"


def test_more_threads_are_one_pool_for_the_process() -> None:
    code = (
        "import sys; sys.path.insert(0, '.')\n"
        "import numpy as np\n"
        "from pathlib import Path\n"
        "from dynrt.errors import BackendError\n"
        "from dynrt.runtime.ort import OrtBackend\n"
        "from tests.runtime.test_ort import plus_one\n"
        "tasks = lambda: len(list(Path('/proc/self/task').iterdir()))\n"
        "one = OrtBackend({'n': plus_one()}, threads=3); before = tasks()\n"
        "many = OrtBackend({f'n{i}': plus_one() for i in range(40)}, threads=3)\n"
        "print(tasks() - before, many.call('n7', {'a': np.zeros((1, 4), 'f4')})['y'].tolist())\n"
        "try:\n    OrtBackend({}, threads=2)\n"
        "except BackendError as exc:\n    print(exc)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    grown, refused = run.stdout.strip().splitlines()
    assert grown == "0 [[1.0, 1.0, 1.0, 1.0]]"
    assert "already runs onnxruntime with 3" in refused
