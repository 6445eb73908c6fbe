from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dynrt.calibrate import datasets
from dynrt.calibrate.datasets import Dataset, load_dataset
from dynrt.errors import DataError, MissingExtraError
from tests.calibrate.made import (
    NAMES,
    cifar_batch,
    pickled_dict,
    pickled_list,
    pickled_number,
    pickled_table,
    pickled_text,
    write_cifar,
    write_idx,
    write_mnist,
)


def test_cifar_is_read_in_order_with_the_end_of_training_as_validation(tmp_path: Path) -> None:
    pictures, labels = write_cifar(tmp_path, each=4)
    parts = {"train": slice(0, 18), "validation": slice(18, 20), "test": slice(20, 24)}
    for split, part in parts.items():
        data = load_dataset(f"cifar10:{tmp_path}", split=split)  # type: ignore[arg-type]
        assert (data.pictures == pictures[part]).all()
        assert data.labels.tolist() == labels[part]
        assert data.names == NAMES
        assert data.source == f"cifar10 {split}"
        assert str(tmp_path) not in data.source
    inside = load_dataset(f"cifar10:{tmp_path}/cifar-10-batches-py")
    assert len(inside) == 4


def test_mnist_is_read_from_either_layout(tmp_path: Path) -> None:
    pictures = write_mnist(tmp_path / "MNIST" / "raw", train=24, test=3)
    write_mnist(tmp_path / "flat", train=24, test=3)
    for place in (tmp_path, tmp_path / "MNIST", tmp_path / "flat"):
        train = load_dataset(f"mnist:{place}", split="train")
        validation = load_dataset(f"mnist:{place}", split="validation")
        test = load_dataset(f"mnist:{place}")
        joined = np.concatenate([d.pictures[..., 0] for d in (train, validation, test)])
        assert (joined == pictures).all()
        assert (len(train), len(validation), len(test)) == (22, 2, 3)
        assert test.names[test.labels[0]] == "4"


def test_arrays_are_read_under_either_name(tmp_path: Path) -> None:
    path = tmp_path / "set.npz"
    x = np.arange(48, dtype=np.uint8).reshape(3, 4, 4)
    np.savez(path, x=x, y=np.array([0, 2, 1], np.uint8))
    data = load_dataset(f"npz:{path}")
    assert (data.pictures[..., 0] == x).all()
    assert data.labels.tolist() == [0, 2, 1]
    assert data.names == ("0", "1", "2")
    assert data.source == "set.npz test"
    np.savez(path, pictures=x[..., None].repeat(3, 3), labels=[0, 1, 0], names=["no", "face"])
    assert load_dataset(f"npz:{path}").names == ("no", "face")


def save_png(path: Path, size: tuple[int, int], value: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, value, value)).save(path)


def test_a_folder_per_class_is_read_in_order_of_names(tmp_path: Path) -> None:
    save_png(tmp_path / "dog" / "b.png", (4, 4), 20)
    save_png(tmp_path / "dog" / "a.PNG", (4, 4), 10)
    save_png(tmp_path / "cat" / "c.png", (4, 4), 30)
    save_png(tmp_path / ".hidden" / "c.png", (4, 4), 30)
    (tmp_path / "cat" / "notes.txt").write_text("no picture")
    data = load_dataset(f"imagefolder:{tmp_path}")
    assert data.names == ("cat", "dog")
    assert data.labels.tolist() == [0, 1, 1]
    assert data.pictures[:, 0, 0, 0].tolist() == [30, 10, 20]
    save_png(tmp_path / "dog" / "c.png", (6, 4), 40)
    with pytest.raises(DataError, match=r"c\.png: .*4, 6, 3.* say which size"):
        load_dataset(f"imagefolder:{tmp_path}")
    assert load_dataset(f"imagefolder:{tmp_path}", size=(2, 2)).pictures.shape == (4, 2, 2, 3)


def test_a_folder_may_hold_parts(tmp_path: Path) -> None:
    save_png(tmp_path / "test" / "cat" / "a.png", (2, 2), 1)
    save_png(tmp_path / "train" / "cat" / "a.png", (2, 2), 2)
    assert load_dataset(f"imagefolder:{tmp_path}", split="train").pictures[0, 0, 0, 0] == 2
    assert load_dataset(f"imagefolder:{tmp_path}", split="test").pictures[0, 0, 0, 0] == 1


