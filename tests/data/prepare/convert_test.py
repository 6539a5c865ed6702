"""A set that TFDS wrote as TFRecord (tests/golden/tfrecord_set) is read after its conversion."""

import errno
import json
import os
import pathlib
import re
import shutil

import ml_collections
import numpy as np
import pytest

from byol_jax.config import UsageError
from byol_jax.data import datasets, image_decoding, tfds_source
from byol_jax.data.prepare import array_record, tfrecord
from byol_jax.tasks import convert
from configs import convert as config_file

GOLDEN = pathlib.Path(__file__).parents[2] / "golden" / "tfrecord_set"
BELOW = pathlib.Path("tiny_shapes", "small", "1.2.0")
COUNTS = {"train": 13, "test": 5}  # as make.py there has them


def make_config(data_dir, output_dir="", name="tiny_shapes/small") -> ml_collections.ConfigDict:
    config = config_file.get_config()
    config.data.name, config.data.dir, config.output_dir = name, str(data_dir), str(output_dir)
    return config


@pytest.fixture
def source(tmp_path):
    return shutil.copytree(GOLDEN, tmp_path / "sets", ignore=shutil.ignore_patterns("make.py"))


def drawn(number):
    """The image that make.py drew."""
    rows, columns = np.mgrid[: number % 9 + 16, : number % 7 + 16]
    return np.stack([8 * rows, 8 * columns, np.full_like(rows, 16 * number)], axis=-1)


def assert_as_drawn(data_dir, name="tfds:tiny_shapes/small"):
    for split, count in COUNTS.items():
        data = datasets.load(name, split, data_dir=str(data_dir))
        assert (data.num_images, data.num_classes) == (count, 3)
        numbers = []
        for index in range(count):
            encoded, label = data.records.read(index)
            number = int(re.search(rf"\({split}_(\d+)\.png\)", data.records.name(index))[1])
            pixels = image_decoding.EncodedImage(encoded).decode()
            np.testing.assert_array_equal(pixels, drawn(number).astype(np.uint8))
            assert label == number % 3
            numbers.append(number)
        assert sorted(numbers) == list(range(count))


def is_visible(output):
    """Whether TFDS takes the output for a set."""
    try:
        tfds_source.find_folder("tiny_shapes/small", str(output))
    except UsageError:
        return False
    return True


def test_images_and_labels_survive(source, tmp_path, capsys):
    convert.run(make_config(source), tmp_path)
    assert_as_drawn(tmp_path / "sets_array_record")
    assert_as_drawn(tmp_path / "sets_array_record", name="tfds:tiny_shapes")
    said = capsys.readouterr().err
    assert "18 records in 6 shards" in said
    assert f"--config.data.dir={tmp_path / 'sets_array_record'}" in said
    assert not list(tmp_path.rglob("*.part"))


def test_records_are_the_same_bytes_in_the_same_shards(source, tmp_path):
    convert.run(make_config(source, tmp_path / "out"), tmp_path)
    info = json.loads((source / BELOW / "dataset_info.json").read_text())
    for split in info["splits"]:
        for number, length in enumerate(split["shardLengths"]):
            end = f"-0000{number}-of-00003"
            stem = f"tiny_shapes-{split['name']}"
            old = source / BELOW / f"{stem}.tfrecord{end}"
            new = tmp_path / "out" / BELOW / f"{stem}.array_record{end}"
            reader = array_record.array_record_module.ArrayRecordReader(str(new))
            assert reader.read_all() == list(tfrecord.read_tfrecord(old, int(length)))


def test_the_command_that_the_error_names_works(source, tmp_path):
    with pytest.raises(UsageError) as error:
        datasets.load("tfds:tiny_shapes/small", "train", data_dir=str(source))
    words = str(error.value).split("main_loop ")[1].split()
    keys = dict(word.removeprefix("--").split("=") for word in words)
    assert keys.pop("config") == "configs/convert.py"
    config = config_file.get_config()
    flat = {key.removeprefix("config."): value for key, value in keys.items()}
    config.update_from_flattened_dict(flat)
    convert.run(config, tmp_path)
    assert_as_drawn(f"{source}_array_record")


def test_a_deleted_shard_is_made_again_and_no_other(source, tmp_path, capsys):
    config = make_config(source, tmp_path / "out")
    convert.run(config, tmp_path)
    first, *others = sorted((tmp_path / "out" / BELOW).glob("*array_record-*"))
    content, times = first.read_bytes(), [path.stat().st_mtime_ns for path in others]
    first.unlink()
    convert.run(config, tmp_path)
    assert first.read_bytes() == content
    assert [path.stat().st_mtime_ns for path in others] == times
    assert "5 of 6 shards are finished" in capsys.readouterr().err
    convert.run(config, tmp_path)
    assert "already converted" in capsys.readouterr().err


