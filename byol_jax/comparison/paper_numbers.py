"""What the BYOL paper (arXiv:2006.07733) reports, in percent but for the errors of depth."""

from collections.abc import Mapping

# By encoder and width. Tables 1 and 9, linear evaluation on ImageNet, top-1.
LINEAR: Mapping[tuple[str, int], float] = {
    ("resnet50", 1): 74.3,
    ("resnet101", 1): 76.4,
    ("resnet152", 1): 77.3,
    ("resnet200", 1): 77.8,
    ("resnet50", 2): 77.4,
    ("resnet101", 2): 78.7,
    ("resnet152", 2): 79.0,
    ("resnet200", 2): 79.6,
    ("resnet50", 3): 78.2,
    ("resnet101", 3): 78.4,
    ("resnet152", 3): 79.5,
    ("resnet50", 4): 78.6,
}
# Table 2, top-1 with 1 % and 10 % of ImageNet's labels.
FEW_LABELS: Mapping[str, Mapping[tuple[str, int], float]] = {
    "1percent": {("resnet50", 1): 53.2, ("resnet50", 2): 62.2, ("resnet50", 4): 69.1,
                 ("resnet200", 2): 71.2},
    "10percent": {("resnet50", 1): 68.8, ("resnet50", 2): 73.5, ("resnet50", 4): 75.7,
                  ("resnet200", 2): 77.7},
}  # fmt: skip
# Table 3, linear evaluation on other sets, ResNet-50.
TRANSFER: Mapping[str, float] = {
    "food101": 75.3,
    "cifar10": 91.3,
    "cifar100": 78.4,
    "birdsnap": 57.2,
    "sun397": 62.2,
    "cars": 67.8,
    "aircraft": 60.6,
    "voc2007": 82.5,
    "dtd": 75.5,
    "pets": 90.4,
    "caltech101": 94.2,
    "flowers": 96.1,
}
# Tables 4 and 12, ResNet-50.
SEGMENTATION = 76.3
DETECTION = 77.5
DEPTH: Mapping[str, float] = {
    "delta1": 84.6,
    "delta2": 96.7,
    "delta3": 99.1,
    "rms": 0.541,
    "rel": 0.129,
}
