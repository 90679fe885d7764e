"""The masks of the Semantic Boundaries Dataset (SBD; Hariharan et al. 2011) as a split train_aug.

Its list is the one in general use: (SBD's train + SBD's val + VOC's train) - VOC's val. The images
of VOC's train keep VOC's own masks, with void around the objects; the others get SBD's, without.
"""

import io
import os
import shutil
import tarfile
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from data import DataError
from data.classes import VOC
from data.files import atomic_file
from data.images import image_size
from data.voc import MASK_FOLDERS, read_ids


def mat_reader() -> Callable:
    """SciPy's `loadmat`.

    Raises:
        DataError: SciPy is missing.
    """
    try:
        from scipy.io import loadmat
    except ImportError:
        raise DataError("--sbd reads Matlab files with SciPy: pip install scipy") from None
    return loadmat


def write_train_aug(archive: Path, root: Path, images: int) -> None:
    """Writes train_aug.txt and SegmentationClassAug, both or none, into a folder of VOC 2012.

    Args:
        archive: SBD's `benchmark.tgz`.
        root: the folder of VOC 2012.
        images: how many the list must have.

    Raises:
        DataError: it has another number; a mask is missing or has another size than its photo;
            SciPy is missing.
        OSError: a full disk, or no permission.
    """
    loadmat = mat_reader()
    lists = dict(_members(archive, ["dataset/train.txt", "dataset/val.txt"]))
    own = set(read_ids(root, "train"))
    ids = own.union(*(text.decode().split() for text in lists.values()))
    ids -= set(read_ids(root, "val"))
    if len(ids) != images:
        raise DataError(
            f"{root}: train_aug would have {len(ids)} images instead of {images}; "
            "are train.txt and val.txt in ImageSets/Segmentation those of VOC 2012?"
        )
    masks = root / MASK_FOLDERS["train_aug"]
    temporary = masks.with_name(f".{masks.name}.part")
    shutil.rmtree(temporary, ignore_errors=True)  # of a call that was killed
    try:
        temporary.mkdir()
        for image_id in own:
            shutil.copy(root / "SegmentationClass" / f"{image_id}.png", temporary)
        others = [f"cls/{image_id}.mat" for image_id in ids - own]
        for name, content in tqdm(
            _members(archive, others), "masks", len(others), disable=None, leave=False
        ):
            mask = loadmat(io.BytesIO(content), variable_names="GTcls")["GTcls"][0, 0]
            picture = Image.fromarray(mask["Segmentation"])  # (H, W) uint8 class ids
            photo = root / "JPEGImages" / f"{Path(name).stem}.jpg"
            height, width = image_size(photo, upright=True)
            if picture.size != (width, height):
                raise DataError(
                    f"{archive}: the mask {name} is {picture.width}x{picture.height} but its "
                    f"image {photo} is {width}x{height}"
                )
            picture.putpalette(VOC.palette())
            picture.save(temporary / f"{photo.stem}.png")
        with atomic_file(root / "ImageSets" / "Segmentation" / "train_aug.txt") as file:
            file.write("".join(f"{image_id}\n" for image_id in sorted(ids)).encode())
            file.flush()
            os.rename(temporary, masks)  # just before the list gets its name
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _members(archive: Path, wanted: Collection[str]) -> Iterator[tuple[str, bytes]]:
    """Name (its last two parts) and content of these members, in one pass, in their order there.

    Raises:
        DataError: one is missing.
    """
    missing = set(wanted)
    with tarfile.open(archive, "r|gz") as tar:  # a stream: going back would unpack it again
        for member in tar:
            name = "/".join(member.name.split("/")[-2:])
            if name in missing:
                yield name, tar.extractfile(member).read()
                missing.remove(name)
            if not missing:
                return
    raise DataError(f"{archive}: {len(missing)} members are missing, such as {min(missing)}")
