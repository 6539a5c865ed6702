"""The task of object detection: Faster R-CNN on an encoder (paper, appendix D.5), in PyTorch.

Shapes: N images of a split.
"""

import dataclasses
import functools
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from byol_jax import config as config_lib
from byol_jax.checkpoints import encoders
from byol_jax.data import boxes, coco_boxes, eval_loader, pixel_loader, pixel_sets, voc_boxes
from byol_jax.detection import packages
from byol_jax.evaluation import baselines, features, protocol, results, resume
from byol_jax.evaluation import settings as settings_lib
from byol_jax.metrics import detection as measures
from byol_jax.metrics import detection_intervals
from byol_jax.models import norms, resnet
from byol_jax.visualize import predictions
from byol_jax.workdir import console

UsageError = config_lib.UsageError

LEAST_SCORE = 0.5  # of boxes that are drawn


class Set(NamedTuple):
    """A set by name.

    Attributes:
      load_train: (folder, split) -> what is learned from.
      load_test: likewise, what is tested on.
      splits: the usual ones, to learn from and to test on.
    """

    load_train: boxes.Load
    load_test: boxes.Load
    splits: tuple[str, str]


def _voc(*years: int, splits: tuple[str, str] = ("trainval", "test")) -> Set:
    load = functools.partial(voc_boxes.load, years=years)
    return Set(load, functools.partial(voc_boxes.load, years=years[:1]), splits)


SETS: Mapping[str, Set] = {
    "voc2007": _voc(2007),
    "voc0712": _voc(2007, 2012),
    "voc2012": _voc(2012, splits=("train", "val")),
    "coco": Set(coco_boxes.load, coco_boxes.load, ("train2017", "val2017")),
}


@dataclasses.dataclass(frozen=True)
class DetectionData:
    """Which images; splits that are empty are the usual ones of the set."""

    name: str
    dir: str
    train_split: str
    eval_split: str
    max_bad_share: float


@dataclasses.dataclass(frozen=True)
class DetectionSettings(settings_lib.EvalSettings):
    """Settings of configs/detection.py."""

    data: DetectionData
    frozen: bool
    batch_size: int
    accumulate: int
    total_steps: int
    learning_rate: float
    warmup_steps: int
    weight_decay: float
    bn_decay_rate: float
    image_sizes: tuple[int, ...]
    test_image_size: int
    longest_side: int
    anchor_sizes: tuple[int, ...]
    regions: int
    test_regions: int


def resolve(config: Any) -> DetectionSettings:
    """The settings of a config.

    Raises:
      UsageError: a number out of range, an unknown name, PyTorch is missing.
    """
    config_lib.lookup(SETS, config.data.name, key="data.name")
    sizes = {
        key: tuple(int(number) for number in settings_lib.numbers(config, key, example))
        for key, example in (("image_sizes", "(480, 800)"), ("anchor_sizes", "(32, 64)"))
    }
    longest = max(*sizes["image_sizes"], config.test_image_size)
    if longest > config.longest_side:
        raise UsageError(f"--config.longest_side must be {longest} or more, the shorter side.")
    if config.batch_size % config.accumulate:
        raise UsageError(
            f"--config.accumulate must divide --config.batch_size ({config.batch_size}): take "
            f"{np.gcd(config.batch_size, config.accumulate)}."
        )
    settings = settings_lib.resolve(
        DetectionSettings, config, weights=baselines.NETWORKS, **sizes,
        positive=("batch_size", "accumulate", "total_steps", "test_image_size", "longest_side"),
    )  # fmt: skip
    if jax.process_count() > 1:
        raise UsageError("Detection is trained by one process: start it without --num_processes.")
    packages.require()
    return settings


