"""The residual cells of FusionVAE, their weights at the start and the penalty on their size.

Source: F. Duffhauss et al., FusionVAE: A Deep Hierarchical Variational Autoencoder for RGB Image Fusion, ECCV 2022;
cells after A. Vahdat and J. Kautz, NVAE: A Deep Hierarchical Variational Autoencoder, NeurIPS 2020, figure 3.
Convolutions are plain ones, or as in that paper normalised by their weights.
"""

from collections.abc import Iterator
from math import gcd
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lowlight.models.blocks import start_identities

Norm = Literal["batch", "group", "channel", "none"]

BRANCH_WEIGHT = 0.1  # of a cell's branch beside its skip
GROUPS = 8  # of a group norm, fewer where the channels do not divide
FIRST_ITERATIONS, ITERATIONS = 40, 4  # of the power method, in the first step and in each later one


def make_norm(norm: Norm, channels: int) -> nn.Module:
    """Batch norm as the paper has it; group norm asks nothing of the batch, channel norm nothing of other places."""
    if norm == "none":
        return nn.Identity()
    if norm == "channel":
        return ChannelNorm(channels)
    if norm == "group":
        return nn.GroupNorm(gcd(GROUPS, channels), channels)
    return nn.BatchNorm2d(channels, eps=1e-5, momentum=0.05)


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of each place, so that a place does not depend on how far a picture reaches."""

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape `[B, C, h, w]`."""
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class SqueezeExcite(nn.Module):
    """Scale each channel by a factor from 0 to 1 that all channels' means decide."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(channels // 16, 4)
        self.factors = nn.Sequential(
            nn.Linear(channels, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, channels), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape `[B, C, h, w]`."""
        scaled: Tensor = x * self.factors(x.mean((2, 3)))[:, :, None, None]
        return scaled


