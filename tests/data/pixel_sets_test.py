"""Sets that know something of every pixel, in the layouts of VOC, SBD, NYU and of two folders."""

import numpy as np
import PIL.Image
import pytest
import scipy.io

from byol_jax.config import UsageError
from byol_jax.data import (
    eval_loader,
    image_decoding,
    pixel_loader,
    pixel_sets,
    pixel_views,
    train_loader,
    voc,
)
from tests.support import golden_data, pixel_worlds

GOLDEN = golden_data.load("dense")
BadImageError = image_decoding.BadImageError

TRAIN, VAL, EXTRA = ["a1", "a2", "a3"], ["b1", "b2"], ["c1", "c2"]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp("world")
    pixel_worlds.write_voc(root, train=TRAIN, val=VAL, extra=EXTRA)
    pixel_worlds.write_folder(root / "mine", count=30)
    return root


def of_voc(root, split):
    return pixel_sets.LABELED["voc2012"](pixel_sets.Place(str(root)), split)


def of_folder(root, split="all", num_classes=4):
    place = pixel_sets.Place("", str(root / "images"), str(root / "masks"), num_classes)
    return pixel_sets.LABELED["folder"](place, split)


@pytest.mark.parametrize("k", range(int(GOLDEN["geometry|count"])))
def test_scaling_cutting_and_flipping_equal_the_golden_values(k):
    case = {key.split("|")[2]: GOLDEN[key] for key in GOLDEN if key.startswith(f"geometry|{k}|")}
    crop = int(GOLDEN["geometry|crop"])
    shape, scale = case["label"].shape, float(case["scale"])
    assert pixel_views.scaled_size(shape, scale) == tuple(case["scaled_hw"])
    cut = pixel_views.Cut(scale, *map(int, case["offset_yx"]), bool(case["flip"]))
    fill = GOLDEN["geometry|fill"]
    image, labels = pixel_views.cut_labels(
        case["image"], case["label"], cut, crop=crop, fill=fill, ignored=255
    )
    np.testing.assert_allclose(image, case["image_out"], atol=5e-3)
    np.testing.assert_array_equal(labels, case["label_out"])


UPSAMPLING = sorted({key.split("|")[1] for key in GOLDEN if key.startswith("upsample|")})


@pytest.mark.parametrize("case", UPSAMPLING)
def test_bilinear_resizing_equals_the_golden_values(case):
    images, size = GOLDEN[f"upsample|{case}|in"], tuple(map(int, GOLDEN[f"upsample|{case}|size"]))
    found = np.stack([pixel_views.resize_bilinear(image, size) for image in images])
    np.testing.assert_allclose(found, GOLDEN[f"upsample|{case}|half"], atol=2e-5)


def test_predicted_depth_is_resized_as_the_golden_values():
    expected = GOLDEN["depth|pred"]
    for small, large in zip(GOLDEN["depth|pred_small"], expected, strict=True):
        found = pixel_views.resize_bilinear(small, large.shape)
        np.testing.assert_allclose(found, large, atol=1e-5)


def test_drawn_cuts_stay_inside_and_reach_both_ends():
    rng = np.random.default_rng(0)
    cuts = [pixel_views.draw_cut(rng.random(4), (40, 60), 33, (0.5, 2.0)) for _ in range(500)]
    assert {cut.flip for cut in cuts} == {True, False}
    assert min(cut.scale for cut in cuts) < 0.55 and max(cut.scale for cut in cuts) > 1.9
    for cut in cuts:
        height, width = pixel_views.scaled_size((40, 60), cut.scale)
        assert 0 <= cut.top <= max(height, 33) - 33 and 0 <= cut.left <= max(width, 33) - 33


def test_train_aug_is_vocs_train_and_all_of_sbd_without_vocs_val(world):
    data = of_voc(world, voc.AUGMENTED)
    names = [data.records.file_name(i) for i in range(len(data))]
    assert names == sorted(TRAIN + EXTRA) and data.num_classes == 21
    targets = [data.records.target(i) for i in range(len(data))]
    borders = [bool((target[0] == 255).all()) for target in targets]
    assert borders == [True] * 3 + [False] * 2  # VOC's own masks where there are such


def test_labels_of_voc_and_of_sbd_are_those_that_were_drawn(world):
    data = of_voc(world, voc.AUGMENTED)
    _, labels, _ = pixel_worlds.draw(5)  # c1
    np.testing.assert_array_equal(data.records.target(3), labels)
    _, labels, _ = pixel_worlds.draw(0)  # a1
    np.testing.assert_array_equal(data.records.target(0)[1:], labels[1:])
    assert pixel_sets.read_example(data, 0).pixels.shape == (*labels.shape, 3)


def test_a_year_without_sbd_says_what_to_download(world, tmp_path):
    (tmp_path / "VOCdevkit").symlink_to(world / "VOCdevkit")
    assert len(of_voc(tmp_path, "val")) == 2
    with pytest.raises(UsageError, match="benchmark.tgz.*--config.data.train_split=train"):
        of_voc(tmp_path, voc.AUGMENTED)
    with pytest.raises(UsageError, match="Splits there: train, trainval, val"):
        of_voc(tmp_path, "test")
    with pytest.raises(UsageError, match="holds no VOCdevkit/VOC2012"):
        of_voc(tmp_path / "none", "val")


