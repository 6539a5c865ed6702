"""Draws pictures whose labels and depth are known: patterned shapes in front of a wall.

    python draw.py FOLDER --count 500 --size 64

The class of a shape is its pattern, never its color, outline or size. Depth follows from the
pattern, too, whose period in meters is nearly always the same. Writes images, masks and depths, as
--config.data.name=folder takes them, and boxes, as --config.data.name=coco does.
"""

import argparse
import json
import pathlib

import numpy as np
import PIL.Image

CLASSES = ("wall", "stripes", "checks", "dots", "rings")
NEAR, FAR = 1.2, 4.0  # meters
PERIOD = 9.0  # pixels of a pattern at one meter


def pattern(label, x, y):
    """How much of the second color there is, in periods; above 0 or below."""
    if label == 0:
        return 0.4 * np.sin(3 * x + 2 * y) + 0.4 * np.sin(5 * y - 2 * x)
    if label == 1:
        return np.sin(2 * np.pi * x)
    if label == 2:
        return 3 * np.sin(np.pi * x) * np.sin(np.pi * y)
    if label == 3:
        return 0.6 - 2 * np.hypot(x % 1 - 0.5, y % 1 - 0.5)
    return np.sin(2 * np.pi * np.hypot(x, y))


def colors(rng):
    """Two colors that differ in brightness."""
    while True:
        pair = rng.uniform(20, 235, (2, 3))
        if abs(pair.mean(1) @ [1, -1]) > 70:
            return pair


def paint(rng, label, depth, rows, columns):
    """A patterned surface [H, W, 3] at a depth."""
    scale = PERIOD * rng.uniform(0.9, 1.1) * 2 / depth
    turn, shift = rng.uniform(-0.5, 0.5), rng.uniform(0, 1, 2)
    x = (np.cos(turn) * columns - np.sin(turn) * rows) / scale + shift[0]
    y = (np.sin(turn) * columns + np.cos(turn) * rows) / scale + shift[1]
    one, two = colors(rng)
    mix = 0.5 + 0.5 * np.tanh(4 * pattern(label, x, y))
    return one + (two - one) * mix[..., None]


def draw(seed, size):
    """An image, labels, depth in meters, and which shape each pixel is of, from 1."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:size, :size].astype(float)
    depth = FAR * rng.uniform(0.8, 1.1) - rng.uniform(0, 1.2) * rows / size
    image, labels = paint(rng, 0, depth, rows, columns), np.zeros((size, size), np.uint8)
    shapes = np.zeros((size, size), int)
    for number in range(rng.integers(1, 4)):
        z, label = rng.uniform(NEAR, 0.85 * FAR), int(rng.integers(1, len(CLASSES)))
        center, radius = rng.uniform(0.15, 0.85, 2) * size, rng.uniform(0.15, 0.3) * size
        power = rng.choice([1.0, 2.0, 8.0])  # diamond, ellipse, box
        sides = radius * rng.uniform(0.7, 1.2, 2)
        y, x = np.abs(rows - center[0]) / sides[0], np.abs(columns - center[1]) / sides[1]
        inside = (x**power + y**power < 1) & (z < depth)
        surface = paint(rng, label, np.full_like(rows, z), rows - center[0], columns - center[1])
        image[inside], labels[inside], depth[inside] = surface[inside], label, z
        shapes[inside] = number + 1
    noise = rng.normal(0, rng.uniform(2, 8), image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8), labels, depth, shapes


def boxes(labels, shapes, smallest=6):
    """Rows of COCO's annotations, of shapes of which enough is seen."""
    for number in range(1, shapes.max() + 1):
        rows, columns = np.nonzero(shapes == number)
        if rows.size and min(np.ptp(rows), np.ptp(columns)) + 1 >= smallest:
            left, top = int(columns.min()), int(rows.min())
            box = [left, top, int(columns.max()) + 1 - left, int(rows.max()) + 1 - top]
            yield {"category_id": int(labels[rows[0], columns[0]]), "bbox": box, "iscrowd": 0}


def write_boxes(folder, found):
    """COCO's files: ``annotations/instances_<split>.json`` beside links to the images."""
    categories = [{"id": i, "name": name} for i, name in enumerate(CLASSES) if i]
    (folder / "annotations").mkdir(parents=True, exist_ok=True)
    for split, images in found.items():
        rows = [row | {"image_id": key} for key, (_, mine) in images.items() for row in mine]
        names = [{"id": key, "file_name": name} for key, (name, _) in images.items()]
        content = {"images": names, "annotations": rows, "categories": categories}
        (folder / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
        if not (folder / split).exists():
            (folder / split).symlink_to(f"../images/{split}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--few", type=int, default=0, help="so many training pictures alone")
    given = parser.parse_args()
    for name in ("images", "masks", "depths"):
        for split in ("train", "test"):
            (given.folder / name / split).mkdir(parents=True, exist_ok=True)
    found = {"train": {}, "test": {}}
    for number in range(given.count):
        split = "test" if number % 5 == 4 else "train"
        if given.few and split == "train" and len(found[split]) >= given.few:
            continue
        image, labels, depth, shapes = draw(number, given.size)
        name = f"{split}/{number:04d}.png"
        found[split][number] = f"{number:04d}.png", list(boxes(labels, shapes))
        PIL.Image.fromarray(image).save(given.folder / "images" / name)
        PIL.Image.fromarray(labels).save(given.folder / "masks" / name)
        millimeters = np.rint(1000 * depth).astype(np.uint16)
        PIL.Image.fromarray(millimeters).save(given.folder / "depths" / name)
    write_boxes(given.folder / "boxes", found)


if __name__ == "__main__":
    main()
