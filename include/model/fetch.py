"""Fetch the source of an export, for export.py: the only part of an export that reaches a network, or knows a token.

It reads the same REQUEST.json as export.py and makes the source's `kept`, unless that exists. A folder needs no fetching.
Status 0: the source is there. 1: refused. 75: the source does not respond; the same request can be retried.
A private or gated Hub model is read with the token in HF_TOKEN.
This program runs in the exporter's environment, made from requirements.txt in this folder.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from download import download_archive, download_snapshot
from errors import ExportRefused
from process import end_with_stdin, exit_status, limit
from request import Archive, Folder, read_request


def main(arguments: list[str] | None = None) -> int:
    """Fetch as the command line says; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--request", type=Path, required=True, metavar="REQUEST.json")
    parser.add_argument(
        "--end-with-stdin", action="store_true", help="kill this process group when standard input ends"
    )
    options = parser.parse_args(arguments)
    if options.end_with_stdin:
        end_with_stdin()
    try:
        request = read_request(options.request)
        source, began = request.source, time.monotonic()
        if isinstance(source, Folder) or source.kept.exists():
            return 0
        limit(request.limits, file_mib=request.limits.download_mib)
        if isinstance(source, Archive):
            download_archive(source, request.limits)
        else:
            download_snapshot(source, request.limits)
        print(f"fetching the source … {time.monotonic() - began:.1f} s", flush=True)
    except ExportRefused as refused:
        return exit_status(refused)
    return 0


if __name__ == "__main__":
    sys.exit(main())
