"""Folders and a TFDS set are packed, read again as TFDS sets, stopped, and resumed."""

import errno
import json
import pathlib
import shutil
import threading
from concurrent import futures

import numpy as np
import PIL.Image
import pytest
import tensorflow_datasets as tfds

from byol_jax.config import UsageError
from byol_jax.data import datasets, image_decoding, image_folder
from byol_jax.data.prepare import array_record, pack_sources, packed_dataset, shrinking
from byol_jax.tasks import convert, pack
from byol_jax.workdir import files
from configs import convert as convert_config
from configs import pack as config_file
from tests.support import samples

SIDE = 40
GOLDEN = pathlib.Path(__file__).parents[2] / "golden" / "tfrecord_set"
# File below the folder: its height and width, and how it is stored.
PICTURES = {f"ant/{i}.jpg": (60 + i, 90, "JPEG") for i in range(16)}
PICTURES |= {f"bee/far/{i}.png": (100, 50 + i, "PNG") for i in range(16)}
PICTURES |= {f"cat, big/{i}.JPG": (30, 60 + i, "JPEG") for i in range(8)}  # small enough
BAD = {"ant/cut.jpg": "truncated", "bee/text.png": "not an image", "bee/is_jpg.png": "extension"}


def picture(name):
    height, width, _ = PICTURES[name]
    return samples.drawn_picture(height, width, seed=sorted(PICTURES).index(name))


