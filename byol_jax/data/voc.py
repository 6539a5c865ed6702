"""PASCAL VOC's labeled pixels, and those that SBD adds, in the folders that are downloaded.

VOC: ``VOCdevkit/VOC2012`` of VOCtrainval_11-May-2012.tar. SBD (Hariharan et al. 2011):
``benchmark_RELEASE/dataset`` of benchmark.tgz. Both lie in one folder, ``data.dir``.
"""

import functools
import pathlib

from byol_jax import config as config_lib
from byol_jax.data import datasets, pixel_targets

UsageError = config_lib.UsageError

CLASSES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat"),
    *("chair", "cow", "diningtable", "dog", "horse", "motorbike", "person", "pottedplant"),
    *("sheep", "sofa", "train", "tvmonitor"),
)
AUGMENTED = "train_aug"  # VOC's train and all of SBD, without VOC's val: 10,582 images in 2012
_SBD = ("benchmark_RELEASE/dataset", "SBD", "dataset")


def load(data_dir: str, split: str, *, year: int = 2012) -> datasets.RecordDataset:
    """Opens a split: ``train``, ``val``, ``trainval`` of VOC, or `AUGMENTED`.

    Masks of `AUGMENTED` are VOC's own where there are such, with ignored borders; else SBD's.

    Args:
      data_dir: holds VOCdevkit, or is the folder of a year; for `AUGMENTED` also SBD.
      split: its name.
      year: of VOC.

    Raises:
      UsageError: a folder or list is missing; says what to download.
    """
    voc = find_year(data_dir, year)
    read = functools.partial(pixel_targets.read_labels, num_classes=len(CLASSES))
    if split == AUGMENTED:
        names, images, targets = _augmented(voc, _find_sbd(data_dir))
    else:
        names = read_names(voc / "ImageSets" / "Segmentation", split)
        images = [voc / "JPEGImages" / f"{name}.jpg" for name in names]
        targets = [voc / "SegmentationClass" / f"{name}.png" for name in names]
    records = pixel_targets.PairedFiles(images, targets, names, read)
    about = f"{split} of {voc}: {len(names):,} images with masks."
    fingerprint = pixel_targets.fingerprint(names)
    return datasets.RecordDataset(records, len(names), len(CLASSES), fingerprint, about=about)


def _augmented(
    voc: pathlib.Path, sbd: pathlib.Path
) -> tuple[list[str], list[pathlib.Path], list[pathlib.Path]]:
    """Names, images and masks of all training images, none of which is of VOC's val."""
    own, val = (read_names(voc / "ImageSets" / "Segmentation", s) for s in ("train", "val"))
    more = {*read_names(sbd, "train"), *read_names(sbd, "val")}
    names = sorted((more | set(own)) - set(val))
    own = set(own)
    images, targets = [], []
    for name in names:
        is_ours = (voc / "JPEGImages" / f"{name}.jpg").exists()
        images.append((voc / "JPEGImages" if is_ours else sbd / "img") / f"{name}.jpg")
        mask = voc / "SegmentationClass" / f"{name}.png"
        targets.append(mask if name in own else sbd / "cls" / f"{name}.mat")
    return names, images, targets


def find_year(data_dir: str, year: int) -> pathlib.Path:
    """The folder of a year of VOC.

    Raises:
      UsageError: there is none; says where it is looked for.
    """
    top = _top(data_dir)
    for folder in (top / "VOCdevkit" / f"VOC{year}", top / f"VOC{year}", top):
        if (folder / "ImageSets").is_dir() and (folder / "JPEGImages").is_dir():
            return folder
    raise UsageError(
        f"{top} holds no VOCdevkit/VOC{year} with ImageSets and JPEGImages: unpack VOC{year} there "
        "(docs/dense.md says how to get it), or give its folder by --config.data.dir."
    )


def has_sbd(data_dir: str) -> bool:
    """Whether SBD lies in a folder."""
    return any((_top(data_dir) / name / "cls").is_dir() for name in _SBD)


def _find_sbd(data_dir: str) -> pathlib.Path:
    top = _top(data_dir)
    for folder in (top / name for name in _SBD):
        if (folder / "cls").is_dir():
            return folder
    raise UsageError(
        f"{top} holds no {_SBD[0]} with cls, which the split {AUGMENTED} needs: unpack SBD's "
        "benchmark.tgz there (docs/dense.md), or add --config.data.train_split=train."
    )


def _top(data_dir: str) -> pathlib.Path:
    if not data_dir:
        raise UsageError("Say where VOC is by --config.data.dir=FOLDER, which holds VOCdevkit.")
    return pathlib.Path(data_dir).expanduser()


def read_names(folder: pathlib.Path, split: str) -> list[str]:
    """The names in ``<split>.txt``, one a line.

    Raises:
      UsageError: no such list, an empty one, or one of paths.
    """
    path = folder / f"{split}.txt"
    try:
        names = path.read_text("utf-8").split()
    except (OSError, ValueError) as error:
        lists = sorted(found.stem for found in folder.glob("*.txt") if "_" not in found.stem)
        raise UsageError(
            f"Cannot read {path}: {error}. Splits there: {', '.join(lists) or 'none'}."
        ) from None
    if not names or any("/" in name or "\\" in name for name in names):
        raise UsageError(f"{path} is no list of image names, one a line.")
    return names
