"""Fills in all that nobody typed: as the method's authors, the run in the workdir, or a budget."""

import pathlib
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from byol_jax.data import datasets
from byol_jax.training import budget_run, method_settings
from byol_jax.workdir import console


class Complete(NamedTuple):
    """A config with nothing left unset.

    Attributes:
      config: of a run.
      origins: who chose what nobody typed, by dotted key.
    """

    config: Any
    origins: Mapping[str, str]


def begin(config: Any, typed: Collection[str]) -> method_settings.Filled:
    """What the method of a new run brings, which is said."""
    found = method_settings.published(config, typed)
    if text := method_settings.describe(found):
        console.say(text)
    return found


def complete(
    config: Any,
    workdir: pathlib.Path | None = None,
    *,
    train: datasets.Dataset | None = None,
    test: datasets.Dataset | None = None,
    typed: Collection[str] = (),
) -> Complete:
    """Fills in a config, alike on all processes, and says what was chosen.

    A run that is in the workdir goes on with the values that it began with.

    Args:
      config: of a run, which is left as it is.
      workdir: of the run; None: there will be none, and no step is measured.
      train: images to train on, in place of those of ``config.data``.
      test: images that probes measure, likewise.
      typed: dotted keys whose values a person gave on top of the preset.

    Raises:
      UsageError: too little time, another budget than the run began with, a mistake in the config.
    """
    stored = budget_run.stored_config(workdir)
    if stored:
        of_method = method_settings.as_begun(config, stored, typed)
    else:
        of_method = begin(config, typed)
    filled = budget_run.fill_in(of_method.config, workdir, stored, train=train, test=test)
    return Complete(filled.config, {**filled.origins, **of_method.origins})
