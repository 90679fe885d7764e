"""The network and its checkpoints; in `models.run` what the scripts share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from models.run.predictor import Predictor


def load(source: str | Path = "voc", device: str = "auto") -> Predictor:
    """A trained network, ready to `predict` and to draw an `overlay`.

    Args:
        source: a run's folder, a checkpoint, or the name of a network in `models/trained/`.
        device: a torch device, or "auto": cuda, else mps, else cpu.

    Raises:
        UserError: no such network, or a file that cannot be used.
    """
    from models.run import chain, predictor  # which themselves need this package

    return predictor.Predictor(chain.trained_segmenter(None, Path(source))[0], device)
