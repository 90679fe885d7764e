"""What a form gives to `data.convert`: its classes, and its images one at a time."""

import glob
import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data import UserError, first_of
from data.classes import VOID, Colour
from data.image_files import upright_size

UNREAD = {  # forms that are not read: what tells their files, which are of `TEXTS`
    "YOLO": rb"\A\d+( -?[\d.]+){4,}\s",
    "VGG Image Annotator": b"shape_attributes",
    "Label Studio": b'"original_width"',
    "Pascal VOC, boxes alone": b"<bndbox>",
}
TEXTS = (".txt", ".json", ".csv", ".xml")
# What names of folders of photos end in, as in train_images.
IMAGES = re.compile(
    "(?i)(^|[ _-])(images?|imgs?|photos|jpegimages|rgb|inputs|leftimg8bit|originals?|img_dir)"
    "([ _-]?png)?$"
)
MASKS = re.compile(  # and those of masks, as train_labels
    "(?i)((^|[ _-])(masks?|labels?|annotations?|segmentations?|gt|gtfine|segmentationclass|ann_dir|"
    "manual[ _-]?[0-9]*|(ground.?)?truth)|annot)([ _-]?png)?$"
)
Named = dict[str, Colour | None]  # names of classes, with RGB (0..255) where known


class Options(NamedTuple):
    """What the user says about a source; None leaves it to the form."""

    images: Path | None = None  # folder of the photos, in the source, as all of these
    masks: Path | None = None
    annotations: Path | None = None  # the only file of annotations
    image_suffix: str | None = None  # end of the photos' names, before `.jpg`
    mask_suffix: str | None = None
    classes: Named | None = None  # may hold void, with the colour of pixels of no class
    values: dict[int, int] | None = None  # mask value -> class id or VOID; {}: each is its class
    unknown: int | None = None  # what colours, values and names become that no class has
    unlabelled: int | str | None = None  # "void" or "background": what pixels are on which nothing
    # is drawn; or the value that masks have there, which is then void
    stroke_width: float = 5.0  # pixels, of points and lines
    skip_bad: bool = False  # leave out images that cannot be used
    nearest: bool = False  # but what is near to a class's colour or value becomes this class
    turn_masks: bool = False  # masks lie as the photos are stored, before EXIF turns these
    unmasked: int | None = None  # class id, or VOID, everywhere in photos without a mask

    @property
    def undrawn(self) -> int:
        """The class id of pixels on which nothing is drawn."""
        return 0 if self.unlabelled in (None, "background") else VOID


class Pair(NamedTuple):
    """One image: its photo, the file about it, and what makes its mask of that."""

    photo: Path
    drawn_in: Path  # the mask, or the file of annotations; the photo, if there is none
    mask: Callable[[], np.ndarray]  # (H, W) uint8 class ids and VOID, as the photo lies upright


@dataclass
class Source:
    """A data set that a form has recognised."""

    form: str  # in words
    options: Options
    classes: Named = field(default_factory=dict)  # the background first
    pairs: dict[str, Pair] = field(default_factory=dict)  # by id
    notes: dict[str, list[str]] = field(default_factory=dict)  # what was left out or is in doubt

    def add(self, name: str, pair: Pair) -> None:
        """Adds a pair under the id of its name without suffix, see `image_id_of`.

        Raises:
            UserError: another pair has that id.
        """
        image_id = image_id_of(name)
        other = self.pairs.setdefault(image_id, pair)
        if other is not pair:
            raise UserError(
                f"{pair.drawn_in}: the photo {pair.photo} would get the id {image_id!r}, as "
                f"{other.photo} of {other.drawn_in} has; rename or remove one"
            )

    def add_unmasked(self, images: dict[Path, str], root: Path, used: Collection[Path]) -> None:
        """Adds photos without a mask where the user wants them; notes all other `images`.

        Those count that have the suffix of a photo with a mask, and lie beside one, or where the
        user or the name of a folder says that photos are.

        Args:
            images: what is in no pair, each with its name, see `add`, or "" if it is no photo.
            used: the photos in pairs.
        """
        folders, suffixes = {it.parent for it in used}, {it.suffix.lower() for it in used}
        value = self.options.unmasked
        for path, name in sorted(images.items()):
            inside = path.relative_to(root)
            is_there = self.options.images or path.parent in folders
            is_there = is_there or any(map(IMAGES.search, inside.parts[:-1]))
            if value is not None and name and is_there and path.suffix.lower() in suffixes:
                self.add(name, Pair(path, path, partial(_all_of, value, path)))
            else:
                self.note("left out: in no pair", inside.as_posix())

    def note(self, what: str, name: str) -> None:
        """Keeps the name of a file or an image among those of which the user is told this."""
        self.notes.setdefault(what, []).append(name)

    def said(self) -> str:
        """All notes in a line."""
        return "; ".join(f"{what}: {first_of(names)}" for what, names in self.notes.items())

    @contextmanager
    def leaving_out_bad(self) -> Iterator[None]:
        """With `skip_bad`, a UserError ends no more than the block and is noted."""
        try:
            yield
        except UserError as error:
            if not self.options.skip_bad:
                raise UserError(f"{error}; --skip-bad leaves such images out") from None
            self.note("left out: cannot be used", str(error))


def _all_of(value: int, photo: Path) -> np.ndarray:
    return np.full(upright_size(photo), value, dtype=np.uint8)


def files_in(folder: Path) -> list[Path]:
    """All files in a folder and in those below, links followed, hidden ones left aside, sorted.

    Raises:
        UserError: there is no such folder.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such file or folder (archives must be unpacked first)")
    found = glob.glob(f"{glob.escape(str(folder))}/**/*", recursive=True)
    return sorted(path for path in map(Path, found) if path.is_file())


def unread(paths: Iterable[Path]) -> str:
    """What to say of the first of these files that is of a form which is not read; "" if none."""
    texts = (path for path in paths if path.suffix.lower() in TEXTS)
    for path, (form, content) in product(texts, UNREAD.items()):
        if re.search(content, path.read_bytes()):
            read = "COCO, LabelMe, Supervisely, CVAT for images, or masks"
            return f"; {path.name} is of {form}, which is not read: export it as {read}"
    return ""


def image_id_of(name: str) -> str:
    """The id of a photo of that name: `a/b` becomes `a_b`, blanks of any kind one blank."""
    return " ".join(plain("_".join(Path(name).parts)).split())


def name_in(folder: Path, path: Path) -> str:
    """A file's name without suffix, behind its folders but for what these say of its kind."""
    *folders, name = path.relative_to(folder).with_suffix("").parts
    others = [MASKS.sub("", IMAGES.sub("", part)) for part in folders]
    return plain("/".join([*filter(None, others), name]))


def plain(name: str) -> str:
    """A file's name with each letter in one piece: a Mac writes an accent behind its letter."""
    return unicodedata.normalize("NFC", name)


@contextmanager
def as_written(path: Path, form: str) -> Iterator[None]:
    """Turns what goes wrong in reading a file that is not as `form` wants it into a UserError."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # JSON, XML, base64, zlib, NumPy and Pillow raise many kinds
        if getattr(error, "errno", None):  # the system's word about the file, such as no permission
            raise
        reason = f"no {error} in it" if isinstance(error, KeyError) else error
        raise UserError(f"{path}: not {form} as it is known here ({reason})") from None
