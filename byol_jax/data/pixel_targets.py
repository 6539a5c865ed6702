"""What is known of every pixel of an image: labels and depth, in files beside it.

Shapes: H x W pixels, as the image.
"""

import hashlib
import io
import pathlib
from collections.abc import Callable, Sequence

import numpy as np
import scipy.io

from byol_jax.data import image_files, image_formats, pillow_images
from byol_jax.data.image_decoding import MAX_PIXELS

BadImageError = image_formats.BadImageError

IGNORED = 255  # of labels: neither learned from nor counted
_LABEL_MODES = ("P", "L", "1", "I;16", "I")
_METERS = 1e-3  # of a number of a depth map


class PairedFiles:
    """Images in files, each with a file of what is to be predicted of its pixels.

    Args:
      images: their paths.
      targets: likewise.
      read_target: from a path to an array [H, W].
      names: of the images, shorter than their paths.
    """

    def __init__(
        self,
        images: Sequence[pathlib.Path],
        targets: Sequence[pathlib.Path],
        names: Sequence[str],
        read_target: Callable[[pathlib.Path], np.ndarray],
    ):
        self._images, self._targets, self._names = images, targets, names
        self._read_target = read_target

    def __len__(self) -> int:
        return len(self._images)

    def read(self, index: int) -> tuple[bytes, int]:
        """The bytes of an image, and -1: it has no label as a whole."""
        return image_files.read(self._images[index]), -1

    def target(self, index: int) -> np.ndarray:
        """What is to be predicted of every pixel.

        Raises:
          BadImageError: it is missing, damaged, or means nothing; names the file.
        """
        path = self._targets[index]
        try:
            return self._read_target(path)
        except BadImageError as error:
            raise BadImageError(f"{path}: {error}") from None

    def label(self, index: int) -> int:
        """-1."""
        return -1

    def file_name(self, index: int) -> str:
        """The image's name."""
        return self._names[index]

    def name(self, index: int) -> str:
        """The path of an image."""
        return str(self._images[index])


def fingerprint(names: Sequence[str]) -> str:
    """Differs if the names of a set's images do."""
    text = "\n".join(names).encode("utf-8", "surrogateescape")
    return hashlib.sha256(text).hexdigest()[:16]


def read_labels(path: pathlib.Path, *, num_classes: int) -> np.ndarray:
    """Labels [H, W], uint8, of a PNG of class numbers (palette or gray) or of SBD's .mat.

    Args:
      path: of the file.
      num_classes: labels are below it, or `IGNORED`.

    Raises:
      BadImageError: no such file, a damaged one, one of colors, a label out of range.
    """
    data = image_files.read(path)
    return parse_labels(data, num_classes=num_classes, is_mat=path.suffix.lower() == ".mat")


def parse_labels(data: bytes, *, num_classes: int, is_mat: bool = False) -> np.ndarray:
    """`read_labels` of the bytes of a file."""
    labels = _sbd_labels(data) if is_mat else _png_values(data)
    wrong = (labels >= num_classes) & (labels != IGNORED)
    if wrong.any():
        found = int(labels[wrong].max())
        raise BadImageError(
            f"label {found}, where {num_classes} classes have 0 to {num_classes - 1}, and "
            f"{IGNORED} is ignored"
        )
    return labels.astype(np.uint8)


def read_depth(path: pathlib.Path) -> np.ndarray:
    """Depth [H, W] in meters, float32, of a 16-bit gray PNG in millimeters; 0 is unknown.

    Raises:
      BadImageError: no such file, a damaged one, one of colors, one without any depth.
    """
    depth = _png_values(image_files.read(path)).astype(np.float32) * np.float32(_METERS)
    return require_depth(depth)


def require_depth(depth: np.ndarray) -> np.ndarray:
    """A depth map, if there is depth in it.

    Raises:
      BadImageError: it is 0 or no number everywhere.
    """
    known = np.isfinite(depth) & (depth > 0)
    if not known.any():
        raise BadImageError("depth is 0, that is unknown, everywhere")
    return np.where(known, depth, 0).astype(np.float32)


def _png_values(data: bytes) -> np.ndarray:
    found = image_formats.sniff(data)
    if found != "PNG":
        raise BadImageError(f"a {found} file, which changes numbers: take PNG")
    image = pillow_images.open_image(data, "PNG")
    if image.width * image.height > MAX_PIXELS:
        raise BadImageError(f"{image.width} x {image.height} px: too large")
    if image.mode not in _LABEL_MODES:
        raise BadImageError(f"holds colors ({image.mode}), not one number a pixel: palette or gray")
    pillow_images.load(image)
    return np.asarray(image).astype(np.int32)


def _sbd_labels(data: bytes) -> np.ndarray:
    """``GTcls.Segmentation`` of a file of the Semantic Boundaries Dataset."""
    try:
        found = scipy.io.loadmat(io.BytesIO(data), variable_names=["GTcls"])
        labels = found["GTcls"]["Segmentation"][0, 0]
    except NotImplementedError:  # MATLAB 7.3
        raise BadImageError("of MATLAB 7.3, where SBD's are of MATLAB 5") from None
    except Exception as error:  # of a file that may hold anything
        image_files.require_system(error, "a .mat file")
        raise BadImageError(f"no .mat of SBD with GTcls.Segmentation: {error}") from None
    if getattr(labels, "ndim", 0) != 2 or labels.dtype.kind not in "iu":
        raise BadImageError("GTcls.Segmentation is no picture of whole numbers")
    return labels.astype(np.int32)
