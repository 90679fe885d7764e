"""The drawing of the architecture is readable for every network."""

import pytest
from matplotlib.patches import FancyBboxPatch

from data.figures.diagram import draw_architecture
from tests.data.figures.pages import faults, texts

STAGES = ["conv 3×3", *["pool /2, 4 × conv 3×3, batch norm, dilation 4"] * 4]
BOX = "1×1 convolution 7104 → 4096", "29,102,080 parameters, LeakyReLU, dropout 0.25"


def network(used: int = 5, context: int = 0, layers: int = 3, size: int = 320) -> dict:
    """A network like VGG, of which the last `used` stages are tapped."""
    channels = [64, 128, 256, 512, 512]
    levels = [(f"tap {i + 1}", (channels[i], size >> i, size >> i)) for i in range(5 - used, 5)]
    levels += [(f"{3 + 2 * i}×{3 + 2 * i}", (512, 1, 1)) for i in range(context)]
    return {
        "backbone": "vgg19_bn",
        "fine_tuned": True,
        "parameters": 20_035_392,
        "size": size,
        "grid": size // 2,
        "stages": [
            {"tap": 1 + i, "layers": words, "used": i >= 5 - used} for i, words in enumerate(STAGES)
        ],
        "levels": levels,
        "context": [f"over {3 + 2 * i} × {3 + 2 * i} around each place" for i in range(context)],
        "head": [("standardise", "(x − mean) / std of the sampled features"), *[BOX] * layers],
        "head_parameters": 23_073_023,
    }


def test_what_is_given_is_on_the_drawing():
    written = [text for text, _ in texts(draw_architecture(**network(used=3, context=2)))]
    assert written.count("not tapped") == 2 and written.count("mean of the last tap") == 2
    assert {"vgg19_bn, fine-tuned", "20,035,392 parameters", "image 3 × 320 × 320"} <= set(written)
    assert {"5 levels", "Z = 2304 at 160 × 160 places", "tap 3", "256 × 80 × 80"} <= set(written)
    assert {"over 3 × 3 around each place", "5×5", "stage 5", STAGES[4], *BOX} <= set(written)
    assert "23,073,023 parameters" in written


@pytest.mark.parametrize(
    "size", [{}, {"used": 1, "layers": 10}, {"used": 3, "size": 4000}, {"context": 11, "size": 96}]
)
def test_no_text_leaves_its_box_or_overlaps_another(size):
    figure = draw_architecture(**network(**size))
    assert faults(figure) == []
    frames = [patch.get_window_extent() for patch in figure.findobj(FancyBboxPatch)]
    held = 0
    for text, box in texts(figure):
        for frame in frames:
            if frame.contains(*box.get_points().mean(axis=0)):
                held += 1
                assert frame.x0 <= box.x0 and box.x1 <= frame.x1, f"{text!r} is wider than its box"
    assert held == 2 * len(frames)
    boxes = [box for _, box in texts(figure)]
    assert min(box.y0 for box in boxes) > 0.06 * figure.bbox.height, "room for a page number"
    assert max(box.y1 for box in boxes) < 0.87 * figure.bbox.height, "room for a title"
