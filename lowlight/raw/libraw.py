"""Opening a file with LibRaw, with what it raises turned into this project's sentences."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import rawpy
from threadpoolctl import threadpool_limits

from lowlight.core.errors import BrokenFileError, LowlightError
from lowlight.raw.refusals import not_raw


@contextmanager
def open_libraw(path: Path, container: str | None) -> Iterator[Any]:
    """Open a RAW file for as long as the block runs; `container` is what its first bytes say it is.

    OpenMP gets one thread, because compressed Fuji files decode differently from run to run with more. The limit holds
    for the calling thread only. Whatever LibRaw raises inside the block becomes `UnsupportedRawError`,
    `BrokenFileError` or, out of memory, `LowlightError`.
    """
    name = path.name
    try:
        with ExitStack() as stack:
            stack.enter_context(threadpool_limits(limits=1, user_api="openmp"))
            yield stack.enter_context(rawpy.imread(_source(path, stack)))
    except LowlightError:
        raise
    except rawpy.LibRawFileUnsupportedError:
        raise not_raw(path, container) from None
    except rawpy.LibRawIOError:
        if container is None:
            raise not_raw(path, container) from None
        raise BrokenFileError(
            f"{name} is truncated or damaged: its {container} header is there, the pixel data are not; "
            "copy it from the camera again."
        ) from None
    except (MemoryError, rawpy.LibRawUnsufficientMemoryError):
        raise LowlightError(f"There is not enough memory to decode {name}; use fewer jobs at a time.") from None
    except (
        rawpy.LibRawError,
        RuntimeError,
        NotImplementedError,
        ValueError,
        OSError,
        OverflowError,
    ) as problem:
        why = problem.args[0] if problem.args else problem
        why = why.decode("utf-8", "replace") if isinstance(why, bytes) else str(why)
        raise BrokenFileError(
            f"{name} cannot be decoded ({why.strip().rstrip('.') or type(problem).__name__}); "
            "it is damaged or of a kind that LibRaw does not read."
        ) from None


def _source(path: Path, stack: ExitStack) -> Any:
    """What rawpy takes: the path as text, or an open file where the name is no UTF-8 text."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return stack.enter_context(path.open("rb"))
    return str(path)