def run(config: Any, workdir: pathlib.Path) -> None:
    """Trains and tests as the config says; writes ``result.json`` and pictures, prints a table.

    Raises:
      UsageError: a mistake in the config, a checkpoint that cannot be used, a folder that is
        missing, more bad images than may be.
      resume.Stopped: there was a signal; rerun the same command to resume.
    """
    start = time.monotonic()
    settings = resolve(config)
    encoder = encoders.load_encoder(settings.checkpoint)
    require_network(encoder)
    setup, classes, bad = _open(encoder, settings)
    network = baselines.networks(encoder, settings.weights, setup.train)
    with resume.opened(workdir, settings.stored, encoder.identity["sha256"]) as work:

        def of_seed(seed: int) -> dict[str, Any]:
            mine = setup._replace(encoder=network(seed))
            show = functools.partial(predictions.write_boxes, workdir, classes)
            return score(settings, mine, classes, work, bad, seed, show)

        found = results.over_seeds(
            settings,
            work.by_seed(of_seed),
            lambda seed: network(seed).identity,
            drawn="first weights of the new layers, order, mirroring, sizes, regions",
        )
        trained = "the new layers alone" if settings.frozen else "the whole network"
        found |= {"protocol": f"object detection, {trained} trained", "choices": CHOICES}
        found["packages"] = packages.versions()
        result = results.write_result(workdir, settings, setup, found, start=start)
    console.say(results.describe(result, _table))


def require_network(encoder: encoders.Encoder) -> None:
    """Raises unless the encoder has stride 16 before its last group, and batch norm."""
    card, path = encoder.card, encoder.identity["path"]
    spec, stem = resnet.ENCODERS[card.encoder], resnet.STEMS[card.stem]
    stride = stem.stride * (2 if stem.max_pool else 1) * int(np.prod(spec.strides[:-1]))
    if stride != 16 or len(spec.blocks) < 2:
        raise UsageError(
            f"{path} is a {card.encoder} with the stem '{card.stem}', whose map before the last "
            f"group has stride {stride}, where the detector's regions need 16: pretrain a ResNet "
            "of four groups with --config.model.stem=imagenet."
        )
    if card.norm_spec != norms.BATCH_NORM:
        raise UsageError(
            f"{path} has other layers than batch norm (model.norm, model.weight_standardization), "
            "which the module for PyTorch lacks: detection takes encoders with batch norm."
        )


def _open(
    encoder: encoders.Encoder, settings: DetectionSettings
) -> tuple[protocol.EvalSetup, tuple[str, ...], eval_loader.BadLimit]:
    """Both splits with all annotations read, so that what is wrong is known before hours pass."""
    data, known = settings.data, SETS[settings.data.name]
    splits = data.train_split or known.splits[0], data.eval_split or known.splits[1]
    if splits[0] == splits[1]:
        raise UsageError(f"'{splits[0]}' is both train_split and eval_split: give two splits.")
    train = known.load_train(data.dir, splits[0])
    test = known.load_test(data.dir, splits[1])
    if train.classes != test.classes:
        raise UsageError(f"'{splits[0]}' and '{splits[1]}' have other categories: give splits of "
                         "one set.")  # fmt: skip
    bad = eval_loader.BadLimit((train.data, test.data), data.max_bad_share)
    for split in (train, test):
        console.say(split.data.about)
    known_boxes = boxes.check(train.data, bad)
    learned = [index for index, target in known_boxes.items() if target.is_learned.any()]
    if not learned or not boxes.check(test.data, bad):
        raise UsageError("No image to learn from has a box, or none can be tested on.")
    names = {"train_split": splits[0], "validation_split": "", "eval_split": splits[1]}
    source = features.Source(data.name, data.dir)
    chosen = train.data.select(np.array(learned))
    setup = protocol.EvalSetup(encoder, source, chosen, 0, test.data, names)
    return setup, train.classes, bad


