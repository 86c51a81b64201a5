"""Puts small programs in the place of the exporter's two."""

from dataclasses import replace

from slipway.runtimes import RUNTIMES


def replace_program(monkeypatch, name, program):
    """Run this program in place of the one that fetches a source (`fetcher`), or that exports it (`exporter`), of every runtime."""
    if name == "fetcher":
        monkeypatch.setattr("slipway.model.exporter.FETCHER", program)
        return
    for key, runtime in list(RUNTIMES.items()):
        monkeypatch.setitem(RUNTIMES, key, replace(runtime, exporter=program))
