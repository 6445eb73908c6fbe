from __future__ import annotations

import builtins
import io
import struct
import subprocess
import sys
import tempfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dynrt.bundle import Preprocessing
from dynrt.calibrate import pictures
from dynrt.calibrate.pictures import decode_picture, fit, prepare, read_array, read_picture
from dynrt.errors import DataError, DynrtError, InputError, MissingExtraError

RGB = Preprocessing(
    height=8, width=8, channels=3, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
)
GRAY = Preprocessing(height=8, width=8, channels=1, mean=(0.0,), std=(1.0,))


def noise(*shape: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def smooth(h: int, w: int) -> npt.NDArray[np.uint8]:
    y, x = np.mgrid[0:h, 0:w]
    return np.stack([(x * 3 + y) % 256, 255 * y // max(1, h - 1), (x * y) % 256], 2).astype(
        np.uint8
    )


def test_a_picture_of_the_right_size_is_only_scaled() -> None:
    x = noise(4, 8, 8, 3)
    got = prepare(x, RGB)
    mean = np.array(RGB.mean, np.float32)[:, None, None]
    std = np.array(RGB.std, np.float32)[:, None, None]
    assert got.dtype == np.float32
    assert got.flags.c_contiguous
    assert (
        got == (x.transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255) - mean) / std
    ).all()


def test_gray_and_colour_become_each_other() -> None:
    gray = noise(2, 8, 8, 1)
    assert (
        prepare(gray, RGB)[:, 1]
        == (gray[..., 0] / np.float32(255) - np.float32(0.456)) / np.float32(0.224)
    ).all()
    colour = noise(2, 8, 8, 3)
    luma = np.stack([np.asarray(Image.fromarray(c).convert("L")) for c in colour])
    assert np.abs(prepare(colour, GRAY)[:, 0] * 255 - luma).max() < 0.6


@pytest.mark.parametrize("size", [(8, 8), (5, 9), (40, 56), (3, 3), (1, 1)])
@pytest.mark.parametrize("old", [(16, 16), (7, 7), (33, 33), (1, 1)])
def test_resizing_is_pillows_antialiased_bilinear(
    size: tuple[int, int], old: tuple[int, int]
) -> None:
    picture = noise(*old, 3) if old != (33, 33) else smooth(33, 33)
    wanted_height, wanted_width = size
    got = fit(picture[None], wanted_height, wanted_width)[0]
    h, w = old
    # the same centre crop by hand
    if w * wanted_height > h * wanted_width:
        w = max(1, h * wanted_width // wanted_height)
    else:
        h = max(1, w * wanted_height // wanted_width)
    top, left = (old[0] - h) // 2, (old[1] - w) // 2
    image = Image.fromarray(picture[top : top + h, left : left + w])
    wanted = np.asarray(image.resize((wanted_width, wanted_height), Image.Resampling.BILINEAR))
    assert got.shape == (*size, 3)
    assert np.abs(got - wanted).max() <= 1.01  # Pillow rounds after each of its two passes


@given(h=st.integers(1, 40), w=st.integers(1, 40), level=st.integers(0, 255))
def test_a_plain_picture_stays_plain(h: int, w: int, level: int) -> None:
    x = np.full((1, h, w, 3), level, np.uint8)
    assert np.allclose(fit(x, 8, 8), level, atol=1e-3)


def test_the_centre_is_kept() -> None:
    x = np.zeros((1, 8, 24, 3), np.uint8)
    x[:, :, 8:16] = 200
    assert (fit(x, 8, 8) == 200).all()
    assert (fit(x.transpose(0, 2, 1, 3), 8, 8) == 200).all()


@pytest.mark.parametrize(
    ("x", "preprocessing", "says"),
    [
        (np.zeros((1, 8, 8, 3)), RGB, "float64"),
        (np.zeros((8, 8, 3), np.uint8), RGB, r"\(8, 8, 3\)"),
        (np.zeros((1, 8, 8, 2), np.uint8), RGB, "1 or 3"),
        (np.zeros((1, 0, 8, 3), np.uint8), RGB, "0x8 pixels"),
        (
            np.zeros((1, 8, 8, 3), np.uint8),
            Preprocessing(height=8, width=8, channels=4, mean=(0.0,) * 4, std=(1.0,) * 4),
            "takes 4 channels",
        ),
    ],
)
def test_what_cannot_be_prepared(x: Any, preprocessing: Preprocessing, says: str) -> None:
    with pytest.raises(InputError, match=says):
        prepare(x, preprocessing)


def test_pictures_of_all_kinds_are_read(tmp_path: Path) -> None:
    picture = smooth(8, 8)
    for name in ("a.png", "a.bmp", "a.ppm", "a.tiff", "a.webp"):
        path = tmp_path / name
        Image.fromarray(picture).save(path, lossless=True)
        assert (decode_picture(path) == picture).all()
        assert (read_picture(path, RGB) == prepare(picture[None], RGB)[0]).all()


def test_the_eye_is_followed(tmp_path: Path) -> None:
    picture = noise(4, 6, 3)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned by 90 degrees
    Image.fromarray(picture).save(tmp_path / "turned.png", exif=exif)
    assert (decode_picture(tmp_path / "turned.png") == np.rot90(picture, -1)).all()
    Image.new("RGBA", (2, 2), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    assert (decode_picture(tmp_path / "clear.png") == 255).all()
    palette = Image.new("P", (2, 2), 0)
    palette.putpalette([1, 2, 3] * 256)
    palette.save(tmp_path / "palette.gif")
    assert decode_picture(tmp_path / "palette.gif")[0, 0].tolist() == [1, 2, 3]
    deep = np.array([[0, 32768], [65535, 257]], np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    assert decode_picture(tmp_path / "deep.png")[..., 0].tolist() == [[0, 128], [255, 1]]
    Image.fromarray(np.array([[0.0, 2.0], [1.0, -1.0]], np.float32)).save(tmp_path / "f.tiff")
    assert decode_picture(tmp_path / "f.tiff")[..., 1].tolist() == [[0, 255], [128, 0]]


def png_that_claims(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IDAT", zlib.compress(b"\0" * 1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + body + chunk(b"IEND", b"")


def whole_png() -> bytes:
    out = io.BytesIO()
    Image.fromarray(noise(16, 16, 3)).save(out, "PNG")
    return out.getvalue()


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"", "0 bytes"),
        (b"just some text, no picture", "no picture that can be read here"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "no picture that can be read here"),
        (whole_png()[:-200], "damaged or cut short"),
        (whole_png()[:30], "no picture|damaged"),
        (png_that_claims(9000, 9000), "9000x9000 pixels; the limit is 64000000"),
        (png_that_claims(20000, 10000), "pixels"),
        (png_that_claims(60000, 60000), "more than 64000000 pixels"),
        (png_that_claims(100, 100), "damaged or cut short"),
    ],
)
def test_what_is_no_picture(raw: bytes, says: str, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(raw)
    with pytest.raises(DataError, match=says) as caught:
        read_picture(path, RGB)
    assert "\n" not in str(caught.value)


def test_pillow_prints_nothing(tmp_path: Path) -> None:
    raw = WHOLE["TIFF"].getvalue()
    at = raw.index(struct.pack("<HHI", 277, 3, 1))  # samples per pixel
    path = tmp_path / "a.tiff"
    path.write_bytes(raw[: at + 8] + struct.pack("<H", 194) + raw[at + 10 :])
    code = (
        "import pathlib, sys\n"
        "from dynrt.calibrate.pictures import decode_picture\n"
        "from dynrt.errors import DataError\n"
        "try: decode_picture(pathlib.Path(sys.argv[1]))\n"
        "except DataError: print('refused')"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, path], capture_output=True, text=True, check=True
    )
    assert (run.stdout, run.stderr) == ("refused\n", "")


def test_missing_files_and_folders_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DataError, match=r"no\.png: there is no such file"):
        read_picture(tmp_path / "no.png", RGB)
    with pytest.raises(DataError, match=r"no\.npy: there is no such file"):
        read_picture(tmp_path / "no.npy", RGB)
    with pytest.raises(DataError, match="a folder, not a picture"):
        read_picture(tmp_path, RGB)
    with pytest.raises(DataError, match="name too long"):
        read_picture(tmp_path / ("a" * 300 + ".png"), RGB)
    path = tmp_path / "a.png"
    path.write_bytes(whole_png())

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Image, "open", refuse)
    with pytest.raises(DataError, match="Permission denied"):
        read_picture(path, RGB)


def test_without_pillow_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.startswith("PIL"):
            raise ModuleNotFoundError(name)
        return real(name, *rest)

    np.save(tmp_path / "a.npy", noise(8, 8, 3))
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match=r"pip install 'dynrt\[demo\]'"):
        read_picture(tmp_path / "a.png", RGB)
    assert read_picture(tmp_path / "a.npy", RGB).shape == (3, 8, 8)


