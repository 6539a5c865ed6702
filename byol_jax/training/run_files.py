"""Config and data card of a run: compared, recovered from its checkpoints, stored once they fit.

Also what an earlier beginning has left, which a new one in the same folder moves aside.
"""

import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from byol_jax import config as config_lib
from byol_jax.checkpoints import manager, run_facts
from byol_jax.workdir import files, metrics_log, run_folder

UsageError = config_lib.UsageError
DataCard = run_folder.DataCard

CONFIG, DATA = run_facts.CONFIG, run_facts.DATA

# What may differ when a run goes on: none of it changes what is learned.
CHANGEABLE = (
    "accept_changes",
    "checkpoint_every_steps",
    "collapse.action",
    "collapse.max_target_cosine",
    "collapse.min_effective_rank",
    "collapse.min_feature_std",
    "collapse.patience",
    "data.dir",
    "data.max_bad_share",
    "data.threads",
    "data.workers",
    "gallery.max_images",
    "keep_checkpoints",
    "keep_every_steps",
    "log_every_steps",
    "objective.recipe",  # what came of it is in the other keys
    "preset",
    "probe.every_steps",
    "wandb_project",
)

# What a beginning writes, that the next one writes again; the first is moved last.
_OF_A_BEGINNING = ("metrics.jsonl", "tensorboard", "gallery", "bad_images.txt", "wandb_id")


def read_card(workdir: pathlib.Path, *, warn: Callable[[str], None]) -> DataCard | None:
    """The card of the run in a folder; None if there is no run yet.

    Args:
      workdir: of the run.
      warn: takes a line of text, if the card has to come from a checkpoint.

    Raises:
      UsageError: it is damaged and no checkpoint has a copy, or it cannot be read at the moment.
    """
    stored = run_facts.read(workdir, DATA, warn=warn)
    return run_folder.make_data_card(stored) if stored else None


def changes(
    workdir: pathlib.Path, config: Mapping[str, Any], *, warn: Callable[[str], None]
) -> list[str]:
    """In what a config differs from that of the run in the folder; a line for each key.

    Keys that change nothing that is learned are left out. Nothing is written.

    Args:
      workdir: of the run.
      config: what it is to go on with.
      warn: takes a line of text, if the stored config has to come from a checkpoint.

    Raises:
      UsageError: they differ, and ``accept_changes`` does not say that they may; or the
        stored config is damaged.
    """
    stored = run_facts.read(workdir, CONFIG, warn=warn)
    if stored is None:
        if manager.steps(workdir):
            warn(f"WARNING: {workdir / CONFIG} is missing; the given config is taken for its own.")
        return []
    given = run_facts.with_later_keys(json.loads(config_lib.to_json(config)))
    stored = _with_later_objectives(stored, given)
    differences = config_lib.differences(stored, given)
    changed = [line for line in differences if line.split(":")[0] not in CHANGEABLE]
    if changed and not config["accept_changes"]:
        raise UsageError(
            f"{workdir} holds a run of another config:\n  "
            + "\n  ".join(changed)
            + "\nGive the same config to resume it, or another --workdir. To go on with the new "
            "one all the same, add --config.accept_changes=true."
        )
    return changed


def _with_later_objectives(stored: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """A stored config with the sections of objectives that did not exist when it was written."""
    sections = {k: v for k, v in given.get("objective", {}).items() if isinstance(v, dict)}
    return stored | {"objective": sections | stored.get("objective", {})}


def store(workdir: pathlib.Path, config: Mapping[str, Any], data_card: DataCard) -> None:
    """Writes config and card of a run, unless they are there already.

    Raises:
      UsageError: the folder cannot be written to.
    """
    texts = {
        CONFIG: config_lib.to_json(config),
        DATA: json.dumps(data_card._asdict()) + "\n",
    }
    try:
        for name, text in texts.items():
            path = workdir / name
            if not path.exists() or files.read_bytes(path) != text.encode():
                files.write_text(path, text)
    except OSError as error:
        raise UsageError(f"Cannot write to the workdir {workdir}: {error}.") from None


def set_aside(workdir: pathlib.Path, config: Mapping[str, Any]) -> str:
    """Moves away what an earlier beginning has left that did not come to its first checkpoint.

    Args:
      workdir: of a run without any checkpoint.
      config: of the run, if it has none stored.

    Returns:
      What was moved where, in a sentence; empty if there was nothing.

    Raises:
      UsageError: the run did come to a checkpoint, and it is gone.
    """
    last = metrics_log.last_row(workdir)
    if last is None and not _has_text(workdir / metrics_log.NAME):
        return ""
    step = last["step"] if last else 0
    if _was_saved(workdir, config, step) and not manager.has_unfinished(workdir):
        raise UsageError(
            f"{workdir} has metrics up to step {step:,} but no checkpoint: its folder "
            "'checkpoints' is gone or empty. Put it back to resume, or give another --workdir. To "
            f"begin again in this one, rename {workdir / metrics_log.NAME}."
        )
    aside = metrics_log.unused(workdir / "earlier")
    names = [name for name in _OF_A_BEGINNING if (workdir / name).exists()]
    try:
        aside.mkdir()
        for name in reversed(names):
            (workdir / name).rename(aside / name)
    except OSError as error:
        raise UsageError(f"Cannot write to the workdir {workdir}: {error}.") from None
    return (
        f"An earlier start in {workdir} was stopped at step {step:,}, before its first checkpoint. "
        f"What it wrote is now in {aside} ({', '.join(names)}); training begins at step 0."
    )


def _has_text(path: pathlib.Path) -> bool:
    return path.exists() and path.stat().st_size > 0


def _was_saved(workdir: pathlib.Path, config: Mapping[str, Any], step: int) -> bool:
    """Whether a run that has logged this step must have had a checkpoint that was whole.

    A save may be cut off at any moment until the next one, which waits for it, or, if it is the
    last one, until the last probe.
    """
    stored = run_facts.read(workdir, CONFIG, warn=lambda _: None) or config
    every, total = stored["checkpoint_every_steps"], stored["total_steps"]
    if not total or every < total:
        return step >= min(2 * every, total or 2 * every)
    probed = metrics_log.last_row(workdir, having="probe/feature_std")
    return probed is not None and probed["step"] == total
