"""The exporter's errors."""

from __future__ import annotations


class ExportRefused(Exception):
    """The export ends and writes nothing. The message is one line: where, what, and what next."""


class PromiseBroken(ExportRefused):
    """The model does not do what was promised; the same request fails in the same way."""


class SourceUnreachable(ExportRefused):
    """The source does not respond, or its server has an error; the same request can be retried."""
