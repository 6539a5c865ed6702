"""The same step in PyTorch: torchvision's ResNets, both views, LARS, and the moving average."""

import copy
from collections.abc import Callable

import torch
import torchvision
from torch import nn

from experiments.speed import cases


def make(
    case: cases.Case, memory_format: torch.memory_format
) -> tuple[Callable[[], object], float]:
    """A function that does the work once; nothing is compiled, which takes 0 seconds."""
    encoder, width = _encoder(case)
    views = torch.rand(2, case.batch_size, 3, case.size, case.size)
    views = [view.contiguous(memory_format=memory_format) for view in views]
    if not case.trains:
        encoder = encoder.to(memory_format=memory_format).eval()
        return torch.inference_mode()(lambda: encoder(views[0])), 0.0
    online = nn.Sequential(encoder, _mlp(width)).to(memory_format=memory_format)
    target = copy.deepcopy(online).requires_grad_(False)
    return _Step(online, _mlp(cases.OUTPUT), target, views), 0.0


def _encoder(case: cases.Case) -> tuple[nn.Module, int]:
    encoder = getattr(torchvision.models, case.encoder)()
    if case.stem == "cifar":
        encoder.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        encoder.maxpool = nn.Identity()
    width, encoder.fc = encoder.fc.in_features, nn.Identity()
    return encoder, width


def _mlp(width: int) -> nn.Module:
    return nn.Sequential(
        nn.Linear(width, cases.HIDDEN),
        nn.BatchNorm1d(cases.HIDDEN),
        nn.ReLU(),
        nn.Linear(cases.HIDDEN, cases.OUTPUT, bias=False),
    )


class _Step:
    """Online network, predictor and target, and a step of them."""

    def __init__(self, online, predictor, target, views):
        self._online, self._predictor, self._target = online, predictor, target
        self._views = views
        self._params = [*online.parameters(), *predictor.parameters()]
        self._momentum = [torch.zeros_like(p) for p in self._params]

    def __call__(self) -> float:
        predictions = [self._predictor(self._online(view)) for view in self._views]
        with torch.no_grad():
            targets = [self._target(view) for view in self._views]
        pairs = zip(predictions, reversed(targets), strict=True)
        loss = sum(2 - 2 * torch.cosine_similarity(p, t, dim=-1).mean() for p, t in pairs)
        loss.backward()
        self._lars()
        self._move_target()
        return loss.item()

    @torch.no_grad()
    def _lars(self) -> None:
        for param, momentum in zip(self._params, self._momentum, strict=True):
            update = param.grad
            if param.ndim > 1:
                update = update.add(param, alpha=cases.WEIGHT_DECAY)
                ratio = cases.TRUST * param.norm() / update.norm()
                update.mul_(torch.where(torch.isfinite(ratio) & (ratio > 0), ratio, 1.0))
            momentum.mul_(cases.MOMENTUM).add_(update)
            param.sub_(momentum, alpha=cases.LEARNING_RATE)
            param.grad = None

    @torch.no_grad()
    def _move_target(self) -> None:
        targets, onlines = list(self._target.parameters()), list(self._online.parameters())
        torch._foreach_lerp_(targets, onlines, 1 - cases.TAU)
