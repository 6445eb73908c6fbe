"""Hard decisions in training: what runs and what is passed on, with gradients for who decided.

The gradient of a decision is that of ``keep * y + (1 - keep) * x``, handed to the score that was
rounded (straight through). Gradients keep the memory layout of what they are of: one map in another
layout than the rest makes every sum with it ten times as slow.
"""

from __future__ import annotations

from collections.abc import Callable
from math import ceil
from typing import Any

import torch
from torch import Tensor

from dynrt.zoo.masked import KEPT_FROM

#: Pictures of a partly computed batch come in multiples of this, so that few shapes occur.
ROWS_MULTIPLE = 16


def hard(score: Tensor) -> Tensor:
    """Exactly 0 or 1, with the gradient of ``score``."""
    return (score >= KEPT_FROM).to(score.dtype) + (score - score.detach())


def choose(y: Tensor, x: Tensor, keep: Tensor) -> Tensor:
    """``y`` where ``keep`` is 1 and ``x`` where it is 0, to the bit; ``keep`` broadcasts."""
    chosen: Tensor = _Choose.apply(y, x, keep)
    return chosen


def rows_to_compute(runs: Tensor, explored: float) -> tuple[Tensor, int]:
    """Which pictures of a batch a unit is computed for, those that run first.

    Of those that skip it, a share is computed too, for their gates alone: who never computes what
    was skipped never learns that skipping was wrong. They are the first of the batch, which is
    shuffled.

    Args:
        runs: ``(n, 1)``, 1 where the unit runs.
        explored: share of the others, 0..1.

    Returns:
        Indices ``(m,)``, m a multiple of :data:`ROWS_MULTIPLE` or n, and how many of them run.
    """
    kept = (runs.detach() >= KEPT_FROM).flatten()
    count, running = len(kept), int(kept.sum())
    wanted = running + ceil(explored * (count - running))
    whole = min(count, ROWS_MULTIPLE * ceil(wanted / ROWS_MULTIPLE))
    return torch.cat([kept.nonzero().flatten(), (~kept).nonzero().flatten()])[:whole], running


def take_rows(x: Tensor, rows: Tensor) -> Tensor:
    """``x[rows]`` for rows that differ from one another; its gradient is copied, not summed."""
    taken: Tensor = _TakeRows.apply(x, rows)
    return taken


def choose_rows(
    compute: Callable[[Tensor], Tensor], passes: Tensor, runs: Tensor, explored: float
) -> Tensor:
    """What is computed where ``runs`` is 1, ``passes`` where it is 0; the skipped mostly not computed.

    Batch norm sees the pictures that are computed. The gradient of a decision to skip comes from
    those explored, weighted for all (its expectation is that of the whole batch); the unit's own
    from the pictures that run.

    Args:
        compute: the unit's output for the pictures of these indices.
        passes: what is handed on where it is skipped, ``(n, ...)`` in the shape of its output.
        runs: ``(n, 1)``, 0 or 1.
        explored: share of the skipped that is computed.
    """
    rows, running = rows_to_compute(runs, explored)
    if not len(rows):
        return passes
    chosen: Tensor = _ChooseRows.apply(compute(rows), passes, runs, rows, running)
    return chosen


class _Choose(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, y: Tensor, x: Tensor, keep: Tensor) -> Tensor:
        kept = (keep >= KEPT_FROM).to(y.dtype)
        ctx.save_for_backward(y, x, kept)
        ctx.keep_dtype = keep.dtype
        # Exact at 0 and 1, and three times as fast as torch.where.
        return torch.lerp(x, y, kept)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        y, x, kept = ctx.saved_tensors
        of_y = grad * kept
        over = (2, 3) if kept.shape[1] > 1 else (1, 2, 3)
        of_keep = (grad * (y - x)).sum(over, keepdim=True)
        return of_y, grad - of_y, of_keep.to(ctx.keep_dtype)


class _ChooseRows(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, y: Tensor, passes: Tensor, runs: Tensor, rows: Tensor, running: int
    ) -> Tensor:
        ctx.save_for_backward(y, passes, runs, rows)
        ctx.running = running
        return _put_rows(passes.clone(), rows[:running], y[:running])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        y, passes, runs, rows = ctx.saved_tensors
        running, explored = ctx.running, len(rows) - ctx.running
        of_rows = grad[rows]
        by_row = (of_rows * (y - passes[rows])).sum(tuple(range(1, y.ndim))).to(runs.dtype)
        if explored:
            by_row[running:] *= (len(runs) - running) / explored
        of_runs = torch.zeros_like(runs).index_copy(0, rows, by_row[:, None])
        of_passes = grad.index_fill(0, rows[:running], 0.0)
        of_rows[running:] = 0.0
        return of_rows, of_passes, of_runs, None, None


class _TakeRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, rows: Tensor) -> Tensor:
        ctx.save_for_backward(x, rows)
        return x[rows]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        x, rows = ctx.saved_tensors
        return _put_rows(torch.zeros_like(x), rows, grad), None


def _put_rows(x: Tensor, rows: Tensor, values: Tensor) -> Tensor:
    """``values`` written over these rows of ``x``, which is dense, whatever its layout; ``x``."""
    in_memory = (0, *sorted(range(1, x.ndim), key=x.stride, reverse=True))
    flat = x.permute(in_memory).view(len(x), -1)
    flat.index_copy_(0, rows, values.to(x.dtype).permute(in_memory).flatten(1))
    return x
