"""From packed dark frames with their truths to what a network is trained on, the same for every source of pairs."""

from torch import Tensor

from lowlight.core.restoration import Batch, ModelTraits
from lowlight.ops.exposure import BASE_BLOCK_PX, amplify, lowpass_base, upsample_window


def as_batch(
    packed: Tensor, ratio: Tensor, gains: Tensor, camera_to_srgb: Tensor, target: Tensor, traits: ModelTraits
) -> Batch:
    """Amplify dark crops as the network's traits ask, add its base picture, and put the target beside them.

    `packed [B, K, 4, t, t]` are K frames of a scene, linear with 0 = black and 1 = white; `ratio [B, K]`, one for
    each; `gains [B, 4]` are the scene's white-balance gains with minimum 1; `camera_to_srgb [B, 3, 3]`; `target
    [B, C', u*t, u*t]` in the output's colours, encoded. The base picture is that of the amplified frames' mean.
    """
    amount = ratio[:, :, None, None, None]
    frames = amplify(packed, amount, gains[:, None], traits.input_colour)
    base = None
    if traits.base == "lowpass":
        balanced = amplify(packed, amount, gains[:, None], "wb").mean(1)
        coarse = lowpass_base(balanced, traits.output_colour, camera_to_srgb)
        base = upsample_window(coarse, 0, 0, traits.tile, traits.upscale, BASE_BLOCK_PX)
    return Batch(frames, target, ratio, base)
