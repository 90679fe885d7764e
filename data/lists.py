"""Check your own data, then divide it into lists: train.txt, val.txt and, if asked for, test.txt.

    python -m data.lists DIR --val 0.2
    python -m data.lists DIR --val 0.2 --test 0.1
    python -m data.lists DIR --val 0           # all train; one image is enough
    python -m data.lists DIR --group-by _      # walk_0001, walk_0002, .. stay together, as "walk"
    python -m data.lists DIR --add             # new images join the lists, the others stay

All photos and masks in DIR (VOC layout) are read first. If one cannot be used, nothing is written,
unless --skip-bad leaves it out. Then DIR/ImageSets/Segmentation gets the lists of their ids; each
class is in all lists as far as possible. A test.txt that is there stays, and its images out of the
others, unless --test makes it anew. Images without a labelled pixel stay out. Classes that are too
thin for the default --size of step 1 are named, with the size that they need.
"""

import argparse
import shlex
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from data import UserError, first_of
from data.classes import Classes, read_classes
from data.labels import check_labels, measure, sparse_note, thin_classes
from data.transforms import DEFAULT_SIZE
from data.voc_files import LISTS, find_ids, find_pair, read_ids, read_pairs, write_ids

GROUPS = "group-by"  # beside the lists: what --group-by was, for lists that stay
FEW = 5  # images; where fewer hold a class, chance decides its score


def make_lists(
    root: Path,
    val: float,
    test: float = 0.0,
    seed: int = 0,
    group_by: str | None = None,
    skip_bad: bool = False,
    force: bool = False,
    add: bool = False,
) -> dict[str, list[str]]:
    """Read all photos and masks, divide the ids that have both, write the lists and report.

    Args are the flags; `val` and `test` are shares between 0 and 1, and 0 makes no such list.

    Returns:
        The sorted ids of each list, by its name. Equal files and an equal seed give equal lists.

    Raises:
        UserError: there are too few files, bad ones (each is printed), or lists already; or the
            flags do not fit the files. The lists are then those of before.
    """
    if not (val >= 0 and test >= 0 and val + test < 1 and seed >= 0):
        raise UserError(
            f"--val {val}, --test {test}, --seed {seed}: no shares, or nothing is left to train "
            "on, or a seed below 0"
        )
    (known, notes), classes, place = find_ids(root), read_classes(root), root / LISTS
    for note in notes:
        print(f"  note: {note}")
    if group_by is not None and not (group_by and any(group_by in image_id for image_id in known)):
        raise UserError(f"--group-by {group_by!r}: no id holds it; the first id is {known[:1]}")
    listed, shares = _kept(root, known, {"val": val, "test": test}, force, add)
    if group_by is None and listed and (place / GROUPS).exists():
        # Else images would be divided that the lists which stay keep together.
        group_by = (place / GROUPS).read_text(encoding="utf-8")
        print(f"  note: --group-by {group_by!r} as before")
    ids, counts, outlines = measure_masks(root, known, classes, skip_bad)
    check_labels(counts.sum(0), f"{root}: the {len(ids)} images")
    if not add and "test" in listed:
        tested = {_group(image_id, group_by) for image_id in listed.pop("test")}
        is_left = np.array([_group(image_id, group_by) not in tested for image_id in ids])
        ids, counts, others = ids[is_left], counts[is_left], np.count_nonzero(~is_left)
        print(f"  note: test.txt stays as it is; its images and their groups ({others}) stay out")
    groups = [_group(image_id, group_by) for image_id in ids]
    if len({*groups}) <= len(shares):
        raise UserError(
            f"{root}: {len({*groups})} images or groups can be used, and {1 + len(shares)} are "
            f"the least, one for each list: {first_of(sorted({*groups}))}"
        )
    sizes = {name: round(share * len(ids)) for name, share in shares.items()}
    sizes = {"train": len(ids) - sum(sizes.values()), **sizes}
    row_of = {image_id: row for row, name in enumerate(sizes) for image_id in listed.get(name, ())}
    if gone := sorted({*row_of} - {*ids}):
        print(f"  note: no longer in the lists: {len(gone)} ({first_of(gone)})")
    fixed = [row_of.get(image_id, -1) for image_id in ids]
    places = divide(counts[:, :-1] > 0, groups, [*sizes.values()], seed, fixed)
    lists = {name: ids[places == row].tolist() for row, name in enumerate(sizes)}
    _write(root, lists, listed, group_by)
    report({name: counts[places == row] for row, name in enumerate(lists)}, classes, outlines)
    return lists


