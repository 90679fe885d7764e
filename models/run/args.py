"""The flags of the scripts: the parser, groups that several steps share, and types."""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, NoReturn

import torch

from models.hypercolumn import POOLED
from models.run.recipes import RECIPES
from models.run.runtime import PRECISIONS, end
from models.run.schedule import DECAYS, OPTIMIZERS, Optimization
from models.views import Views

VOC_FOLDER = Path("data/VOCdevkit/VOC2012")


class Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Keeps the docstring's lines, and states every default that says something."""

    def _get_help_string(self, action: argparse.Action) -> str:
        says_nothing = action.default is None or action.default is False or action.default == []
        return action.help if says_nothing else super()._get_help_string(action)


class Parser(argparse.ArgumentParser):
    """Knows for each flag whether it decides the result; says what is wrong in one line.

    Args:
        doc: the script's docstring, shown as help.
        needs_run: whether --run is required.
    """

    def __init__(self, doc: str, needs_run: bool = True):
        super().__init__(description=doc, formatter_class=Help)
        self._deciding: list[argparse.Action] = []
        self.flag(
            "--run",
            type=Path,
            required=needs_run,
            metavar="DIR",
            free=True,
            help="run folder, shared by the five steps",
        )
        device = "auto (cuda, else mps, else cpu) or a torch device, like cuda:1"
        self.flag("--device", default="auto", free=True, help=device)
        recipe = "a named set of flags; those given beside it win"
        self.flag("--recipe", choices=RECIPES, free=True, help=recipe)
        self.flag("--quiet", action="store_true", free=True, help="print only what is wrong")
        as_json = "print a last line of JSON: step, wrote, scores, seconds; also with --quiet"
        self.flag("--json", action="store_true", free=True, help=as_json)

    def flag(self, *names: str, free: bool = False, **options: Any) -> None:
        """Declares a flag, see `argparse.ArgumentParser.add_argument`.

        Args:
            free: the flag says where or how fast, and decides nothing about the result: a resumed
                run may change it, and the write-up leaves it out.
        """
        action = self.add_argument(*names, **options)
        if not free:
            self._deciding.append(action)

    def parse_args(self, args: Sequence[str] | None = None) -> argparse.Namespace:
        given = list(sys.argv[1:] if args is None else args)
        values = super().parse_args(given)
        if values.recipe:
            recipe = RECIPES[values.recipe].get(Path(self.prog).stem, "")
            values = super().parse_args([*recipe.split(), *given])  # the later of two wins
            values.recipe = f"{values.recipe}: {recipe or 'nothing but the defaults'}"
        values.started = time.time()
        return values

    def settings(self, values: argparse.Namespace) -> dict[str, Any]:
        """The flags that decide the result, as plain values by their names."""
        found = {
            action.option_strings[0]: getattr(values, action.dest) for action in self._deciding
        }
        return json.loads(json.dumps(found, default=str))

    def changed(self, values: argparse.Namespace) -> dict[str, Any]:
        """Those of `settings` that are not as by default."""
        defaults = argparse.Namespace(**{a.dest: a.default for a in self._deciding})
        usual = self.settings(defaults)
        return {name: v for name, v in self.settings(values).items() if v != usual[name]}

    def allow_beside(self, values: argparse.Namespace, flag: str, allowed: Collection[str]) -> None:
        """Refuses flags that mean nothing beside `flag`: all that were given but the allowed."""
        for action in self._actions:
            name = action.dest
            if name in (flag, "help", *allowed) or getattr(values, name) == action.default:
                continue
            self.error(f"argument {action.option_strings[0]}: not allowed with argument --{flag}")

    def check_needs(self, values: argparse.Namespace, flag: str, needed: str) -> None:
        """Refuses a flag that has no effect without another; both by their names in Python."""
        if getattr(values, flag) != self.get_default(flag) and not getattr(values, needed):
            name, other = (f"--{word.replace('_', '-')}" for word in (flag, needed))
            self.error(f"argument {name}: has no effect without {other}")

    def error(self, message: str) -> NoReturn:
        end(f"{message}; see --help", 2)


def add_data_flags(
    parser: Parser, split: str, limit: str = "only the first N images of the split"
) -> None:
    """The flags of the steps that read images; `limit` is the help of that flag."""
    data = "data set in PASCAL VOC layout"
    parser.flag("--data", type=Path, default=VOC_FOLDER, metavar="DIR", free=True, help=data)
    parser.flag("--split", default=split, help="list in ImageSets/Segmentation to read")
    parser.flag("--limit", type=positive, metavar="N", help=limit)
    workers = "processes that decode images"
    parser.flag("--workers", type=natural, default=default_workers(), free=True, help=workers)


