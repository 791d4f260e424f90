"""Parameters and multiply-accumulates (MACs) of a network's test-time path, prior and decoder.

MACs are counted in two ways. The true count is what the arithmetic needs. The published count follows the
operation counter that the thesis' tables were made with: it adds one for each bias and each LeakyReLU, and
counts a transposed convolution as if every output saw the whole kernel, too much by the stride squared.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lowlight.core.restoration import HierarchicalModel, RestorationModel

ENCODER = "encoder."  # begins the names of what only training needs


class Macs(NamedTuple):
    """Multiply-accumulates for one tile: as needed, and as the thesis' tables count them."""

    true: int
    published: int


def count_parameters(model: nn.Module) -> int:
    """Count the parameters that are used at test time: all but the posterior encoder's."""
    return sum(parameter.numel() for name, parameter in model.named_parameters() if not name.startswith(ENCODER))


def count_macs(model: nn.Module, in_shape: tuple[int, int, int] | None = None) -> Macs:
    """Run `model.restore` on one frame of zeros and count, for a batch of one.

    `in_shape` is `(C, h, w)` in packed pixels, by default one tile of the model's own channels. The model may
    live on the `meta` device, where nothing is computed and no memory is taken.
    """
    assert isinstance(model, RestorationModel | HierarchicalModel)
    if in_shape is None:
        in_shape = (model.traits.in_channels, model.traits.tile, model.traits.tile)
    counted: list[Macs] = []

    def count(layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        counted.append(layer_macs(layer, inputs[0], output))

    hooks = [layer.register_forward_hook(count) for layer in model.modules() if not list(layer.children())]
    training = model.training
    try:
        model.eval()
        first = next(model.parameters())
        frames = torch.zeros((1, 1, *in_shape), device=first.device, dtype=first.dtype)
        with torch.no_grad():
            model.restore(frames)
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    return Macs(sum(macs.true for macs in counted), sum(macs.published for macs in counted))


def layer_macs(layer: nn.Module, entered: Tensor, left: Tensor) -> Macs:
    """Count one layer's MACs from the tensors that entered and left it; layers without weights need none."""
    if isinstance(layer, nn.Conv2d):
        height, width = layer.kernel_size
        taps = layer.in_channels // layer.groups * height * width
        return Macs(left.numel() * taps, left.numel() * (taps + (layer.bias is not None)))
    if isinstance(layer, nn.ConvTranspose2d):
        height, width = layer.kernel_size
        kernel = height * width
        spread = layer.out_channels // layer.groups * kernel
        gathered = layer.in_channels // layer.groups * kernel
        return Macs(entered.numel() * spread, left.numel() * (gathered + (layer.bias is not None)))
    if isinstance(layer, nn.Linear):
        macs = left.numel() * layer.in_features
        return Macs(macs, macs)
    if isinstance(layer, nn.LeakyReLU):
        return Macs(0, left.numel())
    return Macs(0, 0)
