"""Remembers which training images could not be used, and since which step, of all processes."""

import pathlib
from typing import NamedTuple

import jax

from byol_jax.data import train_loader
from byol_jax.distributed import multihost
from byol_jax.workdir import console, run_folder


class BadImage(NamedTuple):
    """A training image that cannot be used.

    Attributes:
        step: whose batch it was drawn for first.
        name: of its file.
        reason: what is wrong with it.
    """

    step: int
    name: str
    reason: str


class BadImages:
    """Those that the batches of a run have met; the writer lists them in the workdir.

    Args:
        batches: of this process.
        workdir: of the run.
    """

    def __init__(self, batches: train_loader.TrainBatches, workdir: pathlib.Path):
        self._batches, self._workdir = batches, workdir
        self._met: dict[int, BadImage] = {}

    def look(self, step: int) -> None:
        """Notes what the batches have met, the last time for this step."""
        found = self._batches.bad_images
        self._note(
            {
                index: BadImage(step, self._batches.bad_image_name(index), reason)
                for index, reason in found.items()
                if index not in self._met
            }
        )

    def share(self) -> None:
        """Tells all processes of what each has met; to be called by all."""
        if jax.process_count() == 1:
            return
        for other in multihost.gather_json(list(self._met.items()), what="sharing bad images"):
            images = {index: BadImage(*fields) for index, fields in other}
            self._note({i: image for i, image in images.items() if i not in self._met})
            for index, image in images.items():
                first = min(image.step, self._met[index].step)
                self._met[index] = image._replace(step=first)
                self._batches.bad_images.setdefault(index, image.reason)

    def count(self, step: int) -> int:
        """How many were met up to a step; batches of later ones may have been drawn already."""
        return sum(image.step <= step for image in self._met.values())

    def _note(self, new: dict[int, BadImage]) -> None:
        self._met |= new
        if new and multihost.is_writer():
            reasons = {image.name: image.reason for image in new.values()}
            try:
                run_folder.note_bad_images(self._workdir, reasons)
            except OSError as error:  # such as of a full disk; no list is worth a run
                console.say(f"Warning: bad_images.txt could not be written ({error.strerror}).")
