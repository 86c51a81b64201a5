"""What the exporter says when it cannot go on."""

from __future__ import annotations


class ExportRefused(Exception):
    """The export ends here, and nothing is written: one line that says where, what, and what next."""
