"""Where a run's numbers and pictures go besides its own files: services that track experiments."""

import math
import pathlib
import secrets
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from byol_jax import config as config_lib

UsageError = config_lib.UsageError


class Tracker(Protocol):
    """Takes what a run measures."""

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Numbers of a step."""
        ...

    def write_image(self, step: int, name: str, pixels: np.ndarray) -> None:
        """A picture, uint8 [H, W, 3]."""
        ...

    def close(self) -> None:
        """Sends what is left."""
        ...


class WeightsAndBiases:
    """Logs to a project of Weights & Biases; WANDB_MODE=offline keeps everything on this machine.

    A run that goes on after an interruption goes on there too, by an id kept in its folder.

    Args:
      project: name of the project.
      workdir: folder of the run.
      config: of the run, nested.

    Raises:
      UsageError: the package wandb is not installed.
    """

    def __init__(self, project: str, workdir: pathlib.Path, config: Mapping[str, Any]):
        try:
            import wandb
        except ImportError:
            raise UsageError(
                f"--config.wandb_project={project} needs the package wandb: pip install '.[wandb]'."
            ) from None
        self._wandb = wandb
        path = workdir / "wandb_id"
        known = path.read_text().strip() if path.exists() else secrets.token_hex(4)
        path.write_text(known + "\n")
        self._run = wandb.init(
            project=project,
            id=known,
            name=workdir.name,
            dir=str(workdir),
            config=dict(config),
            resume="allow",
            settings=wandb.Settings(console="off", silent=True),
        )

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Numbers of a step; those that are not finite are left out."""
        finite = {name: value for name, value in scalars.items() if math.isfinite(value)}
        self._run.log(finite, step=step)

    def write_image(self, step: int, name: str, pixels: np.ndarray) -> None:
        """A picture, uint8 [H, W, 3]."""
        self._run.log({name: self._wandb.Image(pixels)}, step=step)

    def close(self) -> None:
        """Sends what is left, and waits for it."""
        self._run.finish()


def make_trackers(config: Any, workdir: pathlib.Path) -> Sequence[Tracker]:
    """Those that a config asks for."""
    if not config.wandb_project:
        return ()
    return (WeightsAndBiases(config.wandb_project, workdir, config.to_dict()),)
