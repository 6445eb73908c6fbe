"""Which words of the input each output of a convolution reads: one axis at a time, in a closed form.

Words are numbered in the padded input, row by row, channels innermost. The simulator numbers those
of its own input; how words are numbered changes no count, only which of them are the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dynrt.energy.array import SimLayer
from dynrt.ir.layers import ConvLayer

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """One spatial axis of a convolution.

    Attributes:
        outputs, kernel, stride, dilation: as usual.
        begin, end: the real pixels, counted from the first pixel of the first window; what lies
            outside is padding, or past the edge.
    """

    outputs: int
    kernel: int
    stride: int
    dilation: int
    begin: int
    end: int

    @property
    def size(self) -> int:
        """Pixels from the first of the first window to the last of the last, padding included."""
        return (self.outputs - 1) * self.stride + (self.kernel - 1) * self.dilation + 1

    @property
    def starts(self) -> IntArray:
        """First pixel of each window, ``(outputs,)``."""
        return np.arange(self.outputs, dtype=np.int64) * self.stride

    @property
    def taps(self) -> IntArray:
        """Pixels of a window, from its first one, ``(kernel,)``."""
        return np.arange(self.kernel, dtype=np.int64) * self.dilation

    def reads(self) -> tuple[int, int]:
        """Real pixels that all windows read: each time it is read, and each pixel once."""
        count, step = self.kernel, self.dilation
        strides, stride = self.outputs, self.stride
        if strides < count:
            count, step, strides, stride = strides, stride, count, step
        read = np.zeros(self.size, dtype=np.bool_)
        every = 0
        for start in range(0, count * step, step):
            # the pixels start + stride * i, 0 <= i < strides, that are real
            low = max(0, -(-(self.begin - start) // stride))
            high = min(strides, -(-(self.end - start) // stride))
            if low < high:
                every += high - low
                read[start + low * stride : start + (high - 1) * stride + 1 : stride] = True
        return every, int(np.count_nonzero(read))

    def real(self) -> BoolArray:
        """Whether a pixel is real, ``(size,)``."""
        pixels = np.arange(self.size)
        return (pixels >= self.begin) & (pixels < self.end)


@dataclass(frozen=True, slots=True, kw_only=True)
class InputWords:
    """The input words of one dense convolution.

    Attributes:
        rows, columns: its two axes.
        channels: words of a pixel.
    """

    rows: Axis
    columns: Axis
    channels: int

    @property
    def size_words(self) -> int:
        """Of the padded input."""
        return self.rows.size * self.columns.size * self.channels

    def reads(self) -> tuple[int, int]:
        """Real words read when every output is made once: each time it is read, and each once."""
        row_reads, row_distinct = self.rows.reads()
        column_reads, column_distinct = self.columns.reads()
        return (
            row_reads * column_reads * self.channels,
            row_distinct * column_distinct * self.channels,
        )

    def outputs(self) -> IntArray:
        """The first word of each output's window, ``(outputs,)``, in the order of the outputs."""
        rows = self.rows.starts * self.columns.size
        return np.asarray(((rows[:, None] + self.columns.starts) * self.channels).reshape(-1))

    def taps(self) -> IntArray:
        """The words of a window, from its first one, ``(taps,)``: channels innermost."""
        pixels = (self.rows.taps * self.columns.size)[:, None] + self.columns.taps
        words = pixels[:, :, None] * self.channels + np.arange(self.channels, dtype=np.int64)
        return np.asarray(words.reshape(-1))

    def absent(self) -> BoolArray | None:
        """Which words are none, ``(size_words,)``; ``None`` if all are real."""
        rows, columns = self.rows.real(), self.columns.real()
        if rows.all() and columns.all():
            return None
        return np.repeat(~(rows[:, None] & columns).reshape(-1), self.channels)


def simulated_words(layer: SimLayer) -> InputWords:
    """The words that the simulator reads: outputs are rounded up, taps past the edge are not read.

    Args:
        layer: one that ``dynrt.energy.analytic.validate`` takes.
    """
    return InputWords(
        rows=Axis(
            outputs=-(-(layer.height - layer.kernel_h + layer.stride_h) // layer.stride_h),
            kernel=layer.kernel_h,
            stride=layer.stride_h,
            dilation=1,
            begin=0,
            end=layer.height,
        ),
        columns=Axis(
            outputs=-(-(layer.width - layer.kernel_w + layer.stride_w) // layer.stride_w),
            kernel=layer.kernel_w,
            stride=layer.stride_w,
            dilation=1,
            begin=0,
            end=layer.width,
        ),
        channels=layer.channels,
    )


def real_words(layer: ConvLayer) -> InputWords:
    """The words that one group of a convolution reads: no padding, taps as far apart as they are."""
    return InputWords(
        rows=Axis(
            outputs=layer.out_h,
            kernel=layer.kernel_h,
            stride=layer.stride_h,
            dilation=layer.dilation_h,
            begin=layer.pad_top,
            end=layer.pad_top + layer.in_h,
        ),
        columns=Axis(
            outputs=layer.out_w,
            kernel=layer.kernel_w,
            stride=layer.stride_w,
            dilation=layer.dilation_w,
            begin=layer.pad_left,
            end=layer.pad_left + layer.in_w,
        ),
        channels=layer.channels // layer.groups,
    )
