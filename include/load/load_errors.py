"""The load test's errors."""

from __future__ import annotations


class LoadRefused(Exception):
    """The test ends and reports nothing. The message is one line: where, what, and what next."""
