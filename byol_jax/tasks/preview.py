"""The task that shows what the augmentations of a config do to its images.

Shapes: b images, S image size.
"""

import functools
import pathlib
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from byol_jax import config as config_lib
from byol_jax.augment import extra, image_ops, random_resized_crop
from byol_jax.cli import effects
from byol_jax.data import datasets, eval_loader, train_loader
from byol_jax.report import augmentations, figures, run_data, writing
from byol_jax.training import budget_run, build, config_checks
from byol_jax.training import settings as settings_lib
from byol_jax.visualize import gallery, recorder, thumbnails
from byol_jax.workdir import console, files

UsageError = config_lib.UsageError

ALONE = 2  # images that each augmentation is shown on
LEVELS = (0.0, 0.5, 1.0)  # of an augmentation's strength
SIDE = 224  # px, of what is written

Cells = list[tuple[str, np.ndarray]]  # words, uint8 [H, W, 3]


class Change(NamedTuple):
    """One augmentation that can be turned up.

    Attributes:
      title: for people.
      key: of its strength, in ``augment.view1`` or ``view2``.
      apply: (images [b, S, S, 3], level between 0 and 1) -> (images, the strength in words).
    """

    title: str
    key: str
    apply: Callable[[jax.Array, float], tuple[jax.Array, str]]


def run(config: Any, workdir: pathlib.Path, *, typed: Collection[str] = ()) -> None:
    """Writes ``preview.html`` and ``preview.png``.

    Raises:
      UsageError: a mistake in the config, no image that can be used, a folder that cannot be
        written to, or files of these names in it that are somebody's.
    """
    config_lib.require_positive(config, "preview.num_images")
    page, picture = (workdir / f"preview.{end}" for end in ("html", "png"))
    try:
        writing.require_ours(page, picture)
    except run_data.ReportError as error:
        raise UsageError(str(error)) from None
    config = budget_run.fill(config)
    for note in effects.without_effect(config, typed):
        console.say(f"Note: {note}")
    config_checks.check(config)
    data = config_lib.freeze(settings_lib.Data, config.data, prefix="data.")
    train = datasets.load(data.name, data.train_split, data_dir=data.dir, labels=data.labels)
    train = datasets.with_grey_ranges(train, eval_loader.grey_ranges(train))
    augment = config_lib.freeze(settings_lib.Augment, config.augment, prefix="augment.")
    count = min(config.preview.num_images, train.num_images)
    pairs = list(_pairs(data, augment, train, count, seed=config.seed))
    alone = list(
        _alone(augment, [image for _, image, *_ in pairs[:ALONE]], image_size=data.image_size)
    )
    name = ", ".join(dict.fromkeys((data.name, config.preset)))
    title = f"{name}: what training sees"
    views = [
        (name, [("image", image), ("view 1", view1), ("view 2", view2)])
        for name, image, view1, view2 in pairs
    ]
    files.write_text(page, augmentations.render(title, _encoded(views), _encoded(alone)))
    shown = [(title.replace(" · ", "\n"), cells) for title, cells in alone if cells]
    with files.whole(picture) as part, files.writing(picture):
        figures.write_grid(part, [*_paired(views), *shown])
    for path in (page, picture):
        console.say(f"Written: {path}")


def _paired(views: Sequence[tuple[str, Cells]]) -> Iterator[tuple[str, Cells]]:
    """Two images a row, each with its name above it."""
    named = [[(_shortened(name), cells[0][1]), *cells[1:]] for name, cells in views]
    for number in range(0, len(named), 2):
        yield "views", [cell for cells in named[number : number + 2] for cell in cells]


def _shortened(name: str, most: int = 22) -> str:
    return name if len(name) <= most else f"…{name[1 - most :]}"


def _pairs(
    data: settings_lib.Data,
    augment: settings_lib.Augment,
    train: datasets.Dataset,
    count: int,
    *,
    seed: int,
) -> Iterator[tuple[str, np.ndarray, np.ndarray, np.ndarray]]:
    """Names, images as they are, and both views of each."""
    batches = train_loader.TrainBatches(
        train,
        batch_size=count,
        seed=seed,
        crop=build.make_crop(augment.crop, image_size=data.image_size),
        max_bad_share=data.max_bad_share,
    )
    try:
        batch, bad = next(batches), batches.bad_images
    finally:
        batches.close()
    for index, reason in bad.items():
        console.say(f"Left out: {batches.bad_image_name(index)}: {reason}")
    make_views = build.make_views(augment, image_size=data.image_size)
    views = recorder.draw_views(make_views, jax.random.key(seed), batch)
    subject = recorder.make_subject(data, train)
    for row, index in recorder.find_rows(train, count, bad, seed=seed):
        image = gallery.load(train, index, SIDE)
        caption = gallery.caption(subject, index, int(batch["labels"][row]))
        name = " · ".join(str(text) for text in caption.values() if text is not None)
        yield name, thumbnails.fit(image, SIDE), views[0][row], views[1][row]


def _alone(
    augment: settings_lib.Augment, images: Sequence[np.ndarray], *, image_size: int
) -> Iterator[tuple[str, Cells]]:
    """Rows of each augmentation alone: its weakest, middle and strongest on some images."""
    size, section = image_size, augment.crop
    if section.enabled:
        areas = (section.max_area, section.min_area)
        cells = [
            _window(image, areas, level, size, section.method)
            for image in images
            for level in LEVELS
        ]
        yield f"crop, area {areas[1]:g} to {areas[0]:g} · augment.crop.min_area", cells
    squares = [_window(image, (1.0, 1.0), 0.0, size, section.method)[1] for image in images]
    inputs = jnp.stack([jnp.asarray(square, jnp.float32) / 255 for square in squares])
    without_effect = []
    for change in changes(augment):
        made = [change.apply(inputs, level) for level in LEVELS]
        shown = [[_to_uint8(image) for image in batch] for batch, _ in made]
        if all(np.array_equal(shown[0], images) for images in shown):
            without_effect.append(change.title)
            continue
        cells = [
            (words, shown[level][number])
            for number in range(len(images))
            for level, (_, words) in enumerate(made)
        ]
        yield f"{change.title} · {change.key}", cells
    if without_effect:
        yield f"{_unchanged(inputs)}: {'; '.join(without_effect)}", []


