"""What the exporter says when it cannot go on."""

from __future__ import annotations


class ExportRefused(Exception):
    """The export ends here, and nothing is written: one line that says where, what, and what next."""


class PromiseBroken(ExportRefused):
    """The model itself does not do what was promised of it: the same request ends in the same way."""


class SourceUnreachable(ExportRefused):
    """Nobody answered where the source is, or a server in trouble: the same request may go through a minute later."""
