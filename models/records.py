"""What a training leaves in its folder as it goes: checkpoints, log, curve, previews."""

import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image

from models import RunError, processes
from models.cache import is_cache
from models.checkpoint import save_segmenter
from models.files import atomic_file
from models.run_folder import begin, save_csv, step_folder
from models.training import Training

BEST, FIRST = "best.pt", "first.pt"  # the second becomes the first, once an earlier training's files are gone


class Records:
    """The folder of step 3. All processes call the same; rank 0 writes.

    Args:
        run: the run folder.
        start: `fingerprint` of the head that the training began from; saved with the checkpoints.
        images: what it trains on, in words.
        steps: of the optimizer in an epoch.
    """

    def __init__(self, run: Path, training: Training, start: str, images: str, steps: int):
        self.run, self.folder = run, step_folder(run, 3)
        self.last = self.folder / "last.pt"
        self.training = training
        self.start, self.images, self.steps = start, images, steps

    def begin(self, resumes: bool) -> None:
        """Makes the folder ready; what an earlier training left stays until the new one has a result (`end_epoch`)."""
        if resumes:
            begin(self.run, 3)
        else:  # the levels that an interrupted training left may be of other images
            self._remove(is_cache)

    def save_last(self) -> str:
        """Saves last.pt, from which a stopped training goes on; says so, in words."""
        if not self.training.log:
            return "the training had not begun"
        if processes.is_main():
            self._describe()
            save_segmenter(self.last, self.training.trained, start=self.start, training=self.training.state())
        return f"{len(self.training.losses)} steps are in {self.last}; go on with the same command and --resume"

    def check(self, loss: float, ids: list[str], skip_nonfinite: int) -> None:
        """Looks at the loss of the step just made.

        Args:
            loss: nan where the step was left out for a loss or gradient that was not finite.
            ids: of the step's images.
            skip_nonfinite: how many such steps the training may have.

        Raises:
            RunError: it has more.
        """
        if math.isfinite(loss):
            return
        left_out = self.training.skipped()
        what = f"step {len(self.training.losses)}: the loss or a gradient is not finite, at images {', '.join(ids)}"
        if left_out > skip_nonfinite:
            raise RunError(
                f"{what}; {self.last} is still good: start over with a smaller --lr, or go on with --resume and "
                f"--skip-nonfinite {left_out} or more"
            )
        print(f"  {what}; left out, {left_out} of at most {skip_nonfinite}", flush=True)

    def end_epoch(
        self,
        scores: dict[str, float],
        previews: dict[str, Image.Image],
        draw_curve: Callable[[BinaryIO, list[dict[str, Any]]], None],
    ) -> str:
        """Logs an epoch and saves what belongs to its end; the epoch in words.

        Args:
            scores: of the validation; "miou" chooses best.pt.
            previews: overlays by image id.
            draw_curve: draws the log into a PNG file.
        """
        log, losses = self.training.log, self.training.losses
        epoch = len(log)
        finite = [loss for loss in losses[max(0, epoch - 1) * self.steps :] if math.isfinite(loss)]
        loss = sum(finite) / len(finite) if finite else None
        is_best = all(scores["miou"] > row["miou"] for row in log)
        log.append({"epoch": epoch, "loss": loss, **scores})
        if processes.is_main():
            self._describe()
            if epoch == 0:  # the new training has a result: what an earlier one left would only be mixed up with it
                save_segmenter(self.folder / FIRST, self.training.best(), start=self.start)
                begin(self.run, 3)
                self.last.unlink(missing_ok=True)  # first: no resumed run goes on from what is half removed
                self._remove(lambda path: not is_cache(path) and path.name != FIRST)
                os.replace(self.folder / FIRST, self.folder / BEST)
            elif is_best:
                save_segmenter(self.folder / BEST, self.training.best(), start=self.start)
            for image_id, picture in previews.items():
                with atomic_file(self.folder / "previews" / f"epoch_{epoch:03d}" / f"{image_id}.png") as file:
                    picture.save(file, "PNG")
            save_csv(self.folder / "log.csv", log)
            save_csv(
                self.folder / "steps.csv", [{"step": step, "loss": loss} for step, loss in enumerate([None, *losses])]
            )
            with atomic_file(self.folder / "curve.png") as file:
                draw_curve(file, log)
            self.save_last()  # at the end: a resumed training does not come back to an epoch that is in it
        before = "as step 2 left it" if loss is None else f"loss {loss:.4f}"
        return f"epoch {epoch}  {before}, validation mIoU {scores['miou']:.4f}"

    def _remove(self, is_old: Callable[[Path], bool]) -> None:
        for path in filter(is_old, list(self.folder.glob("*"))):
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def _describe(self) -> None:
        if self.training.losses:
            epochs = round(len(self.training.losses) / self.steps, 2)
            backbone = ", backbone too" if self.training.trained.origin else ""
            for network in (self.training.trained, self.training.best()):
                network.trained_on = f"{self.images}, {epochs:g} epochs{backbone}"
