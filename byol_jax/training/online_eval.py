"""Scores a frozen encoder: features, nearest neighbors, logistic regression.

Shapes: N train features, M features to classify, F embedding size, C classes.
"""

import types
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
import sklearn.exceptions
import sklearn.linear_model
import sklearn.preprocessing

from byol_jax import config as config_lib
from byol_jax.data import datasets, eval_loader
from byol_jax.distributed import multihost
from byol_jax.metrics import knn, representation
from byol_jax.workdir import console

UsageError = config_lib.UsageError

CPU_BATCH = 64  # larger images that a CPU encodes at once, so that it soon hears a signal


def extract_features(
    encode: Callable[[np.ndarray], np.ndarray], batches: Iterable[eval_loader.EvalBatch]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features [N, F], labels [N] and indices [N] of all images but the padding.

    Args:
      encode: maps uint8 images of one batch [b, H, W, 3] to features [b, F].
      batches: at least one.
    """
    parts = [
        (np.asarray(encode(batch.images)), batch.labels, batch.indices, batch.mask)
        for batch in batches
    ]
    if not parts:
        raise UsageError("None of the images of a split to be probed can be used.")
    *columns, mask = map(np.concatenate, zip(*parts, strict=True))
    features, labels, indices = (column[mask] for column in columns)
    return features, labels, indices


def knn_predict(
    train_features: np.ndarray,
    train_labels: np.ndarray,
    features: np.ndarray,
    *,
    num_classes: int,
    k: int,
    temperature: float,
) -> np.ndarray:
    """Classes [M] by a vote of the k nearest neighbors in cosine similarity.

    Each neighbor weighs exp(similarity / temperature) (Wu et al. 2018, section 3.4).

    Args:
      train_features: [N, F], N at least 1; a k above N means all of them.
      train_labels: [N].
      features: [M, F] to classify.
      num_classes: C.
      k: number of neighbors.
      temperature: the smaller, the more the nearest ones count.
    """
    bank = knn.Bank(train_features, train_labels, num_classes)
    return knn.predict(bank, features, knn.KnnParams(k, temperature))


def linear_predict(
    train_features: np.ndarray, train_labels: np.ndarray, features: np.ndarray
) -> np.ndarray:
    """Classes [M] by multinomial logistic regression on standardized features (L-BFGS)."""
    scaler = sklearn.preprocessing.StandardScaler().fit(train_features)
    classifier = sklearn.linear_model.LogisticRegression(max_iter=300)
    with warnings.catch_warnings():  # 300 iterations are plenty for a probe, if not for a proof
        warnings.simplefilter("ignore", sklearn.exceptions.ConvergenceWarning)
        warnings.filterwarnings("ignore", "The number of unique classes")  # few images a class
        classifier.fit(scaler.transform(train_features), train_labels)
    return classifier.predict(scaler.transform(features))


def _accuracy(predicted: np.ndarray, labels: np.ndarray) -> float:
    """Fraction of the images with labels [M] whose class was predicted."""
    return float(np.mean((predicted == labels)[labels >= 0]))


def show(
    batches: Iterable[eval_loader.EvalBatch],
    num_images: int,
    title: str,
) -> Iterator[eval_loader.EvalBatch]:
    """The same batches, with progress that is shown if it takes long."""
    with console.progress_bar(total=num_images, unit="img", title=title, delay=2) as bar:
        for batch in batches:
            yield batch
            bar.update(int(batch.mask.sum()))


class Measured(NamedTuple):
    """What a frozen encoder makes of a split, and what that is worth.

    Attributes:
      scalars: scores by name; of the images that have labels, but for those of the features.
      features: [M, F] of the evaluated images.
      labels: [M]; -1 without labels.
      indices: [M], where in the split each image is.
      predicted: [M] classes by the vote of neighbors; None without labels to vote or to compare.
      num_classes: C.
      k: neighbors of the vote.
      bad: images of this split and of the training split that cannot be used, and why.
    """

    scalars: dict[str, float]
    features: np.ndarray
    labels: np.ndarray
    indices: np.ndarray
    predicted: np.ndarray | None
    num_classes: int
    k: int
    bad: Mapping[str, str] = types.MappingProxyType({})


class Probe:
    """Measures a frozen encoder, by labeled images if there are any; those alone vote and count.

    Args:
        train: images and labels that the classifiers learn from.
        test: images and labels that they are scored on.
        encode: (params, state, uint8 images [b, H, W, 3]) -> features [b, F].
        batch_size: images a call of ``encode``.
        image_size: of the center crops of encoded images.
        k: neighbors of the kNN vote.
        temperature: of the kNN vote.
        bad: notes images of both that cannot be used, which are left out.
    """

    def __init__(
        self,
        train: datasets.Dataset,
        test: datasets.Dataset,
        encode: Callable[[Any, Any, np.ndarray], np.ndarray],
        *,
        batch_size: int,
        image_size: int,
        k: int,
        temperature: float,
        bad: eval_loader.BadLimit,
    ):
        self._train, self._test, self._encode = train, test, encode
        is_slow = jax.default_backend() == "cpu" and image_size > 64
        self._batch_size = min(CPU_BATCH, batch_size) if is_slow else batch_size
        self._image_size = image_size
        self._k, self._temperature, self._bad = k, temperature, bad

    def calibrate(
        self,
        update: Callable[[Any, np.ndarray], Any],
        state: Any,
    ) -> Any:
        """Batch-norm statistics of ten batches of training images, on every process alike.

        Args:
          update: (statistics, images [b, H, W, 3]) -> new statistics.
          state: the statistics to begin with.
        """
        size = self._batch_size
        data = self._train.take(10 * size)
        batches = eval_loader.eval_batches(data, batch_size=size, image_size=self._image_size)
        for batch in show(batches, data.num_images, "probe, batch-norm statistics"):
            state = update(state, batch.images[batch.mask])
        return state

    def score(self, params: Any, state: Any, *, linear: bool) -> dict[str, float]:
        """Feature std and effective rank; with labels also kNN and, on request, linear accuracy."""
        return self.measure(params, state, linear=linear).scalars

    def measure(self, params: Any, state: Any, *, linear: bool) -> Measured:
        """What `score` gives, and what it was computed from."""
        num_classes = self._test.num_classes

        def features(data: datasets.Dataset, title: str) -> tuple[np.ndarray, ...]:
            return self._features(
                lambda images: self._encode(params, state, images),
                data,
                title=f"probe, {title} images",
            )

        test, test_labels, indices = features(self._test, "evaluation")
        scalars = {
            "probe/feature_std": representation.feature_std(test),
            "probe/effective_rank": representation.effective_rank(test),
        }
        bad = self._bad.found
        found = Measured(scalars, test, test_labels, indices, None, num_classes, self._k, bad)
        if not num_classes or (test_labels < 0).all():
            return found
        train, train_labels, _ = features(self._train, "training")
        train, train_labels = train[train_labels >= 0], train_labels[train_labels >= 0]
        if not len(train_labels):
            return found
        predicted = self._knn(train, train_labels, test)
        scalars["probe/knn_top1"] = _accuracy(predicted, test_labels)
        if linear and np.ptp(train_labels):  # there is no line between one class and none
            by_line = linear_predict(train, train_labels, test)
            scalars["probe/linear_top1"] = _accuracy(by_line, test_labels)
        return found._replace(predicted=predicted)

    def _features(
        self,
        encode: Callable[[np.ndarray], np.ndarray],
        data: datasets.Dataset,
        *,
        title: str,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Features, labels and indices of all usable images; every process encodes its share."""
        own = np.arange(jax.process_index(), data.num_images, jax.process_count())
        batches = eval_loader.eval_batches(
            data if jax.process_count() == 1 else data.select(own),
            batch_size=self._batch_size,
            image_size=self._image_size,
            bad=self._bad,
        )

        features, labels, indices = multihost.together(
            lambda: extract_features(encode, show(batches, len(own), title)), what=title
        )
        self._bad.share()
        indices, features, labels = multihost.gather_sorted(
            own[indices], features, labels, what="gathering features of a probe"
        )
        return features, labels, indices

    def score_raw_pixels(self) -> dict[str, float]:
        """kNN accuracy of the pixels of images in memory, centered: what a network has to beat."""
        if not isinstance(self._train, datasets.ArrayDataset):
            return {}
        is_labeled = self._train.labels >= 0
        if not is_labeled.any() or (self._test.labels < 0).all():
            return {}
        center = self._train.images.mean(axis=(0, 1, 2), dtype=np.float64)
        train, test = (
            (data.images - center).astype(np.float32).reshape(len(data.images), -1)
            for data in (self._train, self._test)
        )
        predicted = self._knn(train[is_labeled], self._train.labels[is_labeled], test)
        return {"probe/raw_pixels_knn_top1": _accuracy(predicted, self._test.labels)}

    def _knn(self, train: np.ndarray, train_labels: np.ndarray, test: np.ndarray) -> np.ndarray:
        return knn_predict(
            train,
            train_labels,
            test,
            num_classes=self._train.num_classes,
            k=self._k,
            temperature=self._temperature,
        )
