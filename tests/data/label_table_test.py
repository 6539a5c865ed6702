"""Labels from a CSV file, from folders, or from none: `data.labels`."""

import numpy as np
import pytest

from byol_jax.config import UsageError
from byol_jax.data import datasets, image_folder, label_table


@pytest.fixture
def folder(tmp_path):
    for name in ("2024/a.png", "2024/b.png", "2025/c.png", "2025/d.png"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return tmp_path / "photos"


def write(tmp_path, text):
    path = tmp_path / "labels.csv"
    path.write_bytes(text.encode())
    return str(path)


def load(folder, labels, split="all"):
    return datasets.load("folder", split, data_dir=str(folder), labels=labels)


def by_file(data):
    names = (*data.class_names, None)
    return {data.records.file_name(i): names[data.records.label(i)] for i in range(len(data))}


def test_subfolders_are_classes_unless_labels_are_none(folder):
    assert load(folder, "folders").class_names == ("2024", "2025")
    none = load(folder, "none")
    assert none.num_classes == 0 and set(by_file(none).values()) == {None}


def test_a_table_labels_images_whatever_their_folders_are_called(folder, tmp_path):
    text = "\ufefffile,when,label\r\n2024/a.png,May,cat\r\n./2025/c.png,,dog\r\n2025/d.png,,\r\n"
    data = load(folder, write(tmp_path, text))
    expected = {"2024/a.png": "cat", "2024/b.png": None, "2025/c.png": "dog", "2025/d.png": None}
    assert by_file(data) == expected
    assert data.num_classes == 2


def test_paths_of_a_table_are_those_below_the_folder_also_where_it_has_splits(tmp_path):
    for name in ("train/x/a.png", "test/y/b.png"):
        (tmp_path / "set" / name).parent.mkdir(parents=True)
        (tmp_path / "set" / name).write_bytes(b"")
    table = write(tmp_path, "file,label\ntrain/x/a.png,cat\ntest/y/b.png,dog\n")
    train, test = (load(tmp_path / "set", table, split) for split in ("train", "test"))
    assert by_file(train) == {"x/a.png": "cat"} and by_file(test) == {"y/b.png": "dog"}
    assert train.class_names == test.class_names == ("cat", "dog")


def test_other_labels_are_another_set(folder, tmp_path):
    prints = {load(folder, "none").fingerprint}
    for label in ("cat", "dog"):
        prints.add(load(folder, write(tmp_path, f"file,label\n2024/a.png,{label}\n")).fingerprint)
    assert len(prints) == 3


def test_labels_of_a_table_hold_a_test_split_out(folder, tmp_path):
    for number in range(60):
        (folder / f"{number}.png").write_bytes(b"")
    rows = "".join(f"{number}.png,{'ab'[number % 2]}\n" for number in range(60))
    table = write(tmp_path, f"file,label\n{rows}")
    sizes = [len(load(folder, table, split)) for split in ("train", "test", "all")]
    assert sizes[0] + sizes[1] == sizes[2] == 64 and sizes[1]


MISTAKES = {
    "file,label\n2024/a.png,cat\n2024/z.png,cat\n": r"line 3: no image '2024/z.png'.*2024/a.png",
    "file,label\n2024/a.png,cat\n\n2024/a.png,dog\n": r"line 4: '2024/a.png' is in line 2, too",
    "name,label\n2024/a.png,cat\n": r"line 1: no column 'file' \(it has name, label\)",
    "file;label\n2024/a.png;cat\n": r"no column 'file' \(it has file;label\)",
    "file,label\n2024/a.png\n": r"has no label in its column 'label'",
    "": r"no column 'file' \(it has nothing\)",
    'file,label\n"2024/a.png,cat\n': r"labels.csv, after line 1: ",
    "file,label\n2024/a.png,cat,dog\n": r"line 2: more cells than columns",
}


@pytest.mark.parametrize("text", MISTAKES)
def test_a_table_with_a_mistake_names_the_line(text, folder, tmp_path):
    with pytest.raises(UsageError, match=MISTAKES[text]):
        load(folder, write(tmp_path, text))


def test_a_table_that_cannot_be_read_says_what_labels_may_be(folder, tmp_path):
    with pytest.raises(UsageError, match="folders, none, or a CSV file"):
        load(folder, str(tmp_path / "missing.csv"))
    (tmp_path / "labels.csv").write_bytes(b"file,label\n\xff,cat\n")
    with pytest.raises(UsageError, match="UTF-8"):
        load(folder, str(tmp_path / "labels.csv"))
    with pytest.raises(UsageError, match="for images in a folder, not for 'patterns'"):
        datasets.load("patterns", "test", labels=label_table.NONE)


def test_all_photos_are_listed_by_name_also_of_folders_called_as_splits(tmp_path):
    for name in ("train/b.png", "test/a.png", "z.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    listing = image_folder.list_all(str(tmp_path))
    assert listing.files == ("test/a.png", "train/b.png", "z.png")
    np.testing.assert_array_equal(listing.labels, -1)
