"""Check your own data, then divide it into lists: train.txt, val.txt and, if asked for, test.txt.

    python -m data.lists DIR --val 0.2
    python -m data.lists DIR --val 0.2 --test 0.1
    python -m data.lists DIR --group-by _      # walk_0001, walk_0002, .. stay together, as "walk"

DIR holds JPEGImages/ID.jpg (or .jpeg, .png) and SegmentationClass/ID.png. Those with equal names
are read first, and if one cannot be used, nothing is written, unless --skip-bad leaves it out. Then
DIR/ImageSets/Segmentation gets the lists of their ids; each class is in all lists as far as
possible. Equal files and an equal seed give equal lists.
"""

import argparse
import shlex
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from os.path import commonprefix
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from data import DataError
from data.classes import VOID, Classes, read_classes
from data.files import atomic_file
from data.images import SUFFIXES, first_of, read_image, read_mask
from data.voc import READERS, check_labels, check_sizes, find_pair, read_ids

FEW = 5  # images; where fewer hold a class, chance decides its score
SHOWN = 20  # bad images that are listed with their reasons


class Files(NamedTuple):
    """What lies in JPEGImages and SegmentationClass; all sorted."""

    ids: list[str]  # with a photo and a mask
    without_mask: list[str]  # ids of photos
    without_photo: list[str]  # ids of masks
    others: list[str]  # files that are neither, like "JPEGImages/notes.txt"


class Lists(NamedTuple):
    """What `make_lists` found and wrote."""

    ids: dict[str, list[str]]  # list (train, val, perhaps test) -> its ids, sorted
    pixels: dict[str, np.ndarray]  # list -> pixels of its images as in `read_pairs`
    classes: Classes
    groups: Counter[str]  # images of each group; empty without groups
    bad: dict[str, str]  # id -> reason, of the images that were left out
    files: Files


def make_lists(
    root: Path,
    val: float,
    test: float = 0.0,
    seed: int = 0,
    group_by: str | None = None,
    skip_bad: bool = False,
    force: bool = False,
) -> Lists:
    """Read all photos and masks, divide the ids that have both, and write the lists.

    Args:
        root: folder with JPEGImages and SegmentationClass.
        val: share of the images that validate, between 0 and 1; each list gets at least one.
        test: share of the images in test.txt; 0 means no such list.
        seed: another seed divides differently.
        group_by: images whose ids are equal up to the last `group_by` stay together.
        skip_bad: leave out images that cannot be used.
        force: replace existing lists.

    Raises:
        DataError: there are too few files, bad ones, or lists already; the flags do not fit the
            files; or the lists cannot be written. The lists are then those of before.
    """
    root = Path(root)
    shares = {"val": val, "test": test} if test else {"val": val}
    least = 1 + len(shares)  # images or groups, one for each list
    if sum(shares.values()) >= 1:
        raise DataError(f"--val {val} and --test {test} leave nothing to train on")
    files = find_files(root, least)
    _check_free(root, ["train", *shares], files.ids, force)  # before minutes of reading
    classes = read_classes(root)
    pixels, bad = read_pairs(root, files.ids, len(classes))
    if bad and not skip_bad:
        raise DataError(
            f"{root}: {len(bad)} of {len(files.ids)} images cannot be used, and no list is "
            "written; mend them (python -m data.convert turns colours and other values into class "
            f"numbers), or leave them out with --skip-bad:\n{_reasons(bad)}"
        )
    ids = [image_id for image_id in files.ids if image_id not in bad]
    if len(ids) < least:
        raise DataError(f"{root}: {len(ids)} images can be used; {least} are the least")
    labelled, void = pixels[:, :-1], pixels[:, -1]
    check_labels(labelled.sum(0), void.any(), f"{root}: the {len(ids)} images")
    groups = ids if group_by is None else _groups(ids, group_by, least)
    sizes = _sizes(len(ids), shares)
    places = divide(labelled > 0, groups, list(sizes.values()), seed)
    members = {name: np.flatnonzero(places == place) for place, name in enumerate(sizes)}
    lists = Lists(
        ids={name: [ids[index] for index in indices] for name, indices in members.items()},
        pixels={name: pixels[indices] for name, indices in members.items()},
        classes=classes,
        groups=Counter() if group_by is None else Counter(groups),
        bad=bad,
        files=files,
    )
    _write(root, lists.ids)
    return lists