def add_skip_flag(parser: Parser) -> None:
    """The flag of the steps that may do without a few images."""
    parser.flag(
        "--skip-bad",
        action="store_true",
        help="read all images of --split first and leave out bad ones, up to 5 in 100",
    )


def add_view_flags(parser: Parser) -> None:
    """The flags of the steps that predict."""
    parser.flag(
        "--tta",
        type=tta,
        metavar="flip,0.75,..",
        help="average the probabilities over mirrored and scaled views (test-time augmentation)",
    )
    add_dilate_flag(parser, None, "; default: as in step 1")
    refine = "let edges follow those of the photo (guided filter)"
    parser.flag("--refine", action="store_true", help=refine)


def add_dilate_flag(parser: Parser, default: int | None, note: str = "") -> None:
    """The flag that dilates the backbone."""
    text = "the last N strides become dilation: finer edges, more time"
    parser.flag("--dilate", type=natural, default=default, metavar="N", help=text + note)


def add_speed_flags(parser: Parser) -> None:
    """The flags of the steps that run the whole network."""
    amp = "autocast to lower precision; off: float32"
    parser.flag("--amp", default="off", choices=PRECISIONS, help=amp)
    compiled = "compile the backbone with torch.compile first"
    parser.flag("--compile", action="store_true", free=True, help=compiled)


def add_optimizer_flags(parser: Parser) -> None:
    """The flags that both trainings share; `optimization` reads the first of them."""
    flag = parser.flag
    flag("--optimizer", default="adamw", choices=OPTIMIZERS, help="of torch.optim")
    flag("--lr", type=rate, default=1e-3, help="peak rate of the head")
    flag(
        "--weight-decay",
        type=fraction,
        default=0.01,
        help="of the optimizer; added to the gradient by all but adamw",
    )
    flag("--momentum", type=fraction, default=0.9, help="of sgd")
    flag("--nesterov", action="store_true", help="sgd with Nesterov's momentum")
    flag("--decay", default="cosine", choices=DECAYS, help="how the rate falls from its peak")
    warmup = "of the steps, over which the rate rises to its peak"
    flag("--warmup", type=fraction, default=0.1, metavar="SHARE", help=warmup)
    milestones = "epochs after which --decay step lowers the rate; default: 60 and 80 %% of them"
    flag("--milestones", type=numbers, metavar="6,8,..", help=milestones)
    gamma = "factor of step at each of them (default: 0.1), of exponential an epoch (default: 0.9)"
    flag("--gamma", type=fraction, help=gamma)
    smoothing = "share of the target that is spread over all classes"
    flag("--label-smoothing", type=fraction, default=0.0, help=smoothing)
    weights = "weigh classes by inverse frequency in the training data"
    flag("--class-weights", default="none", choices=("none", "inverse"), help=weights)
    board = "write the log for TensorBoard, too, into its folder tensorboard/"
    flag("--tensorboard", action="store_true", free=True, help=board)


def optimization(args: argparse.Namespace, parser: Parser) -> Optimization:
    """What `add_optimizer_flags` were given; refuses those without an effect."""
    for name, needed, values in (
        ("momentum", "optimizer", ("sgd",)),
        ("nesterov", "optimizer", ("sgd",)),
        ("milestones", "decay", ("step",)),
        ("gamma", "decay", ("step", "exponential")),
    ):
        is_given = getattr(args, name) != parser.get_default(name)
        if is_given and getattr(args, needed) not in values:
            parser.error(f"argument --{name}: has no effect without --{needed} {values[0]}")
    if args.milestones and max(args.milestones) >= args.epochs:
        parser.error(
            f"argument --milestones: {max(args.milestones)} is not before the last of "
            f"{args.epochs} epochs"
        )
    if args.nesterov and not args.momentum:
        parser.error("argument --nesterov: has no effect with --momentum 0")
    return Optimization(
        args.optimizer,
        args.weight_decay,
        args.momentum,
        args.nesterov,
        args.decay,
        args.warmup,
        tuple(args.milestones) if args.milestones else None,
        args.gamma,
    )


def add_from_flag(parser: Parser, what: str) -> None:
    """The flag of the steps that may go on from another run."""
    text = f"use {what} of this run, without copying"
    parser.flag("--from", type=Path, dest="from_run", metavar="RUN", free=True, help=text)


