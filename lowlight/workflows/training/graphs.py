"""Training steps as CUDA graphs: thousands of small kernels, launched as one.

A network of many small layers keeps a GPU waiting for the processor, which launches each kernel by itself. A step is
therefore recorded once for each form of batch and replayed from then on. What a step has beside its batch, the
progress, the learning rate and the seed of its noise, lies in tensors and in a generator that the recording reads.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lowlight.core.errors import LowlightError
from lowlight.core.restoration import Batch

EAGER_STEPS = 2  # of each form of batch, before it is recorded: libraries choose their kernels in these

# From a batch and the progress to the names of the step's numbers and these; leaves the gradients in the parameters.
Backward = Callable[[Batch, Tensor], tuple[tuple[str, ...], Tensor]]
Form = tuple[tuple[str, torch.Size], ...]


class _Recorded(NamedTuple):
    """One form of batch: its two recordings, what they read and what they write.

    `gradients` are only held, so that no later recording is given the memory that `update` reads.
    """

    backward: torch.cuda.CUDAGraph
    update: torch.cuda.CUDAGraph
    batch: Batch
    gradients: list[Tensor | None]
    names: tuple[str, ...]
    numbers: Tensor


class StepGraphs:
    """Takes steps by replaying them. All work is on a stream of its own, beside the one that makes batches.

    `backward` and `update` must not wait for the device, nor read anything of a step but their arguments, the tensors
    they hold and `generator`.
    """

    def __init__(
        self, device: torch.device, parameters: list[nn.Parameter], backward: Backward, update: Callable[[], object]
    ) -> None:
        self.device, self.parameters, self._backward, self._update = device, parameters, backward, update
        self.generator = torch.Generator(device)
        self._stream: Any = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._pool = torch.cuda.graph_pool_handle()
        self._progress = torch.zeros((), device=device)
        self._taken: Counter[Form] = Counter()  # steps that were not recorded
        self._recorded: dict[Form, _Recorded] = {}
        self._now: _Recorded | None = None  # what the gradients are of
        self._form: Form = ()

    def backward(self, batch: Batch, progress: float, seed: int) -> tuple[tuple[str, ...], Tensor]:
        """Run a step up to its gradients, with the generator seeded; gives the names of its numbers, and these."""
        self._stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self._stream):
            found = self._begin(batch, progress, seed)
        self._join()
        return found

    def update(self) -> None:
        """Let the optimiser take the step whose gradients were computed last."""
        with torch.cuda.stream(self._stream):
            if self._now is None:
                self._update()
                self._taken[self._form] += 1
            else:
                self._now.update.replay()
        self._join()

    def _begin(self, batch: Batch, progress: float, seed: int) -> tuple[tuple[str, ...], Tensor]:
        form = form_of(batch)
        self._progress.fill_(progress)
        if self._taken[form] == EAGER_STEPS and form not in self._recorded:
            self._recorded[form] = self._record(batch)
        self._now, self._form = self._recorded.get(form), form
        self.generator.manual_seed(seed)
        if self._now is None:
            return self._backward(batch, self._progress)
        for place, given in zip(_tensors(self._now.batch), _tensors(batch), strict=True):
            place.copy_(given)
        self._now.backward.replay()
        return self._now.names, self._now.numbers

    def _join(self) -> None:
        """Let what comes next on the usual stream see what was done here."""
        torch.cuda.current_stream(self.device).wait_stream(self._stream)

    def _record(self, batch: Batch) -> _Recorded:
        copies = {field.name: getattr(batch, field.name) for field in fields(batch)}
        copies = {name: value.clone() if isinstance(value, Tensor) else value for name, value in copies.items()}
        given = replace(batch, **copies)
        backward, update = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
        backward.register_generator_state(self.generator)
        how: dict[str, Any] = {"pool": self._pool, "stream": self._stream, "capture_error_mode": "thread_local"}
        try:
            # Gradients that are not there yet are put into the recording's own memory.
            for parameter in self.parameters:
                parameter.grad = None
            with torch.cuda.graph(backward, **how):
                names, numbers = self._backward(given, self._progress)
            gradients = [parameter.grad for parameter in self.parameters]
            with torch.cuda.graph(update, **how):
                self._update()
        except torch.OutOfMemoryError:  # has a sentence of its own
            raise
        except RuntimeError as error:
            reason = str(error).strip().split("\n")[0]
            raise LowlightError(f"a step cannot be recorded ({reason}); set run.graphs to false") from error
        finally:
            for parameter in self.parameters:
                parameter.grad = None
        return _Recorded(backward, update, given, gradients, names, numbers)


def form_of(batch: Batch) -> Form:
    """Which tensors a batch has, and their shapes."""
    held = ((field.name, getattr(batch, field.name)) for field in fields(batch))
    return tuple((name, value.shape) for name, value in held if isinstance(value, Tensor))


def _tensors(batch: Batch) -> list[Tensor]:
    held = (getattr(batch, field.name) for field in fields(batch))
    return [value for value in held if isinstance(value, Tensor)]