class _Writer:
    """Array_record's, which raises at its fifth record."""

    error: BaseException

    def __init__(self, *arguments):
        self._writer, self._count = _real_writer(*arguments), 0

    def write(self, record):
        self._count += 1
        if self._count == 5:
            raise self.error
        self._writer.write(record)

    def close(self):
        self._writer.close()


_real_writer = array_record.array_record_module.ArrayRecordWriter


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (KeyboardInterrupt(), KeyboardInterrupt),
        (OSError(errno.ENOSPC, "No space left on device"), UsageError),
        (RuntimeError("write() failed: No space left on device; writing x"), UsageError),
    ],
)
def test_an_interrupted_run_keeps_whole_shards_and_goes_on(
    error, raised, source, tmp_path, monkeypatch, capsys
):
    _Writer.error = error
    config = make_config(source, tmp_path / "out")
    with monkeypatch.context() as patch:
        patch.setattr(array_record.array_record_module, "ArrayRecordWriter", _Writer)
        with pytest.raises(
            raised, match="No space left.*same command" if raised is UsageError else None
        ):
            convert.run(config, tmp_path)
    # Shards have 4, 5 and 4 training images.
    assert [path.name for path in (tmp_path / "out" / BELOW).iterdir()] == [
        "tiny_shapes-train.array_record-00000-of-00003"
    ]
    assert not is_visible(tmp_path / "out")
    convert.run(config, tmp_path)
    assert "1 of 6 shards are finished" in capsys.readouterr().err
    assert_as_drawn(tmp_path / "out")


def flip(data):
    data[-50] ^= 1  # in the last record, which is longer


def flip_length(data):
    data[0] ^= 1


def cut_record(data):
    del data[-3:]


def cut_header(data):
    data += data[:5]


def drop_record(data):
    length = int.from_bytes(data[:8], "little")
    del data[: 16 + length]


def zip_it(data):
    data[:] = b"\x1f\x8b\x08" + data


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (flip, r"record 3 at byte \d+: damaged"),
        (flip_length, "record 0 at byte 0: damaged"),
        (cut_record, r"record 3 at byte \d+: the file ends within it"),
        (cut_header, r"record 4 at byte \d+: the file ends within it"),
        (drop_record, "after 3 records; dataset_info.json says that it has 4"),
        (zip_it, "is compressed"),
    ],
)
def test_a_damaged_shard_is_refused(damage, message, source, tmp_path):
    path = source / BELOW / "tiny_shapes-train.tfrecord-00002-of-00003"
    data = bytearray(path.read_bytes())
    damage(data)
    path.write_bytes(data)
    with pytest.raises(
        UsageError, match=f"{path.name}.*{message}.*(?s:rerun the same command to resume)"
    ):
        convert.run(make_config(source, tmp_path / "out"), tmp_path)
    assert len(list((tmp_path / "out" / BELOW).iterdir())) == 2  # the shards before
    assert not is_visible(tmp_path / "out")


def test_a_missing_shard_is_named(source, tmp_path):
    (source / BELOW / "tiny_shapes-test.tfrecord-00001-of-00003").unlink()
    with pytest.raises(UsageError, match="1 files are missing, such as .*test.tfrecord-00001"):
        convert.run(make_config(source, tmp_path / "out"), tmp_path)


def test_what_is_there_already_is_not_touched(source, tmp_path, capsys):
    out = tmp_path / "out"
    convert.run(make_config(source, out), tmp_path)
    capsys.readouterr()
    convert.run(make_config(out), tmp_path)
    assert "ArrayRecord set already" in capsys.readouterr().err
    with pytest.raises(UsageError, match="is where the set is"):
        convert.run(make_config(source, source), tmp_path)
    path = out / BELOW / "dataset_info.json"
    info = json.loads(path.read_text())
    info["splits"][0]["shardLengths"] = ["13"]
    path.write_text(json.dumps(info))
    with pytest.raises(UsageError, match="holds another set.*splits"):
        convert.run(make_config(source, out), tmp_path)
    for text in ("", "[", "\xff"):  # of what set, nobody knows any more
        path.write_text(text, encoding="latin-1")
        with pytest.raises(UsageError, match="Cannot read .*dataset_info.json.*output_dir"):
            convert.run(make_config(source, out), tmp_path)
    path.unlink()  # as it says
    convert.run(make_config(source, out), tmp_path)


def test_other_mistakes(source, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="(?s)Cannot write to .*file.*--config.output_dir"):
        convert.run(make_config(source, tmp_path / "file"), tmp_path)
    with pytest.raises(UsageError, match="Which set"):
        convert.run(make_config(source, name=""), tmp_path)
    with pytest.raises(UsageError, match="no set 'tiny_shape'"):
        convert.run(make_config(source, name="tiny_shape"), tmp_path)


