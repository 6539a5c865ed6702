"""Says what a checkpoint is, and what can be done with it: ``python -m byol_jax.inspect PATH``."""

import sys

from byol_jax.cli import startup

if __name__ == "__main__":  # before the imports below, which take seconds
    startup.explain(sys.argv[1:], "INSPECT")

import pathlib
import shlex
from collections.abc import Sequence
from typing import NoReturn

import numpy as np

from byol_jax import config as config_lib
from byol_jax.checkpoints import sources
from byol_jax.host import signals, streams
from byol_jax.models import encoder_spec, norms
from byol_jax.workdir import metrics_log

_FORMATS = {
    "run": "checkpoint of a run of this project (Orbax)",
    "export": "export of this project (safetensors and model.json)",
    "deepmind": "pickle of DeepMind's BYOL, read without unpickling",
    "torch": "tensors by torchvision's names (PyTorch or safetensors)",
}


def describe(path: str) -> str:
    """Format, step, encoder, parameters, image size, normalization, accuracy, and commands.

    Raises:
      UsageError: there is no checkpoint at the path, or a damaged one.
    """
    found = sources.open_weights(path)
    card, rows = found.card, {}
    shapes = encoder_spec.shapes(card)[0]
    count = sum(int(np.prod(x.shape)) for leaves in shapes.values() for x in leaves.values())
    rows["format"] = _FORMATS[found.format]
    rows["step"] = "unknown" if found.step is None else f"{found.step:,}"
    rows["encoder"] = (
        f"{card.encoder}, width {card.width_multiplier}, version {2 if card.resnet_v2 else 1}, "
        f"stem {card.stem}, padding {card.padding}"
    )
    if card.norm_spec != norms.BATCH_NORM:
        standardized = ", weight standardization" if card.weight_standardization else ""
        groups = f" of {card.norm_groups} groups" if card.norm == "group" else ""
        rows["norm"] = f"{card.norm}{groups}{standardized}"
    rows["parameters"] = f"{count:,} of the encoder"
    rows["networks"] = ", ".join(found.load)
    rows["image size"] = f"{card.image_size} px"
    rows["normalized by"] = f"mean {_numbers(card.mean)}, std {_numbers(card.std)}"
    rows["accuracy"] = _accuracy(found)
    lines = [found.path, *(f"  {name:<14} {value}" for name, value in rows.items())]
    lines += [f"  {note}" for note in (*found.notes, found.licence) if note]
    return "\n".join([*lines, "", *_commands(path, found)])


def _numbers(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:.4g}" for value in values)


def _accuracy(found: sources.Weights) -> str:
    """What the run measured last, if the checkpoint is in its workdir."""
    if found.format != "run":
        return "unknown"
    run = pathlib.Path(found.path).absolute().parent.parent
    scores = metrics_log.rows(run, having="probe/knn_top1")
    rows = [row for row in scores if row["step"] <= found.step]
    if not rows:
        return "unknown"
    linear = rows[-1].get("probe/linear_top1")
    fraction = f", linear {linear:.1%}" if linear is not None else ""
    return f"kNN {rows[-1]['probe/knn_top1']:.1%}{fraction} at step {rows[-1]['step']:,}"


def _commands(path: str, found: sources.Weights) -> list[str]:
    start = "python -m byol_jax.main_loop --config=configs/"
    given = f" --config.checkpoint={shlex.quote(path)}"
    data = "" if found.config else " --config.data.name=SET"
    is_plain = found.card.norm_spec == norms.BATCH_NORM
    formats = "" if is_plain else " --config.formats=safetensors,stablehlo"
    return [
        "measure it:",
        f"  {start}knn.py{given}{data}",
        f"  {start}linear_eval.py{given}{data}",
        "use it elsewhere:",
        f"  {start}embed.py{given} --config.data.name=folder --config.data.dir=IMAGES",
        f"  {start}export.py{given}{formats}",
    ]


def main(arguments: Sequence[str]) -> int:
    """Prints what the only argument is; the exit status."""
    if len(arguments) != 1:
        print("Usage: python -m byol_jax.inspect FILE_OR_FOLDER", file=sys.stderr)
        return 2
    try:
        print(describe(arguments[0]))
    except config_lib.UsageError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    return 0


def end(arguments: Sequence[str]) -> NoReturn:
    """`main`, and the end of the process."""
    status = main(arguments)
    signals.ignore()
    streams.finish(status)


if __name__ == "__main__":
    end(sys.argv[1:])
