"""Tiles through a network, as many at a time as memory takes."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, cast
from weakref import WeakSet

import torch
from torch import Tensor

from lowlight.core.errors import OutputError, UsageError
from lowlight.core.restoration import ModelTraits, Noise, Restoration
from lowlight.core.threads import threads
from lowlight.ops.blending import FloatArray

# Tiles at a time; on a CPU the network says how many are good. All divide the published tile counts 126 and 54, so that
# no short last batch picks another kernel.
BATCH = {"cuda": 18, "mps": 6}
_COMPILED: WeakSet[Callable[..., Any]] = WeakSet()


def default_batch(traits: ModelTraits, device: torch.device) -> int:
    """How many tiles to compute at a time where nobody says otherwise."""
    return BATCH.get(device.type, traits.cpu_batch)


class TileInput(NamedTuple):
    """What one tile of t packed pixels needs; C' output channels, u upscale factor.

    `frames [N, C, t, t]` are what the network reads, `base [C', ut, ut]` is added to its output, `developed
    [C', ut, ut]` is the plain picture where some of it is mixed in, `noise` are the draws of its latents, each `[Z]`
    or `[Z, h', w']`.
    """

    frames: Tensor
    base: Tensor | None
    developed: Tensor | None
    noise: Noise | None = None


class TileStack(NamedTuple):
    """What whole rows of tiles need, as `TileInput` with all tiles along the first axis, row by row."""

    frames: Tensor
    base: Tensor | None
    developed: Tensor | None
    noise: Noise | None = None

    def part(self, start: int, stop: int) -> "TileStack":
        """Some of the tiles."""
        base, developed = (None if each is None else each[start:stop] for each in (self.base, self.developed))
        noise = None if self.noise is None else tuple(each[start:stop] for each in self.noise)
        return TileStack(self.frames[start:stop], base, developed, noise)


class BatchRunner:
    """Runs tiles through the network in batches; halves the batch where memory runs out.

    Outputs go home to the CPU, or they `stay` on the device, which then is not waited for: whether they are finite
    must be asked later, of their `total`.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        device: torch.device,
        dtype: torch.dtype,
        batch: int,
        between: Callable[[], None] | None,
        levels: int = 1,
        *,
        stay: bool = False,
    ) -> None:
        self.model, self.device, self.dtype, self.batch = model, device, dtype, batch
        self.between, self.levels = between, levels
        self.stay, self.home = stay, device if stay else torch.device("cpu")
        self.threads = torch.get_num_threads()  # of the network, whatever the steps around it are given
        self.total = torch.zeros((), device=self.home)  # sum of all outputs so far

    def run(self, tiles: Iterator[TileInput], strength: float) -> Iterator[FloatArray]:
        """Output tiles `[C', ut, ut]` as float32 arrays, in order; `strength` of the network, the rest developed."""
        for image in self.images(tiles, strength):
            yield image.numpy()

    def images(self, tiles: Iterator[TileInput], strength: float) -> Iterator[Tensor]:
        """What `run` gives, as tensors where they belong."""
        waiting: list[TileInput] = []
        for item in tiles:
            waiting.append(item)
            if len(waiting) == self.batch:
                yield from self._forward(waiting, strength)
                waiting = []
        if waiting:
            yield from self._forward(waiting, strength)

    def stacks(self, stacks: Iterator[TileStack], strength: float) -> Iterator[Tensor]:
        """Outputs `[B, C', ut, ut]` of stacks of tiles, float32, where they belong."""
        for stack in stacks:
            whole: Tensor | None = None
            done, count = 0, len(stack.frames)
            while done < count:
                now = stack.part(done, done + self.batch)
                if (out := self._output(now, strength)) is None:
                    continue
                if whole is None:
                    whole = out if len(out) == count else out.new_empty(count, *out.shape[1:])
                # Copied at once: a compiled network writes its next output where this one lies.
                if whole is not out:
                    whole[done : done + len(out)] = out
                done += len(out)
            assert whole is not None, "a stack has at least one tile"
            yield whole

    def _forward(self, items: list[TileInput], strength: float) -> Iterator[Tensor]:
        while items:
            now = items[: self.batch]
            if (out := self._output(_stacked(now, strength), strength)) is not None:
                yield from out
                items = items[len(now) :]

    def _output(self, stack: TileStack, strength: float) -> Tensor | None:
        """What the tiles of one batch become; None where memory ran out, and fewer are to be tried."""
        if self.between:
            self.between()
        if strength == 0:  # nothing of the network would be seen
            assert stack.developed is not None
            return stack.developed
        out = self._restore_if_it_fits(stack)
        if out is None:
            self._use_less_memory()
            return None
        self.total = self.total + out.sum()
        if not self.stay:
            require_finite(self.total, self.dtype)
        if stack.developed is not None:
            out = torch.lerp(stack.developed, out.clamp(0, 1), strength)
        return out

    def _restore_if_it_fits(self, stack: TileStack) -> Tensor | None:
        """Output of one batch, None where memory ran out; by then the error, which holds on to memory, is gone."""
        try:
            return self._restore(stack)
        except RuntimeError as error:
            if not _out_of_memory(error):
                raise
            return None

    def _use_less_memory(self) -> None:
        if self.batch == 1:
            raise MemoryError("not even a single tile fits into memory")
        self.batch //= 2
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    @torch.inference_mode()
    def _restore(self, stack: TileStack) -> Tensor:
        count, members = stack.frames.shape[:2]
        frames = stack.frames.flatten(0, 1).to(self.device, self.dtype, memory_format=torch.channels_last)
        given: dict[str, Any] = {"levels": self.levels} if self.levels > 1 else {}
        if stack.noise is not None:
            given["noise"] = tuple(each.to(self.device, self.dtype) for each in stack.noise)
        # The base keeps full precision: what is added to it is small.
        restore = cast(Callable[..., Restoration], self.model.restore)
        with threads(self.threads):
            restored = restore(frames.view(count, members, *frames.shape[1:]), **given)
        image = restored.image.float()
        if stack.base is not None:
            image = image + stack.base.to(self.device)
        return image.to(self.home).contiguous()


