"""Trains a detector, and has it predict; what is saved of it are arrays.

Shapes: D detections of an image, H x W pixels.
"""

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torchvision.models.detection import faster_rcnn

from byol_jax.data import boxes, pixel_loader
from byol_jax.detection import network
from byol_jax.evaluation import resume
from byol_jax.training import loop
from byol_jax.workdir import console

MOMENTUM = 0.9
DROPS = (18 / 24, 22 / 24)  # of the steps, after which the rate is a tenth of what it was
WARMUP_START = 0.001  # of the rate


class Recipe(NamedTuple):
    """How a detector is trained.

    Attributes:
      total_steps: updates.
      learning_rate: after the warm-up.
      warmup_steps: updates in which the rate rises.
      weight_decay: of all but norms.
      accumulate: parts of a batch, one after the other.
      is_frozen: the encoder stays as it is.
    """

    total_steps: int
    learning_rate: float
    warmup_steps: int
    weight_decay: float
    accumulate: int
    is_frozen: bool


class Predicted(NamedTuple):
    """What was found in an image; a box is [left, top, right, bottom] in its pixels."""

    box: np.ndarray  # float32 [D, 4]
    label: np.ndarray  # int64 [D], from 0
    score: np.ndarray  # float32 [D]


def device() -> torch.device:
    """The first GPU that PyTorch sees, else the processor."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def describe_device(where: torch.device) -> str:
    """Its name."""
    return torch.cuda.get_device_name(where) if where.type == "cuda" else "cpu"


def make_example(example: boxes.Example, rng: np.random.Generator) -> dict[str, Any]:
    """What is learned from an image, which is mirrored half the time."""
    box, pixels = example.target.box, example.pixels
    if rng.random() < 0.5:
        width = pixels.shape[1]
        pixels = pixels[:, ::-1]
        box = np.stack([width - box[:, 2], box[:, 1], width - box[:, 0], box[:, 3]], axis=1)
    learned = example.target.is_learned
    return {"pixels": pixels, "box": box[learned], "label": example.target.label[learned]}


def rate_at(step: int, recipe: Recipe) -> float:
    """The learning rate of a step, from 0."""
    rate = recipe.learning_rate * 0.1 ** sum(step >= drop * recipe.total_steps for drop in DROPS)
    if step < recipe.warmup_steps:
        done = step / recipe.warmup_steps
        rate *= WARMUP_START + (1 - WARMUP_START) * done
    return rate


def train(
    model: faster_rcnn.FasterRCNN,
    recipe: Recipe,
    batches: pixel_loader.PixelBatches,
    work: resume.Unfinished,
    *,
    seed: int,
    name: str,
) -> None:
    """Trains a detector from where a previous attempt had come to.

    Args:
      model: on its device.
      recipe: how.
      batches: of `make_example`, at their beginning; they are closed at the end.
      work: what has been done so far.
      seed: of the anchors and regions that are learned from, and of sizes.
      name: of this part of the evaluation.

    Raises:
      resume.Stopped: there was a signal.
    """
    groups = network.parameter_groups(model, recipe.weight_decay)
    optimizer = torch.optim.SGD(groups, lr=recipe.learning_rate, momentum=MOMENTUM)
    network.set_training(model, is_frozen=recipe.is_frozen)
    first = _restore(model, optimizer, batches, work, name)
    total = recipe.total_steps
    bar = console.progress_bar(total=total, done=first, unit="step", title=name)
    saved = time.monotonic()
    with contextlib.closing(batches), loop.StopRequest() as stop, bar:
        for step in range(first, total):
            _advance(model, optimizer, next(batches), recipe, step, seed)
            bar.update(1)
            is_late = time.monotonic() - saved > resume.SAVE_SECONDS
            if stop.is_made or (is_late and step + 1 < total):
                _save(model, optimizer, batches, work, name, step + 1)
                saved = time.monotonic()
            if stop.is_made:
                raise resume.stopped(name, step + 1, total)


def _advance(
    model: faster_rcnn.FasterRCNN,
    optimizer: torch.optim.Optimizer,
    batch: Mapping[str, Sequence[np.ndarray]],
    recipe: Recipe,
    step: int,
    seed: int,
) -> None:
    """One update; what it draws depends on seed and step alone, so that it can be resumed."""
    torch.manual_seed(int(np.random.SeedSequence([seed, step]).generate_state(1)[0]))
    for group in optimizer.param_groups:
        group["lr"] = rate_at(step, recipe)
    optimizer.zero_grad(set_to_none=True)
    where = next(model.parameters()).device
    count = len(batch["pixels"])
    for part in np.array_split(np.arange(count), min(recipe.accumulate, count)):
        images = [network.to_image(batch["pixels"][i], where) for i in part]
        targets = [
            {
                "boxes": torch.tensor(batch["box"][i], device=where),
                "labels": torch.tensor(batch["label"][i] + 1, device=where),
            }
            for i in part
        ]
        losses = model(images, targets)
        (sum(losses.values()) * (len(part) / count)).backward()
    optimizer.step()


def _save(model, optimizer, batches, work: resume.Unfinished, name: str, step: int) -> None:
    """Writes weights and momenta as arrays."""
    arrays = {f"model/{key}": x.cpu().numpy() for key, x in model.state_dict().items()}
    for number, entry in optimizer.state_dict()["state"].items():
        if entry.get("momentum_buffer") is not None:
            arrays[f"momentum/{number}"] = entry["momentum_buffer"].cpu().numpy()
    work.save_arrays(name, arrays, {"step": step, "batches": batches.get_state()})


def _restore(model, optimizer, batches, work: resume.Unfinished, name: str) -> int:
    """The updates that were done; 0 if nothing of this part was saved."""
    found = work.saved_arrays(name)
    if found is None:
        return 0
    facts, arrays = found
    state = optimizer.state_dict()
    tensors = {key: torch.from_numpy(np.array(x)) for key, x in arrays.items()}
    model.load_state_dict(
        {k.removeprefix("model/"): x for k, x in tensors.items() if k.startswith("model/")}
    )
    state["state"] = {
        int(key.removeprefix("momentum/")): {"momentum_buffer": x}
        for key, x in tensors.items()
        if key.startswith("momentum/")
    }
    optimizer.load_state_dict(state)
    batches.set_state(facts["batches"])
    console.say(f"Resuming '{name}' from step {facts['step']:,}.")
    return facts["step"]


def predict(
    model: faster_rcnn.FasterRCNN, examples: Iterator[boxes.Example], sizes: network.Sizes
) -> Iterator[tuple[boxes.Example, Predicted]]:
    """What is found in each image, one after the other.

    Args:
      model: on its device; is set to inference mode.
      examples: images to look at.
      sizes: of images.
    """
    model.eval()
    model.transform.min_size = (sizes.test,)
    where = next(model.parameters()).device
    try:
        for example in examples:
            with torch.inference_mode():
                (found,) = model([network.to_image(example.pixels, where)])
            box, label, score = (found[k].cpu().numpy() for k in ("boxes", "labels", "scores"))
            yield example, Predicted(box, label - 1, score)
    finally:
        model.transform.min_size = sizes.train
