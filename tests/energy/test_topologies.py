"""SCALE-Sim's layer tables: as the simulator reads them, and errors that name the line."""

from __future__ import annotations

import contextlib
import importlib
import warnings
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dynrt.energy.array import SimLayer
from dynrt.energy.topologies import read_topology
from dynrt.errors import EnergyError
from tests.energy_cases import require_simulator

HEADER = (
    "Layer name, IFMAP Height, IFMAP Width, Filter Height, Filter Width, Channels, Num Filter,"
    " Strides,"
)


def _file(folder: Path, *lines: str, end: str = "\n") -> Path:
    path = folder / "net.csv"
    path.write_bytes(end.join(lines).encode())
    return path


def test_convolutions(tmp_path: Path) -> None:
    path = _file(tmp_path, HEADER, "Conv1,224,112,7,5,3,64,2,", "", " FC ,1,  1,1 ,1,512,10,1 ,")
    assert read_topology(path) == (
        (
            "Conv1",
            SimLayer(
                height=224,
                width=112,
                kernel_h=7,
                kernel_w=5,
                channels=3,
                filters=64,
                stride_h=2,
                stride_w=2,
            ),
        ),
        (
            "FC",
            SimLayer(height=1, width=1, kernel_h=1, kernel_w=1, channels=512, filters=10),
        ),
    )


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("start", ["", "\ufeff"])
def test_products(tmp_path: Path, end: str, start: str) -> None:
    """M rows of K words are an input one high each; a filter is one row long, and there are N."""
    path = _file(tmp_path, start + "Layer, m, N ,K,", "QK,196,64,384,", "", end=end)
    layer = SimLayer(height=196, width=384, kernel_h=1, kernel_w=384, channels=1, filters=64)
    assert read_topology(path) == (("QK", layer),)


def test_depthwise_layers_are_one_for_each_channel(tmp_path: Path) -> None:
    path = _file(tmp_path, HEADER, "DP_Conv,12,12,3,3,4,1,1,", "Conv,12,12,3,3,4,1,1,")
    layers = read_topology(path)
    assert [name for name, _ in layers] == [*(f"DP_ConvChannel_{n}" for n in range(4)), "Conv"]
    assert [layer.channels for _, layer in layers] == [1, 1, 1, 1, 4]


