"""Global average pools over every layout and dtype."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynrt.errors import BackendError
from dynrt.runtime.compiled import Layout
from tests.kernel_programs import SIMD, back_ends, native_kernels

LAYOUTS = (
    Layout(),
    Layout(kind="nchwc", block=16),
    Layout(kind="nchwc", block=8),
    Layout(kind="nchwc", block=4),
    Layout(kind="nhwc"),
)


def check_pool(
    kernels: ModuleType, shape: tuple[int, int, int], layout: Layout, dtype: str, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    value = rng.uniform(-100, 120, shape)
    value = (value if dtype != "uint8" else np.abs(value)).astype(dtype)
    stored = layout.from_plain(value[None])[0]
    stored = stored.copy()
    if layout.kind == "nchwc":  # what fills up the last block is not read
        blocks = stored.reshape(-1, shape[1] * shape[2], layout.block)
        blocks[-1, :, layout.block - (blocks.shape[0] * layout.block - shape[0]) :] = 99
    out = np.full(shape[0], np.nan, np.float32)
    scale, zero = (1.0, 0) if dtype == "float32" else (0.125, 7)
    kernels.bind_pool(stored, shape=shape, layout=layout, scale=scale, zero=zero, out=out)()
    want = (value.astype(np.float64).mean((1, 2)) - zero) * scale
    np.testing.assert_allclose(out, want, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("kernels", back_ends())
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@given(
    shape=st.tuples(st.integers(1, 140), st.integers(1, 12), st.integers(1, 12)),
    dtype=st.sampled_from(["float32", "uint8", "int8"]),
    seed=st.integers(0, 999),
)
@settings(deadline=None, max_examples=60)
def test_pool(
    kernels: ModuleType, layout: Layout, shape: tuple[int, int, int], dtype: str, seed: int
) -> None:
    check_pool(kernels, shape, layout, dtype, seed)


@pytest.mark.parametrize("simd", SIMD)
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "uint8", "int8"])
def test_native_pool_with_each_instruction_set(simd: str, layout: Layout, dtype: str) -> None:
    native = native_kernels()
    native.choose_simd(simd)
    try:
        for shape in ((16, 32, 32), (64, 8, 8), (24, 7, 7), (3, 5, 9), (112, 1, 1)):
            check_pool(native, shape, layout, dtype, seed=5)
    finally:
        native.choose_simd(None)


@pytest.mark.parametrize("kernels", back_ends())
def test_pools_that_do_not_fit(kernels: ModuleType) -> None:
    good = np.zeros((8, 4, 4), np.float32)
    out = np.zeros(8, np.float32)
    bad = [
        (good[:7], out),
        (good.astype(np.float64), out),
        (good.astype(np.int16), out),
        (np.zeros((8, 4, 8), np.float32)[:, :, ::2], out),
        (good, np.zeros(7, np.float32)),
        (good, np.zeros(8)),
        (good, np.zeros(16, np.float32)[::2]),
        (good, np.frombuffer(bytes(32), np.float32)),
    ]
    for source, into in bad:
        with pytest.raises(BackendError):
            kernels.bind_pool(source, shape=(8, 4, 4), layout=Layout(), out=into)
    blocks = Layout(kind="nchwc", block=16)  # stores 16 channels
    with pytest.raises(BackendError):
        kernels.bind_pool(good, shape=(8, 4, 4), layout=blocks, out=out)
    empty = np.zeros((8, 0, 4), np.float32)
    with pytest.raises(BackendError):
        kernels.bind_pool(empty, shape=(8, 0, 4), layout=Layout(), out=out)
