"""The table of docs/faults.md, written by the run that measured it."""

import os
import platform
from datetime import UTC, datetime
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "faults.md"
BEGIN, END = "<!-- measured by `make test-faults`; what stands between these marks is written over -->", "<!-- end -->"
HEAD = ["fault", "what must hold, and did", "detected after", "good again after", "requests lost"]


def place_rows(page, rows):
    """The page with these rows (lists of cells) in its table; a row of the same fault is replaced, others stay."""
    before, rest = page.split(BEGIN)
    old, after = rest.split(END)
    known = {row[0]: row for row in read_rows(old)}
    known |= {row[0]: [str(cell) for cell in row] for row in rows}
    cells = [HEAD, ["---", "---", "---:", "---:", "---:"], *known.values()]
    lines = ["| " + " | ".join(row) + " |" for row in cells]
    return f"{before}{BEGIN}\n\n{describe()}\n\n" + "\n".join(lines) + f"\n\n{END}{after}"


def read_rows(text):
    """The rows of a table, without its head."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def describe():
    """When and on what."""
    memory_gib = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30)
    return (
        f"Seconds on {os.cpu_count()} cores, {memory_gib} GiB, {platform.freedesktop_os_release()['PRETTY_NAME']}, "
        f"{datetime.now(UTC):%Y-%m-%d}."
    )