def _unchanged(images: jax.Array) -> str:
    """Why augmentations change nothing, as far as it can be told."""
    is_gray = bool(jnp.ptp(images, axis=-1).max() < 1 / 255)
    return "Without effect on these images, which are gray" if is_gray else "Without effect here"


def _window(
    image: np.ndarray, areas: tuple[float, float], level: float, size: int, method: str
) -> tuple[str, np.ndarray]:
    """The middle of an image, of so much of its area as a square can have, and how much it is.

    The larger the level, the smaller the window.
    """
    height, width = image.shape[:2]
    fraction = areas[0] + level * (areas[1] - areas[0])
    side = min(height, width, max(1, round(float(np.sqrt(fraction * height * width)))))
    window = np.array([[(height - side) // 2, (width - side) // 2, side, side]], np.int32)
    cut = random_resized_crop.resize_windows(image[None], window, size, method=method)
    return f"area {side**2 / (height * width):.2g}", _to_uint8(cut[0])


def changes(augment: settings_lib.Augment) -> list[Change]:
    """Those that at least one view makes; both views' if they are made differently."""
    sections = {1: augment.view1, 2: augment.view2}
    found: dict[str, tuple[Change, list[int]]] = {}
    for number, section in sections.items():
        for change in _changes_of_view(section):
            known = found.setdefault(change.title, (change, []))
            known[1].append(number)
    return [_of_views(change, views) for change, views in found.values()]


def _of_views(change: Change, views: Sequence[int]) -> Change:
    if len(views) == 2:
        return change._replace(key=f"augment.view[12].{change.key}")
    key = f"augment.view{views[0]}.{change.key}"
    return change._replace(title=f"{change.title}, view {views[0]} only", key=key)


def _changes_of_view(section: image_ops.View) -> Iterator[Change]:
    if section.flip_probability:
        title = f"flip{_chance(section.flip_probability)}"
        yield Change(title, "flip_probability", _switch(image_ops.flip))
    if section.jitter_probability:
        chance = _chance(section.jitter_probability)
        for name, strength, apply, neutral in (
            ("brightness", section.brightness, image_ops.brightness, 0),
            ("contrast", section.contrast, image_ops.contrast, 1),
            ("saturation", section.saturation, image_ops.saturation, 1),
            ("hue", section.hue, image_ops.hue, 0),
        ):
            for sign in (1, -1):
                title = f"{name} {'up' if sign > 0 else 'down'}, {strength:g}{chance}"
                yield Change(title, name, _shift(apply, neutral, sign * strength))
    if section.grayscale_probability:
        title = f"grayscale{_chance(section.grayscale_probability)}"
        yield Change(title, "grayscale_probability", _switch(image_ops.grayscale))
    if section.blur_probability:
        low, high = section.blur_sigma_min, section.blur_sigma_max
        title = f"blur, σ {low:g} to {high:g} px{_chance(section.blur_probability)}"
        yield Change(title, "blur_sigma_max", _blur(low, high))
    if section.solarize_probability:
        threshold = jnp.float32(section.solarize_threshold)
        title = f"solarize, {section.solarize_threshold:g}{_chance(section.solarize_probability)}"
        apply = functools.partial(image_ops.solarize, threshold=threshold)
        yield Change(title, "solarize_probability", _switch(apply))
    for one in extra.find(section.extra, view="view1 or view2"):
        yield Change(one.name, "extra", _switch(functools.partial(_apply_extra, one)))


def _apply_extra(one: extra.Extra, images: jax.Array) -> jax.Array:
    return extra.apply(one, jax.random.split(jax.random.key(0), len(images)), images)


def _chance(probability: float) -> str:
    return f", p = {probability:g}"


def _switch(apply: Callable[[jax.Array], jax.Array]) -> Callable[..., tuple[jax.Array, str]]:
    """An augmentation without a strength: off, then on."""
    return lambda images, level: (apply(images), "on") if level else (images, "off")


def _shift(
    apply: Callable[..., jax.Array], neutral: float, most: float
) -> Callable[..., tuple[jax.Array, str]]:
    """One that is drawn between two bounds about a value that changes nothing."""

    def change(images: jax.Array, level: float) -> tuple[jax.Array, str]:
        value = neutral + level * most
        return apply(
            images, jnp.full(len(images), value)
        ), f"{value:+.2g}" if not neutral else f"× {value:.2g}"

    return change


def _blur(low: float, high: float) -> Callable[..., tuple[jax.Array, str]]:
    def change(images: jax.Array, level: float) -> tuple[jax.Array, str]:
        sigma = low + level * (high - low)
        return image_ops.blur(images, jnp.full(len(images), sigma)), f"σ {sigma:.2g}"

    return change


def _to_uint8(image: jax.Array) -> np.ndarray:
    return np.rint(255 * np.clip(np.asarray(image), 0, 1)).astype(np.uint8)


def _encoded(rows: Sequence[tuple[str, Cells]]) -> list[tuple[str, list[tuple[str, str]]]]:
    return [
        (title, [(words, thumbnails.jpeg(thumbnails.fit(pixels, SIDE))) for words, pixels in cells])
        for title, cells in rows
    ]