def find_files(root: Path, least: int) -> Files:
    """What lies in the two folders, but for hidden files.

    Raises:
        DataError: a folder is missing, fewer than `least` ids have a photo and a mask, or the name
            of one cannot stand in a list.
    """
    photos, no_photos = _by_stem(root / "JPEGImages", SUFFIXES)
    masks, no_masks = _by_stem(root / "SegmentationClass", (".png",))
    files = Files(
        ids=sorted(photos.keys() & masks.keys()),
        without_mask=sorted(photos.keys() - masks.keys()),
        without_photo=sorted(masks.keys() - photos.keys()),
        others=sorted(no_photos + no_masks),
    )
    if len(files.ids) < least:
        alone = [photos[image_id] for image_id in files.without_mask[:1]]
        alone += [masks[image_id] for image_id in files.without_photo[:1]]
        alone += sorted(no_photos)[:1] + sorted(no_masks)[:1]
        raise DataError(
            f"{root}: {len(files.ids)} of {len(photos)} photos in JPEGImages have a mask of the "
            "same name in SegmentationClass (ID.jpg and ID.png), "
            f"{least} are the least; there are {', '.join(alone) or 'no others'}; "
            + _what_joins(root, files, least)
        )
    for image_id in files.ids:
        if not _can_be_listed(image_id):
            raise DataError(
                f"{root}: the name {image_id!r} cannot stand in a list; "
                "no blanks at its ends, backslash or line end"
            )
    return files


