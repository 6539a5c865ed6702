"""Files that are no images, and systems that cannot read: told apart, and never waited for."""

import errno
import os
import pathlib
import resource

import numpy as np
import pytest

from byol_jax.data import datasets, eval_loader, image_decoding, image_files, train_loader
from tests.support.samples import drawn_picture, encode


@pytest.fixture(name="folder")
def fixture_folder(tmp_path):
    for number in range(12):
        (tmp_path / f"{number}.png").write_bytes(encode(drawn_picture(16, 16, number)))
    return tmp_path


def test_a_pipe_a_folder_and_a_device_are_no_images(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "device.jpg").symlink_to("/dev/zero")
    for name in ("pipe.jpg", "folder.jpg", "device.jpg"):
        with pytest.raises(image_decoding.BadImageError, match="not a file|Is a directory"):
            image_decoding.read_file(tmp_path / name)


def test_a_file_that_is_gone_or_links_to_itself_is_a_bad_image(tmp_path):
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    for name in ("none.jpg", "loop.jpg", "x" * 300 + ".jpg"):
        with pytest.raises(image_decoding.BadImageError, match="cannot be read: "):
            image_decoding.read_file(tmp_path / name)


@pytest.fixture(name="failing")
def fixture_failing(monkeypatch):
    """Makes the opening of images fail with an error number."""
    opened = os.open

    def fail_with(number):
        def fail(path, *options, **more):
            if not str(path).endswith((".jpg", ".png")):
                return opened(path, *options, **more)
            raise OSError(number, os.strerror(number), str(path))

        monkeypatch.setattr(image_files.os, "open", fail)

    return fail_with


def test_a_file_without_permission_is_a_bad_image(failing):
    failing(errno.EACCES)
    with pytest.raises(image_decoding.BadImageError, match="cannot be read: Permission denied"):
        image_decoding.read_file("some.jpg")


@pytest.mark.parametrize(
    "number", [errno.EIO, errno.EMFILE, errno.ENFILE, errno.ESTALE, errno.ENOMEM]
)
def test_a_system_that_fails_says_nothing_about_the_image(failing, number):
    failing(number)
    with pytest.raises(
        image_decoding.ReadError, match=rf"some.jpg: {os.strerror(number)}.*rerun the same"
    ):
        image_decoding.read_file("some.jpg")


def test_too_many_open_files_are_no_bad_image(folder):
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
    try:
        with pytest.raises(image_decoding.ReadError, match="0.png: Too many open files"):
            image_decoding.read_file(folder / "0.png")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_training_and_evaluation_end_with_the_reason(folder, failing):
    data = datasets.load("folder", "all", data_dir=str(folder))
    failing(errno.EIO)
    crop = train_loader.Crop(8)
    batches = train_loader.TrainBatches(data, batch_size=4, seed=0, crop=crop, max_bad_share=1.0)
    with pytest.raises(image_decoding.ReadError, match="Input/output error"):
        next(batches)
    batches.close()
    with pytest.raises(image_decoding.ReadError, match="Input/output error"):
        list(eval_loader.eval_batches(data, batch_size=4, image_size=8))


def test_no_memory_is_no_damage(monkeypatch):
    def fail(*_, **__):
        raise MemoryError

    image = image_decoding.EncodedImage(encode(drawn_picture(16, 16), "JPEG"))
    monkeypatch.setattr(image_decoding.simplejpeg, "decode_jpeg", fail)
    with pytest.raises(image_decoding.ReadError, match="16 x 16 pixels: out of memory"):
        image.decode()
    image = image_decoding.EncodedImage(encode(drawn_picture(16, 16), "PNG"))
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", fail)
    with pytest.raises(image_decoding.ReadError, match="out of memory"):
        image.decode()


def test_an_image_file_is_read_whole(tmp_path):
    data = np.random.RandomState(0).bytes(300_000)
    path = pathlib.Path(tmp_path, "some.jpg")
    path.write_bytes(data)
    assert image_decoding.read_file(path) == data
