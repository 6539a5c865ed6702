"""Draws small sets with known boxes in the layouts of VOC and of COCO, to test with."""

import json
import pathlib

import numpy as np

from tests.support import pixel_worlds

NAMES = ("", "aeroplane", "bicycle", "bird")


def boxes_of(labels):
    """Boxes and labels (left, top, right, bottom, label) of what is not ground."""
    found = []
    for label in np.unique(labels[labels > 0]):
        rows, columns = np.nonzero(labels == label)
        found.append((columns.min(), rows.min(), columns.max() + 1, rows.max() + 1, label))
    return [tuple(map(int, row)) for row in found]


def annotation(objects, *, difficult=0):
    """VOC's XML; pixels count from 1, and the last one belongs to the box."""
    inside = "".join(
        f"<object><name>{NAMES[label]}</name><difficult>{difficult}</difficult>"
        f"<bndbox><xmin>{left + 1}</xmin><ymin>{top + 1}</ymin>"
        f"<xmax>{right}</xmax><ymax>{bottom}</ymax></bndbox></object>"
        for left, top, right, bottom, label in objects
    )
    return f"<annotation><folder>VOC2007</folder>{inside}</annotation>"


def write_voc(root, *, trainval, test, year=2007, **options):
    """VOCdevkit with boxes; gives the folder of the year."""
    voc = pathlib.Path(root) / "VOCdevkit" / f"VOC{year}"
    (voc / "Annotations").mkdir(parents=True, exist_ok=True)
    for number, name in enumerate([*trainval, *test]):
        image, labels, _ = pixel_worlds.draw(number, **options)
        pixel_worlds.save_image(voc / "JPEGImages" / f"{name}.jpg", image)
        (voc / "Annotations" / f"{name}.xml").write_text(annotation(boxes_of(labels)))
    for split, names in (("trainval", trainval), ("test", test)):
        pixel_worlds.save_list(voc / "ImageSets" / "Main" / f"{split}.txt", names)
    return voc


def write_coco(root, *, train, test, **options):
    """COCO's JSON with the images of two splits; ids have gaps, the first object is a crowd."""
    top = pathlib.Path(root)
    categories = [{"id": 3 * label + 1, "name": NAMES[label]} for label in (1, 2, 3)]
    for split, numbers in (("train2017", train), ("val2017", test)):
        images, objects = [], []
        for number in numbers:
            pixels, labels, _ = pixel_worlds.draw(number, **options)
            pixel_worlds.save_image(top / split / f"{number:012d}.jpg", pixels)
            images.append({"id": number, "file_name": f"{number:012d}.jpg"})
            for left, upper, right, bottom, label in boxes_of(labels):
                row = {"image_id": number, "category_id": 3 * label + 1}
                row["bbox"] = [left, upper, right - left, bottom - upper]
                objects.append(row | {"iscrowd": int(not objects)})
        path = top / "annotations" / f"instances_{split}.json"
        path.parent.mkdir(exist_ok=True)
        content = {"images": images, "annotations": objects, "categories": categories}
        path.write_text(json.dumps(content))
