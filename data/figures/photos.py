"""One's own photos: what is seen in each, and their folder, which grows photo by photo."""

import csv
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from data import UserError
from data.classes import Classes
from data.figures.layers import pixel_shares
from data.figures.overlay import Record, percent
from data.image_files import colour_mask, read_image
from models.run import folder
from models.run.folder import read, read_json, read_table
from models.run.predictor import predict_photo
from models.segmenter import Segmenter

TABLE = "photos.csv"
COLUMNS = ("photo", "class", "share", "confidence", "error")
MASKS = "predictions"


class PhotoTable:
    """photos.csv of a folder, with the index PNGs. Photos without an error in it are done.

    Args:
        folder: where a table may be already; its photos with an error are taken up again.
        classes: names and colours.

    Attributes:
        done: the titles of the photos in it that were read.
        errors: why each of the others was not, by its title.
    """

    def __init__(self, folder: Path, classes: Classes):
        self.folder, self.classes, path = folder, classes, folder / TABLE
        rows = read(read_table, path) if path.exists() else []
        rows = [row for row in rows if not row["error"]]
        self.done = {row["photo"] for row in rows}
        self.errors: dict[str, str] = {}
        path.unlink(missing_ok=True)
        self._append([dict(zip(COLUMNS, COLUMNS)), *rows])

    def add(self, photo: Record) -> None:
        """Saves predictions/ID.png, appends and prints which classes the photo has.

        A row is a class, the largest first, with its share and mean confidence, 0..1.
        """
        path = self.folder / MASKS / f"{photo.id}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        colour_mask(photo.prediction, self.classes).save(path)
        rows, words = [], []
        for label, share in pixel_shares(photo.prediction).items():
            name, own = self.classes.names[label], photo.prediction == label
            sure = float(photo.confidence.mean(where=own, dtype=float))
            rows.append(dict(zip(COLUMNS, (photo.title, name, share, sure))))
            words.append(f"{name} {percent(share)}")
        self._append(rows)
        self.done.add(photo.title)
        print(f"  {photo.title}  {'  '.join(words)}", flush=True)

    def leave_out(self, title: str, error: str) -> None:
        """Appends a row with the error."""
        self._append([{"photo": title, "error": error}])
        self.errors[title] = error

    def _append(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Closes the file, so that the rows outlive the process."""
        with open(self.folder / TABLE, "a", encoding="utf-8", newline="") as file:
            csv.DictWriter(file, COLUMNS, lineterminator="\n").writerows(rows)


def photo_records(
    segmenter: Segmenter,
    photos: Mapping[str, Path],
    table: PhotoTable,
    wanted: Collection[int] = (),
) -> Iterator[Record]:
    """The user's own photos that are not done, with what the network sees in them.

    Tells the table of those that cannot be read. `wanted` are classes of which one must be seen.
    """
    if table.done:
        print(f"  note: {len(table.done)} of them are done")
    for name, path in photos.items():
        title = Path(name).with_name(path.name).as_posix()
        if title in table.done:
            continue
        try:
            photo = read_image(path)
        except UserError as error:
            table.leave_out(title, str(error))
            continue
        prediction, confidence = (part.numpy() for part in predict_photo(segmenter, photo, name))
        if not wanted or np.isin(prediction, [*wanted]).any():
            yield Record(name, title, photo, None, prediction, confidence)


@contextmanager
def photo_folder(place: Path, flags: Mapping[str, Any]) -> Iterator[Path]:
    """The folder of photos in its own place, for what is interrupted goes on with --resume.

    What an earlier run has left there goes at once, unless it goes on.

    Args:
        flags: of the step, with "made_from", the identity of the network.

    Raises:
        UserError: what is there is not finished, or other files, or --resume and made otherwise.
    """
    place = place.resolve() if place.is_symlink() else place
    config = place / folder.CONFIG
    with folder.claim(place):
        before = read(read_json, config) if config.is_file() else {}
        if goes_on := bool(before and flags["resume"]):
            _check_same(place, before, folder.plain(flags))
        elif before.get("unfinished"):
            raise UserError(f"{place}: was interrupted; go on with --resume, or name an --out")
        else:
            folder.check_free(place, 5)
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir(exist_ok=True)
            folder.save_config(place, 5, flags, unfinished=True)
        try:
            yield place
        except KeyboardInterrupt as stop:
            raise type(stop)("go on with the same command and --resume") from None
        finally:
            if not (goes_on or (place / MASKS).exists()):
                shutil.rmtree(place, ignore_errors=True)


def _check_same(place: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuses to go on with another network, or other flags than --limit and --sort."""
    before, now = ({**flags, **flags.get("settings", {})} for flags in (before, now))
    for name in ("made_from", "image", "recursive", "masks_only", *now["settings"]):
        if before.get(name) != now[name] and name not in ("--limit", "--sort", "--seed"):
            what = f"{place} was made with {name} {before.get(name)}, not {now[name]}"
            raise UserError(f"--resume: {what}; keep to that, or name another --out")