def _by_stem(folder: Path, suffixes: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """The files with one of these suffixes, by their stems, and the others, like "FOLDER/NAME"."""
    try:
        paths = [path for path in folder.iterdir() if path.is_file() and path.name[0] != "."]
    except OSError as error:
        raise DataError(
            f"{folder}: {error.strerror}; "
            "data.lists wants photos in JPEGImages and masks in SegmentationClass"
        ) from None
    wanted = {path.stem: f"{folder.name}/{path.name}" for path in paths if path.suffix in suffixes}
    return wanted, [f"{folder.name}/{path.name}" for path in paths if path.suffix not in suffixes]


def _what_joins(root: Path, files: Files, least: int) -> str:
    """What gives photos and masks equal names: a command, if their names differ by an ending.

    The endings are those of the first photo and of the mask whose name has most in common with it.
    """
    photos, masks = files.without_mask, files.without_photo
    if photos and masks:
        photo = photos[0]
        mask = max(masks, key=lambda name: (len(commonprefix([photo, name])), -len(name)))
        start = commonprefix([photo, mask])
        if start not in (photo, mask):  # both have an ending, which then begins with a separator
            start = start[: max(0, *map(start.rfind, "_-. "))]
        ends = photo[len(start) :], mask[len(start) :]
        joined = {name.removesuffix(ends[0]) for name in photos if name.endswith(ends[0])}
        joined &= {name.removesuffix(ends[1]) for name in masks if name.endswith(ends[1])}
        if start and len(joined) >= least:
            flags = [f"--{kind}-suffix={end}" for kind, end in zip(("image", "mask"), ends) if end]
            command = shlex.join(["python", "-m", "data.convert", str(root), "OUT", *flags])
            return f"this joins {len(joined)}: {command}"
    return "give each mask the name of its photo"


def _can_be_listed(image_id: str) -> bool:
    """Whether a line of a UTF-8 file that holds this id is read back as this id."""
    try:
        image_id.encode()  # fails for a file name that is no text
    except UnicodeEncodeError:
        return False
    return image_id.strip() == image_id and image_id.isprintable() and "\\" not in image_id


def read_pairs(root: Path, ids: Sequence[str], classes: int) -> tuple[np.ndarray, dict[str, str]]:
    """Reads photos and masks, and counts the pixels of the masks at their original size.

    Returns:
        (n, classes + 1) int64, the pixels of each class and, last, of void in each of the n images
        that can be used; and id -> reason of the others.
    """

    def counts_or_reason(image_id: str) -> np.ndarray | str:
        photo, mask = find_pair(root, image_id)
        try:
            check_sizes(photo, mask)
            read_image(photo)
            counts = np.bincount(read_mask(mask, classes).ravel(), minlength=VOID + 1)
        except DataError as error:
            return str(error)
        return counts[[*range(classes), VOID]]

    counts, bad = [np.empty((0, classes + 1), dtype=np.int64)], {}
    with ThreadPoolExecutor(READERS) as pool:
        results = pool.map(counts_or_reason, ids)
        bar = tqdm(results, "read", len(ids), unit="image", disable=None, leave=False)
        for image_id, result in zip(ids, bar):
            if isinstance(result, str):
                bad[image_id] = result
            else:
                counts.append(result[None])
    return np.concatenate(counts), bad


def _groups(ids: Sequence[str], separator: str, least: int) -> list[str]:
    """The group of each id: what is before the last separator, or all of it without one.

    Raises:
        DataError: no id has a separator, or there are fewer than `least` groups.
    """
    if not separator or not any(separator in image_id for image_id in ids):
        raise DataError(f"--group-by {separator!r}: no id holds it; the first id is {ids[0]!r}")
    groups = [image_id.rpartition(separator)[0] or image_id for image_id in ids]
    if len(set(groups)) < least:
        raise DataError(
            f"--group-by {separator!r}: the groups are {first_of(sorted(set(groups)))}; "
            f"{least} are the least, one for each list"
        )
    return groups


def _sizes(images: int, shares: dict[str, float]) -> dict[str, int]:
    """Images of train, which gets the rest, and of the other lists; each gets at least one."""
    sizes = {name: max(1, round(share * images)) for name, share in shares.items()}
    while sum(sizes.values()) >= images:
        sizes[max(sizes, key=sizes.get)] -= 1
    return {"train": images - sum(sizes.values()), **sizes}


def divide(holds: np.ndarray, groups: Sequence[str], sizes: Sequence[int], seed: int) -> np.ndarray:
    """Choose a list for each image, so that each class is in all lists as far as possible.

    Iterative stratification (Sechidis, Tsoumakas and Vlahavas, "On the Stratification of
    Multi-Label Data", 2011): the groups that hold the rarest remaining class go first, each to the
    list that lacks most images of it. Two rules are ours: a list without the class comes before
    one with it, so that two images of a class are in two lists; and a full list gets no more.

    Args:
        holds: (N, C) bool, whether an image has a pixel of a class.
        groups: of the N images; each goes to one list as a whole.
        sizes: images that each list should get, at least one and N together. It gets fewer than
            the largest group more, so without groups of several images exactly these.
        seed: for the order of equal groups.

    Returns:
        (N,) int64, the index of the list. No list is empty if there are as many groups.
    """
    names, group_of = np.unique(groups, return_inverse=True)
    # The last column counts all images, as if of a class that each of them holds.
    images = np.zeros((len(names), holds.shape[1] + 1), dtype=np.int64)
    np.add.at(images, group_of, np.insert(holds, holds.shape[1], True, axis=1))
    lack = np.outer(sizes, images.sum(0)) / len(groups)
    has = np.zeros(lack.shape, dtype=bool)
    order = np.random.default_rng(seed).permutation(len(names))
    order = order[np.argsort(-images[order, -1], kind="stable")]  # small groups level the sizes
    place = np.full(len(names), -1)
    while (place < 0).any():
        groups_left = np.count_nonzero(images[place < 0], axis=0)
        rarest = np.where(groups_left, groups_left, len(names) + 1).argmin()
        for group in order[(place[order] < 0) & (images[order, rarest] > 0)]:
            room, empty = lack[:, -1], np.flatnonzero(~has[:, -1])
            only_empty = len(empty) == np.count_nonzero(place < 0)  # a group is left for each
            candidates = empty if only_empty else np.flatnonzero(room > 0)
            keys = [(has[row, rarest], -lack[row, rarest], -room[row], row) for row in candidates]
            place[group] = row = min(keys)[-1]
            lack[row] -= images[group]
            has[row] |= images[group] > 0
    return place[group_of]


def _check_free(root: Path, names: Sequence[str], ids: Sequence[str], force: bool) -> None:
    """Raises a DataError if writing these lists would replace one, or contradict test.txt."""
    folder = root / "ImageSets" / "Segmentation"
    for path in (folder / f"{name}.txt" for name in names):
        if path.exists() and not force:
            raise DataError(
                f"{path}: is there already; "
                "--force replaces it, and with it what trains and what validates"
            )
    old_test = folder / "test.txt"
    if "test" not in names and old_test.exists() and set(ids).intersection(read_ids(root, "test")):
        raise DataError(
            f"{old_test}: lists images that would now train or validate; "
            "remove it, or make it anew with --test"
        )


def _write(root: Path, ids: dict[str, list[str]]) -> None:
    """Write the lists, an id a line. A crash never leaves a new list beside an old one."""
    folder = root / "ImageSets" / "Segmentation"
    paths = {folder / f"{name}.txt": members for name, members in ids.items()}
    first, *others = paths
    try:
        with ExitStack() as stack:
            # The file opened last gets its name first; by then the other old lists are gone.
            for path in (*others, first):
                file = stack.enter_context(atomic_file(path))
                file.write("".join(f"{image_id}\n" for image_id in paths[path]).encode())
            for path in others:
                path.unlink(missing_ok=True)
    except OSError as error:
        place = error.filename or folder
        raise DataError(f"{place}: cannot be written ({error.strerror or error})") from None


def _reasons(bad: dict[str, str]) -> str:
    """The reasons, a line each, but no more than `SHOWN`."""
    lines = [f"    {reason}" for reason in list(bad.values())[:SHOWN]]
    if len(bad) > SHOWN:
        lines.append(f"    and {len(bad) - SHOWN} more")
    return "\n".join(lines)


def notes(lists: Lists) -> Iterable[str]:
    """What a user should know about the lists before a training."""
    files = lists.files
    for what, names in (
        ("photos without a mask", files.without_mask),
        ("masks without a photo", files.without_photo),
        ("files that are neither photo nor mask", files.others),
    ):
        if names:
            yield f"left out {len(names)} {what}: {first_of(names)}"
    if lists.bad:
        yield f"left out {len(lists.bad)} images that cannot be used:\n{_reasons(lists.bad)}"
    if lists.groups:
        sizes = [f"{group} ({images})" for group, images in lists.groups.most_common()]
        yield f"{len(sizes)} groups (images of each) stay whole: {first_of(sizes)}"
    images = {split: (pixels[:, :-1] > 0).sum(0) for split, pixels in lists.pixels.items()}
    totals = dict(zip(lists.classes.names, sum(images.values()).tolist()))
    if absent := [name for name, total in totals.items() if not total]:
        yield f"no pixel of {first_of(absent)} in any list"
    for split, counts in images.items():
        found = zip(totals.items(), counts)
        if absent := [name for (name, total), count in found if total and not count]:
            yield f"no pixel of {first_of(absent)} in {split}"
    if few := [f"{name} ({total})" for name, total in totals.items() if 0 < total < FEW]:
        yield f"classes in fewer than {FEW} images, too few to score: {first_of(few)}"
    unlabelled = [
        image_id
        for split, pixels in lists.pixels.items()
        for image_id, counts in zip(lists.ids[split], pixels)
        if counts[0] and counts[-1] and not counts[1:-1].any()
    ]
    if unlabelled:
        yield (
            f"{len(unlabelled)} masks hold only 0 and {VOID}, which is void: "
            f"{first_of(sorted(unlabelled))}"
        )


def table(lists: Lists) -> str:
    """For each class and void its share of the pixels of each list, and the images that hold it."""
    names = [*lists.classes.names, "void"]
    width = max(map(len, names))
    lines = [" " * width, *(f"{name:{width}}" for name in names)]
    for split, pixels in lists.pixels.items():
        lines[0] += f"{split:>9} pixels  images"
        shares, images = pixels.sum(0) / pixels.sum(), (pixels > 0).sum(0)
        for row, (share, count) in enumerate(zip(shares, images), start=1):
            lines[row] += f"{100 * share:14.2f} %{count:8}"
    return "\n".join(lines)


def share(text: str) -> float:
    """Type of an argparse flag: a number between 0 and 1."""
    value = float(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a share between 0 and 1, like 0.2")
    return value


def natural(text: str) -> int:
    """Type of an argparse flag: a whole number of at least 0."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 0")
    return int(text)


def main() -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        "python -m data.lists",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("root", type=Path, metavar="DIR", help="the folder of the data")
    parser.add_argument(
        "--val", type=share, default=0.2, help="share of the images that validate (default: 0.2)"
    )
    parser.add_argument(
        "--test", type=share, default=0.0, help="share of a test list (default: no test.txt)"
    )
    parser.add_argument(
        "--seed", type=natural, default=0, help="another seed divides differently (default: 0)"
    )
    parser.add_argument(
        "--group-by",
        metavar="TEXT",
        help="images whose ids are equal up to the last TEXT stay in one list, such as the frames "
        "of a video (default: each image by itself)",
    )
    parser.add_argument("--skip-bad", action="store_true", help="leave out unusable images")
    parser.add_argument("--force", action="store_true", help="replace existing lists")
    options = parser.parse_args()
    root = options.root
    try:
        lists = make_lists(**vars(options))
    except DataError as error:
        print(f"data.lists: {error}", file=sys.stderr)
        return error.exit_code
    for note in notes(lists):
        print(f"  note: {note}")
    if not (root / "classes.txt").is_file():
        print(
            f"  note: no {root / 'classes.txt'} (a class name a line, background first): "
            "masks hold VOC's 21 classes"
        )
    print(table(lists))
    sizes = ", ".join(f"{name}.txt {len(ids)}" for name, ids in lists.ids.items())
    print(f"wrote {root / 'ImageSets' / 'Segmentation'}: {sizes} images")
    look = ["python", "visualize.py", "--data", str(root), "--truth"]
    print(f"look at the masks: {shlex.join(look)}")
    command = ["python", "sample_features.py", "--data", str(root), "--run", "runs/own"]
    print(f"next: {shlex.join(command)}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