def test_batches_and_the_first_few() -> None:
    data = Dataset(
        pictures=np.zeros((5, 1, 1, 1), np.uint8),
        labels=np.array([0, 1, 0, 1, 0]),
        names=("a", "b"),
        source="made test",
    )
    assert [len(x) for x, _ in data.batches(2)] == [2, 2, 1]
    assert np.concatenate([y for _, y in data.batches(2)]).tolist() == [0, 1, 0, 1, 0]
    assert data.first(2).source == "made test (first 2)"
    assert data.first(9).source == "made test"
    with pytest.raises(DataError, match="batch of 0"):
        next(data.batches(0))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"pictures": np.zeros((2, 2, 2, 3))}, "float64"),
        ({"pictures": np.zeros((2, 2, 2), np.uint8)}, r"\(2, 2, 2\)"),
        ({"pictures": np.zeros((2, 2, 2, 2), np.uint8)}, "1 or 3"),
        ({"pictures": np.zeros((2, 0, 2, 3), np.uint8)}, "no pictures"),
        ({"labels": np.zeros(2, np.int32)}, "int32"),
        ({"labels": np.zeros(3, np.int64)}, r"labels are int64 \(3,\)"),
        ({"labels": np.array([0, 2])}, "from 0 to 2, but there are 2 classes"),
        ({"labels": np.array([-1, 0])}, "from -1"),
    ],
)
def test_wrong_arrays_are_refused(change: dict[str, Any], says: str) -> None:
    given: dict[str, Any] = {
        "pictures": np.zeros((2, 2, 2, 3), np.uint8),
        "labels": np.array([0, 1]),
        "names": ("a", "b"),
        "source": "made",
    }
    with pytest.raises(DataError, match=says):
        Dataset(**(given | change))


@pytest.mark.parametrize(
    "spec", ["", "cifar10", "cifar10:", "imagenet:/data", ":x", "/data/cifar-10-batches-py"]
)
def test_what_is_no_data_set_says_how_to_write_one(spec: str) -> None:
    with pytest.raises(DataError, match=r"is no data set: write cifar10:DIR"):
        load_dataset(spec)


def test_missing_places_and_parts_are_named(tmp_path: Path) -> None:
    for spec in (f"cifar10:{tmp_path}/no", f"imagefolder:{tmp_path}/no", f"mnist:{tmp_path}/no"):
        with pytest.raises(DataError, match="there is no such folder"):
            load_dataset(spec)
    with pytest.raises(DataError, match="there is no such file"):
        load_dataset(f"npz:{tmp_path}/no.npz")
    with pytest.raises(DataError, match="no such file"):
        load_dataset(f"npz:{tmp_path}/\0.npz")
    with pytest.raises(DataError, match="'dev' is no part"):
        load_dataset(f"npz:{tmp_path}", split="dev")  # type: ignore[arg-type]
    for spec, file in (("cifar10", "test_batch"), ("mnist", "t10k-images-idx3-ubyte")):
        with pytest.raises(DataError, match=f"{file}: there is no such file"):
            load_dataset(f"{spec}:{tmp_path}")
    with pytest.raises(DataError, match="one folder per class"):
        load_dataset(f"imagefolder:{tmp_path}")
    (tmp_path / "cat").mkdir()
    with pytest.raises(DataError, match="one folder per class"):
        load_dataset(f"imagefolder:{tmp_path}")


