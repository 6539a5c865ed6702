"""An index: what comes back from its file, what is found, whose it is."""

import numpy as np
import pytest

from byol_jax.config import UsageError
from byol_jax.curation import index as index_lib

NAMES = ["a.jpg", "=b.jpg", "ç d.jpg", "e.jpg"]


class Stub:
    """An encoder whose features are the colors of an image's corner."""

    embedding_size = 3

    def __init__(self, sha256="0" * 64):
        self.identity = {"sha256": sha256, "path": "runs/of_a_stub"}

    def embed(self, images):
        return images[:, 0, 0].astype(np.float32)


@pytest.fixture
def index():
    index = index_lib.Index(Stub())
    colors = np.uint8([[9, 0, 0], [0, 9, 0], [0, 0, 9], [5, 5, 0]])
    index.add(np.broadcast_to(colors[:, None, None], (4, 8, 8, 3)), NAMES)
    return index


def test_the_nearest_come_first_with_their_cosine(index):
    hits = index.search(np.full((8, 8, 3), [90, 80, 0], np.uint8), k=2)
    assert hits.names == [["e.jpg", "a.jpg"]]
    cosine = 170 / (np.sqrt(2) * np.hypot(90, 80))
    assert hits.similarity[0, 0] == pytest.approx(cosine, abs=1e-6)


def test_what_is_saved_comes_back_and_needs_no_pickle(index, tmp_path):
    index.save(tmp_path / "index.npz")
    with np.load(tmp_path / "index.npz", allow_pickle=False) as arrays:
        assert {name: arrays[name].dtype.kind for name in arrays.files}["names"] == "U"
    again = index_lib.Index.load(tmp_path / "index.npz", Stub())
    query = np.full((2, 8, 8, 3), [0, 4, 4], np.uint8)
    assert again.search(query, k=4).names == index.search(query, k=4).names


def test_an_index_of_another_encoder_is_refused(index, tmp_path):
    index.save(tmp_path / "index.npz")
    with pytest.raises(
        UsageError, match="of another encoder .*runs/of_a_stub, sha256 000000000000"
    ):
        index_lib.Index.load(tmp_path / "index.npz", Stub("1" * 64))


@pytest.mark.parametrize(
    "damage", [lambda whole: b"", lambda whole: whole[:100], lambda whole: b"PK" + whole]
)
def test_a_damaged_index_is_named(damage, index, tmp_path):
    path = tmp_path / "index.npz"
    index.save(path)
    path.write_bytes(damage(path.read_bytes())[: len(path.read_bytes()) - 10])
    with pytest.raises(UsageError, match="Cannot read the index .*index.npz"):
        index_lib.Index.load(path, Stub())


def test_a_file_that_is_another_archive_is_named(tmp_path):
    np.savez(tmp_path / "embeddings.npz", features=np.zeros((2, 3)))
    for name in ("embeddings.npz", "none.npz"):
        with pytest.raises(UsageError, match=f"Cannot read the index .*{name}"):
            index_lib.Index.load(tmp_path / name, Stub())


@pytest.mark.parametrize("k", [0, 5])
def test_more_hits_than_images_are_refused(k, index):
    with pytest.raises(UsageError, match="from 1 to 4"):
        index.search(np.zeros((8, 8, 3), np.uint8), k=k)


def test_features_and_names_must_fit(index):
    with pytest.raises(ValueError, match=r"1 names and features of shape \[2, 3\]"):
        index.add_features(np.zeros((2, 3)), ["x"])
    with pytest.raises(ValueError, match="NaN"):
        index.add_features(np.full((1, 3), np.nan), ["x"])
    assert len(index) == 4
