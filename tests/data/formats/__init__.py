"""What the tests of the forms share."""

import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

from data import formats
from data.formats import annotations
from data.formats.source import Options, files_in

BOX = [[1, 1], [4, 1], [4, 3], [1, 3]]
DRAWN = [[0] * 6, [0, 1, 1, 1, 0, 0], [0, 1, 1, 1, 0, 0], [0] * 6]  # a box of class 1


def photo(path: Path, size: tuple[int, int] = (6, 4), **how) -> Path:
    """A photo, 6 pixels wide and 4 high if nothing else is said."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size).save(path, **how)
    return path


def write(path: Path, content: object) -> Path:
    """A file of text, or of anything else as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def png(inside: object, clear: bool = False) -> bytes:
    """A picture of pixels 0 and 1: of these values, or in two greys of which the first is clear."""
    image, file = Image.fromarray(np.array(inside, dtype=np.uint8)), io.BytesIO()
    if clear:
        image.putpalette([99, 99, 99, 255, 255, 255])
    image.save(file, "PNG", **({"transparency": 0} if clear else {}))
    return file.getvalue()


def find(writes, root: Path, **options):
    """The source of the form of which that function writes files; None if there are none of it."""
    form, options = getattr(formats, writes.__name__), Options(**options)
    paths = form.find([root / options.annotations] if options.annotations else files_in(root))
    return annotations.read_form(form, paths, root, options) if paths else None


def only_mask(writes, root: Path, **options) -> list:
    (pair,) = find(writes, root, **options).pairs.values()
    return pair.mask().tolist()


def labelme(root: Path, photo: str, label="dog", kind="polygon", box=BOX, shapes=()) -> Path:
    """The file about a photo of 6x4 pixels with one shape, or with these, as all below."""
    shapes = shapes or [{"label": label, "points": box, "shape_type": kind}]
    size = {"imageWidth": 6, "imageHeight": 4}
    return write(root / "json" / "a.json", {"shapes": shapes, "imagePath": photo, **size})


def coco(root: Path, photo: str, label="dog", kind="polygon", box=BOX, shapes=(), **other) -> Path:
    """Other keys of the file may be given, too."""
    outline = [sum(box, [])] if kind == "polygon" else []
    image = {"id": 1, "file_name": photo, "width": 6, "height": 4}
    usual = {"id": 1, "image_id": 1, "category_id": 5}
    areas = [usual | area for area in shapes or [{"segmentation": outline}]]
    names = [{"id": 5, "name": label}, {"id": 9, "name": "cow"}][: 1 + bool(shapes)]
    content = {"images": [image], "annotations": areas, "categories": names} | other
    return write(root / "json" / "coco.json", content)


def supervisely(root: Path, photo: str, label="dog", kind="polygon", box=BOX, shapes=()) -> Path:
    write(root / "json" / "meta.json", {"classes": [{"title": label, "color": "#0a0B0c"}]})
    thing = {"geometryType": kind, "classTitle": label, "points": {"exterior": box}}
    content = {"size": {"width": 6, "height": 4}, "objects": shapes or [thing]}
    return write(root / "json" / "ds" / "ann" / f"{photo}.json", content)


def cvat(root: Path, photo: str, label="dog", kind="polygon", box=BOX, shapes=()) -> Path:
    points = ";".join(f"{x},{y}" for x, y in box)
    shape = "".join(shapes) or f'<{kind} label="{label}" points="{points}"/>'
    labels = f"<label><name>{label}</name><color>#0a0b0c</color></label>"
    image = f'<image name="{photo}" width="6" height="4">{shape}<tag label="sunny"/></image>'
    content = f"<annotations><meta>{labels}</meta>{image}</annotations>"
    return write(root / "json" / "a.xml", content)