def test_templates_of_file_names_are_followed(source, tmp_path):
    path = source / BELOW / "dataset_info.json"
    info = json.loads(path.read_text())
    for split in info["splits"]:
        split["filepathTemplate"] = "{SPLIT}/{SHARD_INDEX}.{FILEFORMAT}"
        for number in range(3):
            old = f"tiny_shapes-{split['name']}.tfrecord-0000{number}-of-00003"
            new = source / BELOW / split["name"] / f"0000{number}.tfrecord"
            new.parent.mkdir(exist_ok=True)
            (source / BELOW / old).rename(new)
    path.write_text(json.dumps(info))
    convert.run(make_config(source, tmp_path / "out"), tmp_path)
    assert (tmp_path / "out" / BELOW / "train" / "00000.array_record").exists()
    assert_as_drawn(tmp_path / "out")


@pytest.mark.parametrize("name", ["features.json", "image.image.json"])
def test_a_file_of_somebody_else_in_the_new_folder_is_left_alone(name, source, tmp_path):
    (source / BELOW / name).touch()
    theirs = tmp_path / "out" / BELOW / name
    theirs.parent.mkdir(parents=True)
    theirs.write_text("mine")
    with pytest.raises(UsageError, match=f"{name} is there already.*--config.output_dir"):
        convert.run(make_config(source, tmp_path / "out"), tmp_path)
    assert theirs.read_text() == "mine" and len(list(theirs.parent.iterdir())) == 1


@pytest.mark.parametrize(
    ("which", "text"), [("source", ""), ("source", "[" * 10**5), ("out", ""), ("out", "[]")]
)
def test_a_description_that_is_none_is_named(which, text, source, tmp_path):
    path = (source if which == "source" else tmp_path / "out") / BELOW / "dataset_info.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    with pytest.raises(UsageError, match="dataset_info.json"):
        convert.run(make_config(source, tmp_path / "out"), tmp_path)
    assert path.read_text() == text


def test_the_default_config_of_a_set_that_is_there_stays(source, tmp_path):
    path = pathlib.Path("tiny_shapes", ".config", "metadata.json")
    for top, text in ((source, "theirs"), (tmp_path / "out", "ours")):
        (top / path).parent.mkdir(parents=True, exist_ok=True)
        (top / path).write_text(text)
    convert.run(make_config(source, tmp_path / "out"), tmp_path)
    assert (tmp_path / "out" / path).read_text() == "ours"


@pytest.mark.parametrize("make", ["a text", "a folder", "a pipe"])
def test_what_is_no_shard_of_ours_is_never_replaced(make, source, tmp_path):
    theirs = tmp_path / "out" / BELOW / "tiny_shapes-test.array_record-00001-of-00003"
    theirs.parent.mkdir(parents=True)
    {"a text": pathlib.Path.touch, "a folder": pathlib.Path.mkdir, "a pipe": os.mkfifo}[make](
        theirs
    )
    before = theirs.lstat()
    with pytest.raises(UsageError, match=f"{theirs.name}.*left as it is.*--config.output_dir"):
        convert.run(make_config(source, tmp_path / "out"), tmp_path)
    assert theirs.lstat().st_ino == before.st_ino
    assert [path.name for path in theirs.parent.iterdir()] == [theirs.name]


def test_a_shard_that_cannot_be_read_is_not_taken_for_a_missing_one(tmp_path, monkeypatch):
    def fails(path):
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    monkeypatch.setattr(array_record.files, "open_regular", fails)
    with pytest.raises(UsageError, match="shard: Input/output error. It is left as it is"):
        array_record.count(tmp_path / "shard")


@pytest.mark.parametrize(
    "change",
    [
        lambda info: info.pop("name"),
        lambda info: info.update(splits=3),
        lambda info: info.update(splits=["train"]),
        lambda info: info["splits"][0].pop("name"),
        lambda info: info["splits"][0].update(shardLengths=["many"]),
        lambda info: info["splits"][0].update(shardLengths=3),
        lambda info: info["splits"][0].update(filepathTemplate="{NOTHING}"),
        lambda info: info["splits"][0].update(filepathTemplate=3),
    ],
)
def test_a_description_with_other_fields_than_those_of_a_set_is_named(change, source, tmp_path):
    path = source / BELOW / "dataset_info.json"
    info = json.loads(path.read_text())
    change(info)
    path.write_text(json.dumps(info))
    with pytest.raises(UsageError, match="dataset_info.json|no set"):
        convert.run(make_config(source, tmp_path / "out"), tmp_path)
    assert not (tmp_path / "out").exists()
