"""Pictures of a run: which neighbors, which classes, which views; maps of any features."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from byol_jax.data import datasets, train_loader
from byol_jax.distributed import pmap
from byol_jax.training import build, online_eval
from byol_jax.visualize import embedding_map, gallery, recorder
from tests.conftest import make_settings
from tests.training.online_eval_test import clusters


def measured(n=40):
    features, labels = clusters(n, seed=0, spread=0.3)
    predicted = labels.copy()
    predicted[:3] = (labels[:3] + 1) % 4
    return online_eval.Measured({}, features, labels, np.arange(n), predicted, 4, 20)


def subject(n=40, labels=None):
    images = np.random.default_rng(0).integers(0, 255, (n, 32, 32, 3)).astype(np.uint8)
    labels = np.zeros(n, np.int32) if labels is None else labels
    return gallery.GalleryData(datasets.ArrayDataset(images, labels, 4), "test", {}, list("wxyz"))


def test_neighbors_are_those_of_a_search_by_hand():
    features = np.random.default_rng(0).normal(size=(30, 5))
    queries = np.array([3, 29])
    found = gallery.nearest(features, queries, k=4)
    for query, row in zip(queries, found, strict=True):
        norms = np.linalg.norm(features, axis=1)
        cosine = features @ features[query] / norms / norms[query]
        order = [i for i in np.argsort(-cosine) if i != query]
        assert list(row) == order[:4]


def test_classes_count_what_was_taken_for_what(tmp_path):
    found = measured()
    gallery.write_start(tmp_path, found._replace(predicted=found.labels), most=40, title="before")
    gallery.write_end(tmp_path, subject(labels=found.labels), found, step=7, most=40)
    classes = json.loads((tmp_path / "classes.json").read_text())
    wrong = [(found.labels[i], found.predicted[i]) for i in range(3)]
    assert sum(row["count"] for row in classes["confused"]) == 3
    for row in classes["confused"]:
        pair = "wxyz".index(row["true"]), "wxyz".index(row["predicted"])
        assert row["count"] == sum(pair == w for w in wrong)
    for row in classes["rows"]:
        of = found.labels == "wxyz".index(row["name"])
        assert row["now"] == pytest.approx(np.mean(found.predicted[of] == found.labels[of]))
        assert row["start"] == 1


def test_without_labels_there_are_neighbors_and_a_map_but_no_classes(tmp_path):
    labels = np.full(12, -1)
    found = measured(12)._replace(labels=labels, predicted=None, num_classes=0)
    gallery.write_start(tmp_path, found, most=10, title="before")
    picture = gallery.write_end(tmp_path, subject(12)._replace(classes=[]), found, step=1, most=10)
    assert picture.shape == (10 * 32, 6 * 32, 3) and not (tmp_path / "classes.json").exists()
    assert json.loads((tmp_path / "atlas.json").read_text())["purity"] == {
        "now": None,
        "start": None,
    }


@pytest.mark.parametrize("n", [1, 2, 4, 6])
def test_maps_of_few_images_and_of_collapsed_features_are_finite(n):
    spread = np.random.default_rng(0).normal(size=(n, 8))
    for features in (spread, np.ones((n, 8)), np.full((n, 8), np.nan), spread[:, :1]):
        points = embedding_map.project(features)
        assert points.shape == (n, 2) and np.isfinite(points).all()


def test_a_map_keeps_clusters_together():
    features, labels = clusters(200, seed=0, spread=0.2)
    assert embedding_map.purity(embedding_map.project(features), labels) > 0.95
    np.testing.assert_array_equal(embedding_map.project(features), embedding_map.project(features))
    spaces = {"now": features, "start": features[:, ::-1]}
    for name, points in embedding_map.project_all(spaces).items():
        np.testing.assert_array_equal(points, embedding_map.project(spaces[name]))


@pytest.mark.slow
def test_pairs_are_the_views_of_the_first_step(small_patterns):
    """Those that a mapped function, as the training step is, makes with its own keys."""
    settings = make_settings()
    train = datasets.load("patterns", "train")
    batches = train_loader.TrainBatches(train, batch_size=8, seed=settings.seed)
    batch = next(batches)
    batches.close()
    size = settings.data.image_size
    make_views = build.make_views(settings.augment, image_size=size, batch_size=8)

    def views(batch):
        key = pmap.step_key(settings.seed, jnp.int32(0))
        return make_views(key, batch)

    expected = jax.pmap(views, axis_name=pmap.AXIS)(pmap.shard(batch))
    for ours, theirs in zip(recorder.first_views(settings, batch), expected, strict=True):
        np.testing.assert_allclose(ours, 255 * np.asarray(theirs[0]), atol=0.51)
    rows = recorder.find_rows(train, 8, {}, seed=settings.seed)
    for row, index in rows:
        np.testing.assert_array_equal(batch["images"][row], train.images[index])


def test_a_gallery_that_fails_warns_and_says_how_to_make_it_later(tmp_path):
    said = []
    settings = make_settings(**{"gallery.max_images": 10})
    job = build.Job(settings, None, None, None, None)
    keeper = recorder.Curator(job, tmp_path, None, said.append)
    keeper.see_probe(0, None)
    assert "configs/gallery.py" in said[0] and str(tmp_path) in said[0]