def add_augment_flags(parser: Parser) -> None:
    """The flags of what is random about a training image."""
    crop = "side of the random squares to train on, void around; default: --size of step 1"
    parser.flag("--crop", type=positive, metavar="N", help=crop)
    scale = "random scale of the input"
    parser.flag("--scale", type=bounds, default=(1.0, 1.0), metavar="MIN,MAX", help=scale)
    parser.flag("--flip", action="store_true", help="mirror half of the images, at random")
    jitter = "random brightness, contrast and saturation"
    parser.flag("--jitter", type=fraction, default=0.0, help=jitter)


def add_backbone_flags(parser: Parser) -> None:
    """The flags of a backbone that learns, too."""
    parser.flag("--finetune-backbone", action="store_true", help="train the backbone, too")
    parser.flag("--backbone-lr", type=rate, default=1e-4, help="its peak rate")
    frozen = "its first N stages, up to tap N, stay as they are"
    parser.flag("--frozen-stages", type=natural, default=0, metavar="N", help=frozen)


def default_workers() -> int:
    """Half of the cores beside a GPU, else those that torch does not compute with."""
    cores = os.cpu_count() or 1
    cores //= int(os.environ.get("LOCAL_WORLD_SIZE", 1))  # processes that torchrun started here
    if torch.cuda.is_available() or torch.backends.mps.is_available():
        return min(8, cores // 2)
    return min(8, max(0, cores - torch.get_num_threads()))


def tta(text: str) -> str:
    """argparse type: the text, if `views_of` can read it."""
    views_of(text, refine=False)
    return text


def views_of(tta: str | None, refine: bool) -> Views:
    """The views of the flags --tta and --refine: scales from 0.25 to 4 and "flip", with commas."""
    parts = [] if tta is None else tta.split(",")
    try:
        scales = {1.0, *(float(part) for part in parts if part != "flip")}
    except ValueError:
        scales = {0.0}
    if not all(0.25 <= scale <= 4 for scale in scales):
        raise argparse.ArgumentTypeError(
            f"{tta!r} is not some of flip and scales from 0.25 to 4, with commas between"
        )
    return Views(tuple(sorted(scales)), "flip" in parts, refine)


def bounds(text: str) -> tuple[float, float]:
    """argparse type: two scales from 0.1 to 10 with a comma between, the smaller first."""
    try:
        low, high = map(float, text.split(","))
    except ValueError:
        low, high = 0.0, 0.0
    if not 0.1 <= low <= high <= 10:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not two scales from 0.1 to 10, the smaller first, like 0.5,2"
        )
    return low, high


def numbers(text: str) -> list[int]:
    """argparse type: whole numbers of at least 1, separated by commas."""
    return [positive(part) for part in text.split(",")]


def taps(text: str) -> list[int | str]:
    """argparse type: levels, or blocks like b19, separated by commas."""
    parts = text.split(",")
    return [f"b{positive(part[1:])}" if part[:1] == "b" else positive(part) for part in parts]


def widths(text: str) -> tuple[int, ...]:
    """argparse type: widths of hidden layers, "none", or one number for the course's two."""
    if text == "none":
        return ()
    parts = [positive(part) for part in text.split(",") if part]
    if not 1 <= len(parts) <= 9:
        raise argparse.ArgumentTypeError(f"{text!r} is not 1 to 9 widths, or none")
    return tuple(parts) if "," in text else (parts[0], parts[0])


def contexts(text: str) -> list[str]:
    """argparse type: some of image, quadrants and odd numbers, separated by commas."""
    parts = text.split(",")
    for part in parts:
        is_window = part in map(str, range(1, 1000, 2))
        if parts.count(part) > 1 or not (part in POOLED or is_window):
            raise argparse.ArgumentTypeError(
                f"{text!r} is not some of image, quadrants and odd numbers, each once"
            )
    return parts


def positive(text: str) -> int:
    """argparse type: a whole number of at least 1."""
    value = natural(text)
    if not value:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def natural(text: str) -> int:
    """argparse type: a whole number from 0 to below 2**31."""
    if not text.isdecimal() or len(text) > 10 or int(text) >= 2**31:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 to below 2**31")
    return int(text)


def rate(text: str) -> float:
    """argparse type: a number above 0 and at most 1000."""
    return _number(text, lambda value: 0 < value <= 1000, "above 0 and at most 1000")


def fraction(text: str) -> float:
    """argparse type: a number of at least 0 and below 1."""
    return _number(text, lambda value: 0 <= value < 1, "from 0 to below 1")


def factor(text: str) -> float:
    """argparse type: a number from 0 to 1000."""
    return _number(text, lambda value: 0 <= value <= 1000, "from 0 to 1000")


def _number(text: str, fits: Callable[[float], bool], words: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not fits(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number {words}")
    return value