def _stacked(items: list[TileInput], strength: float) -> TileStack:
    """Tiles one behind the other; of what is only developed nothing else is copied."""
    developed = [item.developed for item in items if item.developed is not None]
    mixed = torch.stack(developed) if developed else None
    if strength == 0:
        return TileStack(items[0].frames[None], None, mixed)
    base = [item.base for item in items if item.base is not None]
    drawn = [item.noise for item in items if item.noise is not None]
    noise = tuple(torch.stack(each) for each in zip(*drawn, strict=True)) if drawn else None
    # Channels last, as networks read them.
    frames = torch.stack([item.frames.permute(0, 2, 3, 1) for item in items]).permute(0, 1, 4, 2, 3)
    return TileStack(frames, torch.stack(base) if base else None, mixed, noise)


def require_finite(total: Tensor, dtype: torch.dtype) -> None:
    """Raise `OutputError` where the sum of a network's outputs is not finite; `dtype` is what it computed in.

    A sum is as good as a look at each value, and quicker: nothing finite adds up to infinity here.
    """
    if not torch.isfinite(total):
        advice = "the weights are damaged, use others" if dtype == torch.float32 else "try --precision fp32"
        raise OutputError(f"the network gave values that are not finite, so nothing was written; {advice}")


def _out_of_memory(error: RuntimeError) -> bool:
    text = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError) or "out of memory" in text or "allocate memory" in text


@torch.inference_mode()
def compile_network(
    model: torch.nn.Module, traits: ModelTraits, device: torch.device, dtype: torch.dtype, batch: int
) -> None:
    """Let PyTorch compile `model.restore` for batches of this size: on CUDA to a graph that is launched as one.

    A network that was compiled before is left as it is. The first call ever takes up to minutes; what it made is kept
    on disk and serves later processes. Raises `UsageError` where the machine cannot compile, as without a C++ compiler
    on a CPU.
    """
    plain = cast(Callable[..., Any], model.restore)
    if plain in _COMPILED:
        return
    mode = "reduce-overhead" if device.type == "cuda" else "default"
    compiled = torch.compile(plain, mode=mode, dynamic=False)
    size = (batch, traits.in_channels, traits.tile, traits.tile)
    try:
        compiled(torch.zeros(size, device=device, dtype=dtype).to(memory_format=torch.channels_last)[:, None])
    except Exception as error:  # compilers raise what they like
        reason = str(error).strip().split("\n")[0]
        raise UsageError(f"the network could not be compiled ({reason}); leave out --compile") from error
    model.restore = compiled  # type: ignore[assignment]
    _COMPILED.add(compiled)