@pytest.mark.parametrize("line", ["C,5,5,3,3,1,1,1", "C,5,5,3,3,1,1,1,1:1,", "C,5,5,3,3,1,1,1,2:2"])
def test_the_last_comma_and_a_dense_sparsity_may_be_there_or_not(tmp_path: Path, line: str) -> None:
    layer = SimLayer(height=5, width=5, kernel_h=3, kernel_w=3, channels=1, filters=1)
    assert read_topology(_file(tmp_path, HEADER, line)) == (("C", layer),)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("C,5,5,3,3,1,1,", r"net.csv:3: 7 columns; a layer has 8: name, height, width, filter"),
        ("C,5,5,3,3,1,1,1,1:1,9,", "net.csv:3: 10 columns"),
        (",5,5,3,3,1,1,1,", "net.csv:3: a layer without a name"),
        ("C,5,5,3,3,1,x,1,", "net.csv:3: layer 'C': filters: 'x' is no whole number"),
        ("C,5,5,3,3,1,-1,1,", "filters: '-1' is no whole number"),
        ("C,5,5,3,3,1.0,1,1,", "channels: '1.0' is no whole number"),
        ("C,5,,3,3,1,1,1,", "width: '' is no whole number"),
        ("C,5,5,3,3,1,1,0,", r"stride: 0 is not in 1\.\.2147483647"),
        ("C,5,5,3,3,1,2147483648,1,", r"filters: 2147483648 is not in 1\.\."),
        ("C,5,5,3,3,1,²,1,", "filters: '²' is no whole number"),
        ("C," + "9" * 5000 + ",5,3,3,1,1,1,", "height: '9{40}' is no whole number"),
        ("C,5,5,6,3,1,1,1,", "a filter of 6x3 is larger than the input of 5x5"),
        ("C,5,5,3,6,1,1,1,", "a filter of 3x6 is larger than the input of 5x5"),
        ("C,5,5,3,3,1,1,1,2:4,", "layer 'C': sparsity 2:4; only dense layers are taken"),
        ("C,5,5,3,3,1,1,1,2,", "layer 'C': '2' is no sparsity such as 1:1"),
        ("C,5,5,3,3,1,1,1,a:b,", "layer 'C': sparsity: 'a' is no whole number"),
        ("DP,5,5,3,3,2000000000,1,1,", "net.csv:3: layer 'DP': more than 100000 layers"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, line: str, said: str) -> None:
    path = _file(tmp_path, HEADER, "First,5,5,3,3,1,1,1,", line, "Last,5,5,3,3,1,1,1,")
    with pytest.raises(EnergyError, match=said) as caught:
        read_topology(path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400 + len(str(path))


def test_very_many_layers(tmp_path: Path) -> None:
    line = "DP,5,5,3,3,60000,1,1,"
    with pytest.raises(EnergyError, match=r"net.csv:3: more than 100000 layers"):
        read_topology(_file(tmp_path, HEADER, line, line))


@pytest.mark.parametrize("lines", [[], [HEADER], [HEADER, "", "  "]])
def test_a_table_without_layers(tmp_path: Path, lines: list[str]) -> None:
    with pytest.raises(EnergyError, match="a table without layers; line 1 is the header"):
        read_topology(_file(tmp_path, *lines))


def test_what_is_no_table(tmp_path: Path) -> None:
    with pytest.raises(EnergyError, match=r"none.csv: No such file"):
        read_topology(tmp_path / "none.csv")
    with pytest.raises(EnergyError, match="directory"):
        read_topology(tmp_path)
    path = tmp_path / "net.csv"
    path.write_bytes(HEADER.encode() + b"\nC\xff,5,5,3,3,1,1,1,\n")
    with pytest.raises(EnergyError, match=f"no UTF-8 text at byte {len(HEADER) + 2}"):
        read_topology(path)
    path.write_bytes(b"x" * (5 << 20))
    with pytest.raises(EnergyError, match="more than 4194304 bytes"):
        read_topology(path)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(raw=st.binary(max_size=200))
def test_any_bytes_are_a_table_or_an_error_of_ours(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "net.csv"
    path.write_bytes(HEADER.encode() + b"\nA,5,5,3,3,1,1,1,\n" + raw)
    with contextlib.suppress(EnergyError):
        assert read_topology(path)[0][0] == "A"


_number = st.integers(1, 40).map(str)


@st.composite
def _tables(draw: st.DrawFn) -> tuple[bool, list[str]]:
    products = draw(st.booleans())
    lines = ["Layer,M,N,K,"] if products else [HEADER]
    for index in range(draw(st.integers(1, 5))):
        name = draw(st.sampled_from(("Conv", "DP_", " FC", "aDPb ")))
        if products:
            cells = [draw(_number) for _ in range(3)]
        else:
            kernel = [draw(st.integers(1, 5)) for _ in range(2)]
            sizes = [side + draw(st.integers(0, 9)) for side in kernel]
            cells = [str(n) for n in (*sizes, *kernel)] + [draw(_number) for _ in range(3)]
        blank = draw(st.sampled_from(("", " ", "  ")))
        sparsity = draw(st.sampled_from(([], ["1:1"])))
        lines.append(",".join([f"{name}{index}", *(blank + c + blank for c in cells), *sparsity]))
        lines[-1] += ","
        lines += [""] * draw(st.integers(0, 1))
    return products, lines


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(table=_tables())
def test_the_simulator_reads_the_same(tmp_path: Path, table: tuple[bool, list[str]]) -> None:
    require_simulator()
    products, lines = table
    path = _file(tmp_path, *lines)
    topology = importlib.import_module("scalesim.topology_utils").topologies()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # it leaves the file open
        topology.load_arrays(str(path), mnk_inputs=products)
    theirs = [(row[0], row[1:9], row[9:]) for row in topology.topo_arrays]
    ours = [
        (
            name,
            [
                layer.height,
                layer.width,
                layer.kernel_h,
                layer.kernel_w,
                layer.channels,
                layer.filters,
                layer.stride_h,
                layer.stride_w,
            ],
            [1, 1],
        )
        for name, layer in read_topology(path)
    ]
    assert ours == theirs
