"""A trained network as one file that runs without this project: ONNX, or a program of PyTorch.

    python -m models.export --onnx voc.onnx
    python -m models.export --onnx voc.onnx --check holiday.jpg    # runs it, beside the network
    python -m models.export --run RUN --onnx FILE --probabilities
    python -m models.export --checkpoint FILE --program FILE --float
    python -m models.export --run RUN --half FILE          # a small checkpoint

Everything is inside: `image` (1, 3, H, W), RGB of any height and width, uint8 0..255 or, with
--float, float32 0..1, becomes `classes` (1, H, W) uint8 or, with --probabilities, `probabilities`
(1, C, H, W) float32. The photo is resized as `data.transforms.ResizeImage` does it, and seen in one
view. Class names, their colours and what made the network go with the file.

The logits of all classes are held at the photo's size: 1 GB for 12 megapixels and 21 classes.
ONNX needs the packages onnx and onnxscript, to run it onnxruntime. Tried with PyTorch 2.14.
"""

import argparse
import copy
import io
import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from data import UserError
from data.files import atomic_file
from data.images import read_image
from data.transforms import LEAST_SIDE, MAX_ASPECT
from models.hypercolumn import resample
from models.segmenter import Segmenter, save_segmenter

ROUNDS = 5  # of timing


class PhotoSegmenter(nn.Module):
    """What `Segmenter.predict` does with a photo in one view, resizing included, to be traced.

    Whether the head reads a level before its first layer works on it cannot follow from sizes that
    are not known yet: it is settled here, by a square input.

    Args:
        segmenter: on the CPU; it is not changed.
        probabilities: of all classes, not the most likely class.
    """

    def __init__(self, segmenter: Segmenter, probabilities: bool = False):
        super().__init__()
        self.probabilities = probabilities
        self.network = copy.deepcopy(segmenter).eval()
        self.network.amp = None
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
        """The classes of a photo.

        Args:
            image: (1, 3, H, W) RGB, uint8 0..255 or float32 0..1.

        Returns:
            (1, H, W) uint8, or (1, C, H, W) float32 probabilities.
        """
        shape = self.input_shape(self.network.size, *image.shape[-2:])
        small = F.interpolate(image, shape, mode="bilinear", antialias=True)
        found = resample(self.network(small).softmax(1), image.shape[-2:])
        return found if self.probabilities else found.argmax(1).to(torch.uint8)

    @staticmethod
    def input_shape(size: int, height: int, width: int) -> list[int]:
        """`data.transforms.resized_shape` in tensors, since the sides are not known yet.

        In float64 and in the same order, since a side may lie halfway between whole numbers.
        """
        short, *sides = (
            torch.scalar_tensor(side, dtype=torch.float64) for side in (size, height, width)
        )
        scale = torch.minimum(
            short / torch.minimum(*sides), MAX_ASPECT * short / torch.maximum(*sides)
        )
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


def trace(
    segmenter: Segmenter, probabilities: bool = False, floating: bool = False
) -> ExportedProgram:
    """The `PhotoSegmenter` as a graph for photos of any size.

    Args:
        floating: the image is float32 0..1, not uint8.
    """
    image = torch.zeros(1, 3, 48, 64, dtype=torch.float32 if floating else torch.uint8)
    sides = {2: Dim("height", min=1), 3: Dim("width", min=1)}
    with torch.no_grad():
        return torch.export.export(
            PhotoSegmenter(segmenter, probabilities), (image,), dynamic_shapes={"image": sides}
        )


def facts(segmenter: Segmenter) -> dict[str, Any]:
    """What goes with the file: plain values."""
    return {
        "classes": segmenter.names,
        "colours": segmenter.colours,
        "size": segmenter.size,
        "backbone": segmenter.hypercolumn.backbone,
        "trained_on": segmenter.trained_on,
    }


def save_program(path: Path, program: ExportedProgram, facts: dict[str, Any]) -> None:
    """Saves what `torch.export.load` reads; the facts are JSON in the extra file "facts.json"."""
    whole = io.BytesIO()
    torch.export.save(program, whole, extra_files={"facts.json": json.dumps(facts)})
    with atomic_file(path) as file:
        file.write(whole.getbuffer())


def check_packages() -> None:
    """Tries to import what `save_onnx` needs.

    Raises:
        UserError: a package is missing.
    """
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError:
        raise UserError(
            "--onnx needs the packages onnx and onnxscript: pip install onnx onnxscript"
        ) from None


