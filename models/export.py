"""A trained network as one file that runs without this project: ONNX, or a program of PyTorch.

    python -m models.export --onnx voc.onnx
    python -m models.export --onnx voc.onnx --check holiday.jpg    # runs it, beside the network
    python -m models.export --checkpoint FILE --program FILE
    python -m models.export --run RUN --half FILE          # a small checkpoint
    python -m models.export --average RUN RUN2 --half FILE # of the mean of trainings from one start

Everything is inside: `image` (1, 3, H, W) uint8, RGB of any height and width, becomes `classes`
(1, H, W) uint8. The photo is resized as by `data.transforms.ResizeImage`, and seen in one view.
Class names, their colours and what made the network go with the file.

The logits of all classes are held at the photo's size: 1 GB for 12 megapixels and 21 classes.
ONNX needs the packages onnx and onnxscript, to run it onnxruntime. Tried with PyTorch 2.14.
"""

import argparse
import copy
import json
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from data import UserError
from data.files import atomic_file
from data.image_files import read_image
from data.transforms import LEAST_SIDE, MAX_ASPECT
from models.checkpoint import HEAD, save_segmenter
from models.hypercolumn import resample
from models.run.chain import trained_segmenter
from models.run.predictor import predict_photo
from models.run.runtime import run_script
from models.segmenter import Segmenter

AGREE = 0.999  # of the pixels of a photo: at others two classes are equally likely
ALIKE = 0.5  # cosine of two heads: 0.90 or more from one step 2, 0.01 from two with other seeds
LEAST_TORCH = "2.13"  # before, torch.export refused poolings that round up at any size


