"""Folders of images: classes, splits, an order of their own, and what is refused."""

import errno
import os
import subprocess
import sys

import numpy as np
import pytest

from byol_jax.config import UsageError
from byol_jax.data import image_decoding, image_folder
from tests.support.samples import drawn_picture, encode

SCANDIR = os.scandir


def fill(top, *names):
    """Makes empty files; listing a folder does not read them."""
    for name in names:
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_bytes(b"")
    return str(top)


def numbered(pattern, n):
    return [pattern.format(i) for i in range(n)]


def owners(listing):
    """The class of every file, by its name and by its label."""
    by_name = [name.split("/")[0] for name in listing.files]
    return by_name, [listing.classes[label] for label in listing.labels]


# What is found.


def test_subfolders_are_classes_however_deep_their_images_are(tmp_path):
    names = ["cat/1.png", "cat/a/b/2.png", "dog/x/1.png", "ant/1.png"]
    listing = image_folder.scan(fill(tmp_path, *names), "all")
    assert sorted(listing.files) == sorted(names)
    assert listing.classes == ("ant", "cat", "dog")
    by_name, by_label = owners(listing)
    assert by_name == by_label
    assert listing.labels.dtype == np.int32


@pytest.mark.parametrize("more", [[], ["cat/1.png", "dog/1.png"], ["cat/2.jpg"]])
def test_with_an_image_at_the_top_there_are_no_labels(tmp_path, more):
    names = ["1.png", "2.jpg", *more]
    listing = image_folder.scan(fill(tmp_path, *names), "all")
    assert sorted(listing.files) == sorted(names)
    assert listing.classes == () and set(listing.labels) == {image_folder.UNLABELED}


def test_hidden_ones_and_other_files_are_ignored(tmp_path):
    ignored = [".hidden.png", ".git/1.png", "cat/.thumbnails/1.png", "cat/notes.txt", "readme.md"]
    ignored += ["cat/png", "cat/1.png.bak", "cat/1.gif", "labels.csv"]
    listing = image_folder.scan(fill(tmp_path, "cat/1.png", "dog/1.png", *ignored), "all")
    assert sorted(listing.files) == ["cat/1.png", "dog/1.png"]
    assert listing.classes == ("cat", "dog")


def test_extensions_of_all_formats_count_in_any_case(tmp_path):
    names = [f"{i}{ending}" for i, ending in enumerate(image_decoding.EXTENSIONS)]
    names += ["a.JPG", "b.Jpeg", "c.PNG", "d.TIFF", "e.WebP"]
    assert sorted(image_folder.scan(fill(tmp_path, *names), "all").files) == sorted(names)


def test_a_home_folder_may_be_abbreviated(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    fill(tmp_path / "pictures", "1.png")
    assert image_folder.scan("~/pictures", "all").files == ("1.png",)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_names_that_are_not_utf8_are_found_and_read(tmp_path):
    (tmp_path / "cat").mkdir()
    data = encode(drawn_picture())
    with open(os.path.join(os.fsencode(tmp_path / "cat"), b"caf\xe9.png"), "wb") as file:
        file.write(data)
    listing = image_folder.scan(str(tmp_path), "all")
    assert [os.fsencode(name) for name in listing.files] == [b"cat/caf\xe9.png"]
    files = image_folder.Files(listing)
    assert files.read(0) == (data, -1)
    assert os.fsencode(files.name(0)).endswith(b"cat/caf\xe9.png")


def test_links_are_followed_but_not_in_circles(tmp_path):
    fill(tmp_path / "set", "cat/1.png", "dog/1.png")
    fill(tmp_path / "elsewhere", "1.png", "2.png")
    (tmp_path / "set" / "ant").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "set" / "cat" / "up").symlink_to(tmp_path / "set")
    (tmp_path / "set" / "cat" / "self").symlink_to(tmp_path / "set" / "cat")
    (tmp_path / "set" / "dog" / "2.png").symlink_to(tmp_path / "elsewhere" / "1.png")
    (tmp_path / "set" / "dog" / "loop.png").symlink_to(tmp_path / "set" / "dog" / "loop.png")
    listing = image_folder.scan(str(tmp_path / "set"), "all")
    found = {"cat/1.png", "dog/1.png", "dog/2.png", "ant/1.png", "ant/2.png"}
    # A link to itself is a file that cannot be read.
    assert sorted(listing.files) == sorted(found | {"dog/loop.png"})


