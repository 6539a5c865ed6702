"""NYU Depth V2 as it is downloaded: the labeled set in one .mat, and the files that TFDS reads.

The labeled set: ``nyu_depth_v2_labeled.mat`` (MATLAB 7.3, that is HDF5) and ``splits.mat``. TFDS's
and the Hub's: ``nyudepthv2/train/SCENE/*.h5`` and ``nyudepthv2/val/official/*.h5``.
"""

import importlib
import pathlib
import threading
from typing import Any

import numpy as np
import scipy.io

from byol_jax import config as config_lib
from byol_jax.data import datasets, image_formats, pillow_images, pixel_targets

UsageError = config_lib.UsageError
BadImageError = image_formats.BadImageError

LABELED, SPLITS = "nyu_depth_v2_labeled.mat", "splits.mat"
_INDICES = {"train": "trainNdxs", "test": "testNdxs"}
_FOLDERS = {"train": "nyudepthv2/train", "val": "nyudepthv2/val/official"}


def load_labeled(data_dir: str, split: str) -> datasets.RecordDataset:
    """The labeled set: ``train`` (795 images) or ``test`` (654), with depth filled in.

    Raises:
      UsageError: h5py or a file is missing, or a file is of another kind.
    """
    folder = _find(data_dir, LABELED)
    config_lib.lookup(_INDICES, split, key="data split")
    file = _open_labeled(folder / LABELED)
    numbers = _read_split(folder / SPLITS, split, count=file["images"].shape[0])
    records = _Labeled(file, folder / LABELED, numbers)
    about = f"{split} of {folder / LABELED}: {len(numbers):,} images."
    return datasets.RecordDataset(records, len(numbers), 0, f"{split} {numbers.sum()}", about=about)


def load_files(data_dir: str, split: str) -> datasets.RecordDataset:
    """The files of TFDS and the Hub: ``train`` (47,584 images) or ``val`` (654).

    Raises:
      UsageError: h5py or the folder is missing.
    """
    _h5py()
    below = config_lib.lookup(_FOLDERS, split, key="data split")
    top = pathlib.Path(data_dir or ".").expanduser() / below
    paths = sorted(top.rglob("*.h5"))
    if not paths:
        raise UsageError(f"{top} holds no .h5: give the folder that holds nyudepthv2.")
    names = [path.relative_to(top).as_posix() for path in paths]
    about = f"{split} of {top}: {len(paths):,} images."
    records, fingerprint = _Files(paths, names), pixel_targets.fingerprint(names)
    return datasets.RecordDataset(records, len(paths), 0, fingerprint, about=about)


class _Records:
    """What both kinds have in common; images are handed on as PNGs."""

    def read(self, index: int) -> tuple[bytes, int]:
        """The image as a PNG, and -1."""
        return pillow_images.encode_png(self._pixels(index)), -1

    def _pixels(self, index: int) -> np.ndarray:
        raise NotImplementedError

    def label(self, index: int) -> int:
        """-1."""
        return -1

    def file_name(self, index: int) -> str:
        """As `name`."""
        return self.name(index)

    def name(self, index: int) -> str:
        """What to call the image in a message."""
        raise NotImplementedError


class _Labeled(_Records):
    """Some images of the labeled set; MATLAB stores arrays from the last axis to the first."""

    def __init__(self, file: Any, path: pathlib.Path, numbers: np.ndarray):
        self._file, self._path, self._numbers = file, path, numbers
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._numbers)

    def _get(self, key: str, index: int) -> np.ndarray:
        number = int(self._numbers[index])
        try:
            with self._lock:
                return self._file[key][number]
        except OSError as error:
            raise BadImageError(f"{key} cannot be read: {error}") from None

    def _pixels(self, index: int) -> np.ndarray:
        return np.ascontiguousarray(self._get("images", index).transpose(2, 1, 0))

    def target(self, index: int) -> np.ndarray:
        """Depth [H, W] in meters."""
        return pixel_targets.require_depth(self._get("depths", index).T)

    def name(self, index: int) -> str:
        """The file, and the number in it, from 1."""
        return f"{self._path}, image {self._numbers[index] + 1}"


class _Files(_Records):
    """A file an image: ``rgb`` [3, H, W] and ``depth`` [H, W]."""

    def __init__(self, paths: list[pathlib.Path], names: list[str]):
        self._paths, self._names = paths, names

    def __len__(self) -> int:
        return len(self._paths)

    def _get(self, key: str, index: int) -> np.ndarray:
        try:
            with _h5py().File(self._paths[index], "r") as file:
                return file[key][()]
        except (OSError, KeyError) as error:
            raise BadImageError(f"no HDF5 file with rgb and depth: {error}") from None

    def _pixels(self, index: int) -> np.ndarray:
        return np.ascontiguousarray(self._get("rgb", index).transpose(1, 2, 0))

    def target(self, index: int) -> np.ndarray:
        """Depth [H, W] in meters."""
        return pixel_targets.require_depth(self._get("depth", index))

    def name(self, index: int) -> str:
        """The path of a file."""
        return str(self._paths[index])

    def file_name(self, index: int) -> str:
        """The path below the folder of the split."""
        return self._names[index]


def _h5py() -> Any:
    try:
        return importlib.import_module("h5py")
    except ImportError:
        raise UsageError(
            "NYU Depth V2 is stored as HDF5: pip install h5py (or 'byol_jax[dense]')."
        ) from None


def _find(data_dir: str, name: str) -> pathlib.Path:
    top = pathlib.Path(data_dir or ".").expanduser()
    for folder in (top, top / "nyu"):
        if (folder / name).is_file():
            return folder
    raise UsageError(
        f"{top} holds no {name}: give its folder by --config.data.dir (docs/dense.md says how to "
        "get it)."
    )


def _open_labeled(path: pathlib.Path) -> Any:
    h5py = _h5py()
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        with path.open("rb") as start:
            kind = start.read(19).decode("latin-1")
        found = "a MATLAB 5 file" if kind.startswith("MATLAB 5") else f"no HDF5 ({error})"
        raise UsageError(
            f"{path} is {found}, where the labeled set is one of MATLAB 7.3: download it again."
        ) from None
    shapes = {key: getattr(file.get(key), "shape", None) for key in ("images", "depths")}
    images, depths = shapes["images"], shapes["depths"]
    if not images or not depths or images[:1] + images[2:] != depths or images[1] != 3:
        raise UsageError(
            f"{path} has images {images} and depths {depths}, where [N, 3, W, H] and [N, W, H] "
            "belong: it is not NYU's labeled set."
        )
    return file


def _read_split(path: pathlib.Path, split: str, *, count: int) -> np.ndarray:
    """Images of a split, from 0."""
    if not path.is_file():
        raise UsageError(
            f"{path} is missing, which says which images are for testing: docs/dense.md says where "
            "to get it."
        )
    try:
        found = scipy.io.loadmat(path, variable_names=[_INDICES[split]])[_INDICES[split]]
        numbers = np.asarray(found, np.int64).ravel() - 1
    except Exception as error:  # of a file that may hold anything
        raise UsageError(f"{path} is no {SPLITS} of NYU Depth V2: {error}") from None
    if not numbers.size or numbers.min() < 0 or numbers.max() >= count:
        raise UsageError(f"{path} names images that are not among the {count:,} of {LABELED}.")
    return np.sort(numbers)
