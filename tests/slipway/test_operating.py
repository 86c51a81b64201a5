import inspect
import json
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from slipway import errors
from slipway.records.record import new_record

PAGE = Path(__file__).parents[2] / "docs" / "operating.md"
FAMILY = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if kind.__module__ == errors.__name__]


@pytest.fixture(scope="module")
def page():
    """The text of the page."""
    return PAGE.read_text()


@pytest.mark.parametrize("kind", FAMILY, ids=lambda kind: kind.__name__)
def test_every_error_is_on_the_page(page, kind):
    """Each error that can begin a line has a row with its next command; each family is named."""
    row = re.search(rf"^\| `{kind.__name__}` \| (?P<meaning>.+) \| (?P<next>.+) \|$", page, re.MULTILINE)
    if kind.__subclasses__():
        assert f"`{kind.__name__}`" in page
    else:
        assert row
        assert row["next"].strip()


def test_the_page_names_no_error_that_is_gone(page):
    """Every row of the table is an existing error."""
    table = page.split("## What each error asks for")[1].split("\n## ")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) <= {kind.__name__ for kind in FAMILY}


@pytest.mark.parametrize("kind", [kind for kind in FAMILY if kind.worth_retrying], ids=lambda kind: kind.__name__)
def test_the_page_says_what_is_tried_again(page, kind):
    """The row says so if Airflow tries again."""
    [row] = [line for line in page.splitlines() if line.startswith(f"| `{kind.__name__}` |")]
    assert "tries again by itself" in row


def test_the_example_is_a_current_record(page, release):
    """The example's fields are a record's fields; every other field of a record is explained on the page."""
    example = json.loads(page.split("```json\n")[1].split("```")[0])
    record = new_record(release, now=datetime.now(UTC))
    assert example.keys() <= record.keys()
    assert example["schema"] == record["schema"]
    assert {field for field in record if field not in example and f"`{field}`" not in page} == set()
