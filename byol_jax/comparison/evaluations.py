"""The paper's evaluations: the command of each, where its data is, and what of it is compared."""

import pathlib
from collections.abc import Callable, Mapping
from typing import NamedTuple

from byol_jax.comparison import paper_numbers
from byol_jax.data import transfer_datasets
from byol_jax.export import torch_export

Flags = Mapping[str, str]
RESNET50 = ("resnet50", 1)


class Measure(NamedTuple):
    """A number of a result that the paper has, too.

    Attributes:
      section: of ``result.json``: accuracy, in fractions, or errors.
      name: in the section.
      title: in words.
      numbers: the paper's, by encoder and width.
    """

    section: str
    name: str
    title: str
    numbers: Mapping[tuple[str, int], float]


class Evaluation(NamedTuple):
    """One command.

    Attributes:
      name: of its folder.
      config: file and preset.
      keys: which of the config's ``options`` are for it.
      find: the folder with all sets -> flags that say where its data is; None: it is not there.
      get: what to do for its data, in words.
      measures: what is compared.
    """

    name: str
    config: str
    keys: str
    find: Callable[[pathlib.Path], Flags | None]
    get: str
    measures: tuple[Measure, ...]


def _one(section: str, name: str, title: str, number: float) -> Measure:
    return Measure(section, name, title, {RESNET50: number})


def _imagenet(top: pathlib.Path) -> Flags | None:
    if (top / "imagenet2012").is_dir():
        splits = {"data.train_split": "train", "data.eval_split": "validation"}
        return {"data.name": "imagenet2012", "data.dir": str(top), **splits}
    if (top / "imagenet").is_dir():
        splits = {"data.train_split": "train", "data.eval_split": "validation"}
        return {"data.name": "folder", "data.dir": str(top / "imagenet"), **splits}
    return None


def _find_transfer(name: str) -> Callable[[pathlib.Path], Flags | None]:
    chosen = transfer_datasets.SETS[name]
    if chosen.name == transfer_datasets.FOLDER:
        place = name

        def flags(top: pathlib.Path) -> Flags:
            return {"data.dir": str(top / place)}
    else:
        place = chosen.name.removeprefix("tfds:")

        def flags(top: pathlib.Path) -> Flags:
            return {"data.dir": str(top)}

    return lambda top: flags(top) if (top / place).is_dir() else None


def _find_voc(year: int) -> Callable[[pathlib.Path], Flags | None]:
    below = f"VOCdevkit/VOC{year}"
    return lambda top: {"data.dir": str(top)} if (top / below).is_dir() else None


def _find_detection(top: pathlib.Path) -> Flags | None:
    return _find_voc(2007)(top) if torch_export.has("torch", "torchvision") else None


def _find_depth(top: pathlib.Path) -> Flags | None:
    if not torch_export.has("h5py"):
        return None
    if (top / "nyudepthv2").is_dir():
        return {"data.name": "nyu_h5", "data.dir": str(top)}
    places = [folder / "nyu_depth_v2_labeled.mat" for folder in (top, top / "nyu")]
    return {"data.dir": str(top)} if any(place.is_file() for place in places) else None


_DENSE = "docs/dense.md says how to get it"


def _transfer(name: str) -> Evaluation:
    is_folder = transfer_datasets.SETS[name].name == transfer_datasets.FOLDER
    place = name if is_folder else transfer_datasets.SETS[name].name.removeprefix("tfds:")
    how = "arranged as train/CLASS/... and test/CLASS/..." if is_folder else "prepared by TFDS"
    title = {"top1": "top-1", "mean_per_class": "mean per class", "map11": "11-point mAP"}
    metric = transfer_datasets.SETS[name].metric
    measure = _one("accuracy", metric, title[metric], paper_numbers.TRANSFER[name])
    return Evaluation(
        f"transfer_{name}", f"configs/transfer.py:{name}", "transfer", _find_transfer(name),
        f"put {place}, {how}, into data.dir (docs/evaluation.md)", (measure,),
    )  # fmt: skip


def _few_labels(preset: str, words: str) -> Evaluation:
    measure = Measure("accuracy", "top1", f"top-1, {words}", paper_numbers.FEW_LABELS[preset])
    return Evaluation(
        f"semi_supervised_{preset}", f"configs/semi_supervised.py:{preset}", "semi_supervised",
        _imagenet, _IMAGENET, (measure,),
    )  # fmt: skip


_IMAGENET = (
    "put imagenet2012, prepared by TFDS, or imagenet/train/CLASS/... and imagenet/val/CLASS/... "
    "into data.dir (docs/your_images.md)"
)
_DEPTHS = (
    ("accuracy", "delta1", "within 1.25, %"),
    ("accuracy", "delta2", "within 1.25^2, %"),
    ("accuracy", "delta3", "within 1.25^3, %"),
    ("errors", "rms", "rms, m"),
    ("errors", "rel", "rel"),
)

EVALUATIONS: tuple[Evaluation, ...] = (
    Evaluation(
        "linear", "configs/linear_eval.py", "linear", _imagenet, _IMAGENET,
        (Measure("accuracy", "top1", "top-1", paper_numbers.LINEAR),),
    ),
    _few_labels("1percent", "1 % of the labels"),
    _few_labels("10percent", "10 % of the labels"),
    *map(_transfer, paper_numbers.TRANSFER),
    Evaluation(
        "segmentation", "configs/segmentation.py", "segmentation", _find_voc(2012),
        f"put VOCdevkit/VOC2012 and SBD's benchmark_RELEASE into data.dir: {_DENSE}",
        (_one("accuracy", "miou", "mIoU", paper_numbers.SEGMENTATION),),
    ),
    Evaluation(
        "detection", "configs/detection.py", "detection", _find_detection,
        "put VOCdevkit/VOC2007 with its test images into data.dir, and pip install "
        f"'byol_jax[detection]': {_DENSE}",
        (_one("accuracy", "AP50", "AP50", paper_numbers.DETECTION),),
    ),
    Evaluation(
        "depth", "configs/depth.py", "depth", _find_depth,
        "put nyudepthv2, or nyu_depth_v2_labeled.mat and splits.mat, into data.dir, and pip "
        f"install 'byol_jax[dense]': {_DENSE}",
        tuple(_one(section, name, title, paper_numbers.DEPTH[name])
              for section, name, title in _DEPTHS),
    ),
)  # fmt: skip
