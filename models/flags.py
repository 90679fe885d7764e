"""The flags of the scripts: the parser, the groups of flags that several steps share, and the kinds of values."""

import argparse
import math
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

import torch

from models.recipes import RECIPES
from models.runtime import last_words
from models.schedule import DECAYS, OPTIMIZERS
from models.segmenter import PRECISIONS


class Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Keeps the docstring as it is and states every default that there is."""

    def _get_help_string(self, action: argparse.Action) -> str:
        return action.help if action.default is None else super()._get_help_string(action)


class OneLineParser(argparse.ArgumentParser):
    """Knows recipes, and says what is wrong with a flag on one line, without the usage before it."""

    def parse_args(self, args: Sequence[str] | None = None) -> argparse.Namespace:
        """The values of the flags given, and of those of the recipe that is among them, in words as `recipe`."""
        given = sys.argv[1:] if args is None else args
        values = super().parse_args(given)
        if getattr(values, "recipe", None):
            recipe = RECIPES[values.recipe].get(Path(self.prog).stem, "")
            values = super().parse_args([*recipe.split(), *given])  # the later of two wins
            values.recipe = f"{values.recipe}: {recipe or 'nothing but the defaults'}"
        return values

    def error(self, message: str) -> NoReturn:
        last_words(f"{Path(self.prog).stem}: {message}; see --help", 2)


def step_parser(doc: str, needs_run: bool = True) -> argparse.ArgumentParser:
    """A parser whose help shows the script's docstring and every default, with the flags that all steps share."""

    parser = OneLineParser(description=doc, formatter_class=Help)
    parser.add_argument(
        "--run", type=Path, required=needs_run, metavar="DIR", help="run folder, shared by the five steps"
    )
    parser.add_argument(
        "--device", default="auto", help="auto (cuda, else mps, else cpu) or a torch device, like cuda:1"
    )
    parser.add_argument("--recipe", choices=RECIPES, help="a named set of flags; those given beside it win")
    parser.add_argument("--quiet", action="store_true", help="say nothing but what is wrong")
    return parser


def check_beside(parser: argparse.ArgumentParser, values: argparse.Namespace, flag: str, others: Sequence[str]) -> None:
    """Ends with what is wrong where other flags are given that mean nothing beside this one; all by name in Python."""
    given = [name for name in others if getattr(values, name) != parser.get_default(name)]
    if getattr(values, flag) and given:
        parser.error(f"argument --{given[0].replace('_', '-')}: not allowed with argument --{flag}")


def add_data_flags(
    parser: argparse.ArgumentParser, split: str, limit: str = "only the first N images of the split"
) -> None:
    """The flags of the steps that read images; `limit` is what that flag does, in words."""
    default = Path("data/VOCdevkit/VOC2012")
    parser.add_argument("--data", type=Path, default=default, metavar="DIR", help="data set in PASCAL VOC layout")
    parser.add_argument("--split", default=split, help="list in ImageSets/Segmentation to read")
    parser.add_argument("--limit", type=positive, metavar="N", help=limit)
    parser.add_argument("--workers", type=natural, default=default_workers(), help="extra processes that decode images")


def add_view_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of the steps that predict."""
    parser.add_argument(
        "--tta",
        type=views,
        metavar="flip,0.75,..",
        help="average the probabilities over mirrored and scaled views, too (test-time augmentation)",
    )
    add_dilate(parser, None, "; default: as in step 1")
    parser.add_argument("--refine", action="store_true", help="let edges follow those of the photo (guided filter)")


def add_dilate(parser: argparse.ArgumentParser, default: int | None, note: str = "") -> None:
    """The flag of the steps that may have more of the last levels than they were meant to give."""
    parser.add_argument(
        "--dilate",
        type=natural,
        default=default,
        metavar="N",
        help="the last N poolings keep the resolution: finer edges, more time (dilated convolution)" + note,
    )


def views(text: str) -> tuple[list[float], bool]:
    """argparse type: scales from 0.25 to 4 and "flip", separated by commas -> (scales, whether to flip)."""
    parts = text.split(",")
    try:
        scales = [float(part) for part in parts if part != "flip"]
    except ValueError:
        scales = [0.0]
    if not all(0.25 <= scale <= 4 for scale in scales):
        raise argparse.ArgumentTypeError(f"{text!r} is not some of flip and scales from 0.25 to 4, with commas between")
    return scales, "flip" in parts


def add_optimizer_flags(parser: argparse.ArgumentParser) -> None:
    """The flags that both trainings share."""
    parser.add_argument("--optimizer", default="adamw", choices=OPTIMIZERS, help="SGD has a momentum of 0.9")
    parser.add_argument("--lr", type=rate, default=1e-3, help="peak rate of the optimizer, after a tenth of the steps")
    parser.add_argument("--decay", default="cosine", choices=DECAYS, help="how the rate falls from its peak")
    parser.add_argument("--weight-decay", type=fraction, default=0.01, help="of the optimizer")
    parser.add_argument("--label-smoothing", type=fraction, default=0.0, help="share of the target on all classes")


def add_augment_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of what chance does to training images."""
    parser.add_argument("--scale", type=bounds, default=[1.0, 1.0], metavar="MIN,MAX", help="random scale of the input")
    parser.add_argument("--crop", type=positive, metavar="N", help="train on random squares of N pixels, void around")
    parser.add_argument("--flip", action="store_true", help="mirror every other image")
    parser.add_argument("--jitter", type=fraction, default=0.0, help="random brightness, contrast, saturation and hue")