def test_no_image_of_a_folder_is_in_both_splits(world):
    splits = [of_folder(world / "mine", split).records for split in ("train", "test", "all")]
    train, test, both = ({r.file_name(i) for i in range(len(r))} for r in splits)
    assert train and test and not train & test and train | test == both


def test_every_example_of_a_folder_comes_once_and_in_order(world):
    data = of_folder(world / "mine")
    found = list(pixel_sets.examples(data))
    assert [example.index for example in found] == list(range(30))
    for example in found:
        _, labels, _ = pixel_worlds.draw(int(data.records.file_name(example.index)[:3]))
        np.testing.assert_array_equal(example.target, labels)


def test_depth_in_a_folder_is_in_millimeters(world):
    mine = world / "mine"
    place = pixel_sets.Place("", str(mine / "images"), str(mine / "depths"))
    data = pixel_sets.DEPTHS["folder"](place, "all")
    _, _, depth = pixel_worlds.draw(int(data.records.file_name(0)[:3]))
    np.testing.assert_allclose(data.records.target(0), depth, atol=5.1e-4)


# Bad files, by what is wrong with them: what to do to a folder, and what the message says.
def _save(folder, array, name="000.png"):
    PIL.Image.fromarray(array).save(folder / name)


BAD = {
    "size": (lambda f: _save(f, np.zeros((5, 7), np.uint8)), "48 x 40 px, but .* is 7 x 5"),
    "label": (lambda f: _save(f, np.full((40, 48), 9, np.uint8)), "000.png: label 9, where 4"),
    "missing": (lambda f: (f / "000.png").unlink(), "000.png: cannot be read: No such file"),
    "colors": (lambda f: _save(f, np.zeros((40, 48, 3), np.uint8)), "000.png: holds colors .RGB"),
    "damaged": (lambda f: (f / "000.png").write_bytes(b"\x89PNG\r\n\x1a\nxx"), "damaged PNG"),
    "jpeg": (lambda f: (f / "000.png").write_bytes(b"\xff\xd8\xff\xe0"), "JPEG file, which"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_masks_are_named_and_counted(case, tmp_path):
    spoil, message = BAD[case]
    pixel_worlds.write_folder(tmp_path, count=4)
    spoil(tmp_path / "masks")
    data = of_folder(tmp_path)
    allowed = eval_loader.BadLimit([data], 0.25)
    assert len(list(pixel_sets.examples(data, allowed))) == 3
    ((name, reason),) = allowed.found.items()
    assert name.endswith("images/000.png")
    with pytest.raises(UsageError, match=message):
        list(pixel_sets.examples(data, eval_loader.BadLimit([data], 0.1)))
    assert reason


def test_depth_of_zero_everywhere_is_bad(tmp_path):
    pixel_worlds.write_folder(tmp_path, count=2)
    pixel_worlds.save_depth(tmp_path / "depths" / "001.png", np.zeros((40, 48)))
    place = pixel_sets.Place("", str(tmp_path / "images"), str(tmp_path / "depths"))
    data = pixel_sets.DEPTHS["folder"](place, "all")
    with pytest.raises(UsageError, match="001.png: .*001.png: depth is 0, that is unknown"):
        list(pixel_sets.examples(data, eval_loader.BadLimit([data], 0)))


def test_masks_of_0_and_255_are_refused_before_anything_is_ignored(tmp_path):
    pixel_worlds.write_folder(tmp_path, count=3)
    for number in range(3):
        labels = 255 * (pixel_worlds.draw(number)[1] > 0).astype(np.uint8)
        _save(tmp_path / "masks", labels, f"{number:03d}.png")
    with pytest.raises(UsageError, match="nothing but 0 and 255.*1 in place of 255"):
        of_folder(tmp_path, num_classes=2)


def test_folders_that_lie_in_each_other_or_do_not_fit_are_refused(tmp_path):
    pixel_worlds.write_folder(tmp_path / "images", count=2)
    place = pixel_sets.Place("", str(tmp_path / "images"), str(tmp_path / "images" / "masks"), 4)
    with pytest.raises(UsageError, match="lie in each other"):
        pixel_sets.LABELED["folder"](place, "all")
    pixel_worlds.write_folder(tmp_path / "other", count=2)
    (tmp_path / "empty").mkdir()
    place = place._replace(images=str(tmp_path / "other/images"), targets=str(tmp_path / "empty"))
    with pytest.raises(UsageError, match="None of the first 2 images has its PNG in .*empty"):
        pixel_sets.LABELED["folder"](place, "all")
    with pytest.raises(UsageError, match="Give a folder by --config.data.masks; '' is none"):
        pixel_sets.LABELED["folder"](place._replace(targets=""), "all")


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda path: scipy.io.savemat(path, {"x": 1}), "no .mat of SBD with GTcls.Segmentation"),
        (lambda path: path.write_bytes(b"MATLAB 7.3 MAT-file".ljust(124) + b"\0\2IM" + b"x" * 99),
         "of MATLAB 7.3"),
        (lambda path: path.write_bytes(b"nonsense"), "no .mat of SBD"),
        (lambda path: pixel_worlds.save_sbd(path, np.full((40, 48), 30)), "label 30"),
    ],
)  # fmt: skip
def test_bad_files_of_sbd_are_named(spoil, message, tmp_path):
    pixel_worlds.write_voc(tmp_path, train=["a1"], val=["b1"], extra=["c1"])
    spoil(tmp_path / "benchmark_RELEASE" / "dataset" / "cls" / "c1.mat")
    data = of_voc(tmp_path, voc.AUGMENTED)
    with pytest.raises(BadImageError, match=f"cls/c1.mat: {message}"):
        data.records.target(1)


