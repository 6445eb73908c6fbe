"""Attaches exits to any backbone by naming its sub-modules; the backbone is not trained again."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from dynrt.errors import ExportError
from dynrt.exporters.fx_split import Split, split_module
from dynrt.exporters.heads import ExitNumbers, Head
from dynrt.exporters.spec import NetworkBuilder, wire_of
from dynrt.ir.graph import Accept, PortRef

#: Most that a split backbone may differ from the whole one, relative to the largest value.
_SPLIT_TOLERANCE = 1e-4


def attach_exits(
    name: str,
    backbone: nn.Module,
    example: Tensor | Sequence[Tensor],
    exits: Mapping[str, Head | nn.Module],
    *,
    final: str | None = None,
    final_outputs: Sequence[str] = ("logits",),
    input_names: Sequence[str] | None = None,
) -> NetworkBuilder:
    """``backbone`` as a chain of segments with an exit after each named sub-module.

    The split is checked on ``example``: every named tensor and the answer must be what the whole
    backbone computes.

    Args:
        name: of the network.
        backbone: any module of tensors to one tensor that ``torch.fx`` can trace as far as its
            named sub-modules lie (what contains none of them is not looked into).
        example: inputs with the batch axis.
        exits: heads by sub-module (``"layer1.3"``); a head takes what the sub-module gives.
        final: the sub-module with which the last exit begins (``"fc"``); by default the last exit
            is all that follows the last named sub-module.
        final_outputs: the name of the last exit's answer, as a list of one.
        input_names: of the network; by default those of the backbone's arguments.

    Raises:
        ExportError: a name that is unknown, called more than once or no tensor; a backbone that
            cannot be traced or is not the sum of its parts.
    """
    inputs = [example] if isinstance(example, Tensor) else list(example)
    if not exits:
        raise ExportError("no exits: name at least one sub-module")
    split = split_module(backbone, inputs, list(exits), before=final)
    _require_same(backbone, split, inputs)
    names = list(input_names or split.inputs)
    if len(names) != len(split.inputs):
        raise ExportError(f"{len(names)} input names for {len(split.inputs)} inputs")
    net = NetworkBuilder(name)
    taken = {*names, "final", *(f"exit{i + 1}" for i in range(len(exits)))}
    taken |= {h.name for h in exits.values() if isinstance(h, Head) and h.name is not None}
    node_of = {cut: _fresh(cut, taken) for cut in split.cuts}
    where: dict[str, PortRef] = {}
    for tensor, given, value in zip(split.inputs, names, inputs, strict=True):
        dtype = str(value.dtype).removeprefix("torch.")
        where[tensor] = net.input(given, tuple(value.shape[1:]), dtype)
    heads = ExitNumbers(net=net, last="final")
    nodes = [*node_of.values(), *([_fresh("trunk", taken)] if final is not None else [])]
    for node, segment in zip(nodes, split.segments[:-1], strict=True):
        if segment.outputs:
            wires = {tensor: where[tensor] for tensor in segment.inputs}
            net.compute(node, segment.module, wires, segment.outputs)
        where.update({tensor: PortRef(node, tensor) for tensor in segment.outputs})
        for cut in (c for c in split.cuts if node_of[c] == node):
            heads.add(exits[cut], wire_of(where[split.tensor_of[cut]]), final=False)
    last = split.segments[-1]
    reads = last.inputs if last.outputs else (split.answer,)
    net.exit(
        "final",
        _Single(last.module) if last.outputs else nn.Identity(),
        {f"{t}_in" if t in final_outputs else t: where[t] for t in reads},
        outputs=tuple(final_outputs),
        accept=Accept(kind="always"),
    )
    return net


class _Single(nn.Module):
    """A segment's only result, out of its tuple."""

    def __init__(self, segment: nn.Module) -> None:
        super().__init__()
        self.segment = segment

    def forward(self, *inputs: Tensor) -> Tensor:
        """Tensors in, the answer out."""
        (answer,) = self.segment(*inputs)
        result: Tensor = answer
        return result


def _fresh(cut: str, taken: set[str]) -> str:
    """``layer1.3`` as the name of a new node: ``layer1_3``."""
    stem = re.sub(r"[^A-Za-z0-9_-]", "_", cut)[:90]
    stem = stem if re.match(r"[A-Za-z_]", stem) else f"m{stem}"
    name, i = stem, 1
    while name in taken:
        i += 1
        name = f"{stem}_{i}"
    taken.add(name)
    return name


def _require_same(backbone: nn.Module, split: Split, example: Sequence[Tensor]) -> None:
    """Compare the split backbone with the whole one on ``example``."""
    whole = copy.deepcopy(backbone).cpu().eval()
    seen: dict[str, Tensor] = {}
    hooks: list[RemovableHandle] = []
    for cut in split.cuts:

        def keep(_m: nn.Module, _x: object, y: Tensor, cut: str = cut) -> None:
            seen[cut] = y.detach().clone()

        hooks.append(whole.get_submodule(cut).register_forward_hook(keep))
    with torch.no_grad():
        answer = whole(*[x.clone() for x in example])
        have = {n: x.clone() for n, x in zip(split.inputs, example, strict=True)}
        for segment in split.segments:
            given = segment.module(*[have[t].clone() for t in segment.inputs])
            have.update(zip(segment.outputs, given, strict=True))
    for what, want, got in (
        *((cut, seen[cut], have[split.tensor_of[cut]]) for cut in split.cuts),
        ("the answer", answer, have[split.answer]),
    ):
        scale = max(1.0, float(want.abs().max()))
        error = float((want - got).abs().max()) / scale
        if not error <= _SPLIT_TOLERANCE:
            raise ExportError(
                f"split at {', '.join(split.cuts)}, {what!r} differs by {error:.3g} of its largest "
                f"value (limit {_SPLIT_TOLERANCE:g}); a tensor may be changed in place after a cut"
            )