def test_a_data_set_that_is_a_file_or_a_folder_by_mistake(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("x")
    for spec in (f"cifar10:{file}", f"mnist:{file}", f"imagefolder:{file}", f"npz:{tmp_path}"):
        with pytest.raises(DataError) as caught:
            load_dataset(spec)
        assert "\n" not in str(caught.value)


def test_damaged_cifar_batches_are_named(tmp_path: Path) -> None:
    write_cifar(tmp_path)
    path = tmp_path / "cifar-10-batches-py" / "test_batch"
    whole = path.read_bytes()
    few = np.zeros((2, 3072), np.uint8)
    labels = pickled_list([pickled_number(1)] * 2)
    for raw, says in (
        (b"", "damaged or cut short"),
        (whole[:-20], "damaged or cut short"),
        (whole[: len(whole) // 2], "damaged or cut short"),
        (pickled_dict({"labels": labels}), "no table 'data'"),
        (pickled_dict({"data": labels, "labels": labels}), "no table 'data'"),
        (pickled_dict({"data": pickled_table(few[:, :9]), "labels": labels}), "3072 bytes a row"),
        (pickled_dict({"data": pickled_table(few)}), "no list 'labels'"),
        (
            pickled_dict(
                {"data": pickled_table(few), "labels": pickled_list([pickled_text(b"1")])}
            ),
            "no list 'labels'",
        ),
        (
            pickled_dict({"data": pickled_table(few), "labels": pickled_list([pickled_number(1)])}),
            "2 pictures, but 1 labels",
        ),
        (cifar_batch(np.zeros((1, 32, 32, 3), np.uint8), [10]), "there are 10 classes"),
        (pickled_dict({"data": pickled_table(few[:0]), "labels": pickled_list([])}), "no pictures"),
    ):
        path.write_bytes(raw)
        with pytest.raises(DataError, match=says) as caught:
            load_dataset(f"cifar10:{tmp_path}")
        assert "\n" not in str(caught.value)
    path.write_bytes(whole)
    (path.parent / "batches.meta").write_bytes(pickled_dict({}))
    with pytest.raises(DataError, match=r"batches\.meta: no list 'label_names'"):
        load_dataset(f"cifar10:{tmp_path}")


def test_damaged_idx_files_are_named(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    path = tmp_path / "t10k-images-idx3-ubyte"
    whole = path.read_bytes()
    for raw, says in (
        (b"", "no idx file"),
        (whole[:10], "no idx file"),
        (b"\0\0\x0d\x03" + whole[4:], "no idx file"),
        (whole[:-1], r"needs 2352 bytes, but it holds 2351"),
        (whole + b"\0", "holds 2353"),
        (whole[:4] + b"\xff" * 12, "but it holds 0"),
    ):
        path.write_bytes(raw)
        with pytest.raises(DataError, match=says):
            load_dataset(f"mnist:{tmp_path}")
    path.write_bytes(whole)
    write_idx(tmp_path / "t10k-labels-idx1-ubyte", np.zeros(2, np.uint8))
    with pytest.raises(DataError, match="3 t10k pictures, but 2 labels"):
        load_dataset(f"mnist:{tmp_path}")


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"y": np.zeros(2, int)}, "pictures or x is needed; it holds y"),
        ({"x": np.zeros((2, 2, 2), np.uint8)}, "labels or y is needed"),
        (
            {"x": np.zeros((2, 2, 2), np.uint8), "pictures": np.zeros(1), "y": np.zeros(2, int)},
            "one array",
        ),
        ({"x": np.zeros((2, 2, 2), np.uint8), "y": np.zeros(2)}, "labels are float64"),
        ({"x": np.zeros((2, 2, 2)), "y": np.zeros(2, int)}, "pictures are float64"),
        ({"x": np.zeros((0, 2, 2), np.uint8), "y": np.zeros(0, int)}, "no pictures"),
        (
            {"x": np.zeros((1, 2, 2), np.uint8), "y": np.zeros(1, int), "names": np.zeros(1)},
            "names are float64",
        ),
        ({"x": np.zeros((1, 2, 2), np.uint8), "y": np.array([10**9])}, "a label of 1000000000"),
    ],
)
def test_arrays_that_are_no_data_set(arrays: dict[str, Any], says: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "set.npz", **arrays)
    with pytest.raises(DataError, match=says):
        load_dataset(f"npz:{tmp_path}/set.npz")


def test_files_beyond_the_limits_are_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_mnist(tmp_path)
    monkeypatch.setattr(datasets, "_FILE_BYTES", 100)
    with pytest.raises(DataError, match="2368 bytes; the limit is 100"):
        load_dataset(f"mnist:{tmp_path}")
    save_png(tmp_path / "cat" / "a.png", (4, 4), 1)
    monkeypatch.setattr(datasets, "_PICTURE_BYTES", 40)
    for size in (None, (4, 4)):
        with pytest.raises(DataError, match="do not fit memory"):
            load_dataset(f"imagefolder:{tmp_path}", size=size)


def test_a_file_that_may_not_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_mnist(tmp_path)

    def refuse(_: object) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", refuse)
        with pytest.raises(DataError, match=r"t10k-images-idx3-ubyte: Permission denied"):
            load_dataset(f"mnist:{tmp_path}")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "iterdir", refuse)
        with pytest.raises(DataError, match="Permission denied"):
            load_dataset(f"imagefolder:{tmp_path}")
        with pytest.raises(DataError, match="Permission denied"):
            datasets._picture_files(tmp_path)


def test_a_folder_of_pictures_without_pillow_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_png(tmp_path / "cat" / "a.png", (2, 2), 1)
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.startswith("PIL"):
            raise ModuleNotFoundError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match=r"dynrt\[demo\]"):
        load_dataset(f"imagefolder:{tmp_path}")
