"""A residual encoder that byol_jax trained, in PyTorch. This file needs torch, and nothing else.

It lies in the folder of an export, next to ``model.json`` and ``torch.safetensors``:

    import encoder
    model = encoder.load()                      # in inference mode
    features = model(images)                    # [b, 3, H, W], uint8 or float in [0, 1] -> [b, F]

A classifier gives logits [b, C] of ``model.classes``; ``logits.softmax(1)`` are its probabilities.

It normalizes images itself. With padding "same" it pads as the training did, one pixel more at the
right and at the bottom where the sum is odd, which torchvision's networks do not; and it projects
every shortcut that the training projected. Names of parameters are torchvision's.
"""

import json
import pathlib

import torch
from torch import nn
from torch.nn import functional

_DTYPES = {"F32": torch.float32, "I64": torch.int64}


def load(folder=None):
    """The encoder of a folder (default: this file's), in inference mode."""
    folder = pathlib.Path(folder or pathlib.Path(__file__).parent)
    model = Encoder(json.loads((folder / "model.json").read_text()))
    model.load_state_dict(read_tensors(folder / "torch.safetensors"), strict=True)
    return model.eval()


def read_tensors(path):
    """The tensors of a safetensors file by name."""
    data = bytearray(pathlib.Path(path).read_bytes())
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        dtype, (start, end) = _DTYPES[entry["dtype"]], entry["data_offsets"]
        part = data[8 + size + start : 8 + size + end]
        tensors[name] = torch.frombuffer(part, dtype=dtype).reshape(entry["shape"])
    return tensors


def same_pads(size, kernel, stride):
    """Pixels before and after a side, as TensorFlow's and Haiku's padding "SAME"."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def pad(x, kernel, stride, padding, value=0.0):
    """Pads the rows and columns of [b, c, H, W]."""
    if padding == "torch":
        side = (kernel - 1) // 2
        return functional.pad(x, (side,) * 4, value=value)
    rows, columns = (same_pads(int(size), kernel, stride) for size in x.shape[2:])
    return functional.pad(x, (*columns, *rows), value=value)


class Conv(nn.Conv2d):
    """A convolution without bias that pads explicitly, besides a margin on every side."""

    def __init__(self, before, after, kernel, stride, padding, margin=0):
        super().__init__(before, after, kernel, stride, margin, bias=False)
        self.kind = padding

    def forward(self, x):
        return super().forward(pad(x, self.kernel_size[0], self.stride[0], self.kind))


class Block(nn.Module):
    """A residual block: basic or bottleneck, normalized after (v1) or before (v2)."""

    def __init__(self, before, after, stride, projects, card):
        super().__init__()
        inner, padding, eps = after // 4, card["padding"], card["bn_eps"]
        self.is_v2 = card["resnet_v2"]
        if card["bottleneck"]:
            shapes = [(before, inner, 1, 1), (inner, inner, 3, stride), (inner, after, 1, 1)]
        else:
            shapes = [(before, after, 3, stride), (after, after, 3, 1)]
        self.count = len(shapes)
        for number, shape in enumerate(shapes, start=1):
            self.add_module(f"conv{number}", Conv(*shape, padding))
            width = shape[0] if self.is_v2 else shape[1]
            self.add_module(f"bn{number}", nn.BatchNorm2d(width, eps=eps))
        self.downsample = None
        if projects:
            layers = [Conv(before, after, 1, stride, padding)]
            layers += [] if self.is_v2 else [nn.BatchNorm2d(after, eps=eps)]
            self.downsample = nn.Sequential(*layers)

    def layers(self):
        for number in range(1, self.count + 1):
            yield getattr(self, f"conv{number}"), getattr(self, f"bn{number}")

    def forward(self, x):
        return self.version_2(x) if self.is_v2 else self.version_1(x)

    def version_1(self, x):
        shortcut = x if self.downsample is None else self.downsample(x)
        for number, (conv, norm) in enumerate(self.layers()):
            x = norm(conv(torch.relu(x) if number else x))
        return torch.relu(x + shortcut)

    def version_2(self, x):
        shortcut = x
        for number, (conv, norm) in enumerate(self.layers()):
            x = torch.relu(norm(x))
            if number == 0 and self.downsample is not None:
                shortcut = self.downsample(x)
            x = conv(x)
        return x + shortcut


class Encoder(nn.Module):
    """Stem, block groups, mean over the pixels; a projector or classifier if it was exported.

    Args:
      model: what ``model.json`` holds.
    """

    def __init__(self, model):
        super().__init__()
        card = model["card"] | model["architecture"]
        self.card = card
        for name in ("mean", "std"):
            values = torch.tensor(card[name]).reshape(1, 3, 1, 1)
            self.register_buffer(name, values, persistent=False)
        before, eps = card["stem_channels"], card["bn_eps"]
        stem = card["stem"]
        shape = (3, before, stem["kernel"], stem["stride"])
        self.conv1 = Conv(*shape, card["padding"], stem["margin"])
        self.bn1 = None if card["resnet_v2"] else nn.BatchNorm2d(before, eps=eps)
        for number, group in enumerate(card["groups"], start=1):
            blocks = []
            for i in range(group["blocks"]):
                stride, projects = (1, False) if i else (group["stride"], group["projects"])
                blocks.append(Block(before, group["channels"], stride, projects, card))
                before = group["channels"]
            self.add_module(f"layer{number}", nn.Sequential(*blocks))
        self.norm = nn.BatchNorm2d(before, eps=eps) if card["resnet_v2"] else None
        self.projector = None
        if card["projector"]:
            hidden, output = card["projector"]
            self.projector = nn.Sequential(
                nn.Linear(before, hidden),
                nn.BatchNorm1d(hidden, eps=eps),
                nn.ReLU(),
                nn.Linear(hidden, output, bias=False),
            )
        self.classes = model.get("classes") or []
        self.fc = nn.Linear(before, len(self.classes)) if self.classes else None

    def forward(self, images):
        if images.dtype == torch.uint8:
            images = images.to(self.mean.dtype) / 255
        x = self.stem((images - self.mean) / self.std)
        for group in self.groups():
            x = group(x)
        x = self.pool(x)
        if self.fc is not None:
            return self.fc(x)
        return x if self.projector is None else self.projector(x)

    def stem(self, x):
        """What the first group gets of normalized images [b, 3, H, W]."""
        x = self.conv1(x)
        if self.bn1 is not None:
            x = torch.relu(self.bn1(x))
        if self.card["stem"]["max_pool"]:
            x = functional.max_pool2d(pad(x, 3, 2, self.card["padding"], -torch.inf), 3, 2)
        return x

    def groups(self):
        """The block groups, each a function of the map of the one before."""
        return [getattr(self, f"layer{n}") for n in range(1, len(self.card["groups"]) + 1)]

    def pool(self, x):
        """The embedding [b, F] of the map of the last group."""
        return (x if self.norm is None else torch.relu(self.norm(x))).mean((2, 3))


class Pixels(nn.Module):
    """The encoder of images [b, H, W, 3], uint8, as byol_jax takes them."""

    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder

    def forward(self, images):
        found = self.encoder(images.permute(0, 3, 1, 2))
        return (found, found.softmax(1)) if self.encoder.classes else found
