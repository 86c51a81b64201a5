"""Sweep a heavier digits-vit on the stand, and write table and picture into docs/load.md: `make sweep-figures`.

The sweep is the first of tests/e2e/test_sweep.py, with its checks: if one fails, nothing is written. --from takes what it
has left in a folder (SLIPWAY_SWEEP) instead.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.own_stand import PROJECT
from benchmarks.refresh_times import place

PAGE, PICTURE = PROJECT / "docs" / "load.md", PROJECT / "docs" / "sweep.png"
BEGIN = "<!-- written by `make sweep-figures`, which replaces all text between these marks -->"
END = "<!-- end of sweep-figures -->"
TEST = ("tests/e2e/test_sweep.py", "-k", "test_1")
WIDTH = 150  # of a line of the table: the reason why a variant was not measured is long


def main(words: Sequence[str]) -> int:
    """Measure and write."""
    parser = argparse.ArgumentParser(prog="make sweep-figures", description=__doc__)
    parser.add_argument("--from", dest="kept", type=Path, metavar="FOLDER", help="write what a sweep left there")
    kept = parser.parse_args(words).kept
    with tempfile.TemporaryDirectory() as name:
        if kept is None:
            kept = Path(name)
            test = [sys.executable, "-m", "pytest", "-m", "slow", *TEST]
            subprocess.run(test, cwd=PROJECT, check=True, env={**os.environ, "SLIPWAY_SWEEP": str(kept)})
        text = render((kept / "sweep.txt").read_text(), (kept / "server.txt").read_text())
        shutil.copy(kept / "sweep.png", PICTURE)
    PAGE.write_text(place(PAGE.read_text(), text, BEGIN, END))
    return 0


def render(table: str, where: str) -> str:
    """The table with its recommendation, as the sweep left it, but without the ends of long lines."""
    return f"{where}; the load and the server shared the machine.\n\n{indented(table)}"


def indented(text: str) -> str:
    """A text as a block of the page."""
    lines = [line if len(line) <= WIDTH else f"{line[:WIDTH].rstrip()} …" for line in text.strip().splitlines()]
    return "\n".join(f"    {line}".rstrip() for line in lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
