"""The network and its checkpoints; in `models.run` what the scripts share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from models.run.predictor import Predictor


def load(
    source: str | Path | None = None,
    device: str = "auto",
    size: int | None = None,
    tile: int | None = None,
) -> Predictor:
    """A trained network, ready to `predict` and to draw an `overlay`.

    Args:
        source: a run's folder, a checkpoint, or the name of a network in `models/trained/`; None:
            the network in the box.
        device: a torch device, or "auto": cuda, else mps, else cpu.
        size: shorter side of what the network sees, in pixels; None: as it was trained.
        tile: side of the windows in which larger inputs are seen, in pixels; None: in one.

    Raises:
        UserError: no such network, a file that cannot be used, or a size or tile too small.
    """
    from models.run import chain, predictor  # which themselves need this package
    from models.views import Views

    segmenter, _ = chain.trained_segmenter(None, Path(source) if source else None)
    segmenter.look(Views(tile=tile), size)
    return predictor.Predictor(segmenter, device)
