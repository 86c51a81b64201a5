"""How the C library keeps the process's memory: glibc's own settings, which other libraries do not have."""

import contextlib
import ctypes

M_ARENA_MAX = -8


def share_one_heap() -> None:
    """Let all threads share one heap. A heap for each thread keeps the most that the thread has ever taken. Call it before any thread starts."""
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)


def give_back() -> None:
    """Give free memory back to the system: loading a model takes its size twice, now and then."""
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