class HalvedSkip(nn.Module):
    """The skip of a cell that halves the size: four 1x1 convolutions, one for each pixel of a 2x2 block.

    Pixels are picked out before, not by the convolutions' stride: oneDNN 3.12 writes beyond the gradients of strided
    1x1 convolutions of fewer than 16 channels, and trains slower with more.
    """

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        assert channels_out % 4 == 0, channels_out
        self.phases = nn.ModuleList(nn.Conv2d(channels_in, channels_out // 4, 1) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        """`[B, C, h, w]` to `[B, C', h/2, w/2]`."""
        items, channels, height, width = x.shape
        blocks = F.silu(x).movedim(1, -1).reshape(items, height // 2, 2, width // 2, 2, channels)
        # One copy for all four: gradients of slices would lie in memory as no neighbour has theirs, which is slow.
        picked = blocks.permute(2, 4, 0, 1, 3, 5).flatten(0, 1).movedim(-1, 2).unbind()
        return torch.cat([conv(phase) for conv, phase in zip(self.phases, picked, strict=True)], dim=1)


class EncoderCell(nn.Module):
    """Two norms, activations and 3x3 convolutions, and squeeze-excite; with `channels_out` it halves the size."""

    def __init__(self, channels: int, channels_out: int | None = None, *, norm: Norm, squeeze: bool = True) -> None:
        super().__init__()
        out = channels_out or channels
        self.skip = HalvedSkip(channels, out) if channels_out else nn.Identity()
        self.branch = nn.Sequential(
            make_norm(norm, channels),
            nn.SiLU(),
            nn.Conv2d(channels, out, 3, stride=2 if channels_out else 1, padding=1),
            make_norm(norm, out),
            nn.SiLU(),
            nn.Conv2d(out, out, 3, padding=1),
            SqueezeExcite(out) if squeeze else nn.Identity(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """`[B, C, h, w]` to the same, or to `[B, C', h/2, w/2]`."""
        out: Tensor = self.skip(x) + BRANCH_WEIGHT * self.branch(x)
        return out


class DepthwiseConv(nn.Conv2d):
    """A 5x5 convolution of each channel by itself, without a bias.

    Training in bfloat16 on a CPU keeps it in float32: oneDNN 3.12 takes four times as long for its gradients there.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 5, padding=2, groups=channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape `[B, C, h, w]`."""
        if x.device.type == "cpu" and torch.is_grad_enabled() and torch.is_autocast_enabled("cpu"):
            with torch.autocast("cpu", enabled=False):
                return super().forward(x.float())
        return super().forward(x)


class DecoderCell(nn.Module):
    """A depthwise 5x5 convolution among `expansion` times the channels; with `channels_out` it doubles the size."""

    def __init__(
        self, channels: int, channels_out: int | None = None, *, expansion: int, norm: Norm, squeeze: bool = True
    ) -> None:
        super().__init__()
        out, wide = channels_out or channels, expansion * channels
        self.skip: nn.Module = nn.Identity()
        doubled: list[nn.Module] = []
        if channels_out:
            bilinear = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
            self.skip = nn.Sequential(bilinear, nn.Conv2d(channels, out, 1))
            doubled = [nn.Upsample(scale_factor=2, mode="nearest")]
        self.branch = nn.Sequential(
            *doubled,
            make_norm(norm, channels),
            nn.Conv2d(channels, wide, 1, bias=False),
            make_norm(norm, wide),
            nn.SiLU(),
            DepthwiseConv(wide),
            make_norm(norm, wide),
            nn.SiLU(),
            nn.Conv2d(wide, out, 1, bias=False),
            make_norm(norm, out),
            SqueezeExcite(out) if squeeze else nn.Identity(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """`[B, C, h, w]` to the same, or to `[B, C', 2h, 2w]`."""
        out: Tensor = self.skip(x) + BRANCH_WEIGHT * self.branch(x)
        return out


def initialise_uniform(network: nn.Module, generator: torch.Generator) -> None:
    """Draw weights and biases of convolutions and linear layers from U(-r, r) with `r = 1 / sqrt(fan-in)`."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            reach = module.weight[0].numel() ** -0.5
            nn.init.uniform_(module.weight, -reach, reach, generator=generator)
            if module.bias is not None:
                nn.init.uniform_(module.bias, -reach, reach, generator=generator)
    start_identities(network)


class SizePenalty(nn.Module):
    """The largest singular values of a network's convolutions and the largest |gamma| of its norms, added up.

    Singular values come from the power method, whose vectors are kept as buffers from step to step; convolutions
    without a bias, which stand between two norms, are left out. The network itself is no part of this module.
    """

    def __init__(self, network: nn.Module, generator: torch.Generator) -> None:
        super().__init__()
        for index, weights in enumerate(_by_shape(network)):
            vectors = torch.empty(len(weights), len(weights[0]))
            if not vectors.is_meta:  # see `blocks.initialise`
                nn.init.normal_(vectors, generator=generator)
            self.register_buffer(f"vectors{index}", vectors)
        self.register_buffer("started", torch.tensor(False))
        self._running = False  # spares asking the device in every step

    def forward(self, network: nn.Module) -> Tensor:
        """Give the penalty of the network this was made for, a scalar in its graph, in float32."""
        largest = [
            module.weight.float().abs().max()
            for module in network.modules()
            if isinstance(module, nn.BatchNorm2d | nn.GroupNorm | nn.LayerNorm)
        ]
        iterations = ITERATIONS if self._running or self.get_buffer("started").item() else FIRST_ITERATIONS
        for index, weights in enumerate(_by_shape(network)):
            with torch.autocast(weights[0].device.type, enabled=False):
                matrices = torch.stack([weight.flatten(1).float() for weight in weights])
                largest.append(self._singular(matrices, f"vectors{index}", iterations))
        if self.training:
            self._running = True
            self.get_buffer("started").fill_(True)
        return torch.stack(largest).sum()

    def _singular(self, matrices: Tensor, name: str, iterations: int) -> Tensor:
        left = self.get_buffer(name).unsqueeze(1)
        with torch.no_grad():
            for _ in range(iterations):
                right = F.normalize(left @ matrices, dim=2)
                left = F.normalize(right @ matrices.transpose(1, 2), dim=2)
            if self.training:
                self.get_buffer(name).copy_(left.squeeze(1))
        return (left @ matrices @ right.transpose(1, 2)).sum()


def _by_shape(network: nn.Module) -> Iterator[list[Tensor]]:
    """Weights of the convolutions that are penalised, those of one shape together."""
    shapes: dict[tuple[int, int], list[Tensor]] = {}
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.bias is not None:
            shapes.setdefault((len(module.weight), module.weight[0].numel()), []).append(module.weight)
    yield from shapes.values()
