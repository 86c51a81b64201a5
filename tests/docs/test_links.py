import re
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
PAGES = [PROJECT / "README.md", PROJECT / "SECURITY.md", *sorted(PROJECT.glob("docs/**/*.md"))]
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
FENCED = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)


def links_of(page):
    """A page's relative links, as file and anchor."""
    found = (match.group(1) for match in LINK.finditer(FENCED.sub("", page.read_text())))
    return [link.partition("#")[::2] for link in found if "://" not in link]


def anchors_of(page):
    """The anchors that GitHub makes from a page's headings."""
    headings = re.findall(r"^#+ (.+)$", FENCED.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_every_link_has_a_target(page):
    """Each relative link names an existing file of the project, and an existing heading in it."""
    for file, anchor in links_of(page):
        target = (page.parent / file).resolve() if file else page
        assert target.exists(), file
        assert target.is_relative_to(PROJECT), file
        assert not anchor or anchor in anchors_of(target), f"{file}#{anchor}"


def test_every_page_is_linked():
    """Each page and picture of docs/ is linked from the README or another page."""
    linked = {(page.parent / file).resolve() for page in PAGES for file, _ in links_of(page) if file}
    folders = {place for place in linked if place.is_dir()}
    kept = [path for path in PROJECT.glob("docs/**/*") if path.is_file()]
    assert [path for path in kept if path not in linked and path.parent not in folders] == []