@pytest.mark.parametrize("backwards", [False, True])
def test_two_links_to_one_folder_are_both_followed(tmp_path, monkeypatch, backwards):
    order_entries(monkeypatch, backwards=backwards)
    fill(tmp_path / "elsewhere", "1.png")
    fill(tmp_path / "set", "dog/1.png")
    for name in ("ant", "bee"):
        (tmp_path / "set" / name).symlink_to(tmp_path / "elsewhere")
    found = image_folder.scan(str(tmp_path / "set"), "all").files
    assert sorted(found) == ["ant/1.png", "bee/1.png", "dog/1.png"]


# The order.


def order_entries(monkeypatch, *, backwards):
    """Makes the system list folders in an order of ours."""

    def ordered(path):
        return sorted(SCANDIR(path), key=lambda entry: entry.name, reverse=backwards)

    monkeypatch.setattr(os, "scandir", ordered)


def test_the_order_depends_on_the_names_alone(tmp_path, monkeypatch):
    names = numbered("cat/{}.png", 20) + numbered("dog/{}.png", 20)
    listings = [
        image_folder.scan(fill(tmp_path / "forth", *names), "all"),
        image_folder.scan(fill(tmp_path / "back", *reversed(names)), "all"),
    ]
    for backwards in (False, True):
        order_entries(monkeypatch, backwards=backwards)
        listings.append(image_folder.scan(str(tmp_path / "forth"), "all"))
    for listing in listings[1:]:
        assert listing.files == listings[0].files
        assert listing.fingerprint == listings[0].fingerprint
        np.testing.assert_array_equal(listing.labels, listings[0].labels)


def test_the_first_images_are_of_all_classes(tmp_path):
    names = numbered("cat/{}.png", 50) + numbered("dog/{}.png", 50)
    labels = image_folder.scan(fill(tmp_path, *names), "all").labels
    assert 10 <= labels[:50].sum() <= 40


def test_the_fingerprint_tells_sets_apart(tmp_path):
    sets = {
        "one": ["cat/1.png", "dog/1.png"],
        "same": ["dog/1.png", "cat/1.png"],
        "renamed": ["cat/2.png", "dog/1.png"],
        "moved": ["dog/2.png", "cat/1.png"],
        "more": ["cat/1.png", "dog/1.png", "dog/2.png"],
    }
    marks = {
        n: image_folder.scan(fill(tmp_path / n, *f), "all").fingerprint for n, f in sets.items()
    }
    assert marks["one"] == marks["same"]
    assert len(set(marks.values())) == len(marks) - 1


# Splits.


@pytest.mark.parametrize("alias", ["validation", "valid", "val"])
def test_folders_may_be_splits(tmp_path, alias):
    names = ["train/cat/1.png", "train/dog/1.png", "train/dog/2.png", f"{alias}/dog/3.png"]
    root = fill(tmp_path, *names, "test/cat/4.png", "test/dog/5.png", "other/1.png")
    train, validation, test = (image_folder.scan(root, s) for s in ("train", "validation", "test"))
    assert sorted(train.files) == ["cat/1.png", "dog/1.png", "dog/2.png"]
    assert validation.files == ("dog/3.png",) and validation.labels.tolist() == [1]
    assert sorted(test.files) == ["cat/4.png", "dog/5.png"]
    for listing in (train, validation, test):
        assert listing.classes == ("cat", "dog")
        by_name, by_label = owners(listing)
        assert by_name == by_label


def test_splits_without_classes_have_no_labels(tmp_path):
    root = fill(tmp_path, "train/1.png", "test/2.png")
    assert image_folder.scan(root, "test").classes == image_folder.scan(root, "train").classes == ()


def test_a_folder_called_test_alone_is_a_class(tmp_path):
    listing = image_folder.scan(fill(tmp_path, "test/1.png", "other/1.png"), "all")
    assert listing.classes == ("other", "test")