class PhotoSegmenter(nn.Module):
    """What `Segmenter.predict` does with a photo in one view, resizing included, to be traced.

    Whether the head reads a level before its first layer works on it cannot follow from sizes that
    are not known yet: it is settled here, by a square input.

    Args:
        segmenter: on the CPU; it is not changed.
    """

    def __init__(self, segmenter: Segmenter):
        super().__init__()
        self.network = copy.deepcopy(segmenter).eval()
        features, size = self.network.hypercolumn.features, segmenter.size
        features.to(memory_format=torch.contiguous_format)  # else saving warns
        round_down(features)
        for module in features.modules():
            if hasattr(module, "inplace"):
                module.inplace = False  # ONNX export of MobileNetV2 then takes two thirds
        places = (-(-size // segmenter.stride)) ** 2
        shapes = segmenter.hypercolumn.level_shapes(size, size)
        self.network.head.read_first = [height * width >= places for _, height, width in shapes]

    def forward(self, image: Tensor) -> Tensor:
        """A photo (1, 3, H, W) uint8 RGB -> its classes (1, H, W) uint8."""
        shape = input_shape(self.network.size, *image.shape[-2:])
        small = F.interpolate(image, shape, mode="bilinear", antialias=True)
        found = resample(self.network(small).softmax(1), image.shape[-2:])
        return found.argmax(1).to(torch.uint8)


def input_shape(size: int, height: int, width: int) -> list[int]:
    """`data.transforms.resized_shape` in tensors, since the sides are not known yet.

    In float64 and in the same order, since a side may lie halfway between whole numbers.
    """
    short, *sides = (torch.scalar_tensor(n, dtype=torch.float64) for n in (size, height, width))
    scale = torch.minimum(short / torch.minimum(*sides), MAX_ASPECT * short / torch.maximum(*sides))
    least = min(size, LEAST_SIDE)
    shape = (torch.stack(sides) * scale).round().long().clamp(min=least).tolist()
    for side in shape:
        torch._check(side >= least)  # for the exporter
    return shape


def round_down(features: nn.Sequential) -> None:
    """Max poolings with `ceil_mode` become padding and one without, in place; exact.

    The exporter cannot tell the shape that `ceil_mode` gives to a map of any size.
    """
    for name, pool in list(features.named_modules()):
        if isinstance(pool, nn.MaxPool2d) and pool.ceil_mode:
            more = pool.stride - 1
            pool.ceil_mode = False
            padding = nn.ConstantPad2d((0, more, 0, more), -torch.inf)
            features.set_submodule(name, nn.Sequential(padding, pool))


def trace(segmenter: Segmenter) -> ExportedProgram:
    """The `PhotoSegmenter` as a graph for photos of any size.

    Raises:
        UserError: torch is too old, or the backbone resizes images to whole patches, by their own
            size, which is not known to a graph.
    """
    if torch.__version__ < LEAST_TORCH:
        raise UserError(
            f"--onnx and --program need torch {LEAST_TORCH}, but {torch.__version__} is installed"
        )
    if segmenter.hypercolumn.features.patch:
        raise UserError(f"{segmenter.hypercolumn.backbone}: plain transformers are not exported")
    photo = (torch.zeros(1, 3, 48, 64, dtype=torch.uint8),)
    shapes = {"image": {2: Dim("height", min=1), 3: Dim("width", min=1)}}
    with torch.no_grad():
        return torch.export.export(PhotoSegmenter(segmenter), photo, dynamic_shapes=shapes)


@torch.no_grad()
def average(places: Sequence[Path]) -> Segmenter:
    """The network whose weights are the mean of those of several, which began as the same network.

    Wortsman et al., "Model soups: averaging weights of multiple fine-tuned models improves accuracy
    without increasing inference time", ICML 2022.

    Args:
        places: checkpoints or run folders.

    Raises:
        UserError: they began differently, and then the mean of their weights means nothing.
    """
    networks = [trained_segmenter(None, place)[0] for place in places]
    first, starts = networks[0], []
    for place, network in zip(places, networks):
        extractor = network.hypercolumn.spec()
        extractor["fingerprint"] = network.origin or extractor["fingerprint"]
        head = [getattr(network.head, name) for name in HEAD]
        starts.append((extractor, head, network.classes, network.size, network.stride))
        weights = (one.head.layers[0].weight.flatten() for one in (first, network))
        if starts[-1] != starts[0] or torch.cosine_similarity(*weights, dim=0) < ALIKE:
            raise UserError(
                f"{place}: was not trained from the same start as {places[0]}, or for another "
                "size or stride: --average takes trainings of step 3 from one run's step 2"
            )
        first.remember(network.seen.numpy())
        first.origin = first.origin or network.origin
    for values in zip(*(network.parameters() for network in networks)):
        values[0].copy_(torch.stack(values).mean(0))
    first.history = {"models.export": {"--average": [*map(str, places)]}}
    first.trained_on = "; averaged with ".join(network.trained_on for network in networks)
    return first


def main() -> None:
    how = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("python -m models.export", None, __doc__, formatter_class=how)
    add = parser.add_mutually_exclusive_group().add_argument
    add("--run", type=Path, metavar="RUN", help="run folder, whose network is taken")
    add("--checkpoint", type=Path, metavar="FILE", help="the network, such as best.pt of step 3")
    mean = "runs or checkpoints, trained from one start: the mean of their weights"
    add("--average", type=Path, nargs="+", metavar="RUN", help=mean)
    add = parser.add_argument
    add("--onnx", type=Path, metavar="FILE", help="ONNX file to write")
    add("--program", type=Path, metavar="FILE", help="file to write for torch.export.load (.pt2)")
    half = "checkpoint of this project in float16 to write"
    add("--half", type=Path, metavar="FILE", help=half)
    check = "run the ONNX file on this photo in onnxruntime, and compare its classes with ours"
    add("--check", type=Path, metavar="PHOTO", help=check)
    flags = parser.parse_args()
    if not (flags.onnx or flags.program or flags.half) or flags.check and not flags.onnx:
        parser.error("--onnx, --program or --half is missing; --check needs --onnx")
    needed = ["onnx", "onnxscript"] * bool(flags.onnx) + ["onnxruntime"] * bool(flags.check)
    if missing := [package for package in needed if not find_spec(package)]:
        raise UserError(f"a package is missing: pip install {' '.join(missing)}")

    if flags.half and flags.half.exists():  # perhaps the network that was meant to become smaller
        raise UserError(f"{flags.half}: is there already; name a new file")
    pixels = read_image(flags.check) if flags.check else None
    chosen = flags.run, flags.checkpoint
    segmenter = average(flags.average) if flags.average else trained_segmenter(*chosen)[0]
    if flags.half:
        small = copy.deepcopy(segmenter).half()  # read as float32 again
        for name, exact in segmenter.head.named_buffers():  # a tiny std would become 0
            setattr(small.head, name, exact)
        save_segmenter(flags.half, small)
        print(f"wrote {flags.half}: a checkpoint in float16, {flags.half.stat().st_size:,} bytes")
    if flags.onnx or flags.program:
        program = trace(segmenter)
        facts = {  # that go with the file, as text
            "classes": json.dumps(segmenter.classes.names),
            "colours": json.dumps(segmenter.classes.colours),
            "size": json.dumps(segmenter.size),
            "backbone": segmenter.hypercolumn.backbone,
            "trained_on": segmenter.trained_on,
        }
    if flags.program:
        with atomic_file(flags.program) as file:
            torch.export.save(program, file, extra_files=facts)
        print(f"wrote {flags.program}: for torch.export.load")
    if flags.onnx:
        exported = torch.onnx.export(
            program,
            input_names=["image"],
            output_names=["classes"],
            dynamic_shapes={"image": {2: "height", 3: "width"}},
            dynamo=True,
            verbose=False,
        )
        exported.model.metadata_props.update(facts)
        with atomic_file(flags.onnx) as file:
            file.write(exported.model_proto.SerializeToString())
        print(f"wrote {flags.onnx}: image (1, 3, H, W) to classes (1, H, W), both uint8")
    if flags.check:
        import onnxruntime  # not needed to write the file

        session = onnxruntime.InferenceSession(flags.onnx, providers=["CPUExecutionProvider"])
        (found,) = session.run(None, {"image": pixels.transpose(2, 0, 1)[None]})
        same = found[0] == predict_photo(segmenter, pixels)[0].numpy()
        print(f"{flags.check}: onnxruntime agrees with predict on {same.mean():.2%} of the pixels")
        if same.mean() < AGREE:
            raise UserError(f"{flags.onnx}: gives other classes than predict; do not use it")


if __name__ == "__main__":
    run_script(main)
