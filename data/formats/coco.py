"""COCO instances: one JSON file, or several with the same categories, for many photos."""

from collections import defaultdict
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np

from data import DataError
from data.classes import VOID
from data.formats.drawing import polygon, runs
from data.formats.names import number
from data.formats.source import (
    NO_PHOTO,
    Options,
    Pair,
    Photos,
    Source,
    annotations_in,
    as_written,
    read_json,
)

FORM = "COCO JSON"


def find(root: Path, options: Options) -> Source | None:
    """The images of the files called `instances*.json`, or else of all of COCO's kind.

    Raises:
        DataError: see `number`; files differ in their categories, or are not as COCO's; or
            `pycocotools` is needed and missing.
    """
    paths = annotations_in(root, options, ".json", '"images"', '"annotations"', '"categories"')
    paths = [path for path in paths if path.name.startswith("instances")] or paths
    if not paths:
        return None
    source = Source(FORM, note="where areas overlap the smaller lies on top; crowds are void")
    photos, used = Photos(root / (options.images or "")), set()
    categories: dict[int, str] = {}
    found = []
    for path in paths:
        data = read_json(path)
        with as_written(path, FORM):
            own = {category["id"]: category["name"] for category in data["categories"]}
            if own != (categories := categories or own):
                raise DataError(
                    f"{path}: its categories are others than those of {paths[0]}; "
                    "convert one at a time, with --annotations FILE"
                )
            areas = defaultdict(list)
            for annotation in data["annotations"]:
                if annotation.get("segmentation"):
                    areas[annotation["image_id"]].append(annotation)
                    used.add(own[annotation["category_id"]])
                else:
                    source.leave_out("annotation without an outline", str(annotation["image_id"]))
            if any(map(_is_compressed, (area for of in areas.values() for area in of))):
                _require_pycocotools(path)
            for image in data["images"]:
                photo = photos.find(image["file_name"], path.parent)
                if photo:
                    found.append((path, photo, image, areas[image["id"]]))
                else:
                    source.leave_out(NO_PHOTO, image["file_name"])
            source.images += len(data["images"])
    names = [name for _, name in sorted(categories.items())]
    source.classes, ids = number(dict.fromkeys(names), used, options, root)
    values = {category: ids.get(name) for category, name in categories.items()}
    for path, photo, image, areas in found:
        name = PurePosixPath(image["file_name"]).with_suffix("")
        source.add(name, partial(_load, path, photo, image, areas, values))
    return source


def _load(path: Path, photo: Path, image: dict, areas: list[dict], values: dict[int, int]) -> Pair:
    """The photo and its mask: smaller areas lie on larger ones, and crowds are void beneath all."""
    with as_written(path, FORM):
        size = image["height"], image["width"]
        mask, drawn = np.zeros(size, dtype=np.uint8), []
        for area in areas:
            inside, crowd = _inside(area["segmentation"], size), bool(area.get("iscrowd"))
            value = VOID if crowd else values[area["category_id"]]
            drawn.append((not crowd, -inside.sum(), value, inside))
        for _, _, value, inside in sorted(drawn, key=lambda one: one[:2]):
            mask[inside] = value
        return Pair(photo, mask)


def _inside(segmentation: list | dict, size: tuple[int, int]) -> np.ndarray:
    """The pixels of one annotation, (H, W) bool: polygons, runs or compressed runs."""
    if isinstance(segmentation, list):
        parts = [polygon(np.reshape(part, (-1, 2)), size) for part in segmentation]
        return np.any(parts, axis=0)
    if isinstance(segmentation["counts"], list):
        return runs(segmentation["counts"], size, order="F")
    from pycocotools.mask import decode

    return decode(segmentation).astype(bool)


def _is_compressed(annotation: dict) -> bool:
    segmentation = annotation["segmentation"]
    return isinstance(segmentation, dict) and isinstance(segmentation["counts"], str)


def _require_pycocotools(path: Path) -> None:
    try:
        import pycocotools.mask  # noqa: F401
    except ImportError:
        raise DataError(
            f"{path}: has compressed run lengths, which need a package: pip install pycocotools"
        ) from None