def save_onnx(path: Path, program: ExportedProgram, output: str, facts: dict[str, Any]) -> int:
    """Saves the program as ONNX, with the facts as metadata (lists as JSON); gives the opset.

    Args:
        output: what the result is called.
    """
    with torch.no_grad():
        exported = torch.onnx.export(
            program,
            input_names=["image"],
            output_names=[output],
            dynamic_shapes={"image": {2: "height", 3: "width"}},
            dynamo=True,
            verbose=False,
        )
    for name, fact in facts.items():
        text = fact if isinstance(fact, str) else json.dumps(fact)
        exported.model.metadata_props[name] = text
    with atomic_file(path) as file:
        file.write(exported.model_proto.SerializeToString())
    return exported.model.opset_imports[""]


def check_onnx(
    path: Path, pixels: np.ndarray, predict: Callable[[np.ndarray], np.ndarray]
) -> tuple[float, float]:
    """Runs an ONNX file and the network that it was made of on a photo, on as many threads.

    Args:
        path: of the file.
        pixels: (H, W, 3) uint8 RGB.
        predict: gives the class map (H, W) of the network itself.

    Returns:
        The share of pixels on which they agree, and the time of the file as a share of that of
        `predict`: medians of `ROUNDS` runs in turn, after one each.

    Raises:
        UserError: onnxruntime is missing.
    """
    try:
        import onnxruntime
    except ImportError:
        raise UserError("--check needs the package onnxruntime: pip install onnxruntime") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    image = pixels.transpose(2, 0, 1)[None]
    if session.get_inputs()[0].type == "tensor(float)":
        image = image.astype(np.float32) / 255

    def run_file() -> np.ndarray:
        (found,) = session.run(None, {"image": image})[0]
        return found.argmax(0) if found.ndim == 3 else found

    share = (run_file() == predict(pixels)).mean()
    its_times, our_times = [], []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        run_file()
        between = time.perf_counter()
        predict(pixels)
        its_times.append(between - began)
        our_times.append(time.perf_counter() - between)
    return float(share), median(its_times) / median(our_times)


def save_half(path: Path, segmenter: Segmenter) -> None:
    """Saves a checkpoint in float16, for passing on; `load_segmenter` makes it float32 again."""
    save_segmenter(path, copy.deepcopy(segmenter).half())


def main() -> None:
    """Run the command line."""
    from models.run.folder import trained_segmenter
    from models.run.predictor import Predictor

    parser = argparse.ArgumentParser(
        "python -m models.export",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    source = parser.add_mutually_exclusive_group()
    add = source.add_argument
    add("--run", type=Path, metavar="RUN", help="run folder, whose network is taken")
    add("--checkpoint", type=Path, metavar="FILE", help="the network, such as best.pt of step 3")
    add = parser.add_argument
    add("--onnx", type=Path, metavar="FILE", help="ONNX file to write")
    add("--program", type=Path, metavar="FILE", help="file to write for torch.export.load (.pt2)")
    half = "checkpoint of this project in float16 to write"
    add("--half", type=Path, metavar="FILE", help=half)
    add("--probabilities", action="store_true", help="of all classes, not the most likely class")
    add("--float", action="store_true", dest="floating", help="image: float32 0..1, not uint8")
    check = "run the ONNX file on this photo in onnxruntime, and compare classes and time with ours"
    add("--check", type=Path, metavar="PHOTO", help=check)
    flags = parser.parse_args()
    if flags.check and not flags.onnx:
        parser.error("--check: has no effect without --onnx")
    if not (flags.onnx or flags.program or flags.half):
        parser.error("--onnx, --program or --half is missing")

    if flags.onnx:
        check_packages()
    segmenter, _ = trained_segmenter(flags.run, flags.checkpoint)
    if flags.half:
        save_half(flags.half, segmenter)
        print(f"wrote {flags.half}: a checkpoint in float16, {flags.half.stat().st_size:,} bytes")
    if not (flags.onnx or flags.program):
        return
    program = trace(segmenter, flags.probabilities, flags.floating)
    output, shape = "classes", "(1, height, width) uint8"
    if flags.probabilities:
        output, shape = "probabilities", f"(1, {len(segmenter.names)}, height, width) float32"
    dtype = "float32" if flags.floating else "uint8"
    ends = f"input image (1, 3, height, width) {dtype}, output {output} {shape}"
    if flags.onnx:
        opset = save_onnx(flags.onnx, program, output, facts(segmenter))
        print(f"wrote {flags.onnx}: opset {opset}, {ends}")
    if flags.check:
        predict = Predictor(segmenter, "cpu").predict
        share, relative = check_onnx(flags.onnx, read_image(flags.check), predict)
        print(
            f"{flags.check}: onnxruntime agrees with predict on {share:.2%} of the pixels and "
            f"takes {relative:.2f} of its time (threads: {torch.get_num_threads()})"
        )
    if flags.program:
        save_program(flags.program, program, facts(segmenter))
        print(f"wrote {flags.program}: PyTorch {torch.__version__}, {ends}")


if __name__ == "__main__":
    from models.run.runtime import run_script

    run_script(main)