def test_about_a_tenth_is_held_out_and_stays_when_images_are_added(tmp_path):
    names = numbered("cat/{}.png", 500) + numbered("dog/{}.png", 500)
    root = fill(tmp_path, *names)
    train, test, everything = (image_folder.scan(root, s) for s in ("train", "test", "all"))
    assert not set(train.files) & set(test.files)
    assert set(train.files) | set(test.files) == set(everything.files) == set(names)
    fraction = 26 / 256
    assert abs(len(test.files) - 1000 * fraction) <= 5 * np.sqrt(1000 * fraction * (1 - fraction))
    assert train.classes == test.classes == everything.classes == ("cat", "dog")
    for listing in (train, test, everything):
        by_name, by_label = owners(listing)
        assert by_name == by_label
    fill(tmp_path, *numbered("cat/new{}.png", 100))
    later = image_folder.scan(root, "test")
    assert set(test.files) == {name for name in later.files if "new" not in name}
    assert len(later.files) > len(test.files)


def test_all_images_train_when_there_are_no_labels(tmp_path):
    names = numbered("{}.png", 100)
    root = fill(tmp_path, *names)
    assert sorted(image_folder.scan(root, "train").files) == sorted(names)
    assert 0 < len(image_folder.scan(root, "test").files) < 30


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (["Train", "Test"], ["train", "test"]),
        (["Training", "Testing"], ["train", "test"]),
        (["TRAIN", "Val", "test"], ["train", "validation", "test"]),
        (["training", "dev"], ["train", "validation"]),
        (["Validation", "Test"], ["validation", "test"]),
        (["Train"], ["train"]),
        (["training_set", "test_set"], ["train", "test"]),
        (["train-images", "valset"], ["train", "validation"]),
        (["train2017", "val2017"], ["train", "validation"]),
    ],
)
def test_splits_may_be_called_by_any_usual_name_in_any_case(tmp_path, names, splits):
    files = [f"{name}/{owner}/{name}.png" for name in names for owner in ("ant", "bee")]
    root = fill(tmp_path, *files)
    assert list(image_folder.find_splits(root)) == splits
    for name, split in zip(names, splits, strict=True):
        listing = image_folder.scan(root, split)
        assert sorted(listing.files) == [f"ant/{name}.png", f"bee/{name}.png"]
        assert listing.classes == ("ant", "bee") == image_folder.find_classes(root)
        assert f"{name} ({split})" in listing.about


@pytest.mark.parametrize("empty", [[], ["test/notes.txt"], ["dev/notes.txt", "car/notes.txt"]])
def test_a_folder_called_train_beside_others_is_a_class(tmp_path, empty):
    names = ["train/1.png", "bus/1.png", "plane/1.png"]
    listing = image_folder.scan(fill(tmp_path, *names, *empty), "all")
    assert listing.classes == ("bus", "plane", "train")
    assert image_folder.find_splits(str(tmp_path)) == ()


def test_folders_beside_splits_are_left_out_by_name(tmp_path):
    listing = image_folder.scan(fill(tmp_path, "train/1.png", "test/1.png", "extra/1.png"), "train")
    assert listing.files == ("1.png",)
    assert "left out, without images for it: extra" in listing.about


# Outer folders.


@pytest.mark.parametrize("outer", ["imgs", "archive/imgs", "a/b/c", "test", "/".join("d" * 200)])
def test_one_folder_of_images_has_no_labels(tmp_path, outer):
    names = [f"{outer}/{i}.png" for i in range(40)]
    listing = image_folder.scan(fill(tmp_path, *names, "empty/notes.txt"), "train")
    assert sorted(listing.files) == sorted(names)
    assert listing.classes == () and set(listing.labels) == {image_folder.UNLABELED}
    assert f"no labels (all are in one folder, {outer})" in listing.about


def test_outer_folders_are_passed_through_to_classes(tmp_path):
    root = fill(tmp_path, "set/set/cat/x/1.png", "set/set/dog/1.png", "set/set/loop/a.txt")
    listing = image_folder.scan(root, "all")
    assert listing.classes == ("cat", "dog")
    assert owners(listing)[1] == [name.split("/")[2] for name in listing.files]
    assert "set/set/loop" in listing.about


