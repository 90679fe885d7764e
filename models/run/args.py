"""The flags of the scripts: the parser, groups that several steps share, and types."""

import argparse
import sys
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from models.hypercolumn import WHOLE
from models.run import chain, distributed
from models.run.folder import plain
from models.run.recipes import RECIPES
from models.run.runtime import PRECISIONS, default_workers, end
from models.run.training import DECAYS, OPTIMIZERS
from models.views import Views

Value = TypeVar("Value")
MILESTONES = 0.6, 0.8  # of the epochs
GAMMAS = {"step": 0.1, "exponential": 0.9}


class Parser(argparse.ArgumentParser):
    """Knows for each flag whether it decides the result; says what is wrong in one line."""

    def __init__(self, doc: str, needs_run: bool = True):
        super().__init__(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
        self._declared: list[tuple[argparse.Action, bool, str]] = []
        self.data_steps: tuple[int, ...] = ()  # see `add_data_flags`
        run = "run folder, shared by the five steps"
        self.flag("--run", Path, None, run, free=True, metavar="DIR", required=needs_run)
        device = "auto (cuda, else mps, else cpu) or a torch device, like cuda:1"
        self.flag("--device", str, "auto", device, free=True, metavar="NAME")
        recipe = "a named set of flags; those given beside it win"
        self.flag("--recipe", RECIPES, None, recipe, free=True)
        self.flag("--quiet", bool, False, "print only what is wrong", free=True)
        as_json = "print a last line of JSON: step, wrote, scores, seconds; also with --quiet"
        self.flag("--json", bool, False, as_json, free=True)

    def flag(
        self,
        name: str,
        kind: Callable | Collection[str],
        default: Any,
        text: str,
        free: bool = False,
        needs: str = "",
        **options: Any,
    ) -> None:
        """Declares a flag.

        Args:
            kind: an argparse type; `bool` for a switch; or the choices.
            text: its help; a default that says something is added.
            free: the flag says where or how fast, and decides nothing about the result: a resumed
                run may change it, and the header and the write-up leave it out.
            needs: what this flag has no effect without, and is then refused: another one, or some
                values of it, like "--decay step,exponential".
            options: see `argparse.ArgumentParser.add_argument`.
        """
        if not (default is None or default is False or default == []):
            text += " (default: %(default)s)"
        if needs:
            text = f"with {needs.replace(',', ' or ')}: {text}"
        if kind is bool:
            options["action"] = "store_true"
        elif isinstance(kind, Collection):
            options["choices"] = kind
        else:
            options = {"type": kind, "metavar": "N", **options}
        action = self.add_argument(name, default=default, help=text, **options)
        self._declared.append((action, free, needs))

    def parse_args(self) -> argparse.Namespace:  # type: ignore[override]
        """The flags; with "started", the time, and two dicts of flags by their names.

        "settings" are those that decide the result, as plain values; "changed" are those of them
        that are not at their defaults.
        """
        given, settings, changed = sys.argv[1:], {}, {}
        values = super().parse_args(given)
        if values.recipe:
            recipe = RECIPES[values.recipe].get(Path(self.prog).stem, "")
            values = super().parse_args([*recipe.split(), *given])  # the later of two wins
        if self.data_steps and not values.data:
            values.data = chain.data_of(values.run, self.data_steps)
        for action, free, needs in self._declared:
            name, value = action.option_strings[0], plain(getattr(values, action.dest))
            is_changed, has_effect = value != plain(action.default), _is_met(needs, values)
            if is_changed and not has_effect:
                self.error(f"argument {name}: has no effect without {needs.replace(',', ' or ')}")
            if has_effect and not free:
                settings[name] = value
                changed |= {name: value} if is_changed else {}
        values.settings, values.changed, values.started = settings, changed, time.perf_counter()
        if values.quiet:
            distributed.fall_silent()
        return values

    def error(self, message: str) -> NoReturn:
        end(f"{message}; see --help", 2)


def _is_met(needs: str, values: argparse.Namespace) -> bool:
    """See `Parser.flag`."""
    name, _, choices = needs.lstrip("-").replace("-", "_").partition(" ")
    value = getattr(values, name, True)  # nothing is needed
    return value in choices.split(",") if choices else bool(value)


def add_data_flags(
    parser: Parser, split: str, steps: tuple[int, ...], limit: str = "only the first N images"
) -> None:
    """The flags of the steps that read images: by default those of the first of `steps` that ran.

    `limit` is the help of that flag.
    """
    parser.data_steps = steps
    data = f"data set in VOC layout; default: that of the run, else {chain.VOC_FOLDER}"
    parser.flag("--data", Path, None, data, free=True, metavar="DIR")
    parser.flag("--split", str, split, "list in ImageSets/Segmentation to read", metavar="LIST")
    parser.flag("--limit", positive, None, limit)
    parser.flag("--workers", natural, default_workers(), "processes that decode images", free=True)


def add_view_flags(parser: Parser) -> None:
    """The flags of the steps that predict."""
    text = "average the probabilities over mirrored and scaled views (test-time augmentation)"
    parser.flag("--tta", tta, None, text, metavar="flip,0.75,..")
    parser.flag("--dilate", natural, None, DILATE + "; default: as in step 1")
    parser.flag("--refine", bool, False, "let edges follow those of the photo (guided filter)")
    parser.flag("--size", positive, None, "shorter side of the input; default: as trained")
    tile = "see larger inputs in overlapping windows of N pixels, which bounds the memory"
    parser.flag("--tile", positive, None, tile)


DILATE = "the last N strides become dilation: finer edges, more time"
SKIP_BAD = "read all images of --split first and leave out bad ones, up to 5 in 100"


def add_speed_flags(parser: Parser) -> None:
    """The flags of the steps that run the whole network."""
    parser.flag("--amp", PRECISIONS, "off", "autocast to lower precision; off: float32")
    parser.flag("--compile", bool, False, "first compile the backbone (torch.compile)", free=True)


def add_optimizer_flags(parser: Parser) -> None:
    """The flags that both trainings share."""
    flag = parser.flag
    flag("--optimizer", OPTIMIZERS, "adamw", "of torch.optim")
    flag("--lr", rate, 1e-3, "peak rate of the head", metavar="RATE")
    sgd, decay = "--optimizer sgd", "of the optimizer; added to the gradient by all but adamw"
    flag("--weight-decay", fraction, 0.01, decay, metavar="SHARE")
    flag("--momentum", fraction, 0.9, "its momentum", metavar="SHARE", needs=sgd)
    flag("--nesterov", bool, False, "Nesterov's form of it", needs=sgd)
    flag("--decay", DECAYS, "cosine", "how the rate falls from its peak")
    warmup = "of the steps, over which the rate rises to its peak"
    flag("--warmup", fraction, 0.1, warmup, metavar="SHARE")
    milestones = "epochs after which the rate is lowered; default: 60 and 80 %% of them"
    flag("--milestones", numbers, None, milestones, metavar="6,8,..", needs="--decay step")
    gamma = "factor of step at each of them (default: 0.1), of exponential an epoch (default: 0.9)"
    falling = "--decay step,exponential"
    flag("--gamma", fraction, None, gamma, metavar="SHARE", needs=falling)
    smoothing = "share of the target that is spread over all classes"
    flag("--label-smoothing", fraction, 0.0, smoothing, metavar="SHARE")
    weights = "weigh classes by inverse frequency in the training data"
    flag("--class-weights", ("none", "inverse"), "none", weights)
    board = "write the log for TensorBoard, too, into its folder tensorboard/"
    flag("--tensorboard", bool, False, board, free=True)


def check_optimizer_flags(parser: Parser, args: argparse.Namespace) -> None:
    """Refuses milestones behind the end, momentum of 0 that is to look ahead, no TensorBoard.

    Milestones and gamma, if not given, follow from others.
    """
    if args.milestones and max(args.milestones) >= args.epochs:
        last = f"{max(args.milestones)} is not before the last of {args.epochs} epochs"
        parser.error(f"argument --milestones: {last}")
    if args.nesterov and not args.momentum:
        parser.error("argument --nesterov: has no effect with --momentum 0")
    if args.tensorboard:
        import torch.utils.tensorboard  # noqa: F401  it is a package that need not be there
    if args.decay in GAMMAS and args.gamma is None:
        args.gamma = args.settings["--gamma"] = GAMMAS[args.decay]
    if args.decay == "step" and args.milestones is None:
        args.milestones = args.settings["--milestones"] = [x * args.epochs for x in MILESTONES]


def views(tta: list[str | float] | None, refine: bool, tile: int | None) -> Views:
    """How the network looks at photos, by flags of `add_view_flags`."""
    scales = {1.0} | {part for part in tta or () if isinstance(part, float)}
    return Views(tuple(sorted(scales)), "flip" in (tta or ()), refine, tile)


def numbers(text: str) -> list[int]:
    """argparse type: whole numbers of at least 1, separated by commas."""
    return [positive(part) for part in text.split(",")]


def taps(text: str) -> list[int | str]:
    """argparse type: levels, or blocks like b19, separated by commas."""
    parts = text.split(",")
    return [f"b{positive(part[1:])}" if part[:1] == "b" else positive(part) for part in parts]


def steps(text: str) -> int | str:
    """argparse type: a number of steps, or "auto", see `training.enough_steps`."""
    return text if text == "auto" else natural(text)


def widths(text: str) -> tuple[int, ...]:
    """argparse type: widths of hidden layers, "none", or one number for the course's two."""
    if text == "none":
        return ()
    parts = [positive(part) for part in text.split(",") if part]
    if not 1 <= len(parts) <= 9:
        raise argparse.ArgumentTypeError(f"{text!r} is not 1 to 9 widths, or none")
    return tuple(parts) if "," in text else (parts[0], parts[0])


def checked(
    read: Callable[[str], Value], fits: Callable[[Value], bool], words: str
) -> Callable[[str], Value]:
    """Makes an argparse type: what `read` makes of a text, if it fits, which `words` tell."""

    def kind(text: str) -> Value:
        try:
            value = read(text)
            if fits(value):
                return value
        except ValueError:
            pass
        raise argparse.ArgumentTypeError(f"{text!r} is not {words}")

    return kind


natural = checked(int, lambda n: 0 <= n < 2**31, "a whole number from 0 to below 2**31")
positive = checked(int, lambda n: 1 <= n < 2**31, "a whole number from 1 to below 2**31")
rate = checked(float, lambda x: 0 < x <= 1000, "a number above 0 and at most 1000")
fraction = checked(float, lambda x: 0 <= x < 1, "a number from 0 to below 1")
factor = checked(float, lambda x: 0 <= x <= 1000, "a number from 0 to 1000")
bounds = checked(
    lambda text: tuple(map(float, text.split(","))),
    lambda scales: len(scales) == 2 and 0.1 <= scales[0] <= scales[1] <= 10,
    "two scales from 0.1 to 10, the smaller first, like 0.5,2",
)
tta = checked(
    lambda text: [part if part == "flip" else float(part) for part in text.split(",")],
    lambda parts: all(0.25 <= part <= 4 for part in parts if isinstance(part, float)),
    "some of flip and scales from 0.25 to 4, with commas between",
)
replaced = checked(Path, lambda path: bool(path.name), "a folder that a later run may replace")
CONTEXTS = {*WHOLE, *map(str, range(1, 1000, 2))}
contexts = checked(
    lambda text: text.split(","),
    lambda parts: CONTEXTS.issuperset(parts) and len(set(parts)) == len(parts),
    "some of image, half and odd numbers, each once",
)
