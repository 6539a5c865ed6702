"""Grayscale of more than 8 bits: by what a file says, else by what was measured over its set."""

import json
import struct
import types
import zlib

import cv2
import ml_collections
import numpy as np
import PIL.Image
import PIL.TiffImagePlugin
import pytest

from byol_jax.data import data_cards, datasets, eval_loader, gray, image_decoding, train_loader
from byol_jax.data.prepare import shrinking
from byol_jax.evaluation import protocol
from byol_jax.models import encoder_spec
from byol_jax.workdir import run_folder
from tests.data.image_decoding_test import in_three, png_chunk
from tests.support.samples import drawn_picture, encode

GRAY = np.asarray(PIL.Image.fromarray(drawn_picture(45, 61)).convert("L"))
DEEP = GRAY.astype(np.uint16) * 16 + np.arange(61, dtype=np.uint16) % 16  # 12 bits
TWELVE = {"unsigned": (0, 4095)}


def decode(data, ranges=None):
    return image_decoding.EncodedImage(data, ranges).decode()


def tiff(pixels, **tags):
    """A TIFF with tags, as (type, value), by their number after an underscore."""
    info = PIL.TiffImagePlugin.ImageFileDirectory_v2()
    for name, (kind, value) in tags.items():
        info.tagtype[int(name[1:])] = kind
        info[int(name[1:])] = value
    return encode(pixels, "TIFF", tiffinfo=info)


def test_bytes_are_even_steps_and_those_of_whole_bits_the_upper_eight():
    values = np.arange(65536, dtype=np.uint16)
    np.testing.assert_array_equal(gray.to_bytes(values, 0, 65535), values >> 8)
    np.testing.assert_array_equal(gray.to_bytes(values[:4096], 0, 4095), values[:4096] >> 4)
    np.testing.assert_array_equal(gray.to_bytes(values[:256], 0, 255), values[:256])
    assert gray.to_bytes(values, 0, 4095).max() == 255
    floats = np.array([-1, 0, 0.5, 1, 2, np.nan, np.inf, -np.inf], np.float32)
    assert gray.to_bytes(floats, 0, 1).tolist() == [0, 0, 128, 255, 255, 0, 255, 0]
    assert gray.to_bytes(np.array([-1000, 0, 3095], np.int16), -1000, 3095).tolist() == [0, 62, 255]


# What a file says.


@pytest.mark.parametrize(
    "tags",
    [
        {"_341": (3, 4095), "_340": (3, 0)},
        {"_341": (3, 4095)},
        {"_281": (3, 4095)},
        {"_340": (11, 0.0), "_341": (11, 4095.0)},
    ],
)
def test_the_largest_value_that_a_tiff_names_is_white(tags):
    # Exact but for the last shade, since a range of a file has no whole bits.
    pixels = decode(tiff(DEEP, **tags), {"unsigned": (0, 65535)})
    np.testing.assert_array_equal(pixels, in_three(GRAY))


def test_a_largest_value_that_only_repeats_the_number_of_bits_says_nothing():
    data = tiff(DEEP, _281=(3, 65535))
    np.testing.assert_array_equal(decode(data), in_three(DEEP >> 8))
    np.testing.assert_array_equal(decode(data, TWELVE), in_three(GRAY))


@pytest.mark.parametrize("tags", [{"_340": (3, 9), "_341": (3, 9)}, {"_341": (11, float("nan"))}])
def test_a_range_without_sense_says_nothing(tags):
    np.testing.assert_array_equal(decode(tiff(DEEP, **tags), TWELVE), in_three(GRAY))


def twelve_bit_tiff():
    """Two pixels in three bytes."""
    values = DEEP[:, :60]
    first, second = values[:, ::2], values[:, 1::2]
    packed = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], -1)
    body = packed.astype(np.uint8).tobytes()
    tags = [(256, 60), (257, 45), (258, 12), (259, 1), (262, 1), (273, 8), (277, 1), (278, 45)]
    tags += [(279, len(body))]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    head = b"II*\0" + struct.pack("<I", 8 + len(body))
    return head + body + struct.pack("<H", len(tags)) + entries + bytes(4)


def test_twelve_bits_that_are_stored_as_such_are_read_as_such():
    np.testing.assert_array_equal(decode(twelve_bit_tiff()), in_three(GRAY[:, :60]))


def with_significant_bits(data, bits):
    return data[:33] + png_chunk(b"sBIT", bytes([bits])) + data[33:]


