"""What a network is made of, as plain values: for a drawing of it."""

import re
from typing import Any

import torch
from torch import nn

from models.backbones import block_shapes, dilate, empty_blocks, find_taps
from models.hypercolumn import Hypercolumn, level_names, window_side
from models.segmenter import Segmenter


def summarise(segmenter: Segmenter) -> dict[str, Any]:
    """What `data.figures.diagram.draw_architecture` takes, for a square input.

    All numbers are read off the modules; shapes come from the meta device.

    Returns:
        "backbone": its name, "parameters": their number, "fine_tuned": whether it has learned.
        "size": side of the input in pixels, "grid": side of the map of logits.
        "stages": of the backbone, used or not, as dicts: "tap" (1 = finest, or "b19"), "layers" in
            words, "shape" (C, h, w) of the result, "used".
        "levels": (name, (C, h, w)) of each level of the hypercolumn.
        "context": what each context level, which are the last ones, averages over, in words.
        "head": (title, small print) of its boxes, "head_parameters": their number.
    """
    hypercolumn, size = segmenter.hypercolumn, segmenter.size
    grid = -(-size // segmenter.stride)
    names = level_names(hypercolumn.taps, hypercolumn.context)
    return {
        "backbone": hypercolumn.backbone,
        "fine_tuned": segmenter.origin is not None,
        "parameters": _parameters(hypercolumn),
        "size": size,
        "grid": grid,
        "stages": _stages(hypercolumn, size),
        "context": [_window(what, hypercolumn.dilated) for what in hypercolumn.context],
        "levels": list(zip(names, hypercolumn.level_shapes(size, size))),
        "head": _head(segmenter.head, len(segmenter.names), grid),
        "head_parameters": _parameters(segmenter.head),
    }


def _stages(hypercolumn: Hypercolumn, size: int) -> list[dict[str, Any]]:
    """The stages of the backbone up to the last tap that is used."""
    blocks, last = empty_blocks(hypercolumn.backbone), hypercolumn.ends[-1]
    rule = find_taps(block_shapes(hypercolumn.backbone))
    taps = {end: tap for tap, end in enumerate(rule, start=1) if end <= last}
    taps |= dict(zip(hypercolumn.ends, hypercolumn.taps))
    blocks = dilate(blocks[: last + 1], hypercolumn.dilated)
    x = torch.empty(1, 3, size, size, device="meta")
    start, stages = 0, []
    for end, tap in sorted(taps.items()):
        stage = blocks[start : end + 1]
        x = stage(x)
        facts = {"tap": tap, "layers": _in_words(stage), "shape": tuple(x.shape[1:])}
        stages.append({**facts, "used": end in hypercolumn.ends})
        start = end + 1
    return stages


def _in_words(stage: nn.Sequential) -> str:
    """The layers of a stage, for example "pool /2, 2 × conv 3×3, dilation 2"."""
    counts: dict[str, int] = {}
    strides: dict[str, int] = {}
    for block in stage:
        layers = [layer for layer in block.modules() if isinstance(layer, nn.Conv2d)]
        if isinstance(block, nn.MaxPool2d | nn.AvgPool2d):
            name, stride = f"pool /{block.stride}", 1
        elif layers:
            name, stride = _name(block), max(layer.stride[0] for layer in layers)
        else:
            continue
        counts[name] = counts.get(name, 0) + 1
        strides[name] = max(strides.get(name, 1), stride)
    words = []
    for name, count in counts.items():
        stride = f" /{strides[name]}" if strides[name] > 1 else ""
        first = ", the first" if stride else ""
        words.append(f"{count} × {name}{first}{stride}" if count > 1 else f"{name}{stride}")
    if any(isinstance(layer, nn.BatchNorm2d) for layer in stage):
        words.append("batch norm")
    convolutions = [layer for layer in stage.modules() if isinstance(layer, nn.Conv2d)]
    rate = max((layer.dilation[0] for layer in convolutions), default=1)
    if rate > 1:
        words.append(f"dilation {rate}")
    return ", ".join(words)


def _name(block: nn.Module) -> str:
    """Like "conv 3×3", or what torchvision calls the block, like "inverted residual"."""
    if isinstance(block, nn.Conv2d):
        return f"conv {block.kernel_size[0]}×{block.kernel_size[1]}"
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(block).__name__.strip("_")).lower()


def _window(what: str, dilated: int) -> str:
    """The part of the image that a context level averages over."""
    if what == "image":
        return "over the whole image"
    if what == "quadrants":
        return "over its quadrants"
    side = window_side(what, 2**dilated)
    return f"over {side} × {side} around each place"


def _head(head: nn.Module, classes: int, grid: int) -> list[tuple[str, str]]:
    """The boxes of the classifier: a convolution, its activation and dropout are one."""
    boxes = [("standardise", ["(x − mean) / std of the sampled features"])]
    for layer in head.layers:
        title = f"1×1 convolution {layer.in_channels} → {layer.out_channels}"
        boxes.append((title, [f"{_parameters(layer):,} parameters"]))
        if layer is not head.layers[-1]:
            boxes[-1][1].extend([head.activation_name, f"dropout {head.dropout:g}"])
    boxes.append((f"logits {classes} × {grid} × {grid}", ["upsampled to the size of the photo"]))
    boxes.append(("class map", ["the most likely class of each pixel"]))
    return [(title, ", ".join(lines)) for title, lines in boxes]


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
