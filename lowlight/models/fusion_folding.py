"""Batch norms of a trained network folded into the convolutions beside them, for passes that only look."""

import copy
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from lowlight.models.weight_norm import plain_weights


def folded(network: nn.Module) -> nn.Module:
    """Copy a network in its test mode; a batch norm beside a convolution becomes part of it, to float rounding.

    The copy computes the same in fewer passes over memory and lies in memory as convolutions like it best. It cannot
    be trained, and its state fits no other network.
    """
    with torch.no_grad():
        copied = copy.deepcopy(network).eval()
        plain_weights(copied)
        for module in list(copied.modules()):
            if isinstance(module, nn.Sequential):
                _fold_after(module)
                _fold_before(module)
        return copied.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def _fold_after(layers: nn.Sequential) -> None:
    """Convolutions followed by a norm."""
    for place, (conv, norm) in enumerate(pairwise(list(layers))):
        if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            layers[place], layers[place + 1] = fuse_conv_bn_eval(conv, norm), nn.Identity()


def _fold_before(layers: nn.Sequential) -> None:
    """Norms followed by a convolution of single places, which no padding keeps from shifting its input."""
    for place, (norm, conv) in enumerate(pairwise(list(layers))):
        if not (isinstance(norm, nn.BatchNorm2d) and isinstance(conv, nn.Conv2d)):
            continue
        if conv.kernel_size != (1, 1) or conv.groups != 1 or conv.padding != (0, 0):
            continue
        scale, shift = _scale_and_shift(norm)
        whole = copy.deepcopy(conv)
        bias = conv.weight.flatten(1) @ shift
        whole.weight = nn.Parameter(conv.weight * scale[:, None, None])
        whole.bias = nn.Parameter(bias if conv.bias is None else bias + conv.bias)
        layers[place], layers[place + 1] = nn.Identity(), whole


def _scale_and_shift(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    assert norm.running_mean is not None and norm.running_var is not None
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    return scale, norm.bias - norm.running_mean * scale