def test_outer_folders_are_passed_through_to_splits_and_in_them(tmp_path):
    names = ["Train/imgs/cat/1.png", "Train/imgs/dog/1.png", "Test/imgs/dog/2.png"]
    root = fill(tmp_path, *(f"set/{name}" for name in names))
    assert image_folder.scan(root, "train").classes == ("cat", "dog")
    test = image_folder.scan(root, "test")
    assert test.root == tmp_path / "set" / "Test" and test.files == ("imgs/dog/2.png",)
    assert test.labels.tolist() == [1]


def test_a_split_of_one_class_keeps_its_label(tmp_path):
    root = fill(tmp_path, "train/a/1.png", "train/b/1.png", "test/b/x/1.png", "test/b/y/1.png")
    assert image_folder.scan(root, "test").labels.tolist() == [1, 1]


def test_names_that_begin_alike_are_different_folders(tmp_path):
    listing = image_folder.scan(fill(tmp_path, "a/1.png", "a-b/1.png", "a/b/1.png"), "all")
    assert listing.classes == ("a", "a-b")


# What is left out.


def test_folders_without_images_are_left_out_by_name(tmp_path):
    names = ["cat/1.png", "dog/1.png", "loop/readme.txt", "__MACOSX/cat/1.png", "lost+found/1.png"]
    root = fill(tmp_path, *names, ".ipynb_checkpoints/1.png")
    (tmp_path / "back").symlink_to(tmp_path)
    listing = image_folder.scan(root, "all")
    assert listing.classes == ("cat", "dog") and sorted(listing.files) == names[:2]
    assert "Folders left out, without images for it: back, loop." in listing.about
    assert "2 system folder, 1 .txt, 1 hidden" in listing.about


def test_an_empty_class_of_a_split_is_left_out_by_name(tmp_path):
    root = fill(tmp_path, "train/a/1.png", "train/b/1.png", "train/c/x.txt", "test/a/1.png")
    listing = image_folder.scan(root, "train")
    assert listing.classes == ("a", "b") and "for it: train/c." in listing.about


def test_other_files_are_counted_and_images_of_other_formats_named(tmp_path):
    others = ["1.HEIC", "2.heif", "4.jxl", "notes.txt", "more.txt", "noend", ".DS_Store"]
    about = image_folder.scan(fill(tmp_path, "1.png", *others), "train").about
    assert "2 HEIC (not read: " in about or image_decoding.image_formats.HAS_HEIF
    assert "1 JPEG XL (not read: convert them to PNG or JPEG)" in about
    assert "2 .txt, 1 hidden, 1 without suffix" in about
    assert "\n" not in about


def test_a_folder_of_formats_that_are_not_read_says_so(tmp_path):
    refused(fill(tmp_path, "1.heic", "2.heic"), "train", "holds no image", "2 HEIC")


def test_a_pipe_called_like_an_image_is_never_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    listing = image_folder.scan(fill(tmp_path, "1.png"), "train")
    assert listing.files == ("1.png",) and "1 no regular file" in listing.about


def test_a_thousand_nested_folders_are_walked(tmp_path):
    where = os.open(tmp_path, os.O_RDONLY)
    for _ in range(1000):
        os.mkdir("d", dir_fd=where)
        where, above = os.open("d", os.O_RDONLY, dir_fd=where), where
        os.close(above)
    os.close(os.open("1.png", os.O_CREAT, dir_fd=where))
    os.close(where)
    try:
        assert image_folder.scan(str(tmp_path), "train").files == ("d/" * 1000 + "1.png",)
    finally:  # too deep for pytest's own cleaning
        subprocess.run(["rm", "-r", tmp_path / "d"], check=True)


# What is refused.


@pytest.mark.parametrize("names", [("train", "Train"), ("val", "valid"), ("Test", "testing")])
def test_two_folders_of_one_split_are_refused_in_any_case(tmp_path, names):
    fill(tmp_path, *(f"{name}/1.png" for name in {*names, "train"}))
    refused(tmp_path, "train", "two folders for one split", *names)


