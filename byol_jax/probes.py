"""Scores a frozen encoder: features, nearest neighbours, logistic regression.

Shapes: N train features, M features to classify, F embedding size, C classes.
"""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import sklearn.exceptions
import sklearn.linear_model
import sklearn.preprocessing

from byol_jax import datasets, input_pipeline, metrics


def extract_features(
    encode: Callable[[np.ndarray], np.ndarray], images: np.ndarray, *, batch_size: int
) -> np.ndarray:
    """Features [N, F] of uint8 images [N, H, W, 3]; every image counts, whatever N is.

    Args:
      encode: maps uint8 images of one batch [b, H, W, 3] to features [b, F].
      images: the images.
      batch_size: images a call; the last batch is padded, its padding dropped.
    """
    batches = input_pipeline.eval_batches(images, batch_size=batch_size)
    return np.concatenate([np.asarray(encode(batch))[mask] for batch, mask in batches])


def knn_predict(
    train_features: np.ndarray,
    train_labels: np.ndarray,
    features: np.ndarray,
    *,
    num_classes: int,
    k: int,
    temperature: float,
) -> np.ndarray:
    """Classes [M] by a vote of the k nearest neighbours in cosine similarity.

    Each neighbour weighs exp(similarity / temperature) (Wu et al. 2018, section 3.4).

    Args:
      train_features: [N, F], N at least 1; a k above N means all of them.
      train_labels: [N].
      features: [M, F] to classify.
      num_classes: C.
      k: number of neighbours.
      temperature: the smaller, the more the nearest ones count.
    """
    train = _unit(train_features)
    k = min(k, len(train))
    predictions = []
    for start in range(0, len(features), 1024):  # bounds the [1024, N] table of similarities
        similarity = _unit(features[start : start + 1024]) @ train.T
        nearest = np.argpartition(-similarity, k - 1, axis=1)[:, :k]
        weights = np.exp((np.take_along_axis(similarity, nearest, axis=1) - 1) / temperature)
        votes = np.zeros((len(similarity), num_classes))
        np.add.at(votes, (np.arange(len(votes))[:, None], train_labels[nearest]), weights)
        predictions.append(votes.argmax(axis=1))
    return np.concatenate(predictions)


def linear_predict(
    train_features: np.ndarray, train_labels: np.ndarray, features: np.ndarray
) -> np.ndarray:
    """Classes [M] by multinomial logistic regression on standardised features (L-BFGS)."""
    scaler = sklearn.preprocessing.StandardScaler().fit(train_features)
    classifier = sklearn.linear_model.LogisticRegression(max_iter=300)
    with warnings.catch_warnings():  # 300 iterations are plenty for a probe, if not for a proof
        warnings.simplefilter("ignore", sklearn.exceptions.ConvergenceWarning)
        classifier.fit(scaler.transform(train_features), train_labels)
    return classifier.predict(scaler.transform(features))


def _unit(features: np.ndarray) -> np.ndarray:
    return features / np.maximum(np.linalg.norm(features, axis=-1, keepdims=True), 1e-12)


class Probe:
    """Measures a frozen encoder by labelled images that it may or may not have trained on.

    Args:
        train: images and labels that the classifiers learn from.
        test: images and labels that they are scored on.
        encode: (params, state, uint8 images [b, H, W, 3]) -> features [b, F].
        batch_size: images a call of ``encode``.
        k: neighbours of the kNN vote.
        temperature: of the kNN vote.
    """

    def __init__(
        self,
        train: datasets.Images,
        test: datasets.Images,
        encode: Callable[[Any, Any, np.ndarray], np.ndarray],
        *,
        batch_size: int,
        k: int,
        temperature: float,
    ):
        self._train, self._test, self._encode = train, test, encode
        self._batch_size, self._k, self._temperature = batch_size, k, temperature

    def score(self, params: Any, state: Any, *, linear: bool) -> dict[str, float]:
        """kNN accuracy, feature std and effective rank; on request a linear probe's accuracy."""
        train, test = (
            extract_features(
                lambda images: self._encode(params, state, images),
                data.images,
                batch_size=self._batch_size,
            )
            for data in (self._train, self._test)
        )
        scalars = {
            "probe/knn_top1": self._knn(train, test),
            "probe/feature_std": metrics.feature_std(test),
            "probe/effective_rank": metrics.effective_rank(test),
        }
        if linear:
            predicted = linear_predict(train, self._train.labels, test)
            scalars["probe/linear_top1"] = float(np.mean(predicted == self._test.labels))
        return scalars

    def score_raw_pixels(self) -> dict[str, float]:
        """kNN accuracy of the pixels themselves, centred: what a network has to beat."""
        centre = self._train.images.mean(axis=(0, 1, 2), dtype=np.float64)
        train, test = (
            (data.images - centre).astype(np.float32).reshape(len(data.images), -1)
            for data in (self._train, self._test)
        )
        return {"probe/raw_pixels_knn_top1": self._knn(train, test)}

    def _knn(self, train: np.ndarray, test: np.ndarray) -> float:
        predicted = knn_predict(
            train,
            self._train.labels,
            test,
            num_classes=self._train.num_classes,
            k=self._k,
            temperature=self._temperature,
        )
        return float(np.mean(predicted == self._test.labels))