def _kept(
    root: Path, ids: Sequence[str], asked: Mapping[str, float], force: bool, add: bool
) -> tuple[dict[str, list[str]], dict[str, float]]:
    """The ids of the lists that stay, by name, and the shares of those to write beside train."""
    place, shares = root / LISTS, {name: share for name, share in asked.items() if share}
    there = [name for name in ("train", *asked) if (place / f"{name}.txt").exists()]
    stay = there if add else {"test"}.intersection(there).difference(shares)
    listed = {name: read_ids(root, name) for name in stay}
    if {*ids}.isdisjoint(listed.get("test", ())):  # of images without masks, as VOC's
        listed.pop("test", None)
    if add and {*ids}.isdisjoint(listed.get("train", ())):
        raise UserError(
            f"{place}/train.txt: lists no photo with a mask, and --add goes by it; an id is a "
            "file's name without suffix"
        )
    if add:
        images = sum(map(len, listed.values()))
        return listed, {name: len(listed[name]) / images for name in listed if name != "train"}
    if not force and (old := [name for name in there if name in ("train", "val", *shares)]):
        raise UserError(
            f"{place / old[0]}.txt: is there already; --add brings new images into the lists, "
            "--force replaces them, and with them what trains and what validates"
        )
    return listed, shares


def measure_masks(
    root: Path, ids: Sequence[str], classes: Classes, skip_bad: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Reads photos and masks; those that cannot be used are printed and, if asked for, left out.

    Returns:
        The ids (N,) of the images that can be used and have a label; (N, C + 1) int64, the
        pixels of each class and, last, of void in each mask; and what `thin_classes` takes.

    Raises:
        UserError: some cannot be used and are not to be left out.
    """
    pairs = [find_pair(root, image_id) for image_id in ids]
    results = read_pairs(pairs, classes, partial(measure, classes=len(classes)))
    found = dict(zip(ids, tqdm(results, "read", len(ids), disable=None, leave=False)))
    bad = [reason for reason in found.values() if isinstance(reason, str)]
    for reason in bad:
        print(f"  cannot be used: {reason}", flush=True)
    if bad and not skip_bad:
        raise UserError(
            f"{root}: {len(bad)} of {len(ids)} images cannot be used, and no list is "
            "written; mend them (python -m data.convert turns colours and other values into class "
            "numbers), or leave them out with --skip-bad"
        )
    good = {image_id: one for image_id, one in found.items() if not isinstance(one, str)}
    _compare_palettes(root, {image_id: pixels for image_id, (pixels, _) in good.items()}, classes)
    labelled = [image_id for image_id, (pixels, _) in good.items() if pixels[:-1].any()]
    if empty := [image_id for image_id in good if image_id not in labelled]:
        print(f"  note: left out {len(empty)} images without a labelled pixel: {first_of(empty)}")
    counts = np.reshape([good[image_id][0] for image_id in labelled], (-1, len(classes) + 1))
    return np.array(labelled), counts, np.sum([outlines for _, outlines in good.values()], axis=0)


def _compare_palettes(root: Path, counts: Mapping[str, np.ndarray], classes: Classes) -> None:
    """Notes classes that masks show in several colours: perhaps each has numbers of its own."""
    found: dict[int, dict[str, str]] = defaultdict(dict)  # of a class: colour -> an image
    for image_id, pixels in counts.items():
        with Image.open(find_pair(root, image_id)[1]) as mask:
            palette = np.reshape(mask.getpalette() or [], (-1, 3)).astype(int)
        if (palette != palette[:, :1]).any():  # not grey
            for label in np.flatnonzero(pixels[:-1][: len(palette)]):
                found[label].setdefault("{} {} {}".format(*palette[label]), image_id)
    for label, images in found.items():
        if len(images) > 1:
            colours = first_of([f"{colour} in {image_id}" for colour, image_id in images.items()])
            print(
                f"  note: palettes contradict each other: {label} ({classes.names[label]}) is "
                f"{colours}; if the colours are right, python -m data.convert goes by them"
            )


def _group(image_id: str, separator: str | None) -> str:
    """What is before the last separator of an id, or all of it without one."""
    return separator and image_id.rpartition(separator)[0] or image_id


def divide(
    holds: np.ndarray,
    groups: Sequence[str],
    sizes: Sequence[int],
    seed: int,
    fixed: Sequence[int] | int = -1,
) -> np.ndarray:
    """Choose a list for each image, so that each class is in all lists as far as possible.

    Iterative stratification (Sechidis et al., "On the Stratification of Multi-Label Data", 2011):
    the groups that hold the rarest remaining class go first, each to the list that lacks most
    images of it. Two rules are ours: a list without the class comes before one with it, so that two
    images of a class are in two lists; and a full list gets no more.

    Args:
        holds: (N, C) bool, whether an image has a pixel of a class.
        groups: of the N images; each goes to one list as a whole.
        sizes: images that each list should get, N together, but none stays empty. It gets fewer
            than the largest group more, so without groups of several images exactly these.
        seed: for the order of equal groups.
        fixed: (N,) int64, the list in which an image is already and stays, and with it its group
            from now on; -1 where there is none.

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

    def put(group: int, row: int) -> None:
        place[group] = row
        lack[row] -= images[group]
        has[row] |= images[group] > 0

    place = np.full(len(names), -1)
    np.maximum.at(place, group_of, fixed)
    for group in np.flatnonzero(place >= 0):
        put(group, place[group])
    while (place < 0).any():
        groups_left = np.count_nonzero(images[place < 0], axis=0)
        rarest = np.where(groups_left, groups_left, len(names) + 1).argmin()
        for group in order[(place[order] < 0) & (images[order, rarest] > 0)]:
            room, empty = lack[:, -1], np.flatnonzero(~has[:, -1])
            only_empty = len(empty) == np.count_nonzero(place < 0)  # a group is left for each
            candidates = empty if only_empty else np.flatnonzero(room > 0)
            keys = [(has[row, rarest], -lack[row, rarest], -room[row], row) for row in candidates]
            put(group, min(keys)[-1])
    return np.where(np.asarray(fixed) >= 0, fixed, place[group_of])


def _write(
    root: Path, lists: Mapping[str, list[str]], kept: Collection[str], group_by: str | None
) -> None:
    """Writes the lists and what they were grouped by; train and val go that are not `kept`."""
    place = root / LISTS
    # First, so that a crash never leaves a new list beside an old one. With --val 0, too, val.txt
    # goes: its images now train.
    for name in {"train", "val", *lists} - {*kept}:
        (place / f"{name}.txt").unlink(missing_ok=True)
    for name, members in lists.items():
        write_ids(root, name, members)
    (place / GROUPS).unlink(missing_ok=True)
    if group_by is not None:
        (place / GROUPS).write_text(group_by, encoding="utf-8", newline="")


def report(pixels: Mapping[str, np.ndarray], classes: Classes, outlines: np.ndarray) -> None:
    """Prints which share of the pixels of each list a class has, and how many images hold it.

    Notes what would make a score mean something else than the user thinks.

    Args:
        pixels: list -> (n, C + 1), the pixels of each class and, last, of void in its images.
        outlines: see `thin_classes`.
    """
    every = np.concatenate([*pixels.values()])
    notes = sparse_note(every.sum(0))
    for name, counts in pixels.items():
        if absent := [name for name, count in zip(classes.names, counts.sum(0)) if not count]:
            notes.append(f"no pixel of {first_of(absent)} in {name}")
    images = zip(classes.names, (every > 0).sum(0))
    if few := [f"{name} ({count})" for name, count in images if 0 < count < FEW]:
        notes.append(f"classes in fewer than {FEW} images, too few to score: {first_of(few)}")
    for note in [*notes, *thin_classes(outlines, classes.names, DEFAULT_SIZE)]:
        print(f"  note: {note}")
    width = max(map(len, [*classes.names, "void"]))
    print(" " * width + "".join(f"{split:>9} pixels  images" for split in pixels))
    for row, name in enumerate([*classes.names, "void"]):
        of_lists = ((one[:, row], one.sum()) for one in pixels.values())
        cells = (f"{own.sum() / total:16.2%}{np.count_nonzero(own):8}" for own, total in of_lists)
        print(f"{name:{width}}" + "".join(cells))


def main() -> None:
    how = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("python -m data.lists", None, __doc__, formatter_class=how)
    add = parser.add_argument
    add("root", type=Path, metavar="DIR", help="the folder of the data")
    add("--val", type=float, default=0.2, help="share that validates, 0: no val.txt (default: 0.2)")
    add("--test", type=float, default=0.0, help="share of a test list (default: no test.txt)")
    add("--seed", type=int, default=0, help="another seed divides differently (default: 0)")
    group = "images whose ids are equal up to the last TEXT stay in one list, as frames of a video"
    add("--group-by", metavar="TEXT", help=group)
    add("--skip-bad", action="store_true", help="leave out unusable images")
    add("--force", action="store_true", help="replace train.txt and val.txt")
    new = "place new images alone, in the balance of the lists that are there"
    add("--add", action="store_true", help=new)
    options = parser.parse_args()
    root, lists = options.root, make_lists(**vars(options))
    if not (root / "classes.txt").is_file():
        print(
            f"  note: no {root / 'classes.txt'} (a class name a line, background first): "
            "masks hold VOC's 21 classes"
        )
    sizes = ", ".join(f"{name}.txt {len(ids)}" for name, ids in lists.items())
    print(f"wrote {root / LISTS}: {sizes} images")
    data = shlex.quote(str(root))
    split = "" if "val" in lists else " --split train"
    print(f"look at the masks: python visualize.py --data {data} --truth{split}")
    print(f"next: python sample_features.py --data {data} --run runs/own")


if __name__ == "__main__":
    from models.run.runtime import run_script

    run_script(main)