def test_significant_bits_of_a_png_count_where_its_values_were_not_scaled_up():
    raw = with_significant_bits(encode(DEEP), 12)
    scaled = with_significant_bits(encode(DEEP << 4 | DEEP >> 8), 12)
    dark = with_significant_bits(encode(DEEP // 17 << 4), 12)
    np.testing.assert_array_equal(decode(raw), in_three(GRAY))
    np.testing.assert_array_equal(decode(scaled), in_three(GRAY))
    np.testing.assert_array_equal(decode(dark), in_three((DEEP // 17 << 4) >> 8))


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_where_the_least_value_is_white_so_it_is_shown(dtype):
    ranges = TWELVE | {"float": (0, 4096)}
    data = tiff(DEEP.astype(dtype), _262=(3, 0))
    np.testing.assert_array_equal(decode(data, ranges), 255 - in_three(GRAY))


# What is measured.


def summaries(*samples):
    return [gray.summarize(np.asarray(sample)) for sample in samples]


def test_ranges_of_unsigned_values_end_where_their_bits_do():
    for largest, end in ((4095, 4095), (2500, 4095), (255, 255), (3, 255), (65535, 65535)):
        assert gray.range_of("unsigned", summaries([0, 5], [largest])) == (0, end)
    assert gray.range_of("signed", summaries([0, 5], [3000])) == (0, 4095)


def test_ranges_of_other_values_leave_outliers_out():
    sample = np.linspace(-1000, 3000, 100_001)
    sample[7], sample[8] = -9e9, 9e9
    low, high = gray.range_of("signed", summaries(sample))
    assert abs(low + 996) < 1 and abs(high - 2996) < 1
    for values, expected in (
        ([0.25, np.nan, 0.5, np.inf], (0, 0.5)),
        (np.linspace(0, 255, 9), (0, 256)),
        (np.zeros(9), (0, 1)),
        ([], (0, 1)),
    ):
        assert gray.range_of("float", summaries(np.array(values))) == expected


def write_set(folder, number=6, scale=1, dtype=np.uint16):
    for i in range(number):
        pixels = (np.roll(DEEP, 7 * i, axis=1) * scale).astype(dtype)
        (folder / f"{i}.tif").write_bytes(encode(pixels, "TIFF"))
    (folder / "color.jpg").write_bytes(encode(drawn_picture(45, 61), "JPEG"))
    (folder / "bad.png").write_bytes(b"nothing")
    return datasets.load("folder", "all", data_dir=str(folder))


@pytest.mark.parametrize(
    ("dtype", "scale", "kind", "range_of"),
    [
        (np.uint16, 1, "unsigned", (0, 4095)),
        (np.uint16, 1 / 16, "unsigned", (0, 255)),
        (np.uint16, 16, "unsigned", (0, 65535)),
        (np.float32, 1 / 4096, "float", None),
        (np.int32, 1000, "signed", None),
    ],
)
def test_a_set_is_measured_and_comes_out_neither_black_nor_white(
    tmp_path, dtype, scale, kind, range_of
):
    data = write_set(tmp_path, dtype=dtype, scale=scale)
    ranges = eval_loader.grey_ranges(data)
    assert list(ranges) == [kind] and range_of in (None, ranges[kind])
    data = datasets.with_grey_ranges(data.select(np.flatnonzero(is_deep(data))), ranges)
    mean, _ = eval_loader.channel_stats(data, image_size=32)
    assert abs(mean[0] - GRAY.mean() / 255) < 0.08
    crop = train_loader.Crop(32)
    batches = train_loader.TrainBatches(data, batch_size=6, seed=0, crop=crop, max_bad_share=0.0)
    assert abs(next(batches)["view1"].mean() - GRAY.mean()) < 30
    batches.close()


def is_deep(data):
    return [data.records.file_name(i).endswith(".tif") for i in range(data.num_images)]


def test_sets_without_deep_grayscale_have_no_ranges(tmp_path):
    for name in ("a.jpg", "b.png"):
        form = "JPEG" if name == "a.jpg" else "PNG"
        (tmp_path / name).write_bytes(encode(drawn_picture(20, 20), form))
    data = datasets.load("folder", "all", data_dir=str(tmp_path))
    assert eval_loader.grey_ranges(data) is None
    assert eval_loader.grey_ranges(datasets.load("patterns", "test")) is None


# Where it is stored, and who uses it.


def data_config(folder):
    data = {"name": "folder", "dir": str(folder), "mean": None, "std": None, "image_size": 32}
    return ml_collections.ConfigDict({"data": data})


def describe(folder, data, known=None, mean=None):
    """The card of a set whose statistics are perhaps not given."""
    name, size = str(folder), 32
    return data_cards.describe(data, known, name=name, mean=mean, std=mean, image_size=size)


def test_a_run_measures_once_and_keeps_the_ranges(tmp_path, capsys):
    data = write_set(tmp_path)
    card = describe(tmp_path, data)
    assert card.grey_ranges == TWELVE and 0.3 < card.mean[0] < 0.7
    assert "unsigned values 0 to 4095 become black to white" in capsys.readouterr().err
    stored = json.loads(json.dumps(card._asdict()))
    assert run_folder.make_data_card(stored) == card
    known = card._replace(grey_ranges={"unsigned": (0, 99)})
    assert describe(tmp_path, data, known) == known


def test_a_data_card_of_an_earlier_version_loads():
    fields = {"num_images": 2, "num_classes": 0, "fingerprint": ""}
    fields |= {"mean": [0.5] * 3, "std": [0.5] * 3}
    assert run_folder.make_data_card(fields).grey_ranges is None


@pytest.mark.parametrize("mean", [None, (0.5, 0.5, 0.5)])
def test_a_set_that_comes_out_nearly_black_says_so(mean, tmp_path, capsys):
    for number in range(3):  # colors are not scaled: 12 bits of 16
        pixels = (drawn_picture(20, 20, number) // 64).astype(np.uint8)
        (tmp_path / f"{number}.png").write_bytes(encode(pixels))
    data = datasets.load("folder", "all", data_dir=str(tmp_path))
    card = describe(tmp_path, data, mean=mean)
    assert "come out nearly black (mean 0." in capsys.readouterr().err
    assert mean is None or card.mean == card.std == mean


def encoder_of(folder, ranges):
    """As much of an encoder as says what it was trained on; of no run without a folder."""
    config = data_config(folder) if folder else None
    card = encoder_spec.EncoderSpec("micro_resnet", grey_ranges=ranges)
    return types.SimpleNamespace(config=config, card=card)


def test_evaluations_use_the_ranges_of_the_run_and_measure_other_sets(tmp_path):
    (tmp_path / "own").mkdir()
    (tmp_path / "other").mkdir()
    write_set(tmp_path / "own")
    write_set(tmp_path / "other", scale=16)
    stored = {"unsigned": (0, 1023)}
    for trained, place, expected in (
        ("own", "own", stored),
        ("own", "other", {"unsigned": (0, 65535)}),
        (None, "other", stored),  # an export does not say on what it was trained
    ):
        encoder = encoder_of(trained and tmp_path / trained, stored)
        source = types.SimpleNamespace(name="folder", dir=str(tmp_path / place), labels="")
        splits = protocol.load_splits(encoder, source, ["all", "all"], decode="full")
        assert [split.grey_ranges for split in splits] == [expected] * 2


def test_a_packed_image_is_scaled(tmp_path):
    data = shrinking.shrink(encode(DEEP), shorter_side=30, quality=95, ranges=TWELVE)
    assert abs(decode(data).mean() - GRAY.mean()) < 3


# The other thing that evaluations decide about decoding.


def test_evaluations_decode_as_their_config_says(tmp_path):
    picture = np.random.RandomState(0).randint(0, 256, (300, 300, 3)).astype(np.uint8)
    for number in range(3):
        (tmp_path / f"{number}.jpg").write_bytes(encode(picture, "JPEG"))
    encoder = encoder_of(tmp_path, None)
    source = types.SimpleNamespace(name="folder", dir=str(tmp_path), labels="")
    spread = {}
    for decode in ("full", "reduced"):
        (data,) = protocol.load_splits(encoder, source, ["all"], decode=decode)
        (batch,) = eval_loader.eval_batches(data, batch_size=3, image_size=16)
        spread[decode] = batch.images.std()
    assert spread["reduced"] < spread["full"] / 2
    with pytest.raises(protocol.UsageError, match="Unknown data.decode: 'half'.*full, reduced"):
        protocol.load_splits(encoder, source, ["all"], decode="half")


# Colors of 16 bits.

COLORS = drawn_picture(45, 61).astype(np.uint16) * 16 + 5  # 12 bits
ALPHA = np.linspace(0, 65535, 45 * 61).astype(np.uint16).reshape(45, 61, 1)
OPAQUE = np.full_like(ALPHA, 65535)


def png16(values, colors):
    """A PNG of 16 bits, of gray with transparency (4), colors (2), and both (6)."""
    height, width, _ = values.shape
    header = struct.pack(">IIBBBBB", width, height, 16, colors, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)


def deep_colors(alpha=OPAQUE):
    """Files of the same picture by name; those of gray show its red."""
    tiff = cv2.imencode(".tif", COLORS[:, :, ::-1])[1].tobytes()
    plain = cv2.imencode(".tif", COLORS[:, :, ::-1], [cv2.IMWRITE_TIFF_COMPRESSION, 1])[1]
    return {
        "colors": png16(COLORS, 2),
        "colors with alpha": png16(np.concatenate([COLORS, alpha], 2), 6),
        "gray with alpha": png16(np.concatenate([COLORS[:, :, :1], alpha], 2), 4),
        "tiff": tiff,
        "uncompressed tiff": plain.tobytes(),
    }


@pytest.mark.parametrize("name", deep_colors())
def test_colors_of_few_bits_are_not_black(name):
    data = deep_colors()[name]
    expected = np.broadcast_to(COLORS[:, :, :1], COLORS.shape) if "gray" in name else COLORS
    np.testing.assert_array_equal(decode(data), expected >> 8)  # as ever, where nothing is known
    ranges = eval_loader.measure_gray(lambda _: data, 1)
    assert ranges == TWELVE
    np.testing.assert_array_equal(decode(data, ranges), expected >> 4)


@pytest.mark.parametrize("name", ["colors with alpha", "gray with alpha"])
def test_what_is_transparent_in_16_bits_is_on_white(name):
    values = deep_colors(ALPHA)[name]
    expected = np.broadcast_to(COLORS[:, :, :1], COLORS.shape) if "gray" in name else COLORS
    fraction = ALPHA / 65535
    mixed = (expected >> 4) * fraction + 255 * (1 - fraction)
    assert np.abs(decode(values, TWELVE) - mixed).max() < 2
