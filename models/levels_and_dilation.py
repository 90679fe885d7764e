"""A network as a sequence of blocks: which of them give levels, dilation, folded batch norm.

One rule finds the levels of all networks: a level is the last feature map before each drop of
resolution, and the last one.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from data import UserError

SIDE = 512  # pixels of the input on which drops of resolution are looked for


def in_blocks(network: nn.Module) -> nn.Sequential:
    """The layers of a network in their order, shared with it; sequences in it are flattened.

    So a block is a layer or, for example, a residual block. A pooling at the end is left out: it
    adds nothing to the map before it.
    """
    blocks = flattened(network)
    while isinstance(blocks[-1], nn.MaxPool2d):
        blocks.pop()
    return nn.Sequential(*blocks)


def flattened(module: nn.Module) -> list[nn.Module]:
    """The module, or what is in it if it does nothing but call one after the other."""
    if type(module).forward is not nn.Sequential.forward:
        return [module]
    return [block for child in module for block in flattened(child)]


def block_shapes(blocks: nn.Sequential) -> list[tuple[int, int]]:
    """(channels, width) of the map after each block on the meta device, for `SIDE` pixels."""
    x, shapes = torch.empty(1, 3, SIDE, SIDE, device="meta"), []
    for block in blocks:
        x = block(x)
        shapes.append((x.shape[1], x.shape[3]))
    return shapes


def find_taps(shapes: Sequence[tuple[int, int]]) -> list[int]:
    """Indices of the blocks that give the levels, fine to coarse, from `block_shapes`."""
    # A drop halves the width, or nearly; a convolution without padding loses a few pixels.
    widths = pairwise(width for _, width in shapes)
    drops = [index for index, (before, after) in enumerate(widths) if after < 0.75 * before]
    return [*drops, len(shapes) - 1]


def dilate(blocks: nn.Sequential, drops: int) -> None:
    """Sets the strides of the last `drops` drops of resolution to 1, and dilates what follows.

    The blocks behind then see what they were trained on, on a grid that is 2, 4, .. times as fine
    (Chen et al., "Semantic Image Segmentation with Deep Convolutional Nets and Fully Connected
    CRFs", ICLR 2015, section 3.1). A max pooling without stride takes the maximum of 3x3, which
    has a centre: exact for poolings of 3x3, an approximation for VGG's 2x2.

    Args:
        blocks: on the meta device; changed in place.

    Raises:
        UserError: there are fewer drops, or one is neither a strided convolution nor a max pooling.
    """
    taps, rate = find_taps(block_shapes(blocks)), 1
    for index in range(taps[-1 - drops] + 1 if drops < len(taps) else 0, len(blocks)):
        behind = rate  # a strided layer itself keeps its rate; those behind it are dilated
        for name, layer in list(blocks[index].named_modules(prefix=str(index))):
            if not isinstance(layer, nn.Conv2d | nn.MaxPool2d):
                continue
            is_strided = layer.stride not in (1, (1, 1))
            behind = 2 * rate if is_strided else behind
            own = rate if is_strided else behind
            if isinstance(layer, nn.MaxPool2d):  # of 3x3 values `own` apart; none lies outside
                pool = nn.ConstantPad2d(own, -torch.inf), nn.MaxPool2d(3, 1, dilation=own)
                blocks.set_submodule(name, nn.Sequential(*pool))
            else:
                layer.padding = "same" if is_strided else tuple(own * p for p in layer.padding)
                layer.stride, layer.dilation = (1, 1), (own, own)
        rate = behind
    try:
        found = find_taps(block_shapes(blocks))
    except RuntimeError:  # maps that no longer fit together
        found = []
    if found != [*taps[: -1 - drops], taps[-1]] or drops >= len(taps):
        raise UserError(
            f"--dilate {drops}: {len(taps) - 1} drops of resolution are there to undo, and those "
            "by something else than strided convolutions and max poolings cannot be; take a "
            "smaller N"
        )


def fold_batch_norm(blocks: nn.Sequential, ends: Sequence[int]) -> None:
    """Folds each batch norm behind a convolution into it, in place: one pass over the map less.

    In eval mode, where these backbones always are, it is a factor and an offset of each channel.

    Args:
        ends: indices of blocks whose results are levels; what follows them is left as it is.
    """
    for parent in list(blocks.modules()):
        for (name, layer), (after, norm) in pairwise(list(parent.named_children())):
            is_level = parent is blocks and int(name) in ends
            if isinstance(layer, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d) and not is_level:
                setattr(parent, name, fuse_conv_bn_eval(layer, norm))
                setattr(parent, after, nn.Identity())
