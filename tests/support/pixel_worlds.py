"""Draws small sets with known pixels in the layouts of VOC, SBD and NYU, to test with.

A picture has one or two rectangles, whose color says their class, on gray; depth falls from the top
to the bottom, and rectangles are nearer.
"""

import pathlib

import numpy as np
import PIL.Image
import scipy.io

COLORS = np.array([(128, 128, 128), (220, 40, 40), (40, 200, 60), (50, 60, 220)], np.uint8)


def draw(seed, height=40, width=48, classes=3):
    """An image [H, W, 3], labels [H, W] below ``classes`` + 1, and depth [H, W] in meters."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((height, width), np.uint8)
    depth = np.linspace(4, 2, height)[:, None].repeat(width, 1)
    for _ in range(rng.integers(1, 3)):
        top, left = rng.integers(0, height // 2), rng.integers(0, width // 2)
        part = slice(top, top + height // 2), slice(left, left + width // 2)
        labels[part] = rng.integers(1, classes + 1)
        depth[part] = rng.uniform(1, 1.8)
    noise = rng.integers(-15, 16, (height, width, 3))
    image = np.clip(COLORS[labels].astype(int) + noise, 0, 255).astype(np.uint8)
    return image, labels, depth.astype(np.float32)


def save_image(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(pixels).save(path)


def save_mask(path, labels):
    """A PNG with a palette, whose pixels are class numbers."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = PIL.Image.fromarray(labels).convert("P")
    image.frombytes(labels.tobytes())
    image.putpalette(np.random.default_rng(0).integers(0, 256, 768).tolist())
    image.save(path)


def save_depth(path, depth):
    """A 16-bit PNG in millimeters."""
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(np.rint(depth * 1000).astype(np.uint16)).save(path)


def save_list(path, names):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{name}\n" for name in names))


def write_folder(root, count=12, **options):
    """Folders images, masks and depths."""
    for number in range(count):
        image, labels, depth = draw(number, **options)
        save_image(root / "images" / f"{number:03d}.png", image)
        save_mask(root / "masks" / f"{number:03d}.png", labels)
        save_depth(root / "depths" / f"{number:03d}.png", depth)


def write_voc(root, *, train, val, extra, year=2012, **options):
    """VOCdevkit and SBD: ``extra`` has masks in SBD alone, which knows all other images, too."""
    voc = pathlib.Path(root) / "VOCdevkit" / f"VOC{year}"
    sbd = pathlib.Path(root) / "benchmark_RELEASE" / "dataset"
    for number, name in enumerate([*train, *val, *extra]):
        image, labels, _ = draw(number, **options)
        save_image(voc / "JPEGImages" / f"{name}.jpg", image)
        bordered = labels.copy()
        bordered[0] = 255
        if name not in extra:
            save_mask(voc / "SegmentationClass" / f"{name}.png", bordered)
        save_sbd(sbd / "cls" / f"{name}.mat", labels)
    lists = voc / "ImageSets" / "Segmentation"
    save_list(lists / "train.txt", train)
    save_list(lists / "val.txt", val)
    save_list(lists / "trainval.txt", [*train, *val])
    everything = [*train, *val, *extra]
    save_list(sbd / "train.txt", everything[::2])
    save_list(sbd / "val.txt", everything[1::2])


def save_sbd(path, labels):
    path.parent.mkdir(parents=True, exist_ok=True)
    entry = {"Segmentation": labels, "CategoriesPresent": np.unique(labels)}
    scipy.io.savemat(path, {"GTcls": entry})


def write_nyu(root, count=9, **options):
    """The labeled set as MATLAB 7.3 writes it, and the files of TFDS."""
    import h5py

    scenes = [draw(number, **options) for number in range(count)]
    root.mkdir(parents=True, exist_ok=True)
    with h5py.File(root / "nyu_depth_v2_labeled.mat", "w", userblock_size=512) as file:
        file["images"] = np.stack([image.transpose(2, 1, 0) for image, _, _ in scenes])
        file["depths"] = np.stack([depth.T for _, _, depth in scenes])
    numbers = np.arange(1, count + 1, dtype=np.uint16)[:, None]
    splits = {"trainNdxs": numbers[: count // 2], "testNdxs": numbers[count // 2 :]}
    scipy.io.savemat(root / "splits.mat", splits)
    for number, (image, _, depth) in enumerate(scenes):
        below = "train/room_0001" if number < count // 2 else "val/official"
        path = root / "nyudepthv2" / below / f"{number:05d}.h5"
        path.parent.mkdir(parents=True, exist_ok=True)
        with h5py.File(path, "w") as file:
            file["rgb"], file["depth"] = image.transpose(2, 0, 1), depth
