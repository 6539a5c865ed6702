"""Random images, drawn pictures, and a test whether two samples come from one distribution."""

import io

import numpy as np
import PIL.Image
from scipy import stats


def same_distribution(ours, theirs):
    """Kolmogorov-Smirnov, p > 1e-4; not the exact p-value, which takes seconds for thousands."""
    return stats.ks_2samp(ours, theirs, method="asymp").pvalue > 1e-4


def random_images(n, height=32, width=32, seed=0):
    """Uniform noise [n, height, width, 3] in [0, 1]."""
    return np.random.RandomState(seed).rand(n, height, width, 3).astype(np.float32)


def drawn_picture(height=48, width=64, seed=0):
    """A smooth picture without any symmetry, uint8 [height, width, 3], that JPEG hardly changes."""
    random = np.random.RandomState(seed)
    rows, columns = np.mgrid[0:height, 0:width] / max(height, width)
    waves = [
        np.sin(2 * np.pi * (random.uniform(-1, 1) * rows + random.uniform(-1, 1) * columns) + phase)
        for phase in random.uniform(0, 2 * np.pi, 6)
    ]
    colors = random.uniform(-1, 1, (6, 3))
    picture = np.tensordot(np.stack(waves, -1), colors / np.abs(colors).sum(0), axes=1)
    return np.rint(127.5 + 120 * picture).astype(np.uint8)


def encode(pixels, name="PNG", **options):
    """The bytes of an image file: Pillow's, of an array or of an image of Pillow's."""
    file = io.BytesIO()
    image = pixels if isinstance(pixels, PIL.Image.Image) else PIL.Image.fromarray(pixels)
    image.save(file, name, **options)
    return file.getvalue()


def assert_shows(pixels, picture, tolerance=1.0):
    """Whether decoded pixels are those of a picture; the tolerance is on the mean difference."""
    assert pixels.dtype == np.uint8 and pixels.flags.c_contiguous
    assert pixels.shape == picture.shape
    difference = np.abs(pixels.astype(float) - picture)
    assert difference.mean() <= tolerance and difference.max() <= 16 * tolerance


# Where the first row and the first column of a file belong, by EXIF (CIPA DC-008, 4.6.5).
SIDES = {
    1: ("top", "left"),
    2: ("top", "right"),
    3: ("bottom", "right"),
    4: ("bottom", "left"),
    5: ("left", "top"),
    6: ("right", "top"),
    7: ("right", "bottom"),
    8: ("left", "bottom"),
}


def lay(upright, orientation):
    """The pixels of a file that shows a picture if its orientation is heeded."""
    row_side, column_side = SIDES[orientation]
    pixels = upright.transpose(1, 0, 2) if row_side in ("left", "right") else upright
    pixels = pixels[::-1] if row_side in ("bottom", "right") else pixels
    return np.ascontiguousarray(pixels[:, ::-1] if column_side in ("bottom", "right") else pixels)
