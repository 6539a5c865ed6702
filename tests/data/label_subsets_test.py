"""Which images may be learned from: fractions of classes, lists of files."""

import os
import sys

import numpy as np
import pytest

from byol_jax.config import UsageError
from byol_jax.data import datasets, image_folder, label_subsets
from tests.support.samples import drawn_picture, encode

LABELS = np.array([0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 0, 0] * 5, np.int32)  # 30, 15 and 15 of 60


def balanced(fraction, seed=0, among=None):
    among = np.arange(len(LABELS)) if among is None else among
    return label_subsets.balanced(LABELS, among, fraction, num_classes=3, seed=seed)


@pytest.mark.parametrize("fraction", [0.05, 0.1, 0.5])
def test_every_class_gives_as_many_images(fraction):
    chosen = balanced(fraction)
    np.testing.assert_array_equal(np.bincount(LABELS[chosen]), round(fraction * 60 / 3))
    assert (np.diff(chosen) > 0).all()


def test_the_seed_decides_which():
    np.testing.assert_array_equal(balanced(0.2, seed=1), balanced(0.2, seed=1))
    assert not np.array_equal(balanced(0.2, seed=1), balanced(0.2, seed=2))


def test_only_images_that_are_not_held_out_are_chosen():
    among = np.arange(0, 60, 2)
    assert np.isin(balanced(0.2, among=among), among).all()


def test_a_small_class_gives_all_it_has():
    np.testing.assert_array_equal(np.bincount(LABELS[balanced(1.0)]), [20, 15, 15])


def test_a_share_that_leaves_classes_empty_is_refused_with_the_least():
    with pytest.raises(UsageError, match=r"labels.share=0.01 of 60 .* take 0.05 or more"):
        balanced(0.01)


def test_a_class_of_which_all_images_are_held_out_is_refused():
    with pytest.raises(UsageError, match="1 of the 3 classes have no image .* class 2"):
        balanced(0.2, among=np.flatnonzero(LABELS != 2))


@pytest.fixture
def files(tmp_path):
    for name in ("a/1.png", "a/2.png", "b/3.png", "b/4.png"):
        path = tmp_path / "set" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(drawn_picture(12, 12)))
    listing = image_folder.scan(str(tmp_path / "set"), "all")
    records = image_folder.Files(listing)
    return datasets.RecordDataset(records, len(records), 2)


def test_labels_are_read_without_images(files):
    read = [files.records.read(index)[1] for index in range(4)]
    np.testing.assert_array_equal(label_subsets.read_labels(files), read)


@pytest.mark.parametrize(
    "text", ["2.png\n4.png\n", "a/2.png\n\n  b/4.png", "\ufeff2.png\r\n4.png\r\n"]
)
def test_a_list_names_files_with_or_without_their_folders(files, tmp_path, text):
    (tmp_path / "list.txt").write_bytes(text.encode())
    chosen = label_subsets.listed(str(tmp_path / "list.txt"), files, LABELS)
    assert {files.records.file_name(index) for index in chosen} == {"a/2.png", "b/4.png"}


@pytest.mark.parametrize(
    ("text", "message"),
    [("2.png\n5.png\n6.png", "2 of the 3 names .*'5.png'"), ("\n", "names no image")],
)
def test_a_list_that_does_not_fit_is_refused(files, tmp_path, text, message):
    (tmp_path / "list.txt").write_text(text)
    with pytest.raises(UsageError, match=message):
        label_subsets.listed(str(tmp_path / "list.txt"), files, LABELS)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_a_list_names_files_that_are_no_utf8(tmp_path):
    for name in (b"caf\xe9.png", b"th\xe9.png"):
        (tmp_path / os.fsdecode(name)).write_bytes(b"")
    listing = image_folder.scan(str(tmp_path), "all")
    files = datasets.RecordDataset(image_folder.Files(listing), 2, 0)
    (tmp_path / "list.txt").write_bytes(b"caf\xe9.png\n")
    chosen = label_subsets.listed(str(tmp_path / "list.txt"), files, LABELS)
    assert [os.fsencode(listing.files[i]) for i in chosen] == [b"caf\xe9.png"]


def test_a_listed_image_without_label_is_refused_by_name(files, tmp_path):
    (tmp_path / "list.txt").write_text("1.png")
    with pytest.raises(UsageError, match="1 of the images that .* no label, such as .*1.png"):
        label_subsets.listed(str(tmp_path / "list.txt"), files, np.full(4, -1))


def test_a_share_is_one_of_the_labeled_images():
    labels = np.concatenate([LABELS, np.full(600, -1)])
    among = label_subsets.positions(labels)
    chosen = label_subsets.balanced(labels, among, 0.2, num_classes=3, seed=0)
    np.testing.assert_array_equal(np.bincount(labels[chosen]), [4, 4, 4])
    with pytest.raises(UsageError, match="None of the 9 images of the training split has a label"):
        label_subsets.positions(np.full(9, -1))


def test_the_share_of_labeled_images_is_told(files):
    assert label_subsets.labeled_share(files) == 1
    labels = np.where(np.arange(100) < 41, 0, -1).astype(np.int32)
    in_memory = datasets.ArrayDataset(np.zeros((100, 4, 4, 3), np.uint8), labels, 2)
    assert label_subsets.labeled_share(in_memory) == 0.41
    assert label_subsets.labeled_share(datasets.ArrayDataset(in_memory.images)) == 0


def test_a_list_that_cannot_be_read_or_used_is_refused(files, tmp_path):
    with pytest.raises(UsageError, match="Cannot read --config.labels.list=/nowhere"):
        label_subsets.listed("/nowhere", files, LABELS)
    (tmp_path / "list.txt").write_text("1.png")
    in_memory = datasets.ArrayDataset(np.zeros((2, 4, 4, 3), np.uint8), np.zeros(2, np.int32), 2)
    with pytest.raises(UsageError, match="without any: use --config.labels.share"):
        label_subsets.listed(str(tmp_path / "list.txt"), in_memory, LABELS)


def test_splits_that_are_put_together_or_picked_from_keep_their_images(files):
    joined = datasets.join(files.take(3), files.select(np.array([3, 0])))
    names = [joined.records.file_name(index) for index in range(joined.num_images)]
    own = [files.records.file_name(index) for index in range(4)]
    assert names == [own[0], own[1], own[2], own[3], own[0]]
    picked = joined.select(np.array([4, 3]))
    assert [picked.records.file_name(index) for index in range(2)] == [own[0], own[3]]
    assert picked.records.read(0) == files.records.read(0)
    assert picked.records.label(1) == files.records.label(3)