@pytest.fixture(scope="module")
def nyu(tmp_path_factory):
    pytest.importorskip("h5py")
    root = tmp_path_factory.mktemp("nyu")
    pixel_worlds.write_nyu(root)
    return root


@pytest.mark.parametrize("name, splits", [("nyu", ("train", "test")), ("nyu_h5", ("train", "val"))])
def test_nyus_images_and_depths_are_those_that_were_drawn(nyu, name, splits):
    numbers = (range(4), range(4, 9))
    for split, drawn in zip(splits, numbers, strict=True):
        found = list(
            pixel_sets.examples(pixel_sets.DEPTHS[name](pixel_sets.Place(str(nyu)), split))
        )
        assert len(found) == len(drawn)
        for example, number in zip(found, drawn, strict=True):
            image, _, depth = pixel_worlds.draw(number)
            np.testing.assert_array_equal(example.pixels, image)
            np.testing.assert_array_equal(example.target, depth)


def test_a_mat_of_another_version_or_set_is_named(nyu, tmp_path):
    import h5py

    path = tmp_path / "nyu_depth_v2_labeled.mat"
    load, place = pixel_sets.DEPTHS["nyu"], pixel_sets.Place(str(tmp_path))
    with pytest.raises(UsageError, match="holds no nyu_depth_v2_labeled.mat"):
        load(place, "train")
    scipy.io.savemat(path, {"images": 1})
    with pytest.raises(UsageError, match="labeled.mat is a MATLAB 5 file, where .* 7.3"):
        load(place, "train")
    with h5py.File(path, "w") as file:
        file["images"] = np.zeros((2, 3, 4, 5))
    with pytest.raises(UsageError, match="depths None.*not NYU's labeled set"):
        load(place, "train")
    path.unlink()
    path.symlink_to(nyu / path.name)
    with pytest.raises(UsageError, match="splits.mat is missing"):
        load(place, "train")
    scipy.io.savemat(tmp_path / "splits.mat", {"trainNdxs": [[1000]]})
    with pytest.raises(UsageError, match="names images that are not among the 9"):
        load(place, "train")


# Batches.


def make(example, rng):
    return {"index": np.int64(example.index), "draw": rng.random()}


def batches(data, **options):
    return pixel_loader.PixelBatches(data, seed=3, make=make, **{"max_bad": 0} | options)


def taken(stream, count):
    drawn = [next(stream) for _ in range(count)]
    return [(tuple(batch["index"]), tuple(batch["draw"])) for batch in drawn]


def test_batches_resume_to_the_bit(world):
    data = of_folder(world / "mine")
    whole = batches(data, batch_size=5)
    expected = taken(whole, 6)
    first = batches(data, batch_size=5)
    assert taken(first, 3) == expected[:3]
    second = batches(data, batch_size=5)
    second.set_state(first.get_state())
    assert taken(second, 3) == expected[3:]
    for stream in (whole, first, second):
        stream.close()


def test_processes_share_the_batches_of_one(world):
    data = of_folder(world / "mine")
    one = batches(data, batch_size=6)
    two = [batches(data, batch_size=3, process_index=i, process_count=2) for i in range(2)]
    whole = next(one)
    parts = [next(stream) for stream in two]
    np.testing.assert_array_equal(
        whole["draw"], np.stack([part["draw"] for part in parts], 1).ravel()
    )
    for stream in (one, *two):
        stream.close()


def test_bad_training_images_are_replaced_up_to_a_number(tmp_path):
    pixel_worlds.write_folder(tmp_path, count=4)
    (tmp_path / "masks" / "000.png").unlink()
    data = of_folder(tmp_path)
    stream = batches(data, batch_size=4, max_bad=1)
    next(stream)
    assert list(stream.bad_images.values()) and not set(next(stream)["index"]) & set(
        stream.bad_images
    )
    stream.close()
    stream = batches(data, batch_size=4, max_bad=0)
    with pytest.raises(
        train_loader.TooManyBadImagesError, match="000.png: .*masks/000.png: cannot"
    ):
        next(stream)
    stream.close()
