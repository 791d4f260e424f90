"""Convolutions whose weights are learned as a length and a direction.

Source: T. Salimans and D. P. Kingma, Weight Normalization, NeurIPS 2016, section 2; the length is learned in its
logarithm, as in A. Vahdat and J. Kautz, NVAE, NeurIPS 2020.
"""

from torch import Tensor, nn
from torch.nn.utils import parametrize


class LogNorm(nn.Module):
    """A convolution's weights as `exp(s) v / |v|`: v a direction, s the logarithm of a length, by channel."""

    def forward(self, direction: Tensor, log_norm: Tensor) -> Tensor:
        """`v [O, I, h, w]` and `s [O]` to the weights `[O, I, h, w]`."""
        scale: Tensor = log_norm.exp() / direction.flatten(1).norm(dim=1)
        return direction * scale[:, None, None, None]

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Weights, none of them all zero in a channel, to v and s."""
        return weight, weight.flatten(1).norm(dim=1).log()


def normalise_weights(network: nn.Module) -> None:
    """Take length and direction of each convolution's weights apart; what the network computes stays the same.

    Convolutions without a bias are left out: a norm behind them makes their length mean nothing.
    """
    for module in list(network.modules()):
        if isinstance(module, nn.Conv2d) and module.bias is not None:
            parametrize.register_parametrization(module, "weight", LogNorm())


def plain_weights(network: nn.Module) -> None:
    """Undo `normalise_weights` in a network that is not trained any more; nothing happens to others.

    Whole layers are replaced: PyTorch's way of undoing it would undo it in all copies of the network, too.
    """
    for parent in list(network.modules()):
        for name, conv in list(parent.named_children()):
            if isinstance(conv, nn.Conv2d) and parametrize.is_parametrized(conv, "weight"):
                sizes = (conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, conv.padding)
                # PyTorch keeps sizes as tuples of any length, and asks for two numbers.
                plain = nn.Conv2d(*sizes, device="meta").train(conv.training)  # type: ignore[arg-type]
                plain.weight, plain.bias = nn.Parameter(conv.weight.detach()), conv.bias
                setattr(parent, name, plain)