def test_arrays_are_pictures_or_prepared_inputs(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    picture = noise(9, 9, 3)
    np.save(path, picture)
    assert (read_picture(path, RGB) == prepare(picture[None], RGB)[0]).all()
    np.save(path, picture[..., 0])
    assert (read_picture(path, GRAY) == prepare(picture[None, ..., :1], GRAY)[0]).all()
    ready = np.random.default_rng(0).normal(size=(3, 8, 8))
    for array in (ready, ready[None], np.asfortranarray(ready), ready.astype(">f8")):
        np.save(path, array)
        got = read_picture(path, RGB)
        assert got.dtype == np.float32
        assert (got == ready.astype(np.float32)).all()
    np.savez(tmp_path / "a.npz", x=ready, other=np.zeros(2))
    assert (read_picture(tmp_path / "a.npz", RGB) == ready.astype(np.float32)).all()
    np.savez(tmp_path / "a.npz", anything=ready)
    assert (read_array(tmp_path / "a.npz") == ready).all()
    np.savez(tmp_path / "a.npz", a=ready, b=ready)
    with pytest.raises(DataError, match="one array named picture or x is needed; it holds a, b"):
        read_picture(tmp_path / "a.npz", RGB)


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (np.full((3, 8, 8), np.nan), "192 of 192 values are NaN"),
        (np.where(np.arange(192).reshape(3, 8, 8) == 5, np.inf, 0.0), "1 of 192"),
        (np.full((3, 8, 8), 1e300), "infinite"),
        (np.zeros((8, 8, 3)), r"float64 \(8, 8, 3\); floats \(3, 8, 8\)"),
        (np.zeros((2, 3, 8, 8)), r"\(2, 3, 8, 8\)"),
        (np.zeros((3, 8, 8), np.int64), "int64"),
        (np.zeros((8, 8, 2), np.uint8), r"a\.npy: pictures are uint8"),
        (np.zeros((), np.uint8), r"uint8 \(\)"),
        (np.zeros((3, 8, 8), np.complex64), "complex64"),
    ],
)
def test_arrays_that_are_no_input(array: npt.NDArray[Any], says: str, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(InputError, match=says):
        read_picture(tmp_path / "a.npy", RGB)


WHOLE = {kind: io.BytesIO() for kind in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM")}
for _kind, _out in WHOLE.items():
    Image.fromarray(smooth(12, 12)).save(_out, _kind)


def complaint(path: Path) -> str:
    try:
        found = read_picture(path, RGB)
    except DynrtError as error:
        return str(error)
    assert found.shape == (3, 8, 8)
    assert np.isfinite(found).all()
    return ""


@given(kind=st.sampled_from(sorted(WHOLE)), data=st.data())
def test_mutated_pictures_give_a_picture_or_one_clear_error(kind: str, data: st.DataObject) -> None:
    raw = bytearray(WHOLE[kind].getvalue())
    for _ in range(data.draw(st.integers(1, 5))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    raw = raw[: data.draw(st.one_of(st.just(len(raw)), st.integers(0, len(raw))))]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"a.{kind.lower()}"
        path.write_bytes(raw)
        assert "\n" not in complaint(path)


def test_the_limits_are_the_documented_ones() -> None:
    assert pictures.LIMIT_PIXELS == 64_000_000
