"""SSL-HSIC (Li et al. 2021, arXiv:2106.08320): dependence of representations on their images."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from scipy import special

from byol_jax.objectives import contract
from byol_jax.objectives.byol import l2_normalize

_AMPLITUDES = np.linspace(1e-12, 100, 10_000)
_LEAST = 1e-14


@dataclasses.dataclass(frozen=True)
class Settings:
    """Of SSL-HSIC.

    Attributes:
      features: random Fourier features of the kernel.
      regularization_weight: gamma, of the dependence of a representation on itself.
    """

    features: int = 512
    regularization_weight: float = 3.0


class Draw(NamedTuple):
    """Random Fourier features of a kernel.

    Attributes:
      w: [M, P] frequencies.
      b: [1, M] phases.
    """

    w: jax.Array
    b: jax.Array


class Terms(NamedTuple):
    """Scalars that the loss is made of.

    Attributes:
      hsic_xy: dependence of the representations on which image they are of.
      hsic_xx: of the representations on themselves.
      grad_norm_loss: what the scale of the kernel learns from.
    """

    hsic_xy: jax.Array
    hsic_xx: jax.Array
    grad_norm_loss: jax.Array


def amplitude_probabilities(dimension: int) -> np.ndarray:
    """Probabilities of the lengths `_AMPLITUDES` of a frequency of the IMQ kernel.

    The density is proportional to K_v(x) x^v with v = (dimension - 1) / 2, where K_v is the
    modified Bessel function of the second kind. It is far beyond the range of floats where x is
    small: logarithms of its ratios to K_{v-1} are added up, from K_0 or K_{1/2} on.
    """
    x, highest = _AMPLITUDES, (dimension - 1) / 2
    order = highest % 1
    log_k = np.log(special.kve(order, x)) - x
    ratio = special.kve(order + 1, x) / special.kve(order, x)
    while order < highest:
        log_k = log_k + np.log(ratio)
        order += 1
        ratio = 1 / ratio + 2 * order / x
    log_density = log_k + highest * np.log(x)
    density = np.exp(log_density - log_density.max())
    return density / density.sum()


def draw_features(key: jax.Array, cumulative: jax.Array, *, count: int, size: int) -> Draw:
    """Features of the inverse multiquadric kernel.

    Args:
      key: of the draw.
      cumulative: [X] sums of `amplitude_probabilities`.
      count: of features M.
      size: of representations P.
    """
    keys = jax.random.split(key, 3)
    directions = l2_normalize(jax.random.normal(keys[0], (count, size)))
    places = jnp.searchsorted(cumulative, jax.random.uniform(keys[1], (count,)))
    places = jnp.minimum(places, len(_AMPLITUDES) - 1)
    lengths = jnp.asarray(_AMPLITUDES, jnp.float32)[places]
    phases = jax.random.uniform(keys[2], (1, count), maxval=2 * jnp.pi)
    return Draw(directions * lengths[:, None], phases)


def features(hidden: jax.Array, draw: Draw, scale: jax.Array) -> jax.Array:
    """[b, M] random Fourier features of representations [b, P]."""
    products = contract.product(hidden / scale, draw.w.T)
    return jnp.sqrt(2 / draw.w.shape[0]) * jnp.cos(products + draw.b)


def ssl_hsic_terms(
    hidden: list[jax.Array],
    draws: tuple[Draw, Draw],
    scale: jax.Array,
    samples: tuple[jax.Array, jax.Array],
    *,
    axis: str | None = None,
) -> Terms:
    """Both dependences (equations 6 and 7), and the loss of the kernel's scale.

    Args:
      hidden: [b, P] of unit norm: predictions and stopped targets, k views in all.
      draws: two sets of features, the same for all views and devices.
      scale: c of the kernel, which learns from `Terms.grad_norm_loss` alone.
      samples: two [k, s] of rows of the whole batch, of each view; that loss is of the
        distances of all of the first from all of the second.
      axis: name of the mapped axis over devices.
    """
    fixed = jax.lax.stop_gradient(scale)
    first, second = ([features(h, draw, fixed) for h in hidden] for draw in draws)
    views, rows = len(hidden), hidden[0].shape[0]

    def mean(x: jax.Array) -> jax.Array:
        return contract.mean_over_devices(x, axis)

    means = [mean(jnp.mean(jnp.stack(view), axis=(0, 1))) for view in (first, second)]
    # The sum over images of the product of all their views, which are of one kernel.
    together = mean(jnp.mean(jnp.sum(jnp.square(sum(first)), axis=1)))
    hsic_xy = together / (views * (views - 1)) - jnp.sum(jnp.square(means[0]))
    centered = [jnp.concatenate(view) - m for view, m in zip((first, second), means, strict=True)]
    covariance = mean(contract.product(centered[0].T, centered[1]) / (views * rows))
    hsic_xx = jnp.sum(jnp.square(covariance))
    everyone = [contract.gather(jax.lax.stop_gradient(h), axis) for h in hidden]
    rows1, rows2 = (
        jnp.concatenate([h[chosen] for h, chosen in zip(everyone, places, strict=True)])
        for places in samples
    )
    distances = _squared_distances(rows1, rows2)
    gradient = 0.5 * scale * (distances + scale**2) ** -1.5
    grad_norm = -0.5 * jnp.mean(jnp.log(jnp.maximum(_LEAST, jnp.square(gradient))))
    return Terms(hsic_xy, hsic_xx, grad_norm)


def _squared_distances(x: jax.Array, y: jax.Array) -> jax.Array:
    """Of each row of x [m, P] from each row of y [n, P]."""
    squares = jnp.sum(jnp.square(x), axis=1)[:, None] + jnp.sum(jnp.square(y), axis=1)
    return jnp.maximum(squares - 2 * contract.product(x, y.T), 0)


def ssl_hsic_loss(terms: Terms, *, regularization_weight: float) -> jax.Array:
    """gamma sqrt(HSIC(Z, Z)) - HSIC(Z, Y) (equation 8)."""
    return regularization_weight * jnp.sqrt(terms.hsic_xx) - terms.hsic_xy


class State(NamedTuple):
    """Of the kernel's scale, which has an optimizer of its own.

    Attributes:
      scale: c.
      optimizer: of Adam.
    """

    scale: jax.Array
    optimizer: Any


_OPTIMIZER = optax.adam(3e-4)  # of the authors' code
_SAMPLES = 1024  # rows of all views whose distances the scale learns from


def _draws(
    key: jax.Array, settings: Settings, *, size: int, batch: int, views: int
) -> tuple[tuple[Draw, Draw], tuple[jax.Array, jax.Array]]:
    """Both sets of features and the rows of a step, the same on all devices."""
    keys = jax.random.split(key, 4)
    cumulative = jnp.asarray(np.cumsum(amplitude_probabilities(size)), jnp.float32)
    sizes = {"count": settings.features, "size": size}
    first, second = (draw_features(k, cumulative, **sizes) for k in keys[:2])
    rows = [jax.random.randint(k, (views, _SAMPLES // views), 0, batch) for k in keys[2:]]
    return (first, second), (rows[0], rows[1])


def _evaluate(inputs: contract.Inputs, settings: Settings) -> contract.Result:
    targets = jax.lax.stop_gradient(inputs.target)
    hidden = [l2_normalize(x) for x in (*inputs.online, *reversed(targets))]
    state = State(*inputs.state)
    rows, size = hidden[0].shape
    batch = rows if inputs.axis is None else rows * jax.lax.axis_size(inputs.axis)
    draws, samples = _draws(inputs.key, settings, size=size, batch=batch, views=len(hidden))

    def of_scale(scale: jax.Array) -> tuple[jax.Array, Terms]:
        terms = ssl_hsic_terms(hidden, draws, scale, samples, axis=inputs.axis)
        return terms.grad_norm_loss, terms

    gradient, terms = jax.grad(of_scale, has_aux=True)(state.scale)
    gradient = jax.lax.stop_gradient(gradient)
    updates, optimizer = _OPTIMIZER.update(gradient, jax.tree.map(jnp.asarray, state.optimizer))
    loss = ssl_hsic_loss(terms, regularization_weight=settings.regularization_weight)
    logged = {"hsic_xy": terms.hsic_xy, "hsic_xx": terms.hsic_xx, "kernel_scale": state.scale}
    return contract.Result(loss, logged, State(state.scale + updates, optimizer))


def _init(settings: Settings, key: jax.Array, sizes: contract.Sizes) -> contract.Own:
    del settings, key, sizes
    scale = jnp.ones(())
    return contract.Own({}, State(scale, _OPTIMIZER.init(scale)))


SSL_HSIC = contract.Objective(
    has_predictor=True,
    targets=("ema", "copy", "frozen", "stop_gradient"),
    settings=Settings,
    evaluate=_evaluate,
    init=_init,
    compares_images=True,
)
