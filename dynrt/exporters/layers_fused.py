"""Which operators are applied to another's result on the way out, so that nothing more is read.

An activation, a batch normalisation, a bias, a cast or a quantisation behind an operator is *fused*
where all of it stays between that operator and the one tensor that is stored in the end: what is
given to more than one place on the way is stored there. ``x * sigmoid(x)`` is one such stretch.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from dynrt.exporters.layers_facts import Facts, standard
from dynrt.exporters.layers_passes import PASSES

#: Longer stretches of element-wise operators than this are not looked for.
_LONGEST = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Fusion:
    """What is applied on the way out.

    Attributes:
        fused: positions of those operators.
        written: by the tensor that an operator gives, the tensor that is stored in the end.
    """

    fused: frozenset[int]
    written: Mapping[str, str]


def fusion_of(facts: Facts, passes: Collection[int], roots: Sequence[int], mask: str) -> Fusion:
    """Find what is fused.

    Args:
        facts: of the graph.
        passes: positions of operators that are counted as passes.
        roots: positions, in order, of operators on whose result others may be applied.
        mask: a tensor that counts as a parameter (a channel mask spelt out); may be empty.
    """
    fused: set[int] = set()
    written: dict[str, str] = {}
    for i in roots:
        live = facts.live(facts.nodes[i])
        if i in fused or len(live) != 1:
            continue
        stretch = _stretch(facts, live[0], passes, mask)
        for length in range(len(stretch), 0, -1):
            stored = _stored(facts, live[0], stretch[:length])
            if len(stored) == 1:
                fused.update(stretch[:length])
                written[live[0]] = stored[0]
                break
    return Fusion(fused=frozenset(fused), written=written)


def is_parameter(facts: Facts, tensor: str, mask: str = "") -> bool:
    """Whether an operand is read as weights are: one number, a number per channel, a mask."""
    if tensor in facts.static:
        return tensor in facts.types and sum(n != 1 for n in facts.shape(tensor)) <= 1
    return facts.first(tensor) == mask or facts.words(tensor) == 1


def _stretch(facts: Facts, start: str, passes: Collection[int], mask: str) -> list[int]:
    """Element-wise operators that read nothing but ``start``, one another and parameters."""
    inside = {start}
    found: list[int] = []
    waiting = set(facts.readers.get(start, ()))
    while waiting and len(found) < _LONGEST:
        i = min(waiting)
        waiting.discard(i)
        node = facts.nodes[i]
        if i not in passes or not standard(node) or not PASSES[node.op_type].elementwise:
            continue
        result = facts.first(node.output[0])
        others = [n for n in node.input if n and facts.first(n) not in inside]
        if (
            len([n for n in node.output if n]) == 1
            and all(is_parameter(facts, n, mask) for n in others)
            and facts.words(result) == facts.words(start)
        ):
            found.append(i)
            inside.add(result)
            waiting.update(facts.readers.get(result, ()))
    return found


def _stored(facts: Facts, start: str, stretch: Sequence[int]) -> list[str]:
    """Tensors that somebody outside of ``stretch`` reads."""
    inner = set(stretch)
    tensors = [start, *(facts.first(facts.nodes[i].output[0]) for i in stretch)]
    return [
        t
        for t in tensors
        if t in facts.ends or any(i not in inner for i in facts.readers.get(t, ()))
    ]
