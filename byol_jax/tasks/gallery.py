"""The task that makes the pictures of a run's report from its checkpoint."""

import pathlib
from typing import Any

from byol_jax import config as config_lib
from byol_jax.checkpoints import encoders
from byol_jax.data import datasets, eval_loader
from byol_jax.evaluation import baselines, protocol
from byol_jax.evaluation import features as features_lib
from byol_jax.report import cli
from byol_jax.training import build, online_eval
from byol_jax.training import settings as settings_lib
from byol_jax.visualize import gallery, recorder
from byol_jax.workdir import console


def run(config: Any, workdir: pathlib.Path) -> None:
    """Writes the gallery of the run that ``config.checkpoint`` belongs to, and its page.

    Raises:
      UsageError: a mistake in the config, a checkpoint that cannot be used, a bad image among those
        that are evaluated.
    """
    del workdir  # everything belongs to the run
    config_lib.require_positive(config, "batch_size", "max_images")
    encoder = encoders.load_encoder(config.checkpoint)
    folder = pathlib.Path(encoder.identity["path"]).absolute().parent.parent
    data = config_lib.freeze(settings_lib.Data, encoder.config.data, prefix="data.")
    given = features_lib.Source(config.data.name, config.data.dir)
    directory = features_lib.find_source(given, encoder).dir
    source = features_lib.Source(data.name, directory, data.labels)
    splits = (data.train_split, data.eval_split)
    train, test = protocol.load_splits(encoder, source, splits, decode="full")
    trained = settings_lib.resolve(encoder.config, num_images=train.num_images)
    trained = config_lib.replaced(trained, "data.dir", source.dir)
    _write_pairs(trained, train, folder / recorder.FOLDER)
    _write_learned(
        trained,
        encoder,
        train,
        test,
        folder / recorder.FOLDER,
        batch_size=config.batch_size,
        most=config.max_images,
    )
    console.say(f"Written: {folder / recorder.FOLDER}")
    page = cli.write_for(folder)
    if page:
        console.say(f"Written: {page}")


def _write_pairs(
    trained: settings_lib.PretrainSettings, train: datasets.Dataset, folder: pathlib.Path
) -> None:
    batches = build.make_train_batches(trained, train)
    try:
        batch = next(batches)
        recorder.make_pairs(trained, train, batch, batches.bad_images, folder)
    finally:
        batches.close()


def _write_learned(
    trained: settings_lib.PretrainSettings,
    encoder: encoders.Encoder,
    train: datasets.Dataset,
    test: datasets.Dataset,
    folder: pathlib.Path,
    *,
    batch_size: int,
    most: int,
) -> None:
    """Neighbors, map and classes; what a random network makes of the images, if it is missing."""
    splits = [data.take(trained.probe.max_images) for data in (train, test)]
    measured = _measure(encoder, splits, trained, batch_size)
    start = gallery.read_start(folder)
    if start is None or len(start["indices"]) != len(gallery.choose(measured, most=most).indices):
        fresh = baselines.choose(encoder, "random", train, seed=trained.seed)
        title = "fresh random weights"
        untrained = _measure(fresh, splits, trained, batch_size)
        gallery.write_start(folder, untrained, most=most, title=title)
    subject = recorder.make_subject(trained.data, splits[1])
    gallery.write_end(folder, subject, measured, step=encoder.identity["step"], most=most)


def _measure(
    encoder: encoders.Encoder,
    splits: list[datasets.Dataset],
    trained: settings_lib.PretrainSettings,
    batch_size: int,
) -> online_eval.Measured:
    probe = online_eval.Probe(
        *splits,
        lambda params, state, images: encoder.encode(images),
        batch_size=batch_size,
        image_size=encoder.image_size,
        k=trained.probe.k,
        temperature=trained.probe.temperature,
        bad=eval_loader.BadLimit(splits, trained.data.max_bad_share),
    )
    return probe.measure(encoder.params, encoder.state, linear=False)
