"""Writes the table of docs/faults.md."""

import os
import platform
from datetime import UTC, datetime
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "faults.md"
BEGIN, END = "<!-- measured by `make test-faults`; what stands between these marks is written over -->", "<!-- end -->"
HEAD = ["fault", "what held", "detected after", "good again after", "requests lost"]


def place_rows(page, rows):
    """The page with these rows (lists of cells) in its table. A row replaces the row of the same fault; other rows are kept."""
    known = {row[0]: row for row in read_rows(page.split(BEGIN)[1].split(END)[0])}
    known |= {row[0]: [str(cell) for cell in row] for row in rows}
    return write_table(page, known.values())


def write_table(page, rows):
    """The page with these rows, and no others, in its table."""
    before, rest = page.split(BEGIN)
    cells = [HEAD, ["---", "---", "---:", "---:", "---:"], *rows]
    lines = ["| " + " | ".join(row) + " |" for row in cells]
    return f"{before}{BEGIN}\n\n{describe()}\n\n" + "\n".join(lines) + f"\n\n{END}{rest.split(END)[1]}"


def read_rows(text):
    """The rows of a table, without its header."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def describe():
    """When and on what machine the table was measured."""
    memory_gib = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30)
    return (
        f"Seconds on {os.cpu_count()} cores, {memory_gib} GiB, {platform.freedesktop_os_release()['PRETTY_NAME']}, "
        f"{datetime.now(UTC):%Y-%m-%d}."
    )
