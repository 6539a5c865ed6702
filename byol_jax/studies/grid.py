"""From a study to its runs: one for each cell and seed, checked before any of them starts."""

import collections
import fnmatch
import itertools
import json
import pathlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax

from byol_jax import config as config_lib
from byol_jax import plugins
from byol_jax.checkpoints import run_facts
from byol_jax.cli import config_files, effects, overrides
from byol_jax.data import datasets
from byol_jax.studies import study
from byol_jax.training import build, config_checks, config_ranges, method_settings, run_files
from byol_jax.training import settings as settings_lib
from byol_jax.workdir import run_folder

UsageError = config_lib.UsageError

_NOT_OURS = ("seed", "task", "preset")  # keys that no axis may set


class Run(NamedTuple):
    """One run of a study.

    Attributes:
      cell: its level of each axis.
      seed: of the run.
      values: of the keys that differ from the base config.
      config: the whole of it.
    """

    cell: tuple[str, ...]
    seed: int
    values: Mapping[str, Any]
    config: Any

    @property
    def cell_name(self) -> str:
        """As findings and the paper's values name it."""
        return name_of(self.cell)

    @property
    def name(self) -> str:
        """As a person names it, and as its files are called."""
        return f"{_plain(self.cell_name)}-seed{self.seed}"


def name_of(cell: Sequence[str]) -> str:
    """The name of a cell."""
    return ", ".join(cell)


def _plain(text: str) -> str:
    return re.sub(r"[^\w.+-]+", "_", text)


def make_runs(config: Any) -> list[Run]:
    """All runs of a study, those with the first seed first.

    Raises:
      UsageError: an unknown key, a value or settings that a run would refuse, names that are the
        same, a finding about a cell that there is not.
    """
    _check_words(config)
    levels = [list(axis.levels) for axis in config.axes]
    runs = [
        _make_run(config, cell, seed)
        for seed in seeds(config)
        for cell in itertools.product(*levels)
    ]
    _require_different(runs)
    _require_cells(config, {run.cell_name for run in runs} | {study.UNTRAINED})
    return runs


def seeds(config: Any) -> range:
    """The seeds of a study."""
    return range(config.seed, config.seed + config.seeds)


def _check_words(config: Any) -> None:
    for name in ("axes", "metrics"):
        if not config[name]:
            raise UsageError(f"The study '{config.preset}' has no {name}: give at least one.")
    counts = collections.Counter(axis.name for axis in config.axes)
    for name, count in counts.items():
        if count > 1:
            raise UsageError(f"The study '{config.preset}' has two axes called '{name}'.")
    keys: dict[str, str] = {}
    for axis in config.axes:
        if not axis.levels:
            raise UsageError(f"The axis '{axis.name}' has no levels: give at least one.")
        for key in {key for level in axis.levels.values() for key in level}:
            if keys.setdefault(key, axis.name) != axis.name:
                raise UsageError(f"The axes '{keys[key]}' and '{axis.name}' both set {key}.")


def _make_run(config: Any, cell: tuple[str, ...], seed: int) -> Run:
    values = dict(config.settings)
    for axis, level in zip(config.axes, cell, strict=True):
        values |= axis.levels[level]
    for key in values:
        if key in _NOT_OURS:
            raise UsageError(f"The study '{config.preset}' sets {key}, which is not for it to set.")
        if values[key] is None:
            raise UsageError(f"The study '{config.preset}' unsets {key}: give it a value.")
    values["seed"] = int(seed)
    where = f"{name_of(cell)}, seed {seed}"
    try:
        return Run(cell, int(seed), values, _resolve(config.base, values))
    except UsageError as error:
        raise UsageError(f"Cell '{where}' of the study '{config.preset}': {error}") from None


def _resolve(base: str, values: Mapping[str, Any]) -> Any:
    """The config that a run with these values has, as its command line makes it."""
    config = config_files.load(base)
    if config.task != "pretrain":
        raise UsageError(f"its base {base} is a config of {config.task}, not of pretraining.")
    overrides.apply(config, values)
    plugins.load(config)
    config_ranges.check(config)
    effects.settle(config, values)
    return method_settings.published(config, values).config


def _require_different(runs: Sequence[Run]) -> None:
    """Two cells may share neither their files nor all of their settings."""
    names: dict[str, Run] = {}
    settings: dict[str, Run] = {}
    for run in runs:
        other = names.setdefault(run.name, run)
        if other is not run:
            raise UsageError(
                f"The cells '{other.cell_name}' and '{run.cell_name}' would have the same files: "
                "name their levels differently."
            )
        other = settings.setdefault(_to_json(run.config), run)
        if other is not run:
            raise UsageError(
                f"The cells '{other.cell_name}' and '{run.cell_name}' have the same settings: "
                "leave one of them out."
            )


