"""Layers of the networks whose published figures we compare with: AlexNet, ResNet-50."""

from __future__ import annotations

from dynrt.ir.layers import ConvLayer, GemmLayer, LayerTable

#: AlexNet's convolutions: output side, input side, channels, filters, groups, kernel, stride, pad.
_ALEXNET_CONV = {
    "conv1": (55, 227, 3, 96, 1, 11, 4, 0),
    "conv2": (27, 27, 96, 256, 2, 5, 1, 2),
    "conv3": (13, 13, 256, 384, 1, 3, 1, 1),
    "conv4": (13, 13, 384, 384, 2, 3, 1, 1),
    "conv5": (13, 13, 384, 256, 2, 3, 1, 1),
}
#: AlexNet's fully connected layers: inputs, outputs.
_ALEXNET_FC = {"fc6": (9216, 4096), "fc7": (4096, 4096), "fc8": (4096, 1000)}

#: ResNet-50's stages: blocks, inner channels, output side.
_RESNET50 = ((3, 64, 56), (4, 128, 28), (6, 256, 14), (3, 512, 7))


def alexnet_conv(dtype: str = "int16") -> LayerTable:
    """The five convolutions of AlexNet, a node each, one picture of 227 x 227."""
    return {
        name: (
            _conv(
                name,
                out=out,
                side=side,
                channels=channels,
                filters=filters,
                groups=groups,
                kernel=kernel,
                stride=stride,
                pad=pad,
                dtype=dtype,
            ),
        )
        for name, (out, side, channels, filters, groups, kernel, stride, pad) in (
            _ALEXNET_CONV.items()
        )
    }


def alexnet_fc(*, batch: int, dtype: str = "int16") -> LayerTable:
    """The three fully connected layers of AlexNet, a node each, ``batch`` pictures at once."""
    return {
        name: (GemmLayer(name=name, op="Gemm", dtype=dtype, m=batch, k=inputs, n=outputs),)
        for name, (inputs, outputs) in _ALEXNET_FC.items()
    }


def resnet50_blocks(dtype: str = "int16") -> LayerTable:
    """The sixteen blocks of ResNet-50, a node each, one picture of 224 x 224.

    A stage's first block halves the side in its 3 x 3 convolution and has a 1 x 1 shortcut.
    """
    blocks: dict[str, tuple[ConvLayer, ...]] = {}
    channels = 64
    for stage, (count, inner, out) in enumerate(_RESNET50, start=1):
        for index in range(count):
            stride = 2 if index == 0 and stage > 1 else 1
            side = out * stride
            layers = [
                _conv("reduce", out=side, side=side, channels=channels, filters=inner, dtype=dtype),
                _conv(
                    "middle",
                    out=out,
                    side=side,
                    channels=inner,
                    filters=inner,
                    kernel=3,
                    stride=stride,
                    pad=1,
                    dtype=dtype,
                ),
                _conv("expand", out=out, side=out, channels=inner, filters=4 * inner, dtype=dtype),
            ]
            if index == 0:
                layers.append(
                    _conv(
                        "shortcut",
                        out=out,
                        side=side,
                        channels=channels,
                        filters=4 * inner,
                        stride=stride,
                        dtype=dtype,
                    )
                )
            blocks[f"stage{stage}_block{index + 1}"] = tuple(layers)
            channels = 4 * inner
    return blocks


def _conv(
    name: str,
    *,
    out: int,
    side: int,
    channels: int,
    filters: int,
    dtype: str,
    groups: int = 1,
    kernel: int = 1,
    stride: int = 1,
    pad: int = 0,
) -> ConvLayer:
    return ConvLayer(
        name=name,
        op="Conv",
        dtype=dtype,
        in_h=side,
        in_w=side,
        out_h=out,
        out_w=out,
        channels=channels,
        filters=filters,
        groups=groups,
        kernel_h=kernel,
        kernel_w=kernel,
        stride_h=stride,
        stride_w=stride,
        pad_top=pad,
        pad_left=pad,
        pad_bottom=pad,
        pad_right=pad,
    )