def score(
    settings: DetectionSettings,
    setup: protocol.EvalSetup,
    classes: tuple[str, ...],
    work: resume.Unfinished,
    bad: eval_loader.BadLimit,
    seed: int,
    show: Callable[[list[predictions.ShownBoxes]], None],
) -> dict[str, Any]:
    """Trains a detector and tests it once.

    Args:
      settings: of the config.
      setup: with the network of the seed.
      classes: names.
      work: what has been done so far.
      bad: notes images that cannot be used.
      seed: of all that is drawn.
      show: is given some of the tested images with what was found in them.
    """
    from byol_jax.detection import network, training  # which import PyTorch

    sizes = network.Sizes(
        settings.image_sizes, settings.test_image_size, settings.longest_side,
        settings.anchor_sizes, settings.regions, settings.test_regions,
    )  # fmt: skip
    model = network.make(
        setup.encoder, num_classes=len(classes), sizes=sizes, is_frozen=settings.frozen,
        bn_decay_rate=settings.bn_decay_rate, seed=seed,
    ).to(training.device())  # fmt: skip
    recipe = training.Recipe(
        settings.total_steps, settings.learning_rate, settings.warmup_steps, settings.weight_decay,
        settings.accumulate, settings.frozen,
    )  # fmt: skip
    batches = pixel_loader.PixelBatches(
        setup.train, batch_size=settings.batch_size, seed=seed, make=training.make_example,
        max_bad=bad.most, read=boxes.read_example, is_stacked=False,
    )  # fmt: skip
    training.train(model, recipe, batches, work, seed=seed, name=f"training of seed {seed}")
    tested = pixel_sets.examples(setup.test, bad, boxes.read_example)
    bar = console.progress_bar(total=setup.test.num_images, done=0, unit="img", title="test")
    with bar:
        found = list(_following(training.predict(model, tested, sizes), bar, classes, show))
    device = training.describe_device(training.device())
    counts = {"learned from": setup.train.num_images, "evaluated": len(found)}
    counts["bad"] = len(bad.found)
    return summarize(found, classes, settings, seed) | {
        "num_images": counts, "steps": settings.total_steps, "trained_on_device": device,
    }  # fmt: skip


Found = tuple[boxes.Annotation, Any]  # of an image: the objects, and what was predicted


def _following(
    pairs: Iterator[tuple[boxes.Example, Any]], bar: Any, classes: tuple[str, ...], show: Any
) -> Iterator[Found]:
    """Objects and predictions of all images, some of which are shown with their pixels."""
    shown: list[predictions.ShownBoxes] = []
    for example, predicted in pairs:
        if len(shown) < predictions.MOST:
            sure = predicted.score >= LEAST_SCORE
            shown.append(predictions.ShownBoxes(
                example.pixels, (example.target.box, example.target.label),
                (predicted.box[sure], predicted.label[sure]),
            ))  # fmt: skip
        bar.update(1)
        yield example.target, predicted
    show(shown)


def summarize(
    found: list[Found], classes: tuple[str, ...], settings: DetectionSettings, seed: int
) -> dict[str, Any]:
    """Measures with intervals.

    Raises:
      UsageError: no image can be tested on.
    """
    if not found:
        raise UsageError("None of the images to test on can be used.")
    asked, given = zip(*found, strict=True)
    truth = measures.Truth(*_columns(asked, "label", "box", "difficult"))
    detections = measures.Detections(*_columns(given, "label", "box", "score"))
    values, intervals, by_class = detection_intervals.summary(
        truth, detections, num_classes=len(classes), num_images=len(found), seed=seed,
        resamples=settings.bootstrap_resamples,
    )  # fmt: skip
    ap50 = {
        name: None if np.isnan(value) else float(value)
        for name, value in zip(classes, by_class, strict=True)
    }
    return {"accuracy": values, "interval_95": {n: list(p) for n, p in intervals.items()},
            "AP50_of_class": ap50}  # fmt: skip


def _columns(images: Sequence[Any], *keys: str) -> list[np.ndarray]:
    """Which image each row is of, and arrays of all images behind each other."""
    numbers = np.repeat(np.arange(len(images)), [len(image.label) for image in images])
    return [numbers, *(np.concatenate([getattr(x, key) for x in images]) for key in keys)]


# Where the paper is silent, or cannot be repeated.
CHOICES = {
    "recipe": "MoCo's for R50-C4, not the paper's 1.5 million asynchronous steps",
    "batch norm": "learned, of the images of one part of a batch; one more after the last group",
    "difficult objects": "learned from, and left out of the test, as in detectron2",
    "AP50": "VOC2007's eleven points; AP50_area is the area under the curve",
    "coco": "COCO's AP; VOC's difficult objects are its crowds",
    "box loss": "torchvision's smooth L1 with its bend at 1/9, where detectron2's is L1",
}


def _table(found: Mapping[str, Any]) -> list[str]:
    values = (
        ("-" if v is None else f"{v:.1%}", name) for name, v in found["AP50_of_class"].items()
    )
    return ["AP50: " + ", ".join(f"{name} {value}" for value, name in values)]
