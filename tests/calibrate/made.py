"""Made-up data: data sets in the original layouts, score tables, and tiny chains that run."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dynrt.bundle import Bundle, Preprocessing
from dynrt.calibrate.datasets import Dataset
from dynrt.calibrate.scores import ScoreTable
from dynrt.ir.certificate import certify
from dynrt.ir.cost import Cost
from dynrt.ir.graph import (
    Accept,
    Array,
    ComputeNode,
    DataEdge,
    Exit,
    Graph,
    InputNode,
    Port,
    PortRef,
    ScoreKind,
    TensorType,
)

Function = Any
NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


# --- pickles as Python 2 wrote them: protocol 2, byte strings, a memo entry after each


def pickled_text(text: bytes) -> bytes:
    if len(text) < 256:
        return b"U" + bytes([len(text)]) + text
    return b"T" + struct.pack("<i", len(text)) + text


def pickled_number(value: int) -> bytes:
    if 0 <= value < 256:
        return b"K" + bytes([value])
    if 0 <= value < 65536:
        return b"M" + struct.pack("<H", value)
    return b"J" + struct.pack("<i", value)


def pickled_list(items: list[bytes]) -> bytes:
    return b"]q\x01(" + b"".join(items) + b"e"


def pickled_table(table: npt.NDArray[np.uint8]) -> bytes:
    """``numpy.core.multiarray._reconstruct`` and its state, as numpy 1 pickles an array."""
    shape = pickled_number(table.shape[0]) + pickled_number(table.shape[1]) + b"\x86"
    dtype = b"cnumpy\ndtype\nq\x05U\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    return (
        b"cnumpy.core.multiarray\n_reconstruct\nq\x02cnumpy\nndarray\nq\x03K\x00\x85U\x01b\x87R"
        + b"(K\x01" + shape + dtype + b"\x89" + pickled_text(table.tobytes()) + b"tb"
    )  # fmt: skip


def pickled_dict(items: Mapping[str, bytes]) -> bytes:
    pairs = b"".join(pickled_text(k.encode()) + v for k, v in items.items())
    return b"\x80\x02}q\x00(" + pairs + b"u."


def cifar_batch(pictures: npt.NDArray[np.uint8], labels: list[int]) -> bytes:
    table = pictures.transpose(0, 3, 1, 2).reshape(len(pictures), -1)
    return pickled_dict(
        {
            "batch_label": pickled_text(b"testing batch 1 of 1"),
            "labels": pickled_list([pickled_number(v) for v in labels]),
            "data": pickled_table(table),
            "filenames": pickled_list([pickled_text(b"a.png") for _ in labels]),
        }
    )


def write_cifar(folder: Path, *, each: int = 4) -> tuple[npt.NDArray[np.uint8], list[int]]:
    """Five training batches and a test batch of ``each`` pictures; returns all of them in order."""
    inner = folder / "cifar-10-batches-py"
    inner.mkdir()
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (6 * each, 32, 32, 3), dtype=np.uint8)
    labels = rng.integers(0, 10, 6 * each).tolist()
    for i, name in enumerate([*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]):
        part = slice(i * each, (i + 1) * each)
        (inner / name).write_bytes(cifar_batch(pictures[part], labels[part]))
    names = pickled_list([pickled_text(n.encode()) for n in NAMES])
    (inner / "batches.meta").write_bytes(pickled_dict({"label_names": names}))
    return pictures, labels


def write_idx(path: Path, array: npt.NDArray[np.uint8]) -> None:
    head = bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape)
    path.write_bytes(head + array.tobytes())


def write_mnist(folder: Path, *, train: int = 24, test: int = 3) -> npt.NDArray[np.uint8]:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(1)
    pictures = rng.integers(0, 256, (train + test, 28, 28), dtype=np.uint8)
    labels = (np.arange(train + test) % 10).astype(np.uint8)
    for stem, part in (("train", slice(0, train)), ("t10k", slice(train, None))):
        write_idx(folder / f"{stem}-images-idx3-ubyte", pictures[part])
        write_idx(folder / f"{stem}-labels-idx1-ubyte", labels[part])
    return pictures


# --- score tables


def table_kinds(exits: int) -> tuple[ScoreKind, ...]:
    scored: list[ScoreKind] = ["max_softmax"] * (exits - 1)
    return (*scored, "always")


def random_table(rng: np.random.Generator, *, n: int, exits: int, ties: bool = False) -> ScoreTable:
    """Scores and answers without any meaning, small costs: the hard case for a search."""
    scores = rng.integers(0, 4, (n, exits)) / 4 if ties else rng.random((n, exits))
    scores = scores.astype(np.float64)
    scores[:, -1] = np.nan
    right = rng.random((n, exits)) > np.linspace(0.6, 0.2, exits)
    return ScoreTable(
        exits=tuple(f"exit{i + 1}" for i in range(exits)),
        kinds=table_kinds(exits),
        scores=scores,
        predicted=np.where(right, 0, 1).astype(np.int64),
        labels=np.zeros(n, np.int64),
        step_macs=np.array(
            [v for _ in range(exits) for v in (rng.integers(1, 20), rng.integers(0, 6))], np.int64
        ),
        step_exit=np.array([v for i in range(exits) for v in (-1, i)], np.int64),
        bundle="made",
        bundle_sha256="00",
        data="made up",
    )


def plausible_table(n: int, *, exits: int = 5, seed: int = 0) -> ScoreTable:
    """Later exits are righter and surer scores are righter, as in a trained network."""
    rng = np.random.default_rng(seed)
    difficulty = rng.normal(size=n)
    scores = np.full((n, exits), np.nan)
    predicted = np.zeros((n, exits), np.int64)
    labels = rng.integers(0, 10, n)
    for e, skill in enumerate(np.linspace(-0.8, 2.0, exits)):
        margin = skill - difficulty + rng.normal(size=n) * 0.7
        predicted[:, e] = np.where(margin > -0.5, labels, (labels + 1) % 10)
        if e < exits - 1:
            scores[:, e] = 1 / (1 + np.exp(-(margin + rng.normal(size=n) * 0.5)))
    return ScoreTable(
        exits=tuple(f"exit{i + 1}" for i in range(exits)),
        kinds=table_kinds(exits),
        scores=scores,
        predicted=predicted,
        labels=labels,
        step_macs=np.array([10_000_000, 500_000] * exits, np.int64),
        step_exit=np.array([v for i in range(exits) for v in (-1, i)], np.int64),
    )


# --- chains that run: the picture is one pixel, and its value says which row of a table it is

_PIXEL = TensorType(dtype="float32", shape=(1, 1, 1))
_CLASSES = 3


def chain(
    *,
    kinds: tuple[ScoreKind, ...],
    thresholds: tuple[float, ...],
    segments: tuple[tuple[int, ...], ...],
    heads: tuple[int, ...],
) -> Graph:
    """Exits in a row; ``segments`` are the MACs of the compute nodes before each."""
    vector = TensorType(dtype="float32", shape=(_CLASSES,))
    nodes: list[Any] = [InputNode(name="x", type=_PIXEL)]
    edges: list[DataEdge] = []
    here = PortRef("x", "x")
    for i, (kind, bound, costs, head) in enumerate(
        zip(kinds, thresholds, segments, heads, strict=True), 1
    ):
        for j, macs in enumerate(costs):
            name = f"block{i}_{j}"
            nodes.append(
                ComputeNode(
                    name=name,
                    inputs=(Port(name="a", type=_PIXEL),),
                    outputs=(Port(name="b", type=_PIXEL),),
                    cost=Cost(macs=macs),
                )
            )
            edges.append(DataEdge(source=here, target=PortRef(name, "a")))
            here = PortRef(name, "b")
        scored = kind not in ("always", "never")
        port = ("distances" if kind == "hinge" else "logits") if scored else ""
        nodes.append(
            Exit(
                name=f"exit{i}",
                inputs=(Port(name="h", type=_PIXEL),),
                outputs=(Port(name="logits", type=vector), Port(name="distances", type=vector)),
                answer="logits",
                accept=Accept(kind=kind, port=port, threshold=bound if scored else 0.0),
                cost=Cost(macs=head),
            )
        )
        edges.append(DataEdge(source=here, target=PortRef(f"exit{i}", "h")))
    names = tuple(f"exit{i}" for i in range(1, len(kinds) + 1))
    return Graph(nodes=tuple(nodes), data=tuple(edges), exits=names)


def functions(graph: Graph, values: npt.NDArray[np.float32]) -> dict[str, Function]:
    """What the nodes compute: blocks hand on, exit e answers ``values[pixel, e, 0 or 1]``.

    Args:
        graph: of :func:`chain`.
        values: ``(rows, exits, 2, 3)``: logits and distances.
    """

    def hand_on(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        return {"b": inputs["a"]}

    def head(column: int) -> Function:
        def run(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
            rows = np.rint(inputs["h"].reshape(-1) * 255).astype(np.int64)
            return {"logits": values[rows, column, 0], "distances": values[rows, column, 1]}

        return run

    out: dict[str, Function] = {n.name: hand_on for n in graph.nodes if isinstance(n, ComputeNode)}
    out.update({name: head(i) for i, name in enumerate(graph.exits)})
    return out


def bundle_of(graph: Graph, *, labels: tuple[str, ...] = ("a", "b", "c")) -> Bundle:
    """A bundle without models: its nodes are Python functions."""
    return Bundle(
        name="tiny",
        graph=graph,
        models={},
        labels=labels,
        preprocessing=Preprocessing(height=1, width=1, channels=1, mean=(0.0,), std=(1.0,)),
        card={},
        provenance={},
        certificate=certify(graph),
        sha256="ab" * 32,
    )


def pixels(labels: npt.NDArray[np.int64]) -> Dataset:
    """Picture i is one pixel of value i."""
    return Dataset(
        pictures=np.arange(len(labels), dtype=np.uint8).reshape(-1, 1, 1, 1),
        labels=labels,
        names=("a", "b", "c"),
        source="pixels test",
    )
