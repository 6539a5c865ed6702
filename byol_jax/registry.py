"""Parts of people's own, made known by a name that a config can give.

A module that registers some is imported when ``config.plugins`` names it.
"""

import sys
from collections.abc import Callable
from typing import Any

from byol_jax import plugins
from byol_jax.augment import extra
from byol_jax.data import datasets
from byol_jax.models import resnet
from byol_jax.objectives import byol

Load = Callable[[str, str], datasets.Dataset]


def _origin(function: Callable[..., Any]) -> str:
    return f"{function.__module__}.{function.__qualname__}"


def register_objective(
    name: str,
    *,
    terms: Callable[..., dict[str, Any]] | None = None,
    has_predictor: bool = True,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Makes a loss known by a name, as a value of ``objective.name``; a decorator.

    The loss takes the pairs (online view 1, view 2) and (target view 1, view 2), each array
    float32 [b, P], and gives a scalar, the mean over the batch; gradients have to be stopped in the
    targets, as `jax.lax.stop_gradient` does.

    Args:
      name: as ``objective.name`` gives it.
      terms: scalars to be logged, by name, of the same arguments.
      has_predictor: whether predictions are compared with the target, else projections.

    Raises:
      UsageError: there is one of that name, from elsewhere; the same one again replaces it.

    >>> import jax, jax.numpy as jnp
    >>> from byol_jax import register_objective
    >>> @register_objective("euclidean")
    ... def euclidean(online, target):
    ...     (o1, o2), (t1, t2) = online, jax.lax.stop_gradient(target)
    ...     return jnp.mean(jnp.sum((o1 - t2) ** 2 + (o2 - t1) ** 2, axis=-1))
    """

    def register(loss: Callable[..., Any]) -> Callable[..., Any]:
        objective = byol.Objective(loss, terms or (lambda *_: {}), has_predictor)
        plugins.register(byol.OBJECTIVES, name, objective, what="objective", origin=_origin(loss))
        return loss

    return register


def register_augmentation(name: str) -> Callable[[extra.Function], extra.Function]:
    """Makes an augmentation known by a name, for ``augment.view1.extra`` and view 2's; a decorator.

    A pure function of a random key and one image, float32 [S, S, 3] in [0, 1], that gives an image
    of the same shape. It comes after all augmentations of the view, before images are normalized;
    what it gives is clipped to [0, 1]. Every image has a key of its own, which depends on the seed,
    the step and its place in the batch, and not on the devices.

    Args:
      name: as ``augment.view1.extra`` gives it.

    Raises:
      UsageError: there is one of that name, from elsewhere; the same one again replaces it.

    >>> import jax
    >>> from byol_jax import register_augmentation
    >>> @register_augmentation("noise")
    ... def noise(key, image):
    ...     return image + 0.05 * jax.random.normal(key, image.shape)
    """

    def register(function: extra.Function) -> extra.Function:
        origin = _origin(function)
        plugins.register(extra.AUGMENTATIONS, name, function, what="augmentation", origin=origin)
        return function

    return register


def register_encoder(name: str, spec: resnet.ResNetSpec) -> None:
    """Makes a residual network known by a name, as a value of ``model.encoder``.

    Args:
      name: as ``model.encoder`` gives it.
      spec: its blocks and channels.

    Raises:
      UsageError: there is one of that name, from elsewhere; the same one again replaces it.

    >>> from byol_jax import register_encoder
    >>> from byol_jax.models import resnet
    >>> spec = resnet.ResNetSpec("slim_res_net", (1, 1), (16, 32), (1, 2), stem_channels=16)
    >>> register_encoder("slim_resnet", spec)
    """
    origin = sys._getframe(1).f_globals.get("__name__", "")  # a spec does not know where it is from
    plugins.register(resnet.ENCODERS, name, spec, what="encoder", origin=origin)


def register_dataset(name: str) -> Callable[[Load], Load]:
    """Makes a data source known by a name, as a value of ``data.name``; a decorator.

    The function takes the name of a split and ``data.dir``, and gives an `ArrayDataset`.

    Args:
      name: as ``data.name`` gives it.

    Raises:
      UsageError: there is one of that name, from elsewhere; the same one again replaces it.

    >>> from byol_jax import ArrayDataset, load_dataset, register_dataset
    >>> @register_dataset("noise")
    ... def load(split, data_dir):
    ...     seed = 0 if split == "train" else 1
    ...     images = np.random.default_rng(seed).integers(0, 256, (64, 32, 32, 3))
    ...     return ArrayDataset(images.astype(np.uint8))
    >>> len(load_dataset("noise", "train"))
    64
    """

    def register(load: Load) -> Load:
        def load_split(_: str, split: str, data_dir: str | None) -> datasets.Dataset:
            return load(split, data_dir or "")

        plugins.register(
            datasets.DATASETS, name, load_split, what="data source", origin=_origin(load)
        )
        return load

    return register
