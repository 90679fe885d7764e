"""The dense head on the grid of one image, a strip of rows at a time, so that what is in work stays in the cache.

Done on the whole grid at once, each operation of the head moves its hidden map through main memory (13 MB for 112x112
and 256 units) and asks the system for it anew, which takes longer than the arithmetic itself. A strip's maps fit into
the cache, and their memory is used again by the next strip.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

STRIP = 1 << 19  # hidden values in a strip on a CPU: 2 MiB of float32, what two cores' caches hold


class Bilinear(NamedTuple):
    """Bilinear resampling along one direction, as a matrix (`align_corners=False`)."""

    weights: Tensor  # (length, source), at most two values a row
    first: list[int]  # where in the source each place's two values begin
    last: list[int]  # and end

    def rows(self, start: int, stop: int) -> tuple[Tensor, slice]:
        """What makes places start..stop out of the source's values in the slice: (stop - start, values)."""
        used = slice(self.first[start], self.last[stop - 1] + 1)
        return self.weights[start:stop, used], used


class StripHead(torch.autograd.Function):
    """Hidden terms of all levels -> the head's logits on the grid, with gradients for every tensor that wants one.

    logits = W3 relu(W2 relu(sum_f fine_f Wf^T + sum_c V_c coarse_c + b1) + b2) + b3

    with V_c the vertical half of the upsampling of a coarse level.
    """

    @staticmethod
    def forward(
        ctx: Any, size: tuple[int, int], fine_levels: int, b1: Tensor, W2: Tensor, b2: Tensor, W3: Tensor, b3: Tensor,
        *levels: Tensor,
    ) -> Tensor:  # fmt: skip
        """One image, all floating point, of one dtype.

        Args:
            size: (h, w) of the grid.
            fine_levels: how many levels are given at the grid's resolution, before the first layer.
            b1, W2, b2, W3, b3: (G,), (H, G), (H,), (C, H), (C,).
            levels: the fine levels (h * w, C_l); their parts of the first layer (G, C_l); then the coarse levels,
                behind theirs and already of the grid's width: (h_l, w * G).

        Returns:
            (h * w, C).
        """
        fine, parts, coarse = _three(levels, fine_levels)
        ups = [bilinear(len(level), size[0], level.device, level.dtype) for level in coarse]
        kept = []
        logits = W3.new_empty(size[0] * size[1], len(W3))
        for start, stop, pixels in strips(size, W2.shape[1], W2.device):
            hidden = W2.new_zeros(len(logits[pixels]), W2.shape[1])
            for level, part in zip(fine, parts):
                hidden.addmm_(level[pixels], part.t())
            for level, up in zip(coarse, ups):
                weights, used = up.rows(start, stop)
                hidden.view(stop - start, -1).addmm_(weights, level[used])
            hidden.add_(b1).relu_()
            second = (hidden @ W2.t()).add_(b2).relu_()
            logits[pixels] = torch.addmm(b3, second, W3.t())
            if any(ctx.needs_input_grad):
                kept += [hidden, second]
        ctx.size, ctx.ups, ctx.fine_levels = size, ups, fine_levels
        ctx.save_for_backward(W2, W3, *kept, *fine, *parts)
        return logits

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """(h * w, C) -> gradients in the order of `forward`; sums over strips are in float32 at least."""
        W2, W3, *saved = ctx.saved_tensors
        pieces = list(strips(ctx.size, W2.shape[1], W2.device))
        kept, (fine, parts, _) = saved[: 2 * len(pieces)], _three(saved[2 * len(pieces) :], ctx.fine_levels)
        wanted_fine, _, wanted_coarse = _three(ctx.needs_input_grad[7:], ctx.fine_levels)
        d_W2, d_W3, d_b1, d_b2 = (_sum_like(value) for value in (W2, W3, W2[0], W2[:, 0]))
        d_parts = [_sum_like(part) for part in parts]
        d_coarse = [d_b1.new_zeros(up.weights.shape[1], ctx.size[1] * W2.shape[1]) for up in ctx.ups]
        d_fine = [torch.empty_like(level) if wanted else None for level, wanted in zip(fine, wanted_fine)]
        for (start, stop, pixels), hidden, second in zip(pieces, kept[::2], kept[1::2]):
            d_logits = gradient[pixels]
            d_W3 += d_logits.t() @ second
            d_second = (d_logits @ W3).mul_(second.sign())  # where ReLU let a value through it is positive
            d_W2 += d_second.t() @ hidden
            d_b2 += d_second.sum(0)
            d_hidden = (d_second @ W2).mul_(hidden.sign())
            d_b1 += d_hidden.sum(0)
            for level, part, d_level, d_part in zip(fine, parts, d_fine, d_parts):
                d_part += d_hidden.t() @ level[pixels]
                if d_level is not None:
                    torch.mm(d_hidden, part, out=d_level[pixels])
            for up, d_level, wanted in zip(ctx.ups, d_coarse, wanted_coarse):
                if wanted:
                    weights, used = up.rows(start, stop)
                    d_level[used] += weights.t() @ d_hidden.view(stop - start, -1)
        sums = [d_b1, d_W2, d_b2, d_W3, gradient.sum(0)], [*d_parts, *d_coarse]
        before, after = ([total.to(W2.dtype) for total in group] for group in sums)
        return None, None, *before, *d_fine, *after


def strips(size: tuple[int, int], hidden: int, device: torch.device) -> Iterator[tuple[int, int, slice]]:
    """First and last row (exclusive) of each strip of the grid, and its pixels; elsewhere than on a CPU, one strip."""
    height, width = size
    rows = max(1, STRIP // (width * hidden)) if device.type == "cpu" else height
    for start in range(0, height, rows):
        stop = min(start + rows, height)
        yield start, stop, slice(start * width, stop * width)


def bilinear(source: int, length: int, device: torch.device, dtype: torch.dtype) -> Bilinear:
    """The matrix that resamples `source` values to `length`, both lying at the centres of equal parts of one whole."""
    places = ((torch.arange(length, dtype=torch.float64) + 0.5) * (source / length) - 0.5).clamp(min=0)
    first = places.long().clamp(max=source - 1)
    last = (first + 1).clamp(max=source - 1)
    share = (places - first).unsqueeze(1)
    weights = torch.zeros(length, source, dtype=torch.float64)
    weights.scatter_add_(1, first.unsqueeze(1), 1 - share).scatter_add_(1, last.unsqueeze(1), share)
    return Bilinear(weights.to(device, dtype), first.tolist(), last.tolist())


def _three(values: Sequence[Any], fine: int) -> tuple[Sequence[Any], Sequence[Any], Sequence[Any]]:
    return values[:fine], values[fine : 2 * fine], values[2 * fine :]


def _sum_like(value: Tensor) -> Tensor:
    return torch.zeros_like(value, dtype=torch.promote_types(value.dtype, torch.float32))
