"""How the C library keeps the process's memory: glibc's own settings, which other libraries do not have."""

import contextlib
import ctypes
from collections.abc import Iterator

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
WHILE_LOADING = 128 * 1024  # bytes: glibc's own value at a process's start
# The most that glibc would raise it to by itself. A run's blocks are smaller: they stay in the heap for the next run.
WHILE_SERVING = 32 * 1024 * 1024


def share_one_heap() -> None:
    """Let all threads share one heap. A heap for each thread keeps the most that the thread has ever taken. Call it before any thread starts."""
    _set(M_ARENA_MAX, 1)


@contextlib.contextmanager
def weights_apart() -> Iterator[None]:
    """Until the block ends, blocks as large as weights get pages of their own, which the system has back as soon as they are freed.

    In the heap, what loading a model takes for a moment would leave holes as large as the model.
    """
    _set(M_MMAP_THRESHOLD, WHILE_LOADING)
    try:
        yield
    finally:
        _set(M_MMAP_THRESHOLD, WHILE_SERVING)
        _set(M_TRIM_THRESHOLD, 2 * WHILE_SERVING)


def _set(parameter: int, value: int) -> None:
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).mallopt(parameter, value)