def refused(root, split, *words):
    with pytest.raises(UsageError) as error:
        image_folder.scan(str(root), split)
    for word in words:
        assert word in str(error.value)


def test_an_empty_folder_says_what_an_image_is(tmp_path):
    refused(tmp_path, "train", str(tmp_path), "holds no image", ".jpg", ".png")
    fill(tmp_path, "train/cat/notes.txt", "test/cat/1.png")
    refused(tmp_path, "train", str(tmp_path / "train"), "holds no image")


@pytest.mark.parametrize("root", ["", "/nowhere/at/all"])
def test_a_missing_folder_is_named(root):
    refused(root, "train", f"No folder '{root}'", "--config.data.dir")


def test_a_file_is_no_folder(tmp_path):
    fill(tmp_path, "1.png")
    refused(tmp_path / "1.png", "train", "No folder")


def test_a_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    fill(tmp_path, "cat/1.png", "dog/1.png")
    scandir = os.scandir

    def denied(path):
        if os.fspath(path).endswith("dog"):
            raise PermissionError(errno.EACCES, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", denied)
    refused(tmp_path, "train", f"Cannot read {tmp_path / 'dog'}: Permission denied")


def test_two_folders_for_one_split_are_refused(tmp_path):
    fill(tmp_path, "train/1.png", "val/2.png", "valid/3.png")
    refused(tmp_path, "train", "two folders for one split: val, valid")


def test_unknown_splits_name_the_valid_ones(tmp_path):
    fill(tmp_path / "flat", *numbered("{}.png", 3))
    refused(tmp_path / "flat", "tets", "Did you mean 'test'", "Valid: all, test, train")
    fill(tmp_path / "split", "train/cat/1.png", "val/cat/1.png")
    refused(tmp_path / "split", "test", "has no split 'test'", "Valid: train, validation")


def test_a_split_into_which_no_image_falls_is_named(tmp_path):
    refused(fill(tmp_path, "cat/1.png"), "test", "None of the 1 images", "'test'", "all")


def test_a_class_that_train_lacks_is_named(tmp_path):
    root = fill(tmp_path, "train/cat/1.png", "train/ant/1.png", "test/cat/1.png", "test/dog/1.png")
    refused(root, "test", str(tmp_path / "test"), "class 'dog' that 'train' has not")


# Reading.


@pytest.fixture(name="files")
def fixture_files(tmp_path):
    fill(tmp_path, "cat/empty.png")
    (tmp_path / "dog").mkdir()
    (tmp_path / "dog" / "good.png").write_bytes(encode(drawn_picture()))
    (tmp_path / "dog" / "named.PNG").write_bytes(encode(drawn_picture(), "JPEG"))
    (tmp_path / "dog" / "gone.jpg").symlink_to(tmp_path / "nothing")
    (tmp_path / "dog" / "text.webp").write_bytes(b"<html>404</html>")
    files = image_folder.Files(image_folder.scan(str(tmp_path), "all"))
    return files, {os.path.basename(files.name(i)): i for i in range(len(files))}


def test_files_are_read_with_their_labels(files, tmp_path):
    files, index = files
    assert len(files) == len(index) == 5
    assert files.read(index["good.png"]) == (encode(drawn_picture()), 1)
    assert files.name(index["good.png"]) == str(tmp_path / "dog" / "good.png")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("empty.png", "empty file"),
        ("named.PNG", "wrong extension: a JPEG file"),
        ("gone.jpg", "cannot be read: No such file"),
        ("text.webp", "not an image"),
    ],
)
def test_files_that_are_not_what_their_names_say_are_bad(files, name, reason):
    files, index = files
    with pytest.raises(image_decoding.BadImageError, match=reason):
        files.read(index[name])


def test_images_without_labels_are_read_with_minus_one(tmp_path):
    (tmp_path / "1.png").write_bytes(encode(drawn_picture()))
    assert image_folder.Files(image_folder.scan(str(tmp_path), "train")).read(0)[1] == -1