def add_backbone_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of a training of the whole network, backbone included."""
    parser.add_argument("--finetune-backbone", action="store_true", help="train the backbone, too")
    parser.add_argument("--backbone-lr", type=rate, default=1e-4, help="its peak rate")
    parser.add_argument(
        "--frozen-stages",
        type=natural,
        default=0,
        metavar="N",
        help="its first N stages, up to tap N, stay as they are: half the time of its gradient is the first one's",
    )
    parser.add_argument("--recompute", action="store_true", help="its gradient takes less memory and more time")


def add_effort_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of how much of whole images is computed in training."""
    parser.add_argument("--stride", type=positive, default=2, help="input size over size of the logits' grid")
    parser.add_argument(
        "--pixels", type=positive, metavar="N", help="train on N random labelled pixels of each image, not on all"
    )
    parser.add_argument(
        "--cache",
        type=gibibytes,
        metavar="GIB",
        help="keep the frozen levels of the images on disk in float16, in at most so much room",
    )


def bounds(text: str) -> list[float]:
    """argparse type: two scales from 0.1 to 10 with a comma between, the smaller first."""
    try:
        low, high = map(float, text.split(","))
    except ValueError:
        low, high = 0.0, 0.0
    if not 0.1 <= low <= high <= 10:
        raise argparse.ArgumentTypeError(f"{text!r} is not two scales from 0.1 to 10, the smaller first, like 0.5,2")
    return [low, high]


def add_long_run_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of a training that takes hours."""
    parser.add_argument("--save-every", type=positive, default=100, metavar="N", help="save last.pt every N steps, too")
    parser.add_argument(
        "--skip-nonfinite",
        type=natural,
        default=0,
        metavar="N",
        help="leave out up to N steps whose loss or gradient is not finite; one more ends the training",
    )


def add_strictness(parser: argparse.ArgumentParser) -> None:
    """The flags of the steps that may do without a few images."""
    either = parser.add_mutually_exclusive_group()
    either.add_argument("--strict", action="store_true", help="end at the first bad image; this is the default")
    either.add_argument(
        "--skip-bad",
        action="store_true",
        help="read all images of --split first and leave out bad ones, up to 5 in 100",
    )


def default_workers() -> int:
    """Half of the cores beside a GPU; else those that torch does not compute with: more would only get in its way."""
    cores, is_gpu = os.cpu_count() or 1, torch.cuda.is_available() or torch.backends.mps.is_available()
    cores //= int(os.environ.get("LOCAL_WORLD_SIZE", 1))  # the others that torchrun started here need some, too
    return min(8, cores // 2 if is_gpu else max(0, cores - torch.get_num_threads()))


def add_speed_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of the steps that run the whole network."""
    parser.add_argument("--amp", default="off", choices=PRECISIONS, help="autocast to lower precision; off: float32")
    parser.add_argument("--compile", action="store_true", help="compile the backbone with torch.compile first")


def positive(text: str) -> int:
    """argparse type: a whole number of at least 1."""
    value = natural(text)
    if not value:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def natural(text: str) -> int:
    """argparse type: a whole number from 0 to below 2**31."""
    if not text.isdecimal() or int(text) >= 2**31:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 to below 2**31")
    return int(text)


def number(text: str, fits: Callable[[float], bool], words: str) -> float:
    """The number that a text means, if it fits; `words` say which do."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not fits(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number {words}")
    return value


def rate(text: str) -> float:
    """argparse type: a number above 0 and at most 1000."""
    return number(text, lambda value: 0 < value <= 1000, "above 0 and at most 1000")


def fraction(text: str) -> float:
    """argparse type: a number of at least 0 and below 1."""
    return number(text, lambda value: 0 <= value < 1, "from 0 to below 1")


def factor(text: str) -> float:
    """argparse type: a number from 0 to 1000."""
    return number(text, lambda value: 0 <= value <= 1000, "from 0 to 1000")


def gibibytes(text: str) -> float:
    """argparse type: a size in GiB, above 0."""
    return number(text, lambda value: 0 < value < math.inf, "of GiB above 0")
