"""The sets that the paper transfers to: where TFDS has them, their splits, what is measured.

Paper, appendix D.3, table 13. Where a set has no validation split of its own, as many training
images as in the paper are held out of it, but which ones is ours. Of the paper's list FGVC-Aircraft
and Birdsnap are not in TFDS: arranged as a folder they work as any other.
"""

from typing import NamedTuple


class TransferSet(NamedTuple):
    """One set.

    Attributes:
      name: as in `datasets.load`.
      eval_split: that is tested.
      metric: a key of `transfer_metrics.METRICS`.
      validation_split: to choose on; empty: some of ``train`` are held out.
      validation_share: of ``train``, to hold out.
    """

    name: str
    eval_split: str
    metric: str
    validation_split: str = ""
    validation_share: float = 0.1


SETS = {
    "food101": TransferSet("tfds:food101", "validation", "top1", "", 7_575 / 75_750),
    "cifar10": TransferSet("cifar10", "test", "top1", "", 5_000 / 50_000),
    "cifar100": TransferSet("cifar100", "test", "top1", "", 5_000 / 50_000),
    # This configuration's "validation" is all that the partition leaves unused.
    "sun397": TransferSet("tfds:sun397/standard-part1-120k", "test", "top1", "", 3_970 / 19_850),
    "cars": TransferSet("tfds:cars196", "test", "top1", "", 1_650 / 8_144),
    "voc2007": TransferSet("tfds:voc/2007", "test", "map11", "validation"),
    "dtd": TransferSet("tfds:dtd", "test", "top1", "validation"),
    "pets": TransferSet("tfds:oxford_iiit_pet", "test", "mean_per_class", "", 740 / 3_680),
    # TFDS draws its own 30 training images of each class, one class being the background.
    "caltech101": TransferSet("tfds:caltech101", "test", "mean_per_class", "", 510 / 3_060),
    "flowers": TransferSet("tfds:oxford_flowers102", "test", "mean_per_class", "validation"),
}


def metric(name: str) -> str:
    """What is measured on the set that `datasets.load` calls so: the paper's choice, or top-1."""
    return next((found.metric for found in SETS.values() if found.name == name), "top1")
