"""Sets of objects in boxes: VOC's XML, COCO's JSON, and what is wrong with them."""

import json

import numpy as np
import pytest

from byol_jax.config import UsageError
from byol_jax.data import boxes, coco_boxes, eval_loader, voc_boxes
from byol_jax.data.image_decoding import BadImageError
from tests.support import box_worlds, pixel_worlds

BOX = [(2, 3, 20, 30, 2)]


def write(folder, text):
    path = folder / "a.xml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_vocs_boxes_begin_at_0(tmp_path):
    found = voc_boxes.read(write(tmp_path, box_worlds.annotation(BOX, difficult=1)))
    np.testing.assert_array_equal(found.box, [[2, 3, 20, 30]])
    assert voc_boxes.CLASSES[found.label[0]] == "bicycle"
    assert found.difficult.all() and found.is_learned.all()


def test_parts_of_a_person_are_no_objects(tmp_path):
    part = "<part><name>head</name><bndbox><xmin>1</xmin></bndbox></part></object>"
    text = box_worlds.annotation(BOX).replace("</object>", part)
    assert len(voc_boxes.read(write(tmp_path, text)).label) == 1


ENTITIES = "".join(f'<!ENTITY l{i + 1} "{f"&l{i};" * 10}">' for i in range(9))
LAUGHS = f"<!DOCTYPE a [{ENTITIES}]><annotation>&l9;</annotation>"
BROKEN = {
    "entities": (LAUGHS, "declares a DOCTYPE"),
    "outside files": (
        '<!DOCTYPE a SYSTEM "file:///etc/passwd"><annotation/>',
        "declares a DOCTYPE",
    ),
    "in UTF-16": (LAUGHS.encode("utf-16"), "declares a DOCTYPE"),
    "cut off": (box_worlds.annotation(BOX)[:90], "no XML"),
    "of nothing": ("", "no XML"),
    "of another kind": ("<html/>", "not VOC's <annotation>"),
    "class": (box_worlds.annotation(BOX).replace("bicycle", "unicorn"), "'unicorn'"),
    "words": (box_worlds.annotation(BOX).replace(">3<", ">three<"), "not four numbers"),
    "no number": (box_worlds.annotation(BOX).replace(">3<", ">nan<"), "not four numbers"),
    "no box": (box_worlds.annotation(BOX).replace("bndbox", "b"), "not four numbers"),
    "encoding": ('<?xml version="1.0" encoding="x-mine"?><annotation/>', "no XML"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_or_hostile_annotation_names_its_file(case, tmp_path):
    text, message = BROKEN[case]
    with pytest.raises(BadImageError, match=message) as error:
        voc_boxes.read(write(tmp_path, text))
    assert "a.xml" in str(error.value) and len(str(error.value).splitlines()) == 1


def test_a_missing_annotation_names_its_file(tmp_path):
    with pytest.raises(BadImageError, match="a.xml: cannot be read"):
        voc_boxes.read(tmp_path / "a.xml")


def annotation(*box):
    return boxes.make_annotation([(np.array(box, float), 0, False)], learns_difficult=True)


WRONG = {
    "of no width": ((5, 5, 5, 9), "no area"),
    "turned around": ((9, 5, 5, 9), "no area"),
    "beside the image": ((50, 5, 60, 9), "outside of the image of 40 x 30 px"),
    "of a larger image": ((5, 5, 60, 9), "outside of the image of 40 x 30 px"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_box_of_no_area_or_of_another_image_is_refused(case):
    box, message = WRONG[case]
    with pytest.raises(BadImageError, match=message):
        boxes.inside(annotation(*box), 30, 40)


def test_a_box_that_reaches_out_by_rounding_is_cut():
    found = boxes.inside(annotation(-0.5, 0, 40.7, 30), 30, 40)
    np.testing.assert_array_equal(found.box, [[0, 0, 40, 30]])


def test_years_of_voc_are_learned_from_together(tmp_path):
    box_worlds.write_voc(tmp_path, trainval=["a", "b"], test=["c"])
    box_worlds.write_voc(tmp_path, trainval=["d"], test=["e"], year=2012)
    split = voc_boxes.load(str(tmp_path), "trainval", years=(2007, 2012))
    assert split.data.num_images == 3 and len(split.classes) == 20
    example = boxes.read_example(split.data, 1)
    expected = [row[:4] for row in box_worlds.boxes_of(pixel_worlds.draw(1)[1])]
    np.testing.assert_array_equal(example.target.box, expected)


def test_bad_annotations_are_counted_and_left_out(tmp_path):
    voc = box_worlds.write_voc(tmp_path, trainval=list("abcd"), test=["e"])
    (voc / "Annotations" / "b.xml").unlink()
    data = voc_boxes.load(str(tmp_path), "trainval").data
    bad = eval_loader.BadLimit((data,), 0.25)
    assert list(boxes.check(data, bad)) == [0, 2, 3] and "b.xml" in str(bad.found)
    with pytest.raises(UsageError, match="max_bad_share"):
        boxes.check(data, eval_loader.BadLimit((data,), 0.0))


def test_cocos_categories_get_numbers_and_crowds_are_not_learned_from(tmp_path):
    box_worlds.write_coco(tmp_path, train=range(3), test=range(3, 5))
    split = coco_boxes.load(str(tmp_path), "train2017")
    assert split.classes == ("aeroplane", "bicycle", "bird")
    target = boxes.read_example(split.data, 0).target
    expected = box_worlds.boxes_of(pixel_worlds.draw(0)[1])
    np.testing.assert_array_equal(target.box, [row[:4] for row in expected])
    assert target.label.tolist() == [row[4] - 1 for row in expected]
    assert target.difficult[0] and not target.is_learned[0]


def damage(content, case):
    if case == "a path":
        content["images"][0]["file_name"] = "../../secret.jpg"
    elif case == "no categories":
        del content["categories"]
    elif case == "no list":
        content["annotations"] = 3


DAMAGED = {
    "a path": "which is not below",
    "no categories": "no file of COCO's instances",
    "no list": "no file of COCO's instances",
}


@pytest.mark.parametrize("case", DAMAGED)
def test_what_is_no_file_of_cocos_is_refused_by_name(case, tmp_path):
    box_worlds.write_coco(tmp_path, train=range(1), test=range(1))
    path = tmp_path / "annotations" / "instances_train2017.json"
    content = json.loads(path.read_text())
    damage(content, case)
    path.write_text(json.dumps(content))
    with pytest.raises(UsageError, match=DAMAGED[case]) as error:
        coco_boxes.load(str(tmp_path), "train2017")
    assert "instances_train2017.json" in str(error.value)


def test_an_object_without_a_box_makes_its_image_bad(tmp_path):
    box_worlds.write_coco(tmp_path, train=range(2), test=range(1))
    path = tmp_path / "annotations" / "instances_train2017.json"
    path.write_text(path.read_text().replace("bbox", "box"))
    data = coco_boxes.load(str(tmp_path), "train2017").data
    with pytest.raises(BadImageError, match="image 0: an object without 'bbox'"):
        boxes.read_example(data, 0)


def test_a_split_that_is_missing_names_those_that_are_there(tmp_path):
    box_worlds.write_coco(tmp_path, train=range(1), test=range(1))
    with pytest.raises(UsageError, match="Splits there: train2017, val2017"):
        coco_boxes.load(str(tmp_path), "mine")