def _require_cells(config: Any, cells: set[str]) -> None:
    for finding in config.findings:
        if finding.metric and finding.metric not in config.metrics:
            raise UsageError(
                f"The finding '{finding.text}' is about {finding.metric}, which is none of the "
                f"metrics of the study: {', '.join(config.metrics)}."
            )
    sides = [side for f in config.findings for side in (f.greater, f.lesser)]
    named = [name for side in sides for name in weights(side)]
    for name in (*named, *dict(config.paper)):
        if name not in cells:
            raise UsageError(
                f"The study '{config.preset}' speaks of a cell that it does not have: '{name}'."
                f"{config_lib.suggest(name, cells)}"
            )


def weights(side: str | Mapping[str, float]) -> Mapping[str, float]:
    """The cells of one side of a finding, each with its weight."""
    return {side: 1.0} if isinstance(side, str) else side


def check(runs: Sequence[Run], folder_of: Callable[[Run], pathlib.Path]) -> None:
    """Checks whatever a run would refuse once it starts; nothing is written.

    Args:
      runs: of a study.
      folder_of: the workdir of a run.

    Raises:
      UsageError: naming the cell, the key that is wrong and what it may be.
    """
    opened: dict[str, datasets.Dataset] = {}
    checked = set()
    for run in runs:
        try:
            if run.cell not in checked:
                checked.add(run.cell)
                _check_parts(run.config, opened)
            _require_same(run, folder_of(run))
        except UsageError as error:
            raise UsageError(f"Cell '{run.cell_name}': {error}") from None


def _require_same(run: Run, folder: pathlib.Path) -> None:
    """What a folder holds must have been made with the settings of the run."""
    stored = run_facts.read(folder, run_facts.CONFIG, warn=lambda _: None)
    before = config_lib.flatten(stored or {})
    now = config_lib.flatten(json.loads(_to_json(run.config)))
    changed = [
        f"{key}: {before[key]} -> {now[key]}"
        for key in now
        if key in before and before[key] != now[key] and key not in run_files.CHANGEABLE
    ]
    if changed:
        raise UsageError(
            f"{folder} holds a run of other settings ({'; '.join(changed)}): give another "
            "--workdir, or remove that folder."
        )


def _to_json(config: Any) -> str:
    return json.dumps(config.to_dict(), sort_keys=True)


def _check_parts(config: Any, opened: dict[str, datasets.Dataset]) -> None:
    """What a run checks as it builds its parts, but for what takes long."""
    config_checks.check(config)
    data = config.data
    for split in (data.train_split, data.eval_split):
        key = f"{data.name} {data.dir} {split} {data.labels}"
        if key not in opened:
            opened[key] = datasets.load(data.name, split, data_dir=data.dir, labels=data.labels)
    train = opened[f"{data.name} {data.dir} {data.train_split} {data.labels}"]
    config_checks.check_sizes(config, train)
    facts = (train.num_images, train.num_classes, train.fingerprint)
    card = run_folder.DataCard(*facts, (0.5,) * 3, (0.25,) * 3)
    found = settings_lib.resolve(config, num_images=train.num_images)
    forward = build.make_forward(found, card)
    size = config.data.image_size
    images = jax.ShapeDtypeStruct((2, size, size, 3), "float32")
    jax.eval_shape(lambda x: forward.init(jax.random.key(0), x, is_training=True), images)


def select(runs: Sequence[Run], *, only: str, shard: str) -> list[Run]:
    """Those of the runs that are to be done.

    Args:
      runs: of a study.
      only: names with stars, separated by commas; empty for all.
      shard: I/N, every N-th from the I-th on; empty for all.

    Raises:
      UsageError: a name that fits no run, or a shard that is none.
    """
    patterns = [part.strip() for part in only.split(",")] if only else ["*"]
    for pattern in patterns:
        if not fnmatch.filter([run.name for run in runs], pattern):
            raise UsageError(
                f"--config.only={only}: no run fits '{pattern}'. "
                f"There are {', '.join(run.name for run in runs[:5])}"
                f"{', ...' if len(runs) > 5 else '.'}"
            )
    chosen = [run for run in runs if any(fnmatch.fnmatchcase(run.name, p) for p in patterns)]
    if not shard:
        return chosen
    found = re.fullmatch(r"(\d+)/(\d+)", shard)
    if not found or int(found[1]) >= int(found[2]):
        raise UsageError(
            f"--config.shard={shard} takes I/N with I from 0 to N - 1: type --config.shard=0/2 on "
            "one of two machines and --config.shard=1/2 on the other."
        )
    return chosen[int(found[1]) :: int(found[2])]