def fill(root, *, is_labeled=True):
    for name, (_, _, kind) in PICTURES.items():
        path = root / (name if is_labeled else name.replace("/", "_"))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(samples.encode(picture(name), kind))
    if is_labeled:
        whole = (root / "ant" / "0.jpg").read_bytes()
        (root / "ant" / "cut.jpg").write_bytes(whole[: len(whole) * 9 // 10])
        (root / "bee" / "text.png").write_text("no image")
        (root / "bee" / "is_jpg.png").write_bytes(whole)
        (root / "bee" / "notes.txt").write_text("ignored")
    return root


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return fill(tmp_path_factory.mktemp("sets") / "My photos")


def make_config(data_dir="", output="", **overrides):
    config = config_file.get_config()
    keys = {"data.dir": str(data_dir), "output_dir": str(output), "shorter_side": SIDE}
    keys |= {"data.max_bad_share": 0.2, "shard_images": 7, "image_size": 16}
    config.update_from_flattened_dict(keys | overrides)
    return config


@pytest.fixture(scope="module")
def packed(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("packed")
    pack.run(make_config(folder, out), out)
    return out


def contents(out):
    return {path.relative_to(out): path.read_bytes() for path in out.rglob("*") if path.is_file()}


def examples(out, name="my_photos", split="train+test"):
    """What TFDS itself reads: file name, encoded image, label."""
    builder = tfds.builder(name, data_dir=str(out))
    decoders = {"image": tfds.decode.SkipDecoding()}
    rows = builder.as_data_source(split, decoders=decoders)
    return [(row["file_name"].decode(), row["image"], row.get("label")) for row in rows]


def test_every_good_image_is_there_once_with_its_label(packed):
    rows = examples(packed)
    assert sorted(name for name, _, _ in rows) == sorted(PICTURES)
    classes = ["ant", "bee", "cat, big"]
    assert all(classes[label] == name.split("/")[0] for name, _, label in rows)
    info = tfds.builder("my_photos", data_dir=str(packed)).info
    assert info.features["label"].names == classes


def test_images_have_the_right_size_and_look_alike(packed, folder):
    for name, encoded, _ in examples(packed):
        height, width, kind = PICTURES[name]
        if min(height, width) <= SIDE and kind == "JPEG":
            assert encoded == (folder / name).read_bytes()
            continue
        image = image_decoding.EncodedImage(encoded)
        pixels = image.decode()
        assert image.format == "JPEG" and min(pixels.shape[:2]) == SIDE
        assert pixels.shape[0] / pixels.shape[1] == pytest.approx(height / width, rel=0.02)
        expected = PIL.Image.fromarray(picture(name)).resize(pixels.shape[1::-1], PIL.Image.BOX)
        assert np.abs(pixels - np.asarray(expected, float)).mean() < 6


def test_it_is_read_as_any_set(packed):
    train, test = (
        datasets.load("tfds:my_photos", split, data_dir=str(packed)) for split in ("train", "test")
    )
    assert (train.num_classes, test.num_classes) == (3, 3)
    assert train.num_images + test.num_images == len(PICTURES)
    assert set(records_of(train)) == {0, 1, 2}


def records_of(data):
    return [data.records.read(index)[1] for index in range(data.num_images)]


def test_splits_and_their_order_are_the_folders(packed, folder):
    for split in ("train", "test"):
        data = datasets.load("folder", split, data_dir=str(folder))
        names = [data.records.name(i) for i in range(data.num_images)]
        good = [name for name in names if not name.endswith(tuple(BAD))]
        found = [str(folder / name) for name, _, _ in examples(packed, split=split)]
        assert found == good


def test_bad_images_are_listed(packed):
    lines = (packed / "my_photos" / "1.0.0" / "bad_images.txt").read_text().splitlines()
    assert len(lines) == len(BAD)
    for name, reason in BAD.items():
        assert any(f"{name}\t" in line and reason in line for line in lines), lines


def test_a_run_stopped_anywhere_goes_on_to_the_same_bytes(
    packed, folder, tmp_path, monkeypatch, capsys
):
    real, calls = shrinking.shrink, []

    def stops(data, **options):
        calls.append(data)
        if len(calls) > 20:
            raise KeyboardInterrupt
        return real(data, **options)

    with monkeypatch.context() as patch:
        patch.setattr(shrinking, "shrink", stops)
        with pytest.raises(KeyboardInterrupt):
            pack.run(make_config(folder, tmp_path), tmp_path)
    left = {path.name for path in contents(tmp_path)}
    assert not [name for name in left if name.endswith(".part") or name == "dataset_info.json"]
    assert any("array_record-00000" in name for name in left)
    pack.run(make_config(folder, tmp_path), tmp_path)
    assert "shards are finished; going on" in capsys.readouterr().err
    assert contents(tmp_path) == contents(packed)


def test_a_lost_shard_is_made_again_and_a_whole_set_left_alone(
    packed, folder, tmp_path, monkeypatch, capsys
):
    out = shutil.copytree(packed, tmp_path / "out")
    next(out.rglob("*train*00001-of*")).unlink()
    pack.run(make_config(folder, out), tmp_path)
    assert contents(out) == contents(packed)
    monkeypatch.setattr(array_record, "write_shard", None)
    capsys.readouterr()
    pack.run(make_config(folder, out), tmp_path)
    said = capsys.readouterr().err
    assert "packed already" in said and "--config.data.name=tfds:my_photos" in said


def test_other_settings_are_refused(packed, folder, tmp_path):
    out = shutil.copytree(packed, tmp_path / "out")
    with pytest.raises(UsageError, match="(?s)quality: 85 -> 80.*shorter_side: 40 -> 50"):
        pack.run(make_config(folder, out, quality=80, shorter_side=50), tmp_path)
    assert contents(out) == contents(packed)
    pack.run(make_config(folder, out, **{"data.max_bad_share": 0.5}), tmp_path)


def test_too_many_bad_images_are_named_and_can_be_allowed(packed, folder, tmp_path):
    config = make_config(folder, tmp_path, **{"data.max_bad_share": 0.02})
    with pytest.raises(UsageError, match=r"cannot be used.*\n  .*My photos.*\n.*max_bad_share"):
        pack.run(config, tmp_path)
    assert not list(tmp_path.rglob("dataset_info.json"))
    pack.run(make_config(folder, tmp_path), tmp_path)
    assert contents(tmp_path) == contents(packed)


def test_a_shard_without_any_good_image_is_no_problem(tmp_path):
    root = fill(tmp_path / "photos", is_labeled=False)
    listing = datasets.load("folder", "train", data_dir=str(root)).records
    for index in (2, 3):
        pathlib.Path(listing.name(index)).write_text("no image")
    pack.run(make_config(root, tmp_path / "out", shard_images=2), tmp_path)
    data = datasets.load("tfds:photos", "train", data_dir=str(tmp_path / "out"))
    assert data.num_images == len(PICTURES) - 2
    assert listing.name(4).endswith(examples(tmp_path / "out", "photos", "train")[2][0])


def test_a_folder_without_labels(tmp_path, capsys):
    root = fill(tmp_path / "mnist", is_labeled=False)
    pack.run(make_config(root, ""), tmp_path)
    data = datasets.load("tfds:mnist_packed", "train", data_dir=str(tmp_path / "mnist_packed"))
    assert data.num_images == len(PICTURES) and data.num_classes == 0
    assert set(records_of(data)) == {-1}
    said = capsys.readouterr().err
    assert "--config.data.eval_split='train[:10%]'" in said
    datasets.load("tfds:mnist_packed", "train[:10%]", data_dir=str(tmp_path / "mnist_packed"))


def test_a_folder_of_split_folders_keeps_them(tmp_path, capsys):
    for split in ("train", "val"):
        fill(tmp_path / "photos" / split)
    pack.run(make_config(tmp_path / "photos", tmp_path / "out"), tmp_path)
    for split in ("train", "validation"):
        found = {name for name, _, _ in examples(tmp_path / "out", "photos", split)}
        assert found == set(PICTURES)
    assert "--config.data.eval_split=validation" in capsys.readouterr().err


def test_splits_of_any_name_are_packed_and_named_in_what_to_type(tmp_path, capsys):
    for split in ("Validation", "Testing"):
        fill(tmp_path / "photos" / split)
    (tmp_path / "photos" / "train").mkdir()  # holds no image
    pack.run(make_config(tmp_path / "photos", tmp_path / "out"), tmp_path)
    for split in ("validation", "test"):
        assert {name for name, _, _ in examples(tmp_path / "out", "photos", split)} == set(PICTURES)
    said = capsys.readouterr().err
    assert "--config.data.train_split=validation --config.data.eval_split=test" in said


def test_a_tfds_set_keeps_name_config_version_labels_and_order(tmp_path, capsys):
    """Its images are PNGs of 16 to 24 pixels, file n of class n % 3."""
    sets, out = tmp_path / "sets", tmp_path / "out"
    config = convert_config.get_config()
    config.data.name, config.data.dir = "tiny_shapes/small", str(GOLDEN)
    config.output_dir = str(sets)
    convert.run(config, tmp_path)
    name = {"data.name": "tfds:tiny_shapes/small", "shorter_side": 18}
    pack.run(make_config(sets, out, **name), tmp_path)
    assert (out / "tiny_shapes" / "small" / "1.2.0" / "dataset_info.json").exists()
    for split, count in (("train", 13), ("test", 5)):
        before, after = (examples(root, "tiny_shapes/small", split) for root in (sets, out))
        assert [row[0::2] for row in before] == [row[0::2] for row in after]
        assert len(after) == count
        for file_name, encoded, label in after:
            number = int(file_name.split("_")[1].split(".")[0])
            image = image_decoding.EncodedImage(encoded)
            assert min(image.height, image.width) == min(number % 9 + 16, number % 7 + 16, 18)
            assert label == number % 3
    assert f"--config.data.dir={out}, and everything else" in capsys.readouterr().err
    with pytest.raises(UsageError, match="not made by this task"):
        pack.run(make_config(sets, sets, **name), tmp_path)
    with pytest.raises(UsageError, match="output_name is for folders"):
        pack.run(make_config(sets, out, output_name="other", **name), tmp_path)


def test_a_full_disk_keeps_whole_shards(packed, folder, tmp_path, monkeypatch):
    real, synced = files.sync, []

    def sync(path):
        synced.append(path)
        if len(synced) == 8:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(path)

    with monkeypatch.context() as patch:
        patch.setattr(files, "sync", sync)
        with pytest.raises(
            UsageError, match="Cannot write to .*No space left on device.*rerun the same command"
        ):
            pack.run(make_config(folder, tmp_path), tmp_path)
    assert not list(tmp_path.rglob("*.part")) and list(tmp_path.rglob("*array_record*"))
    pack.run(make_config(folder, tmp_path), tmp_path)
    assert contents(tmp_path) == contents(packed)


def test_mistakes(folder, tmp_path):
    for message, keys in {
        "inside of the folder of images": {"output_dir": str(folder / "out")},
        "has to begin with a small letter": {"output_name": "1st"},
        "TFDS has a set 'mnist'": {"output_name": "mnist"},
        "quality must be from 1": {"quality": 0},
        "max_bad_share must be": {"data.max_bad_share": 5.0},
        "shorter_side must be at least 8": {"shorter_side": 4},
        "shard_images must be above 0": {"shard_images": 0},
        "Did you mean 'folder'": {"data.name": "foldr"},
        "No folder": {"data.dir": "/nowhere"},
        "part of the program": {"data.name": "patterns"},
    }.items():
        with pytest.raises(UsageError, match=message):
            keys = {"data.dir": str(folder), "output_dir": str(tmp_path)} | keys
            pack.run(make_config(**keys), tmp_path)
    assert not list(tmp_path.iterdir()) and not (folder / "out").exists()


def test_a_set_that_fits_into_memory_is_refused(packed, monkeypatch):
    small = datasets.ArrayDataset(np.zeros((1, 8, 8, 3), np.uint8), np.zeros(1, np.int32), 3)
    monkeypatch.setattr(datasets, "load", lambda *arguments, **options: small)
    with pytest.raises(UsageError, match="small already"):
        pack_sources.open_source("tfds:my_photos", str(packed), "")


def test_the_default_shorter_side_leaves_what_a_center_crop_cuts_off():
    config = config_file.get_config()
    assert pack.shorter_side(config) == 256
    config.image_size = 112
    assert pack.shorter_side(config) == 128


def test_shrinking_turns_a_photo_upright():
    exif = PIL.Image.Exif()
    exif[274] = 6  # to be turned right
    data = samples.encode(samples.drawn_picture(80, 160), "JPEG", exif=exif)
    image = image_decoding.EncodedImage(shrinking.shrink(data, shorter_side=SIDE, quality=90))
    assert (image.height, image.width) == (80, SIDE)


def test_not_too_much_is_begun_before_it_is_needed():
    begun, lock = [], threading.Lock()

    def note(number):
        with lock:
            begun.append(number)
        return number

    with futures.ThreadPoolExecutor(2) as pool:
        results = packed_dataset.in_order(pool, note, range(100), 8)
        for number in range(100):
            assert next(results) == number
            assert len(begun) <= number + 8


def test_the_card_is_readable(packed):
    card = json.loads((packed / "my_photos" / "1.0.0" / "pack.json").read_text())
    assert card["shorter_side"] == SIDE and card["data_name"] == "folder"


@pytest.mark.parametrize("name", ["pack.json", "bad_images.txt", "notes"])
def test_a_folder_of_somebody_else_is_left_alone(name, packed, folder, tmp_path):
    below = next(packed.rglob("pack.json")).parent.relative_to(packed)
    theirs = tmp_path / below / name
    theirs.parent.mkdir(parents=True)
    theirs.write_text("[]")
    with pytest.raises(UsageError, match=f"{name}.*--config.output_dir"):
        pack.run(make_config(folder, tmp_path), tmp_path)
    assert theirs.read_text() == "[]" and len(list(theirs.parent.iterdir())) == 1


def test_a_split_that_cannot_be_listed_is_not_taken_for_one_without_images(folder, monkeypatch):
    scan = image_folder.scan

    def fails(root, split):
        if split == "test":
            raise UsageError("Cannot read a folder")
        return scan(root, split)

    monkeypatch.setattr(image_folder, "scan", fails)
    with pytest.raises(UsageError, match="Cannot read a folder"):
        pack.run(make_config(folder), folder)
