"""A mosaic that lies on the device: brought there once, as the sensor gave it, and packed there.

Numbers of 16 bits without sign travel as 16 bits with sign, which every device can hold, and are told apart again on
arrival.
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lowlight.burst import Burst
from lowlight.core.photo import RawFrame
from lowlight.raw.bayer import origin_padding, packed_size, plane_offsets
from lowlight.views import View


@dataclass(frozen=True, eq=False)
class ResidentScene(Burst):
    """A scene of one frame whose mosaic is on a device; packed rows are made there.

    `mosaic` is int32 `[2h, 2w]`, DN, with a red pixel at its origin. `ready` is the event after which it may be read.
    """

    mosaic: Tensor | None = None
    ready: torch.cuda.Event | None = None

    def average(self, start: int = 0, stop: int | None = None, *, clip: bool = True) -> Tensor:
        """Packed rows `[4, stop - start, w]` on the device, as those of a `Burst`."""
        assert self.mosaic is not None
        stop = self.size[0] if stop is None else stop
        return pack_tensor(self.mosaic[2 * start : 2 * stop], self.reference, clip=clip)

    def member(self, index: int, start: int, stop: int) -> Tensor:
        """The only frame's packed rows."""
        assert index == 0
        return self.average(start, stop)


def upload(scene: Burst, device: torch.device, stream: torch.cuda.Stream | None = None) -> Burst:
    """Bring the mosaic of a scene of one frame to a device; a scene of several frames stays where it is.

    With a `stream` of a CUDA device nothing waits for the transfer: the scene says when it is `ready`.
    """
    if isinstance(scene, ResidentScene) or len(scene.frames) > 1:
        return scene
    frame = scene.reference
    sent = torch.from_numpy(np.ascontiguousarray(frame.mosaic).view(np.int16))
    if stream is None:
        return ResidentScene(scene.frames, scene.notes, _red_origin(_unsigned(sent.to(device)), frame))
    with torch.cuda.stream(stream):
        pinned = torch.empty(sent.shape, dtype=sent.dtype, pin_memory=True).copy_(sent)
        mosaic = _red_origin(_unsigned(pinned.to(device, non_blocking=True)), frame)
        ready = torch.cuda.Event()  # type: ignore[no-untyped-call]
        ready.record(stream)
    return ResidentScene(scene.frames, scene.notes, mosaic, ready)


def seen_as(scene: Burst, view: View) -> Burst:
    """A scene turned, its mosaic too where that is on a device."""
    turned = view.scene(scene)
    if not isinstance(turned, ResidentScene):
        return turned
    assert turned.mosaic is not None
    old, new = scene.reference, turned.reference
    top, left = origin_padding(old.pattern)
    mosaic = turned.mosaic[top : top + old.size[0], left : left + old.size[1]]
    return replace(turned, mosaic=_red_origin(turn(mosaic, view), new))


def turn(plane: Tensor, view: View) -> Tensor:
    """The first two axes of a tensor exchanged and mirrored as a view says."""
    turned = plane.transpose(0, 1) if view.transpose else plane
    return turned.flip([axis for axis, flip in enumerate((view.flip_rows, view.flip_cols)) if flip])


def turn_back(picture: Tensor, view: View) -> Tensor:
    """A picture `[h, w, C]` of a view as the scene lies."""
    turned = picture.flip([axis for axis, flip in enumerate((view.flip_rows, view.flip_cols)) if flip])
    return turned.transpose(0, 1) if view.transpose else turned


def pack_tensor(mosaic: Tensor, frame: RawFrame, *, clip: bool = True) -> Tensor:
    """Rows of a red-origin mosaic, int32 `[2h, 2w]` in DN, as `lowlight.raw.bayer.pack` gives them."""
    black, white = (np.array(levels, dtype=np.float32) for levels in (frame.black, frame.white))
    scale = np.float32(1) / (white - black)
    planes = torch.stack([mosaic[row::2, col::2] for row, col in plane_offsets(frame.pattern)]).float()
    planes.sub_(_column(black, planes)).mul_(_column(scale, planes))
    return planes.clamp_(min=0) if clip else planes


def _column(values: npt.NDArray[np.float32], like: Tensor) -> Tensor:
    return torch.from_numpy(values).to(like.device)[:, None, None]


def _unsigned(sent: Tensor) -> Tensor:
    return sent.to(torch.int32).bitwise_and_(0xFFFF)


def _red_origin(mosaic: Tensor, frame: RawFrame) -> Tensor:
    """The mosaic with rows and columns mirrored about its border pixels, where it does not begin or end in step."""
    whole = packed_size(frame.size, frame.pattern)
    for axis, (before, half) in enumerate(zip(origin_padding(frame.pattern), whole, strict=True)):
        length = mosaic.shape[axis]
        if 2 * half != length:
            index = (torch.arange(2 * half, device=mosaic.device) - before).abs()
            mosaic = mosaic.index_select(axis, torch.where(index < length, index, 2 * (length - 1) - index))
    return mosaic
