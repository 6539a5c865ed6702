"""What a study file says: the same pretraining run under several settings, and what to expect.

A study file is a config file whose ``get_config`` returns what `make_config` gives.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import ml_collections

from byol_jax import config as config_lib

UsageError = config_lib.UsageError

LINEAR, KNN = "probe/linear_top1", "probe/knn_top1"
UNTRAINED = "untrained network"  # a cell that every study has: what the runs' first probe measured


class Axis(NamedTuple):
    """One thing that is varied.

    Attributes:
      name: for people.
      levels: by name, the keys of the base config that each of them sets.
    """

    name: str
    levels: Mapping[str, Mapping[str, Any]]


class Finding(NamedTuple):
    """A statement that the results support or contradict: one value is above another.

    A value is that of a cell, or a sum over cells, each times its weight: the accuracy that is lost
    between two cells is ``{"all": 1, "no crop": -1}``. It is taken seed by seed.

    Attributes:
      text: the statement.
      greater: a cell or weights of cells. A cell is named by its levels, as in "byol, no crop".
      lesser: likewise; may be `UNTRAINED`.
      margin: by how much the first is above the second, at least; -0.02 of an accuracy: it is at
        most two points below.
      metric: of the study; empty for its first one.
    """

    text: str
    greater: str | Mapping[str, float]
    lesser: str | Mapping[str, float]
    margin: float = 0.0
    metric: str = ""


def axis_of_key(name: str, key: str, values: Sequence[Any]) -> Axis:
    """An axis of the values of one key, whose levels are called as they are written.

    Args:
      name: for people.
      key: of the base config.
      values: that it takes.
    """
    return Axis(name, {str(value): {key: value} for value in values})


def make_config(
    name: str,
    *,
    question: str,
    base: str,
    axes: Sequence[Axis],
    settings: Mapping[str, Any] | None = None,
    seeds: int = 3,
    metrics: Sequence[str] = (LINEAR, KNN),
    paper: Mapping[str, float | str] | None = None,
    paper_title: str = "paper",
    findings: Sequence[Finding] = (),
) -> ml_collections.ConfigDict:
    """The config of a study.

    Args:
      name: of the study; the default workdir is ``runs/study-<name>``.
      question: that it is to answer.
      base: config file of pretraining, and after a colon its preset.
      axes: what is varied; there is a cell for each combination of levels.
      settings: keys of the base config that all runs set.
      seeds: how many runs of each cell.
      metrics: keys of ``metrics.jsonl`` to report; the first one is plotted.
      paper: what the paper reports for some of the cells, by their names.
      paper_title: heads that column.
      findings: what is to be decided.
    """
    config = ml_collections.ConfigDict()
    config.task = "study"
    config.preset = name
    config.question = question
    config.base = base
    config.settings = tuple((settings or {}).items())
    config.axes = tuple(axes)
    config.metrics = tuple(metrics)
    config.paper = tuple((paper or {}).items())
    config.paper_title = paper_title
    config.findings = tuple(findings)
    config.seed = 0  # the first one
    config.seeds = seeds  # so many, from that one on: runs of each cell
    config.jobs = 0  # runs at a time; 0: one for each GPU, or else for each processor
    config.cores = 1  # processors of each run where there is no GPU; 0: all of them
    config.only = ""  # names of runs to do, with stars, separated by commas; empty: all
    config.shard = ""  # I/N: only every N-th run from the I-th on (I from 0); empty: all
    config.dry_run = False  # show the runs and their commands, and start none
    return config
