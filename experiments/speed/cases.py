"""What is compared: networks and batches, the same for both programs."""

from typing import NamedTuple


class Case(NamedTuple):
    """A training step, or the forward pass of an encoder.

    Attributes:
      encoder: a ResNet.
      stem: "imagenet" or "cifar".
      size: of the images, in pixels.
      batch_size: images of a step.
      target: images a second as a fraction of PyTorch's, at least.
      trains: whether it is a step of BYOL; or else features are extracted.
    """

    encoder: str
    stem: str
    size: int
    batch_size: int
    target: float
    trains: bool = True


CASES = {
    "resnet50-224": Case("resnet50", "imagenet", 224, 8, 0.9),
    "resnet18-96": Case("resnet18", "imagenet", 96, 16, 1.0),
    "resnet18-cifar-32": Case("resnet18", "cifar", 32, 64, 0.8),
    "resnet18-imagenet-32": Case("resnet18", "imagenet", 32, 64, 0.7),
    "features-resnet50-224": Case("resnet50", "imagenet", 224, 8, 0.9, trains=False),
}
HIDDEN, OUTPUT = 4096, 256  # of projector and predictor
LEARNING_RATE, WEIGHT_DECAY, MOMENTUM, TRUST, TAU = 0.1, 1.5e-6, 0.9, 1e-3, 0.99
